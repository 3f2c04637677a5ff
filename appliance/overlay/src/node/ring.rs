//! Which nodes a node wants links to: near neighbours, far links, and the ring's size.
//!
//! Functions of positions alone.

use std::collections::BTreeSet;
use std::ops::Bound;

use rand::RngExt;

use crate::Rng;
use crate::id::{Distance, NodeId};

/// Near neighbours a node keeps links to on each side.
pub const NEAR_PER_SIDE: usize = 2;
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

/// The `per_side` nearest of `ids` on each side of `centre`. In a small ring a node may stand on
/// both sides.
pub fn nearest(centre: NodeId, ids: &BTreeSet<NodeId>, per_side: usize) -> Neighbours {
    let above = ids.range((Bound::Excluded(centre), Bound::Unbounded));
    let below = ids.range(..centre);
    let right = above.clone().chain(below.clone());
    let left = below.rev().chain(above.rev());
    Neighbours {
        left: left.take(per_side).copied().collect(),
        right: right.take(per_side).copied().collect(),
    }
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

/// Far links that make greedy routing take few hops in a ring of `size`: ½ log2.
pub fn far_links_wanted(size: f64) -> usize {
    if size <= (2 * NEAR_PER_SIDE + 1) as f64 {
        return 0;
    }
    let wanted = (size.log2() / 2.0).ceil();
    // log2 of any f64 is far below usize's range.
    (wanted as usize).min(FAR_MAX)
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

    fn ring(positions: &[u8]) -> BTreeSet<NodeId> {
        positions.iter().copied().map(id).collect()
    }

    #[test]
    fn nearest_wraps_around_zero_on_both_sides() {
        let found = nearest(id(10), &ring(&[5, 10, 20, 30, 250]), 2);
        assert_eq!(found.right, [id(20), id(30)]);
        assert_eq!(found.left, [id(5), id(250)]);
    }

    #[test]
    fn in_a_ring_of_two_the_other_is_on_both_sides() {
        let found = nearest(id(1), &ring(&[1, 2]), 2);
        assert_eq!((found.left, found.right), (vec![id(2)], vec![id(2)]));
    }

    #[test]
    fn size_is_estimated_from_density() {
        let ids: BTreeSet<_> = (0..=255).map(id).collect();
        let size = estimate_size(id(7), &nearest(id(7), &ids, 2));
        assert!((size - 256.0).abs() < 1.0, "{size}");
        let three = ring(&[1, 2, 3]);
        assert_eq!(estimate_size(id(1), &nearest(id(1), &three, 2)), 3.0);
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
