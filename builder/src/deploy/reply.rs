//! What a host says while it works: lines with a mark, among whatever its login greets with. Pure.

use serde::Deserialize;

/// Begins each line of ours.
const MARK: &str = "wow-deploy ";
/// Longest line that is read; a node's status fits.
pub(super) const LINE_BYTES_MAX: usize = 64 * 1024;
/// Longest text of a host's that is shown.
const SHOWN_CHARS_MAX: usize = 1200;

/// One line of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// It wants the bundle now.
    Send,
    /// What it does now.
    Step(String),
    /// Something about the host.
    Fact(String, String),
    /// The node, which has joined.
    Status(Node),
    /// It has failed.
    Fail(String),
    /// It is done, with this result.
    Done(String),
}

/// `wow status --json`, in part.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Node {
    /// Node id.
    pub id: String,
    /// Node name.
    pub name: String,
    /// Virtual addresses.
    pub addresses: Addresses,
    /// Whether it is in its pool.
    pub joined: bool,
}

/// Virtual addresses of a node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Addresses {
    /// IPv4.
    pub v4: std::net::Ipv4Addr,
}

/// The line's meaning; `None` for what is not ours.
pub(super) fn parse(line: &str) -> Option<Line> {
    let rest = line.strip_prefix(MARK)?.trim_end();
    let (word, text) = rest.split_once(' ').unwrap_or((rest, ""));
    Some(match word {
        "send" => Line::Send,
        "step" => Line::Step(shown(text)),
        "fact" => {
            let (key, value) = text.split_once(' ').unwrap_or((text, ""));
            Line::Fact(shown(key), shown(value))
        }
        "status" => Line::Status(node(text)?),
        "fail" => Line::Fail(shown(text)),
        "done" => Line::Done(shown(text)),
        _ => return None,
    })
}

fn node(text: &str) -> Option<Node> {
    let node: Node = serde_json::from_str(text).ok()?;
    Some(Node {
        id: shown(&node.id),
        name: shown(&node.name),
        ..node
    })
}

/// A host's text for a terminal: no control characters, not endless.
pub(super) fn shown(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let text: String = plain.take(SHOWN_CHARS_MAX).collect();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_are_passed_over_and_lines_of_ours_are_read() {
        assert_eq!(parse("Welcome to wow-deploy done"), None);
        assert_eq!(parse("wow-deploy nonsense"), None);
        assert_eq!(parse("wow-deploy send\r"), Some(Line::Send));
        assert_eq!(parse("wow-deploy fail a b"), Some(Line::Fail("a b".into())));
        assert_eq!(
            parse("wow-deploy fact previous "),
            Some(Line::Fact("previous".into(), String::new()))
        );
    }

    #[test]
    fn a_status_is_read_as_far_as_it_is_needed() {
        let text = r#"wow-deploy status {"id":"0a","name":"n","addresses":{"v4":"10.128.0.9","v6":"::1"},"joined":true,"x":1}"#;
        let Some(Line::Status(node)) = parse(text) else {
            panic!("no status");
        };
        assert_eq!((node.name.as_str(), node.joined), ("n", true));
        assert_eq!(parse("wow-deploy status {}"), None);
    }

    #[test]
    fn a_host_cannot_write_to_our_terminal() {
        let Some(Line::Fail(text)) = parse("wow-deploy fail \u{1b}[2Jbad\u{7}") else {
            panic!("no failure");
        };
        assert!(!text.contains(char::is_control), "{text:?}");
        assert!(shown(&"x".repeat(100_000)).len() <= SHOWN_CHARS_MAX);
    }
}
