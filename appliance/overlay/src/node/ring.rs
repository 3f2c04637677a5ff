//! Which nodes a node wants links to: near neighbours, far links, and the ring's size.
//!
//! Functions of positions alone.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use rand::RngExt;

use crate::Rng;
use crate::id::{Distance, NodeId};

/// Near neighbours a node keeps links to on each side.
pub const NEAR_PER_SIDE: usize = 2;
/// Far links beyond half the logarithm. Simulated, 1,000 nodes need 2.9 hops on average with these two
/// and 3.8 without; each costs about 40 bytes a second.
const FAR_MORE: usize = 2;
/// Most far links of a node, whatever the ring's size.
pub const FAR_MAX: usize = 16;

/// A node's neighbours, nearest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// At decreasing positions.
    pub left: Vec<NodeId>,
    /// At increasing positions.
    pub right: Vec<NodeId>,
}

impl Neighbours {
    /// Every neighbour once.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.left.iter().chain(&self.right).copied()
    }

    /// Whether `id` is a neighbour on either side.
    pub fn contains(&self, id: NodeId) -> bool {
        self.iter().any(|neighbour| neighbour == id)
    }
}

/// Everybody but `centre` at increasing positions from it on, once around.
fn clockwise<V>(centre: NodeId, ring: &BTreeMap<NodeId, V>) -> impl Iterator<Item = (NodeId, &V)> {
    let above = ring.range((Bound::Excluded(centre), Bound::Unbounded));
    let around = above.chain(ring.range(..centre));
    around.map(|(id, value)| (*id, value))
}

/// Everybody but `centre` at decreasing positions from it on, once around.
fn anticlockwise<V>(
    centre: NodeId,
    ring: &BTreeMap<NodeId, V>,
) -> impl Iterator<Item = (NodeId, &V)> {
    let above = ring.range((Bound::Excluded(centre), Bound::Unbounded));
    let around = ring.range(..centre).rev().chain(above.rev());
    around.map(|(id, value)| (*id, value))
}

/// The `per_side` nearest of those in `ring` that count, on each side of `centre`. In a small ring
/// a node may stand on both sides.
pub fn nearest<V>(
    centre: NodeId,
    ring: &BTreeMap<NodeId, V>,
    per_side: usize,
    counts: impl Fn(NodeId, &V) -> bool,
) -> Neighbours {
    let counts = |(id, value): &(NodeId, &V)| counts(*id, value);
    let right = clockwise(centre, ring).filter(counts).take(per_side);
    let left = anticlockwise(centre, ring).filter(counts).take(per_side);
    Neighbours {
        left: left.map(|(id, _)| id).collect(),
        right: right.map(|(id, _)| id).collect(),
    }
}

/// Of those in `ring` that have a `way`, the one closest to `goal`, with its way.
pub fn closest<V, W>(
    goal: NodeId,
    ring: &BTreeMap<NodeId, V>,
    way: impl Fn(NodeId, &V) -> Option<W>,
) -> Option<(NodeId, W)> {
    closer_than(None, goal, ring, way)
}

/// As [`closest`], but looks at nobody as far from `goal` as `limit`.
pub fn closer_than<V, W>(
    limit: Option<Distance>,
    goal: NodeId,
    ring: &BTreeMap<NodeId, V>,
    way: impl Fn(NodeId, &V) -> Option<W>,
) -> Option<(NodeId, W)> {
    let found = |(id, value)| Some((id, way(id, value)?));
    if let Some(there) = ring.get(&goal).and_then(|value| found((goal, value))) {
        return Some(there);
    }
    let near = |(id, _): &(NodeId, &V)| limit.is_none_or(|limit| id.distance(goal) < limit);
    let right = clockwise(goal, ring).take_while(near).find_map(found);
    let left = anticlockwise(goal, ring).take_while(near).find_map(found);
    let ways = left.into_iter().chain(right);
    ways.min_by_key(|(id, _)| id.distance(goal))
}

/// Estimates how many nodes the ring has from how densely neighbours lie around `centre`.
pub fn estimate_size(centre: NodeId, neighbours: &Neighbours) -> f64 {
    let (Some(leftmost), Some(rightmost)) = (neighbours.left.last(), neighbours.right.last())
    else {
        return 1.0;
    };
    let distinct: BTreeSet<_> = neighbours.iter().collect();
    if distinct.len() < neighbours.left.len() + neighbours.right.len() {
        return distinct.len() as f64 + 1.0;
    }
    let span =
        leftmost.clockwise_to(centre).as_fraction() + centre.clockwise_to(*rightmost).as_fraction();
    if span <= 0.0 {
        return 1.0;
    }
    (distinct.len() as f64 / span).max(1.0)
}

/// Far links that make greedy routing take few hops in a ring of `size`: ½ log2, and [`FAR_MORE`].
pub fn far_links_wanted(size: f64) -> usize {
    let near = 2 * NEAR_PER_SIDE + 1;
    if size <= near as f64 {
        return 0;
    }
    let wanted = (size.log2() / 2.0).ceil();
    // log2 of any f64 is far below usize's range.
    let others = size as usize - near;
    (wanted as usize + FAR_MORE).min(others).min(FAR_MAX)
}

/// A position to link to, drawn so that each scale of distance is equally likely (Kleinberg's
/// harmonic distribution).
pub fn draw_far_target(centre: NodeId, size: f64, rng: &mut Rng) -> NodeId {
    let exponent = rng.random::<f64>() - 1.0;
    let fraction = size.max(2.0).powf(exponent);
    centre.offset(Distance::from_fraction(fraction))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn id(top: u8) -> NodeId {
        let mut bytes = [0; 20];
        bytes[0] = top;
        NodeId(bytes)
    }

    fn ring(positions: &[u8]) -> BTreeMap<NodeId, ()> {
        positions.iter().map(|top| (id(*top), ())).collect()
    }

    fn around(centre: u8, ring: &BTreeMap<NodeId, ()>) -> Neighbours {
        nearest(id(centre), ring, 2, |_, ()| true)
    }

    #[test]
    fn nearest_wraps_around_zero_on_both_sides() {
        let found = around(10, &ring(&[5, 10, 20, 30, 250]));
        assert_eq!(found.right, [id(20), id(30)]);
        assert_eq!(found.left, [id(5), id(250)]);
    }

    #[test]
    fn the_closest_is_found_on_either_side_among_those_with_a_way() {
        let ring = ring(&[5, 10, 20, 250]);
        let find = |goal: u8, except: u8| {
            closest(id(goal), &ring, |at, ()| (at != id(except)).then_some(())).map(|(at, ())| at)
        };
        assert_eq!(find(10, 0), Some(id(10)));
        assert_eq!(find(10, 10), Some(id(5)));
        assert_eq!(find(16, 0), Some(id(20)));
        assert_eq!(find(0, 5), Some(id(250)));
        assert_eq!(closest(id(1), &ring, |_, ()| None::<()>), None);
    }

    #[test]
    fn in_a_ring_of_two_the_other_is_on_both_sides() {
        let found = around(1, &ring(&[1, 2]));
        assert_eq!((found.left, found.right), (vec![id(2)], vec![id(2)]));
    }

    #[test]
    fn size_is_estimated_from_density() {
        let all: Vec<u8> = (0..=255).collect();
        let size = estimate_size(id(7), &around(7, &ring(&all)));
        assert!((size - 256.0).abs() < 1.0, "{size}");
        let three = ring(&[1, 2, 3]);
        assert_eq!(estimate_size(id(1), &around(1, &three)), 3.0);
    }

    #[test]
    fn far_targets_are_as_likely_near_as_far_by_scale() {
        let mut rng = Rng::seed_from_u64(1);
        let near = (0..1000)
            .map(|_| draw_far_target(id(0), 10_000.0, &mut rng))
            .filter(|target| id(0).clockwise_to(*target).as_fraction() < 0.01)
            .count();
        assert!(
            (400..600).contains(&near),
            "{near} of 1000 below a hundredth"
        );
    }
}
