//! The ring in letters: a circle with names around it, and a table.

use std::f64::consts::TAU;

use anyhow::Result;

use super::crawl::{Kind, Map};
use crate::client::short;
use crate::output;

/// The circle's canvas, in characters; its radii, with room for names on both sides.
const WIDTH: usize = 79;
const HEIGHT: usize = 21;
const RADIUS_X: f64 = 22.0;
const RADIUS_Y: f64 = 9.0;
/// More names than this would hide each other.
const NAMES_MAX: usize = 32;

/// The circle and what there is to say of the ring as a whole.
pub fn draw(pool: &str, map: &Map) -> String {
    format!("{}{}\n", circle(map), summary(pool, map))
}

/// One node a row.
pub fn show_rows(map: &Map) -> Result<()> {
    let rows = map.nodes.iter().map(|node| {
        vec![
            node.name.clone().unwrap_or_else(|| "no answer".into()),
            short(&node.id).to_owned(),
            format!("{:.1}°", node.position * 360.0),
            node.near.to_string(),
            node.far.to_string(),
            node.other.to_string(),
            node.rtt_ms.map_or("-".into(), |rtt| format!("{rtt:.2} ms")),
            if node.in_place {
                "in place"
            } else {
                "gap beside it"
            }
            .into(),
        ]
    });
    let header = ["NAME", "ID", "AT", "NEAR", "FAR", "OTHER", "RTT", "RING"];
    output::rows(&header, rows.collect())
}

/// In one line what the ring is like.
pub fn summary(pool: &str, map: &Map) -> String {
    let mut text = format!(
        "{pool}: {} nodes, {} links ({} near, {} far, {} other)",
        map.nodes.len(),
        map.links.len(),
        map.count(Kind::Near),
        map.count(Kind::Far),
        map.count(Kind::Other)
    );
    let gaps = map.nodes.iter().filter(|node| !node.in_place).count();
    match gaps {
        0 => text.push_str(", the ring is whole"),
        _ => text.push_str(&format!(", {gaps} nodes beside a gap")),
    }
    if map.silent() > 0 {
        text.push_str(&format!(", {} without an answer", map.silent()));
    }
    if map.left_out > 0 {
        text.push_str(&format!(", {} not asked", map.left_out));
    }
    text
}

fn circle(map: &Map) -> String {
    let mut canvas = vec![vec![' '; WIDTH]; HEIGHT];
    let middle = ((WIDTH / 2) as f64, (HEIGHT / 2) as f64);
    for node in &map.nodes {
        // Position zero is at the top, and positions grow clockwise.
        let (sin, cos) = (node.position * TAU).sin_cos();
        let x = (middle.0 + RADIUS_X * sin).round() as usize;
        let y = (middle.1 - RADIUS_Y * cos).round() as usize;
        canvas[y][x] = if node.name.is_some() { 'o' } else { 'x' };
    }
    let named = map.nodes.iter().filter(|_| map.nodes.len() <= NAMES_MAX);
    for node in named {
        let (sin, cos) = (node.position * TAU).sin_cos();
        let x = (middle.0 + RADIUS_X * sin).round() as usize;
        let y = (middle.1 - RADIUS_Y * cos).round() as usize;
        let name = node.name.as_deref().unwrap_or("?");
        let name: Vec<char> = name
            .chars()
            .take(x.min(WIDTH - x).saturating_sub(2))
            .collect();
        let from = match sin >= 0.0 {
            true => x + 2,
            false => (x - 1).saturating_sub(name.len()),
        };
        for (at, c) in (from..WIDTH).zip(name) {
            if canvas[y][at] == ' ' {
                canvas[y][at] = c;
            }
        }
    }
    let line = |row: Vec<char>| row.into_iter().collect::<String>().trim_end().to_owned() + "\n";
    canvas.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::crawl::tests::small;
    use super::*;

    #[test]
    fn the_circle_shows_every_node_where_it_is() {
        let map = small();
        let circle = circle(&map);
        let lines: Vec<&str> = circle.lines().collect();
        assert_eq!(lines.len(), HEIGHT);
        assert_eq!(lines[1].trim(), "o n0");
        assert_eq!(
            lines[10].trim(),
            "? x".to_owned() + &" ".repeat(43) + "o n64"
        );
        assert_eq!(lines[19].trim(), "o n128");
        let text = draw("lab", &map);
        assert!(
            text.contains("lab: 4 nodes, 4 links (3 near, 1 far, 0 other)"),
            "{text}"
        );
        assert!(
            text.contains("2 nodes beside a gap, 1 without an answer"),
            "{text}"
        );
    }
}
