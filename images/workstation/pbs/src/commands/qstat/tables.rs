//! qstat's two tables of jobs, in OpenPBS's columns.

use crate::site;
use crate::slurm::queue::{Entry, Queue};
use crate::{size, time};

use super::attributes::{Attributes, comment, exec_host};
use super::{Letters, short_id};

/// How the other table looks.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// With the jobs' nodes.
    pub nodes: bool,
    /// With a remark on each.
    pub comment: bool,
    /// Nodes in the same line.
    pub one_line: bool,
    /// With room for long names.
    pub wide: bool,
}

/// The table without options.
pub fn plain(entries: &[Entry], queue: &Queue, letters: Letters, percent: bool) {
    if entries.is_empty() {
        return;
    }
    let column = if percent { "% done  " } else { "Time Use" };
    println!("Job id            Name             User              {column} S Queue");
    println!("----------------  ---------------- ----------------  -------- - -----");
    for entry in entries {
        let seconds = entry.ran_seconds(queue.now);
        let used = match (percent, entry.job.time_limit.positive()) {
            (true, Some(minutes)) => format!("{} ", seconds * 100 / (minutes * 60)),
            (true, None) => "-- ".to_owned(),
            (false, _) if seconds == 0 => "0".to_owned(),
            (false, _) => time::format_span(seconds),
        };
        println!(
            "{:<17} {:<16} {:<16}  {:>8} {} {:<5}",
            cut(&short_id(&entry.id), 17),
            cut(&entry.name(), 15),
            cut(&entry.job.user_name, 16),
            cut(&used, 8),
            letters.of(entry),
            cut(&entry.job.partition, 16),
        );
    }
}

/// The table of `-a` and its relatives.
pub fn other(entries: &[Entry], queue: &Queue, letters: Letters, style: Style) {
    if entries.is_empty() {
        return;
    }
    let widths = if style.wide {
        [30, 15, 15, 15, 8, 4, 5]
    } else {
        [15, 8, 8, 10, 6, 3, 3]
    };
    let [id, user, partition, name, session, nodes, tasks] = widths;
    let before: usize = widths.iter().map(|width| width + 1).sum();
    println!("\n{}: ", site::server());
    println!("{:before$}Req'd  Req'd   Elap", "");
    println!(
        "{:<id$} {:<user$} {:<partition$} {:<name$} {:<session$} {:<nodes$} {:<tasks$} Memory Time  S Time",
        "Job ID", "Username", "Queue", "Jobname", "SessID", "NDS", "TSK"
    );
    let dashes: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    println!("{} ------ ----- - -----", dashes.join(" "));
    for entry in entries {
        let asked = Attributes::new(entry, queue);
        let limit = asked.walltime_seconds();
        let elapsed = match entry.ran_seconds(queue.now) {
            0 => " -- ".to_owned(),
            seconds => short_time(seconds),
        };
        let line = format!(
            "{:<id$} {:<user$} {:<partition$} {:<name$} {:>session$} {:>nodes$} {:>tasks$} {:>6} {:>5} {} {:>5}",
            cut(&short_id(&entry.id), id),
            cut(&entry.job.user_name, user),
            cut(&entry.job.partition, partition),
            cut(&entry.name(), name),
            "-- ",
            cut(&asked.nodes().to_string(), nodes),
            cut(&asked.cpus().to_string(), tasks),
            asked
                .memory_bytes()
                .map_or_else(|| " -- ".to_owned(), short_size),
            limit.map_or_else(|| " -- ".to_owned(), short_time),
            letters.of(entry),
            elapsed,
        );
        let hosts = exec_host(entry.job).filter(|_| style.nodes);
        match hosts {
            Some(hosts) if style.one_line => println!("{line} {hosts}"),
            Some(hosts) => println!("{line}\n   {hosts}"),
            None => println!("{line}"),
        }
        if style.comment {
            println!("   {}", comment(entry).unwrap_or_else(|| "--".to_owned()));
        }
    }
}

/// `HH:MM`.
fn short_time(seconds: u64) -> String {
    let text = time::format_span(seconds);
    text[..text.len() - 3].to_owned()
}

/// At most four digits and a unit.
fn short_size(bytes: u64) -> String {
    let mut number = size::mebibytes(bytes);
    let mut units = ["mb", "gb", "tb", "pb"].iter();
    let mut unit = units.next();
    while number > 9999 || (number >= 1024 && number.is_multiple_of(1024)) {
        number = number.div_ceil(1024);
        unit = units.next();
    }
    format!("{number}{}", unit.unwrap_or(&"eb"))
}

fn cut(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_fit_their_columns() {
        let sizes = [1, 512 << 20, 2 << 30, 20_000 << 20, 5 << 40].map(short_size);
        assert_eq!(sizes, ["1mb", "512mb", "2gb", "20gb", "5tb"]);
        assert_eq!(short_time(3661), "01:01");
    }
}
