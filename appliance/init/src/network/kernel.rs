//! The kernel's side of the network, by rtnetlink: links, addresses, the default route.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::StreamExt;
use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use rtnetlink::packet_route::route::RouteFlags;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, MulticastGroup, RouteMessageBuilder};

/// A link as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) up: bool,
    pub(crate) carrier: bool,
}

/// Kinds of links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Loopback,
    /// A network card, by its hardware address.
    Ethernet([u8; 6]),
    /// Tunnels and the like, which somebody else manages.
    Other,
}

/// News of links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// A link appeared, changed or announced itself.
    Link(Link),
    /// A link is gone.
    Gone(u32),
    /// News were lost: list the links again.
    Lost,
}

/// What went wrong with a request.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {error}")]
pub(crate) struct KernelError {
    what: String,
    error: rtnetlink::Error,
}

fn failed(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> KernelError {
    let what = what.into();
    move |error| KernelError { what, error }
}

/// A netlink connection.
#[derive(Clone)]
pub(crate) struct Kernel(Handle);

impl Kernel {
    /// Connects, and starts the connection's task on the running event loop.
    pub(crate) fn connect() -> std::io::Result<(Self, BoxStream<'static, News>)> {
        let (connection, handle, messages) =
            rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
        tokio::spawn(connection);
        let news = messages.filter_map(|(message, _)| std::future::ready(news_of(message)));
        Ok((Self(handle), news.boxed()))
    }

    pub(crate) async fn links(&self) -> Result<Vec<Link>, KernelError> {
        let messages: Vec<LinkMessage> = self
            .0
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed("cannot list the links"))?;
        let mut links: Vec<Link> = messages.iter().map(link_of).collect();
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    pub(crate) async fn set_up(&self, link: &Link) -> Result<(), KernelError> {
        let change = LinkMessageBuilder::<LinkUnspec>::new()
            .index(link.index)
            .up()
            .build();
        self.0
            .link()
            .change(change)
            .execute()
            .await
            .map_err(failed(format!("cannot set {} up", link.name)))
    }

    pub(crate) async fn add_address(
        &self,
        index: u32,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), KernelError> {
        let request = self
            .0
            .address()
            .add(index, IpAddr::V4(address), prefix)
            .replace();
        request
            .execute()
            .await
            .map_err(failed(format!("cannot set address {address}/{prefix}")))
    }

    /// Removes all IPv4 addresses of an interface but `keep`, and with them their routes.
    pub(crate) async fn remove_addresses(
        &self,
        index: u32,
        keep: Option<(Ipv4Addr, u8)>,
    ) -> Result<(), KernelError> {
        use rtnetlink::packet_route::AddressFamily;
        use rtnetlink::packet_route::address::AddressAttribute;
        let what = || failed("cannot remove an old address");
        let all: Vec<_> = self
            .0
            .address()
            .get()
            .set_link_index_filter(index)
            .execute()
            .try_collect()
            .await
            .map_err(what())?;
        for message in all {
            let own = message.header.index == index && message.header.family == AddressFamily::Inet;
            let address = message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
                    _ => None,
                });
            let kept = keep.is_some() && address.map(|a| (a, message.header.prefix_len)) == keep;
            if own && !kept {
                self.0
                    .address()
                    .del(message)
                    .execute()
                    .await
                    .map_err(what())?;
            }
        }
        Ok(())
    }

    /// Sets the default route. `beyond` allows a gateway outside of the interface's network.
    pub(crate) async fn set_default_route(
        &self,
        index: u32,
        gateway: Ipv4Addr,
        source: Ipv4Addr,
        beyond: bool,
    ) -> Result<(), KernelError> {
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(gateway)
            .output_interface(index)
            .pref_source(source)
            .build();
        if beyond {
            route.header.flags |= RouteFlags::Onlink;
        }
        let request = self.0.route().add(route).replace();
        request
            .execute()
            .await
            .map_err(failed(format!("cannot set the default route by {gateway}")))
    }
}

fn news_of(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<News> {
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
            Some(News::Link(link_of(&link)))
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
            Some(News::Gone(link.header.index))
        }
        NetlinkPayload::Overrun(_) => Some(News::Lost),
        _ => None,
    }
}

fn link_of(message: &LinkMessage) -> Link {
    let mut name = format!("#{}", message.header.index);
    let mut hardware = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(given) => name.clone_from(given),
            LinkAttribute::Address(bytes) => hardware = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            _ => {}
        }
    }
    let flags = message.header.flags;
    // The pool's own TAP is Ethernet too, but it is ours to manage elsewhere.
    let managed = message.attributes.iter().any(
        |attribute| matches!(attribute, LinkAttribute::LinkInfo(info) if info.iter().any(is_ours)),
    );
    let kind = match (message.header.link_layer_type, hardware) {
        _ if flags.contains(LinkFlags::Loopback) => Kind::Loopback,
        (LinkLayerType::Ether, Some(hardware)) if !managed => Kind::Ethernet(hardware),
        _ => Kind::Other,
    };
    Link {
        index: message.header.index,
        name,
        kind,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
    }
}

/// Links that software on this machine made to look like Ethernet. `veth` is not among them: in a
/// container it is the network card.
fn is_ours(info: &rtnetlink::packet_route::link::LinkInfo) -> bool {
    use rtnetlink::packet_route::link::{InfoKind, LinkInfo};
    matches!(
        info,
        LinkInfo::Kind(InfoKind::Tun | InfoKind::Dummy | InfoKind::Bridge | InfoKind::Ifb)
    )
}
