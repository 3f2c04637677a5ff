//! Log messages on standard error, and the last of them in memory.

mod ring;

use std::io::{self, IsTerminal};

use anyhow::{Context, Result};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

#[cfg(test)]
pub(crate) use ring::layer;
pub use ring::{LogLine, LogLines, follow, last, last_trouble, lines};

/// What an operator wants to see.
const DEFAULT: &str = "info";

/// The running log.
pub struct Logging(reload::Handle<Targets, Registry>);

impl Logging {
    /// Starts logging by `filter`: a level, or TARGET=LEVEL pairs separated by commas.
    pub fn install(filter: Option<&str>) -> Result<Self> {
        let (targets, handle) = reload::Layer::new(parse(filter.unwrap_or(DEFAULT))?);
        let lines = fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .with_filter(targets);
        tracing_subscriber::registry()
            .with(lines)
            .with(ring::layer())
            .try_init()
            .context("cannot start logging")?;
        Ok(Logging(handle))
    }

    /// Goes on with another filter.
    pub fn change(&self, filter: &str) -> Result<()> {
        let targets = parse(filter)?;
        self.0
            .reload(targets)
            .context("cannot change the log filter")
    }
}

fn parse(filter: &str) -> Result<Targets> {
    filter.parse().with_context(|| {
        format!(
            "{filter:?} is no log filter; write a level (error, warn, info, debug, trace), or pairs \
             such as info,wow_overlay=debug"
        )
    })
}
