//! Several rounds as one: a machine that others share is now faster, now slower.

use super::{Figures, Flow, Lossy, Outcome};
use crate::distribution::Distribution;

/// Of each figure the median, but of segments sent again all, and of memory the most. A round that failed fails all.
pub fn together(rounds: &[Outcome]) -> Outcome {
    let failed = rounds
        .iter()
        .find(|round| matches!(round, Outcome::Failed(_)));
    if let Some(failed) = failed {
        return failed.clone();
    }
    let lossy: Vec<_> = rounds.iter().filter_map(Outcome::lossy).collect();
    if !lossy.is_empty() {
        return Outcome::Lossy(Lossy {
            one: flow(&lossy, |lossy| lossy.one),
            bare: flow(&lossy, |lossy| lossy.bare),
        });
    }
    let all: Vec<_> = rounds.iter().filter_map(Outcome::figures).collect();
    Outcome::Measured(Figures {
        one: flow(&all, |figures| figures.one),
        four: flow(&all, |figures| figures.four),
        reverse: flow(&all, |figures| figures.reverse),
        small_packets_per_s: median(&all, |figures| figures.small_packets_per_s),
        rtt_ms: median(&all, |figures| figures.rtt_ms),
        lone_rtt_ms: median(&all, |figures| figures.lone_rtt_ms),
        rss_mb: all.iter().map(|figures| figures.rss_mb).fold(0.0, f64::max),
        note: all
            .first()
            .map_or_else(String::new, |figures| figures.note.clone()),
    })
}

fn flow<T>(rounds: &[&T], of: impl Fn(&T) -> Flow) -> Flow {
    Flow {
        mbit_per_s: median(rounds, |round| of(round).mbit_per_s),
        retransmits: rounds.iter().map(|round| of(round).retransmits).sum(),
        cpu_s_per_gb: median(rounds, |round| of(round).cpu_s_per_gb),
    }
}

fn median<T>(rounds: &[&T], of: impl Fn(&T) -> f64) -> f64 {
    let figures = Distribution::new(rounds.iter().map(|round| Some(of(round))));
    figures.percentile(50).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(mbit_per_s: f64, retransmits: u64) -> Outcome {
        let one = Flow {
            mbit_per_s,
            retransmits,
            cpu_s_per_gb: 10.0 / mbit_per_s,
        };
        Outcome::Measured(Figures {
            one,
            four: one,
            reverse: one,
            small_packets_per_s: mbit_per_s * 2.0,
            rtt_ms: 1.0 / mbit_per_s,
            lone_rtt_ms: 2.0 / mbit_per_s,
            rss_mb: mbit_per_s,
            note: "by itself".into(),
        })
    }

    #[test]
    fn rounds_give_medians_all_retransmits_and_the_most_memory() {
        let rounds = [round(30.0, 1), round(10.0, 0), round(20.0, 4)];
        let Outcome::Measured(figures) = together(&rounds) else {
            panic!("all were measured");
        };
        assert_eq!(
            (figures.one.mbit_per_s, figures.one.cpu_s_per_gb),
            (20.0, 0.5)
        );
        assert_eq!((figures.small_packets_per_s, figures.rtt_ms), (40.0, 0.05));
        assert_eq!(figures.lone_rtt_ms, 0.1);
        assert_eq!((figures.retransmits(), figures.rss_mb), (15, 30.0));
        assert_eq!(figures.note, "by itself");
    }

    #[test]
    fn a_failed_round_fails_all() {
        let rounds = [round(30.0, 1), Outcome::Failed("no way".into())];
        let Outcome::Failed(why) = together(&rounds) else {
            panic!("one failed");
        };
        assert_eq!(why, "no way");
    }
}
