//! What a node counts: traffic, and every reason for which something was dropped.

use serde::Serialize;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Monotonic counts since the node was made.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Every counter with its name, in the order of declaration.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Datagrams handed in from the underlay.
    datagrams_in,
    /// Datagrams handed out to the underlay.
    datagrams_out,
    /// Bytes of the datagrams in.
    bytes_in,
    /// Bytes of the datagrams out.
    bytes_out,
    /// Of the bytes out: handshakes.
    bytes_handshakes,
    /// Of the bytes out: probes, their answers, and candidates.
    bytes_probes,
    /// Of the bytes out: lists of neighbours.
    bytes_neighbours,
    /// Of the bytes out: records for neighbours to keep, and votes on them.
    bytes_stores,
    /// Of the bytes out: questions, our own and those passed on.
    bytes_queries,
    /// Of the bytes out: answers, our own and those passed on.
    bytes_answers,
    /// Of the bytes out: what is between two nodes without a direct path, our own and passed on.
    bytes_relayed,
    /// Guest packets sent to peers.
    guest_out,
    /// Guest packets received from peers and handed to the guest.
    guest_in,
    /// Frames that went in parts: their path carries none so long.
    cut,
    /// Paths that carried long datagrams and do so no more.
    black_holes,
    /// Paths on which datagrams go one by one, since together they did not arrive.
    batches_given_up,
    /// Frames forwarded for other nodes.
    forwarded,
    /// Handshakes completed.
    handshakes,
    /// Handshake messages on which curve multiplications were spent.
    handshake_work,
    /// Sessions replaced by fresh ones.
    rekeys,
    /// Attempts to get through a translator that gives each far end another port.
    traversals,
    /// Paths found dead.
    paths_lost,
    /// Peers lost: every path dead.
    peers_lost,
    /// Addresses that peers used and the table says are somebody else's.
    leases_refuted,
    /// Dropped: a datagram that does not parse.
    drop_malformed,
    /// Dropped: a handshake without the pool's MAC, or beyond the load limit.
    drop_gate,
    /// Dropped: a handshake that failed or carried a refused certificate.
    drop_handshake,
    /// Dropped: a record for a session that does not exist.
    drop_unknown_session,
    /// Dropped: a record that is forged, replayed or too old.
    drop_record,
    /// Dropped: a frame or message that does not decode.
    drop_message,
    /// Dropped: a routed frame that no link brings closer.
    drop_no_route,
    /// Dropped: a routed frame that crossed too many links.
    drop_hops,
    /// Dropped: a guest packet that is no IP packet, or to or from an address it may not use.
    drop_guest_invalid,
    /// Dropped: a guest packet longer than its way carries; its sender was told.
    drop_guest_too_big,
    /// Dropped: a guest packet to an address nobody has.
    drop_guest_unresolved,
    /// Dropped: a peer asked for more than its share.
    drop_budget,
    /// Dropped: an announcement on a local network that is no member's, or beyond the rate.
    drop_announcement,
    /// Dropped: a table or queue was full.
    drop_full,
}
