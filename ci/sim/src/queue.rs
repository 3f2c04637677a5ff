//! The event queue of virtual time: earliest first, and first come first served within an instant.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use wow_overlay::time::Instant;

/// Pending events in order of `(time, rank)`, so that equal times never depend on the heap. The rank is
/// the order of arrival unless the caller gives another one.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Entry<E>>,
    sequence: u64,
}

/// The order of events within an instant.
pub type Rank = (u32, u64);

#[derive(Debug)]
struct Entry<E> {
    at: Instant,
    rank: Rank,
    event: E,
}

impl<E> Queue<E> {
    /// An empty queue.
    pub fn new() -> Self {
        Queue {
            heap: BinaryHeap::new(),
            sequence: 0,
        }
    }

    /// Adds `event`, due at `at`.
    pub fn push(&mut self, at: Instant, event: E) {
        let rank = (0, self.sequence);
        self.sequence += 1;
        self.push_ranked(at, rank, event);
    }

    /// Adds `event`, due at `at`, in the order that `rank` gives it there.
    pub fn push_ranked(&mut self, at: Instant, rank: Rank, event: E) {
        self.heap.push(Entry { at, rank, event });
    }

    /// When the next event is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// Takes the next event if it is due at `until` or before.
    pub fn pop_until(&mut self, until: Instant) -> Option<(Instant, E)> {
        if self.heap.peek()?.at > until {
            return None;
        }
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self::new()
    }
}

// `BinaryHeap` yields its greatest entry, so the earliest must compare as the greatest.
impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.rank).cmp(&(self.at, self.rank))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_by_time_then_by_arrival() {
        let mut queue = Queue::new();
        for (micros, name) in [(5, 'c'), (1, 'a'), (5, 'd'), (3, 'b'), (9, 'e')] {
            queue.push(Instant::from_micros(micros), name);
        }
        let mut order = String::new();
        while let Some((_, name)) = queue.pop_until(Instant::from_micros(5)) {
            order.push(name);
        }
        assert_eq!(order, "abcd");
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn ranks_order_an_instant_whatever_came_first() {
        let mut queue = Queue::new();
        let at = Instant::from_micros(7);
        for (rank, name) in [((2, 1), 'c'), ((1, 9), 'b'), ((1, 2), 'a')] {
            queue.push_ranked(at, rank, name);
        }
        assert_eq!(queue.next_due(), Some(at));
        let order: String = std::iter::from_fn(|| queue.pop_until(at))
            .map(|(_, name)| name)
            .collect();
        assert_eq!(order, "abc");
    }
}
