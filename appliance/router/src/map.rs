//! `wow map`: asks the running node, and by it every node that any other has a link to, for its links;
//! shows the ring as text and draws it.

mod crawl;
mod svg;
mod text;

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result};

use crate::api::{LINKS_NODES_MAX, NodeLinks, Op, Status};
use crate::cli::MapArgs;
use crate::client::{PATIENCE, Socket};
use crate::output;
use crawl::Crawl;

/// Crawls, with progress on a terminal, and shows what was found.
pub fn run(node: &Socket, args: &MapArgs) -> Result<()> {
    let own: Status = node.ask(Op::Status, PATIENCE)?;
    let most = usize::try_from(args.max).unwrap_or(usize::MAX);
    let mut crawl = Crawl::new(own.id, most);
    loop {
        let nodes = crawl.next(LINKS_NODES_MAX);
        if nodes.is_empty() {
            break;
        }
        let told: Vec<NodeLinks> = node.ask(Op::Links { nodes }, PATIENCE)?;
        for links in told {
            crawl.take(links);
        }
        progress(&crawl);
    }
    clear();
    let map = crawl.finish();
    if let Some(path) = &args.svg {
        std::fs::write(path, svg::draw(&own.pool, &map))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.client.json {
        return output::json(&map);
    }
    output::say(&text::draw(&own.pool, &map))?;
    text::show_rows(&map)
}

fn progress(crawl: &Crawl) {
    let mut err = std::io::stderr();
    if err.is_terminal() {
        let (asked, heard_of) = crawl.progress();
        // Who closed the terminal misses nothing.
        let _ = write!(err, "\r{asked} of {heard_of} nodes asked");
        let _ = err.flush();
    }
}

fn clear() {
    let mut err = std::io::stderr();
    if err.is_terminal() {
        let _ = write!(err, "\r\x1b[K");
    }
}
