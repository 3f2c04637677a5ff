//! Measured times, some of them missing: percentiles and how many came.

use serde::Serialize;

/// Times of several trials in milliseconds, sorted; trials without one count as longer than any.
#[derive(Debug, Clone)]
pub struct Distribution {
    sorted: Vec<f64>,
    trials: usize,
}

/// What is told of a distribution, in milliseconds; none where that many trials did not come.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// Trials.
    pub trials: usize,
    /// Those without a time.
    pub missing: usize,
    /// Half of the trials took at most this.
    pub p50: Option<f64>,
    /// Nine of ten.
    pub p90: Option<f64>,
    /// 99 of a hundred.
    pub p99: Option<f64>,
    /// The longest, if none is missing.
    pub max: Option<f64>,
}

impl Distribution {
    /// Of these trials.
    pub fn new(times: impl IntoIterator<Item = Option<f64>>) -> Self {
        let times: Vec<Option<f64>> = times.into_iter().collect();
        let mut sorted: Vec<f64> = times.iter().copied().flatten().collect();
        sorted.sort_by(f64::total_cmp);
        Self {
            sorted,
            trials: times.len(),
        }
    }

    /// The least time within which `percent` of the trials came.
    pub fn percentile(&self, percent: usize) -> Option<f64> {
        let rank = (self.trials * percent).div_ceil(100).max(1);
        self.sorted.get(rank - 1).copied()
    }

    /// The usual figures.
    pub fn summary(&self) -> Summary {
        Summary {
            trials: self.trials,
            missing: self.trials - self.sorted.len(),
            p50: self.percentile(50),
            p90: self.percentile(90),
            p99: self.percentile(99),
            max: self.percentile(100),
        }
    }

    /// Steps of the cumulative distribution: time in milliseconds, and percent of trials that took at
    /// most that.
    pub fn steps(&self) -> impl Iterator<Item = (f64, f64)> {
        let share = 100.0 / self.trials.max(1) as f64;
        self.sorted
            .iter()
            .enumerate()
            .map(move |(index, time)| (*time, (index + 1) as f64 * share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_count_missing_trials_as_the_longest() {
        let all = Distribution::new((1..=100).rev().map(|n| Some(f64::from(n))));
        let summary = all.summary();
        assert_eq!(
            (summary.p50, summary.p90, summary.p99, summary.max),
            (Some(50.0), Some(90.0), Some(99.0), Some(100.0))
        );
        let some = Distribution::new((1..=100).map(|n| (n <= 95).then_some(f64::from(n))));
        let summary = some.summary();
        assert_eq!(
            (summary.missing, summary.p90, summary.p99),
            (5, Some(90.0), None)
        );
        assert_eq!(some.steps().last(), Some((95.0, 95.0)));
        assert_eq!(Distribution::new([]).summary().p50, None);
        assert_eq!(Distribution::new([Some(3.0)]).summary().p99, Some(3.0));
    }
}
