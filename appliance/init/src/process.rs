//! What /proc tells of the other processes: which are zombies of ours, which still run. Kernel threads
//! do not count: no signal ends them.

use std::fs;

/// PF_KTHREAD of linux/sched.h, in the flags of /proc/PID/stat.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// One line of /proc/PID/stat, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) is_zombie: bool,
    pub(crate) is_kernel_thread: bool,
}

/// All processes of this PID namespace; `None` without /proc.
pub(crate) fn all() -> Option<Vec<Process>> {
    let entries = fs::read_dir("/proc").ok()?;
    let stats = entries.flatten().filter_map(|entry| {
        // Only directories named by a number are processes; one may end while it is read.
        entry.file_name().to_str()?.parse::<i32>().ok()?;
        parse(&fs::read_to_string(entry.path().join("stat")).ok()?)
    });
    Some(stats.collect())
}

/// Whether a process other than ours still runs; `true` when there is no telling.
pub(crate) fn others_run() -> bool {
    let own = i32::try_from(std::process::id()).unwrap_or(1);
    let runs =
        |process: &Process| process.pid != own && !process.is_zombie && !process.is_kernel_thread;
    all().is_none_or(|processes| processes.iter().any(runs))
}

fn parse(stat: &str) -> Option<Process> {
    let (pid, rest) = stat.split_once(" (")?;
    // The command in parentheses may itself hold parentheses and spaces: the last one closes it.
    let (_, fields) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let flags: u32 = fields.get(6)?.parse().ok()?;
    Some(Process {
        pid: pid.parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        is_zombie: matches!(*fields.first()?, "Z" | "X"),
        is_kernel_thread: flags & KERNEL_THREAD != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_are_read_behind_the_command() {
        let check = |stat: &str, expected: Option<(i32, i32, bool, bool)>| {
            let found = parse(stat).map(|p| (p.pid, p.parent, p.is_zombie, p.is_kernel_thread));
            assert_eq!(found, expected, "{stat}");
        };
        check(
            "12 (a) Z 1 (x) Z 7 12 12 0 -1 4228364 0",
            Some((12, 7, true, false)),
        );
        check(
            "13 (sh) S 1 13 13 0 -1 4194304 0",
            Some((13, 1, false, false)),
        );
        check(
            "2 (kthreadd) S 0 0 0 0 -1 2129984 0",
            Some((2, 0, false, true)),
        );
        check("13 (sh) S", None);
        check("", None);
    }

    #[test]
    fn this_process_is_found_and_is_neither_zombie_nor_kernel_thread() {
        let own = i32::try_from(std::process::id()).unwrap();
        let found = all()
            .unwrap()
            .into_iter()
            .find(|process| process.pid == own)
            .unwrap();
        assert!(!found.is_zombie && !found.is_kernel_thread);
        assert!(found.parent > 0);
    }
}
