//! The ring as a drawing: nodes on a circle, links as chords.

use std::f64::consts::TAU;
use std::fmt::Write;

use super::crawl::{Kind, Map};
use super::text;

/// The drawing's side and the circle's radius, in pixels.
const SIDE: f64 = 900.0;
const RADIUS: f64 = 340.0;
/// More names than this would lie on each other.
const NAMES_MAX: usize = 200;

/// The whole file.
pub fn draw(pool: &str, map: &Map) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {SIDE} {SIDE}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"20\" y=\"30\" font-size=\"15\">{}</text>\n\
         <circle cx=\"{c}\" cy=\"{c}\" r=\"{RADIUS}\" fill=\"none\" stroke=\"#dddddd\"/>\n",
        escape(&text::summary(pool, map)),
        c = SIDE / 2.0,
    );
    for edge in &map.links {
        let (colour, width) = match edge.kind {
            Kind::Near => ("#2b6cb0", 1.6),
            Kind::Far => ("#dd8a1f", 0.9),
            Kind::Other => ("#aaaaaa", 0.6),
        };
        let dashes = if edge.direct {
            ""
        } else {
            " stroke-dasharray=\"5 3\""
        };
        let [(x1, y1), (x2, y2)] =
            [edge.ends.0, edge.ends.1].map(|at| point(map.nodes[at].position, RADIUS));
        // Writing to a string does not fail; the same below.
        let _ = writeln!(
            svg,
            "<path d=\"M{x1:.1} {y1:.1} Q{c} {c} {x2:.1} {y2:.1}\" fill=\"none\" \
             stroke=\"{colour}\" stroke-width=\"{width}\"{dashes}/>",
            c = SIDE / 2.0,
        );
    }
    for node in &map.nodes {
        let (x, y) = point(node.position, RADIUS);
        let colour = match (node.name.is_some(), node.in_place) {
            (false, _) => "#c53030",
            (true, false) => "#d69e2e",
            (true, true) => "#1a365d",
        };
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"><title>{} {}</title></circle>",
            escape(node.name.as_deref().unwrap_or("no answer")),
            escape(&node.id),
        );
        if map.nodes.len() <= NAMES_MAX {
            let (x, y) = point(node.position, RADIUS + 10.0);
            let left = node.position > 0.5;
            let turn = node.position * 360.0 + if left { 90.0 } else { -90.0 };
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" transform=\"rotate({turn:.1} {x:.1} {y:.1})\" \
                 text-anchor=\"{}\" dominant-baseline=\"middle\">{}</text>",
                if left { "end" } else { "start" },
                escape(node.name.as_deref().unwrap_or("?")),
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// Position zero is at the top, and positions grow clockwise.
fn point(position: f64, radius: f64) -> (f64, f64) {
    let (sin, cos) = (position * TAU).sin_cos();
    (SIDE / 2.0 + radius * sin, SIDE / 2.0 - radius * cos)
}

/// Names are what nodes say of themselves.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c if c.is_control() => safe.push('?'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::super::crawl::tests::small;
    use super::*;

    #[test]
    fn every_node_and_link_is_drawn_once_and_names_stay_text() {
        let mut map = small();
        map.nodes[0].name = Some("<script>&".into());
        let svg = draw("lab", &map);
        assert_eq!(svg.matches("<path ").count(), map.links.len());
        assert_eq!(svg.matches("<title>").count(), map.nodes.len());
        assert!(svg.contains("&lt;script&gt;&amp;") && !svg.contains("<script>"));
        assert!(svg.ends_with("</svg>\n"));
    }
}
