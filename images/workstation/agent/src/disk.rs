//! Whether a file system is full.

use std::path::Path;

/// Below this a file system counts as full; above twice as much it does no longer.
const LEFT_MIN_BYTES: u64 = 64 << 20;

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Next to none.
    Full,
    /// Some, and it may be full again soon.
    Little,
    /// Enough.
    Enough,
}

/// The room where a path is; none can be told where it is not.
pub fn room(path: &Path) -> Option<Room> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(of(found.f_bavail.saturating_mul(found.f_frsize)))
}

fn of(left_bytes: u64) -> Room {
    match left_bytes {
        left if left < LEFT_MIN_BYTES => Room::Full,
        left if left < 2 * LEFT_MIN_BYTES => Room::Little,
        _ => Room::Enough,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_gap_between_full_and_enough() {
        assert_eq!(of(0), Room::Full);
        assert_eq!(of(LEFT_MIN_BYTES), Room::Little);
        assert_eq!(of(2 * LEFT_MIN_BYTES), Room::Enough);
        assert!(room(Path::new("/")).is_some());
        assert_eq!(room(Path::new("/nonexistent")), None);
    }
}
