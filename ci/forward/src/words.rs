//! What the kernel's command line asks for.

use std::fmt;

use anyhow::{Context as _, Result, bail};

/// How frames are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackEnd {
    /// Packet sockets.
    Packet,
    /// The cards' queues.
    Virtio,
}

impl fmt::Display for BackEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BackEnd::Packet => "packet",
            BackEnd::Virtio => "virtio",
        })
    }
}

/// All that is said.
#[derive(Debug, PartialEq, Eq)]
pub struct Words {
    /// By what to forward.
    pub back_end: BackEnd,
    /// Who is behind each card.
    pub peers: [[u8; 6]; 2],
    /// The cards are driven by virtio and given back before.
    pub back: bool,
}

impl Words {
    /// Reads the words that are meant for this program; others are the kernel's.
    pub fn parse(line: &str) -> Result<Self> {
        let value = |name: &str| {
            let mut words = line.split_ascii_whitespace();
            words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        let back_end = match value("forward") {
            Some("packet") => BackEnd::Packet,
            Some("virtio") => BackEnd::Virtio,
            other => bail!("forward={} is not known", other.unwrap_or_default()),
        };
        let peers = value("peers").context("peers= is missing")?;
        let (first, second) = peers
            .split_once(',')
            .context("peers= names two addresses")?;
        Ok(Words {
            back_end,
            peers: [mac(first)?, mac(second)?],
            back: line.split_ascii_whitespace().any(|word| word == "back"),
        })
    }
}

fn mac(text: &str) -> Result<[u8; 6]> {
    let parts: Result<Vec<u8>, _> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16))
        .collect();
    let parts = parts.ok().and_then(|parts| parts.try_into().ok());
    parts.with_context(|| format!("{text:?} is no Ethernet address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_found_among_those_of_the_kernel() {
        let line =
            "console=ttyS0 quiet forward=virtio back peers=52:54:00:00:00:01,52:54:00:00:00:02\n";
        let words = Words::parse(line).unwrap();
        assert_eq!(words.back_end, BackEnd::Virtio);
        assert_eq!(words.peers[1], [0x52, 0x54, 0, 0, 0, 2]);
        assert!(words.back);
        for wrong in [
            "",
            "forward=tap peers=1:2:3:4:5:6,1:2:3:4:5:6",
            "forward=packet peers=1:2,3",
        ] {
            assert!(Words::parse(wrong).is_err(), "{wrong}");
        }
    }
}
