//! The node: the sans-IO facade that the daemon and the simulator drive.
//!
//! # Contract
//!
//! Hand in what happens (`handle_*`) and what is wished (commands), each with the time. After every
//! such call drain [`Node::poll_transmit`], [`Node::poll_guest_packet`] and [`Node::poll_event`] in
//! that order, then arm one timer for [`Node::next_deadline`] and call [`Node::handle_deadline`]
//! when it is due. Buffers given back by [`Node::recycle`] are used again.
//!
//! A node never reads a clock or draws from the system: the same seed and the same calls give the
//! same bytes.

mod admission;
mod announcement;
mod answers;
mod api;
mod attempts;
mod batches;
mod budget;
mod candidates;
mod counters;
mod dht;
mod echoes;
mod far;
mod findings;
mod guest;
mod handshake;
mod holders;
mod links;
mod liveness;
mod local;
mod lookup;
mod lost;
mod maintenance;
mod moving;
mod neighbourhood;
mod parts;
mod path_mtu;
mod peer;
mod pending;
mod relays;
mod renewal;
mod report;
mod revocations;
pub mod ring;
mod routing;
mod runs;
mod seeds;
mod sizes;
mod survey;
mod table;
mod together;
mod too_big;
mod traffic;
mod traversal;

#[cfg(test)]
mod tests;

mod wall_clock;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use rand::{RngExt, SeedableRng};

use crate::Rng;
use crate::id::NodeId;
use crate::membership::{Addresses, Certificate, CertificateError, Identity, PoolFacts};
use crate::session::{Announcer, Bucket, CipherPreference, Endpoint, Gate, GateLimits, StaticKey};
use crate::time::{Instant, UnixTime};
use crate::wire::Remote;
use crate::wire::message::{CANDIDATES_MAX, Contact};
use crate::wire::outer::record_receiver;
use crate::wire::record::{Record, SIGNATURE_BYTES};

pub use api::{
    DownReason, Event, Found, GuestPacket, GuestPackets, Hop, PingId, QueryId, ResolveError, Route,
    Target, TraceId, Transmit,
};
pub use counters::Counters;
pub use dht::{LEASES_MAX, LeaseId, LeaseInfo, RECORDS_MAX, RecordInfo};
pub use guest::addresses_of;
pub use peer::Traffic;
pub use report::{LinkKind, PathInfo, PeerInfo, Table};
pub use revocations::REVOCATIONS_MAX;
pub use ring::Neighbours;
pub use runs::Run;
pub use sizes::{GUEST_MTU_DEFAULT, GUEST_MTU_MAX, GUEST_MTU_MIN};
pub use survey::TRACE_HOPS_MAX;

use candidates::Candidates;
use dht::Dht;
use echoes::Echoes;
use guest::Waiting;
use handshake::Handshakes;
use lookup::Lookups;
use lost::Lost;
use neighbourhood::Neighbourhood;
use revocations::Revocations;
use survey::Survey;
use table::Peers;
use traversal::Sightings;
use wall_clock::WallClock;

/// Peers a node has sessions with, at most.
pub const PEERS_MAX: usize = 512;
/// Datagrams, guest packets or events that wait to be polled; the caller drains after each call.
const OUTBOX_MAX: usize = 4096;
/// Buffers kept for reuse, and the largest of them; batches have their own.
const SPARE_BUFFERS_MAX: usize = 64;
const SPARE_BUFFER_BYTES_MAX: usize = 16_384;

/// What a node is made of.
pub struct Config {
    /// Its keys.
    pub identity: Identity,
    /// Its certificate, for these keys.
    pub certificate: Certificate,
    /// The pool it belongs to.
    pub pool: PoolFacts,
    /// Where nodes to join by are.
    pub seeds: Vec<Remote>,
    /// Seeds every random choice. Must be unpredictable in production.
    pub rng_seed: [u8; 32],
    /// The wall clock at the time given to [`Node::new`].
    pub wall: UnixTime,
    /// The ciphers to offer, best first on this machine.
    pub ciphers: CipherPreference,
    /// The longest packet that the guest sends, in bytes: from [`GUEST_MTU_MIN`] to [`GUEST_MTU_MAX`].
    pub guest_mtu: usize,
}

/// One member of a pool. See the module's documentation for how to drive it.
pub struct Node {
    id: NodeId,
    static_public: [u8; 32],
    endpoint: Endpoint,
    certificate: Certificate,
    pool: PoolFacts,
    identity: Identity,
    /// The addresses that follow from the certificate; a renewed one says the same.
    certified: Addresses,
    rng: Rng,
    wall: WallClock,
    gate: Gate,
    peers: Peers,
    /// Which peer holds a virtual address; of two the one at the lower position.
    holders: BTreeMap<IpAddr, NodeId>,
    handshakes: Handshakes,
    ring: Neighbourhood,
    lost: Lost,
    lookups: Lookups,
    echoes: Echoes,
    dht: Dht,
    revocations: Revocations,
    survey: Survey,
    waiting: Waiting,
    candidates: Candidates,
    /// The node has moved, and peers are to be told where others see it once that is known.
    tell_reflexive: bool,
    sightings: Sightings,
    /// When many sockets were last opened to get through our translator.
    guessed: Option<Instant>,
    announcer: Announcer,
    /// Of announcements that are opened.
    announcements: Bucket,
    guest_mtu: usize,
    /// Of answers to packets that were too long.
    too_big: Bucket,
    /// The number of the next frame that goes in parts.
    next_cut: u16,
    /// Where no two datagrams go together, since that does harm.
    one_by_one: BTreeSet<Remote>,
    /// The last extra socket that something was sent by.
    next_lane: u16,
    transmits: VecDeque<Transmit>,
    guest_packets: VecDeque<GuestPacket<Vec<u8>>>,
    events: VecDeque<Event>,
    housekeeping_due: Instant,
    spare: Vec<Vec<u8>>,
    spare_batches: Vec<Vec<u8>>,
    counters: Counters,
}

impl Node {
    /// A node that begins to join its pool at `now`.
    pub fn new(config: Config, now: Instant) -> Node {
        let mut rng = Rng::from_seed(config.rng_seed);
        let id = config.identity.node_id();
        let gate = Gate::new(&mut rng, &config.pool.key.0, GateLimits::default());
        let announcer = Announcer::new(&config.pool.key.0);
        let certified = Addresses::new(&config.pool, &config.certificate);
        let static_public = config.identity.static_public();
        let static_key = StaticKey::new(*config.identity.static_secret(), static_public);
        let mut node = Node {
            id,
            static_public,
            endpoint: Endpoint::new(static_key, &config.pool.key.0, config.ciphers),
            certificate: config.certificate,
            pool: config.pool,
            identity: config.identity,
            certified,
            wall: WallClock::new(now, config.wall),
            gate,
            peers: Peers::default(),
            holders: BTreeMap::new(),
            handshakes: Handshakes::default(),
            ring: Neighbourhood::new(now, &mut rng),
            lost: Lost::default(),
            lookups: Lookups::default(),
            echoes: Echoes::default(),
            dht: Dht::new(id),
            revocations: Revocations::default(),
            survey: Survey::default(),
            waiting: Waiting::default(),
            candidates: Candidates::default(),
            tell_reflexive: false,
            sightings: Sightings::default(),
            guessed: None,
            announcer,
            announcements: Bucket::default(),
            guest_mtu: config.guest_mtu.clamp(GUEST_MTU_MIN, GUEST_MTU_MAX),
            too_big: Bucket::default(),
            next_cut: 0,
            one_by_one: BTreeSet::new(),
            next_lane: 0,
            transmits: VecDeque::new(),
            guest_packets: VecDeque::new(),
            events: VecDeque::new(),
            housekeeping_due: now,
            spare: Vec::new(),
            spare_batches: Vec::new(),
            counters: Counters::default(),
            rng,
        };
        node.claim_own(now);
        node.set_seeds(now, config.seeds);
        node
    }

    /// The node's position.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The node's own certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Whether the node is of use: it has its place in the ring, linked to its nearest neighbours as
    /// far as anybody who was asked knows, and its virtual IPv4 address is leased to it.
    pub fn is_joined(&self) -> bool {
        self.ring.is_joined() && self.dht.claims.holds(self.addresses().v4)
    }

    /// When that was so first.
    pub fn joined_at(&self) -> Option<Instant> {
        self.ring.joined_at()
    }

    /// The nearest nodes on both sides that the node has sessions with.
    pub fn near_neighbours(&self) -> Neighbours {
        self.ring.near.clone()
    }

    /// How many nodes the ring seems to have.
    pub fn size_estimate(&self) -> f64 {
        ring::estimate_size(self.id, &self.ring.near)
    }

    /// What the node counted since it was made.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The next datagram for the underlay.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next IP packet for the guest.
    pub fn poll_guest_packet(&mut self) -> Option<GuestPacket<Vec<u8>>> {
        self.guest_packets.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Gives a polled buffer back for reuse.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        if buffer.capacity() >= batches::BUFFER_BYTES {
            if self.spare_batches.len() < batches::SPARE_MAX {
                self.spare_batches.push(buffer);
            }
        } else if buffer.capacity() <= SPARE_BUFFER_BYTES_MAX
            && self.spare.len() < SPARE_BUFFERS_MAX
        {
            self.spare.push(buffer);
        }
    }

    fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_else(|| Vec::with_capacity(2048))
    }

    fn transmit(&mut self, to: Remote, datagram: Vec<u8>) {
        if self.transmits.len() >= OUTBOX_MAX {
            self.counters.drop_full += 1;
            self.recycle(datagram);
            return;
        }
        self.counters.datagrams_out += 1;
        self.counters.bytes_out += datagram.len() as u64;
        if record_receiver(&datagram).is_none() {
            self.counters.bytes_handshakes += datagram.len() as u64;
        }
        self.transmits.push_back(Transmit {
            to,
            datagram_bytes: datagram.len(),
            datagram,
            may_join: false,
        });
    }

    fn event(&mut self, event: Event) {
        if self.events.len() < OUTBOX_MAX {
            self.events.push_back(event);
        } else {
            self.counters.drop_full += 1;
        }
    }

    fn token(&mut self) -> u64 {
        self.rng.random()
    }

    /// The certificate in `bytes`, if it holds in our pool at `wall`.
    fn verify_certificate(
        &self,
        bytes: &[u8],
        wall: UnixTime,
    ) -> Result<Certificate, CertificateError> {
        #[cfg(feature = "stand-in")]
        if self.endpoint.is_stand_in() {
            return Certificate::trust(bytes, &self.pool, wall);
        }
        Certificate::verify(bytes, &self.pool, wall)
    }

    /// Whether a record's claim is signed by the node that its certificate names.
    fn has_signed_claim(&self, certificate: &Certificate, record: &Record) -> bool {
        #[cfg(feature = "stand-in")]
        if self.endpoint.is_stand_in() {
            return record.signature.len() == SIGNATURE_BYTES;
        }
        certificate.has_signed_claim(&record.claim, &record.signature)
    }

    /// Our signature over a claim.
    fn sign_claim(&self, claim: &[u8]) -> [u8; SIGNATURE_BYTES] {
        #[cfg(feature = "stand-in")]
        if self.endpoint.is_stand_in() {
            return [0; SIGNATURE_BYTES];
        }
        self.identity.sign_claim(claim)
    }

    /// The peers in a session with us.
    fn established(&self) -> BTreeSet<NodeId> {
        let established = self.peers.iter().filter(|(_, peer)| peer.is_established());
        established.map(|(id, _)| *id).collect()
    }

    /// The addresses to offer to others, best first.
    fn own_candidates(&self) -> Vec<Remote> {
        self.candidates.offer(CANDIDATES_MAX)
    }

    fn own_contact(&self) -> Contact {
        Contact {
            id: self.id,
            static_key: self.static_public,
            candidates: self.candidates.offer(peer::CONTACT_CANDIDATES_MAX),
        }
    }
}
