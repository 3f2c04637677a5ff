//! What seldom changes around the node, as one stream.

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream, SelectAll, Stream};
use tokio::sync::watch;
use wow_underlay::portmap::Mapped;
use wow_underlay::{InterfaceWatch, PortMapper};

use super::seeds::Seeds;

/// Something that has changed.
pub enum News {
    /// Links that changed or announced themselves; after an error comes no more of them.
    Interfaces(std::io::Result<Vec<u32>>),
    /// What the gateway maps now.
    Mapped(Vec<Mapped>),
    /// Where the seeds are now.
    Seeds(Seeds),
}

/// What each of these has to tell, as long as it does.
pub fn of(
    interfaces: Option<InterfaceWatch>,
    mapper: Option<&PortMapper>,
    seeds: watch::Receiver<Seeds>,
) -> SelectAll<BoxStream<'static, News>> {
    let mut all = SelectAll::new();
    all.push(values(seeds).map(News::Seeds).boxed());
    if let Some(mapper) = mapper {
        all.push(values(mapper.mapped()).map(News::Mapped).boxed());
    }
    if let Some(interfaces) = interfaces {
        all.push(changes(interfaces).map(News::Interfaces).boxed());
    }
    all
}

/// The values that follow the present one.
fn values<T: Clone>(watched: watch::Receiver<T>) -> impl Stream<Item = T> {
    stream::unfold(watched, |mut watched| async move {
        watched.changed().await.ok()?;
        let value = watched.borrow_and_update().clone();
        Some((value, watched))
    })
}

fn changes(watch: InterfaceWatch) -> impl Stream<Item = std::io::Result<Vec<u32>>> {
    stream::unfold(Some(watch), |watch| async move {
        let mut watch = watch?;
        let changed = watch.changed().await;
        let rest = changed.is_ok().then_some(watch);
        Some((changed, rest))
    })
}
