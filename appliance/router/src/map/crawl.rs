//! Which nodes to ask next, and what all of them said.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;

use crate::api::{NodeLinks, Place};

/// A crawl under way.
pub struct Crawl {
    most: usize,
    asked: BTreeSet<String>,
    waiting: VecDeque<Place>,
    heard_of: BTreeSet<String>,
    told: BTreeMap<String, NodeLinks>,
}

/// The ring as its nodes tell it.
#[derive(Debug, Serialize)]
pub struct Map {
    /// The nodes in the order of their positions.
    pub nodes: Vec<Node>,
    /// Every link once.
    pub links: Vec<Edge>,
    /// Nodes that were heard of and not asked, for there were too many.
    pub left_out: usize,
}

/// One node of the ring.
#[derive(Debug, Serialize)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Its name; none if it did not answer.
    pub name: Option<String>,
    /// Its position as a share of the ring.
    pub position: f64,
    /// Whether it has a link to each of the two nodes beside it.
    pub in_place: bool,
    /// Its links by purpose.
    pub near: usize,
    /// Its far links.
    pub far: usize,
    /// All others.
    pub other: usize,
    /// The median round-trip time of its links.
    pub rtt_ms: Option<f64>,
}

/// A link between two nodes.
#[derive(Debug, PartialEq, Serialize)]
pub struct Edge {
    /// Its ends, as indices of nodes; the first is the lower one.
    pub ends: (usize, usize),
    /// What it is there for; of two opinions the more important.
    pub kind: Kind,
    /// Whether either end has a direct path in use.
    pub direct: bool,
}

/// What links are there for, in order of importance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Near,
    Far,
    Other,
}

impl Kind {
    fn of(text: &str) -> Kind {
        match text {
            "near" => Kind::Near,
            "far" => Kind::Far,
            _ => Kind::Other,
        }
    }
}

impl Crawl {
    /// Begins at one node and asks at most so many.
    pub fn new(first: String, most: usize) -> Self {
        let mut crawl = Crawl {
            most,
            asked: BTreeSet::new(),
            waiting: VecDeque::new(),
            heard_of: BTreeSet::new(),
            told: BTreeMap::new(),
        };
        crawl.hear_of(first, None);
        crawl
    }

    fn hear_of(&mut self, id: String, via: Option<String>) {
        if self.heard_of.insert(id.clone()) {
            self.waiting.push_back(Place { id, via });
        }
    }

    /// The nodes to ask now; none when all were asked.
    pub fn next(&mut self, count: usize) -> Vec<Place> {
        let count = count.min(self.most.saturating_sub(self.asked.len()));
        let count = count.min(self.waiting.len());
        let places: Vec<_> = self.waiting.drain(..count).collect();
        self.asked
            .extend(places.iter().map(|place| place.id.clone()));
        places
    }

    /// Takes in what a node said; of one that was not asked, nothing.
    pub fn take(&mut self, links: NodeLinks) {
        if !self.asked.contains(&links.id) {
            return;
        }
        for link in &links.links {
            self.hear_of(link.id.clone(), Some(links.id.clone()));
        }
        self.told.insert(links.id.clone(), links);
    }

    /// Nodes asked, and nodes heard of.
    pub fn progress(&self) -> (usize, usize) {
        (self.asked.len(), self.heard_of.len())
    }

    /// The map.
    pub fn finish(self) -> Map {
        let ids: Vec<&String> = self.told.keys().collect();
        let index: BTreeMap<&str, usize> =
            (0..).zip(&ids).map(|(i, id)| (id.as_str(), i)).collect();
        let mut edges: BTreeMap<(usize, usize), (Kind, bool)> = BTreeMap::new();
        for (from, told) in self.told.values().enumerate() {
            for link in &told.links {
                let Some(&to) = index.get(link.id.as_str()) else {
                    continue;
                };
                let edge = edges.entry((from.min(to), from.max(to)));
                let edge = edge.or_insert((Kind::Other, false));
                edge.0 = edge.0.min(Kind::of(&link.kind));
                edge.1 |= link.direct;
            }
        }
        let count = ids.len();
        let linked = |a: usize, b: usize| a == b || edges.contains_key(&(a.min(b), a.max(b)));
        let node = |(at, told): (usize, &NodeLinks)| {
            let of = |kind| {
                told.links
                    .iter()
                    .filter(|l| Kind::of(&l.kind) == kind)
                    .count()
            };
            let [right, left] = [(at + 1) % count, (at + count - 1) % count];
            Node {
                id: told.id.clone(),
                name: told.name.clone(),
                position: position(&told.id),
                in_place: linked(at, right) && linked(at, left),
                near: of(Kind::Near),
                far: of(Kind::Far),
                other: of(Kind::Other),
                rtt_ms: median(told.links.iter().filter_map(|link| link.rtt_ms).collect()),
            }
        };
        let nodes = self.told.values().enumerate().map(node).collect();
        let edge = |(&ends, &(kind, direct)): (&(usize, usize), &(Kind, bool))| Edge {
            ends,
            kind,
            direct,
        };
        let links = edges.iter().map(edge).collect();
        let left_out = self.heard_of.len() - count;
        Map {
            nodes,
            links,
            left_out,
        }
    }
}

impl Map {
    /// How many links are there for this.
    pub fn count(&self, kind: Kind) -> usize {
        self.links.iter().filter(|edge| edge.kind == kind).count()
    }

    /// Nodes that did not answer.
    pub fn silent(&self) -> usize {
        self.nodes.iter().filter(|node| node.name.is_none()).count()
    }
}

/// An id's place as a share of the ring.
fn position(id: &str) -> f64 {
    let top = id
        .get(..8)
        .and_then(|top| u32::from_str_radix(top, 16).ok());
    f64::from(top.unwrap_or(0)) / (f64::from(u32::MAX) + 1.0)
}

fn median(mut times: Vec<f64>) -> Option<f64> {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::api::Link;

    fn id(top: u8) -> String {
        format!("{top:02x}{:038}", 0)
    }

    fn links(of: u8, to: &[(u8, &str)]) -> NodeLinks {
        let link = |(to, kind): &(u8, &str)| Link {
            id: id(*to),
            kind: (*kind).into(),
            direct: true,
            rtt_ms: Some(f64::from(*to)),
        };
        NodeLinks {
            id: id(of),
            name: Some(format!("n{of}")),
            links: to.iter().map(link).collect(),
        }
    }

    /// Four nodes, of which the last one does not answer.
    pub fn small() -> Map {
        let mut crawl = Crawl::new(id(0), 100);
        assert_eq!(crawl.next(16).len(), 1);
        crawl.take(links(0, &[(64, "near"), (128, "far"), (192, "near")]));
        crawl.take(links(99, &[(1, "near")]));
        let next: Vec<_> = crawl.next(16).into_iter().map(|p| (p.id, p.via)).collect();
        let via = Some(id(0));
        let heard = [64, 128, 192].map(|top| (id(top), via.clone()));
        assert_eq!(next, heard, "and nothing of who was not asked");
        crawl.take(links(64, &[(0, "near"), (128, "near")]));
        crawl.take(links(128, &[(64, "near"), (0, "idle")]));
        crawl.take(NodeLinks {
            id: id(192),
            name: None,
            links: Vec::new(),
        });
        assert!(crawl.next(16).is_empty());
        crawl.finish()
    }

    #[test]
    fn nodes_are_in_the_order_of_the_ring_and_gaps_are_seen() {
        let map = small();
        let of = |at: usize| (map.nodes[at].position, map.nodes[at].in_place);
        assert_eq!((of(0), of(1)), ((0.0, true), (0.25, true)));
        assert_eq!((of(2), of(3)), ((0.5, false), (0.75, false)));
        assert_eq!(map.nodes[0].rtt_ms, Some(128.0));
        let counts = [Kind::Near, Kind::Far, Kind::Other].map(|kind| map.count(kind));
        assert_eq!((counts, map.silent(), map.left_out), ([3, 1, 0], 1, 0));
    }

    #[test]
    fn a_crawl_ends_at_its_limit() {
        let mut crawl = Crawl::new(id(0), 2);
        crawl.next(16);
        crawl.take(links(0, &[(1, "near"), (2, "near"), (3, "far")]));
        assert_eq!(crawl.next(16).len(), 1);
        assert!(crawl.next(16).is_empty());
        assert_eq!(crawl.finish().left_out, 3);
    }
}
