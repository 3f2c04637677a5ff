//! Reading XML of a gateway, with bounds.

use roxmltree::{Document, Node, ParsingOptions};

/// Descriptions in the field have some hundred; with this many a document takes half a megabyte.
const NODES_MAX: u32 = 4096;

/// The document, if it is well-formed and small. Entities are not expanded.
pub fn parse(text: &str) -> Option<Document<'_>> {
    let options = ParsingOptions {
        allow_dtd: false,
        nodes_limit: NODES_MAX,
        ..ParsingOptions::default()
    };
    // Some gateways begin with spaces, or end with a zero.
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    Document::parse_with_options(text, options).ok()
}

/// The text of the first element of this name below `node`, in whatever name space.
pub fn text<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    let mut below = node.descendants();
    below.find(|node| node.tag_name().name() == name)?.text()
}
