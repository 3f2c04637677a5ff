//! Boot steps as data, and the small engine that runs them in their order: each with a deadline, a
//! failure policy and a line in the log. What the steps do is elsewhere.
//!
//! A blocking step runs on a thread of its own, since a deadline on a system call can only be kept
//! from outside: when it passes, the thread is abandoned and the policy decides.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// One boot step. `A` is [`Blocking`] before the event loop exists and [`Eventual`] on it.
#[derive(Debug, Clone, Copy)]
pub struct Step<A> {
    /// What the log calls it.
    pub name: &'static str,
    /// Longest time one attempt may take.
    pub deadline: Duration,
    /// What to do when an attempt fails or passes its deadline.
    pub on_failure: OnFailure,
    /// The work. Its text says what was done, for the log.
    pub run: A,
}

/// A step that may block; it gets a thread.
pub type Blocking<C> = fn(&C) -> Result<String, StepError>;

/// A step on the event loop.
pub type Eventual<C> =
    for<'a> fn(&'a C) -> Pin<Box<dyn Future<Output = Result<String, StepError>> + 'a>>;

/// Failure policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The machine is useless without it: stop booting.
    Fatal,
    /// Warn and go on.
    Continue,
    /// Try again, `attempts` times in all; then as `last` says.
    Retry {
        /// Attempts in all.
        attempts: u32,
        /// Pause between two attempts.
        pause: Duration,
        /// What follows the last failed attempt.
        last: Last,
    },
}

/// What follows the last failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// Stop booting.
    Fatal,
    /// Warn and go on.
    Continue,
}

impl OnFailure {
    fn attempts(self) -> u32 {
        match self {
            Self::Retry { attempts, .. } => attempts.max(1),
            Self::Fatal | Self::Continue => 1,
        }
    }

    fn pause(self) -> Duration {
        match self {
            Self::Retry { pause, .. } => pause,
            Self::Fatal | Self::Continue => Duration::ZERO,
        }
    }

    fn is_fatal(self) -> bool {
        matches!(
            self,
            Self::Fatal
                | Self::Retry {
                    last: Last::Fatal,
                    ..
                }
        )
    }
}

/// Why a step failed, and what to do about it, in words for the console.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StepError(String);

impl StepError {
    /// An error from its words.
    pub fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

/// What became of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepReport {
    /// The step's name.
    pub name: &'static str,
    /// When its first attempt began, since the kernel started.
    pub began: Duration,
    /// How long all attempts took.
    pub took: Duration,
    /// Attempts made.
    pub attempts: u32,
    /// The last attempt's outcome.
    pub outcome: Result<String, StepError>,
}

/// A step whose failure ends the boot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("boot step `{step}` failed: {error}")]
pub struct FatalStep {
    /// The step's name.
    pub step: &'static str,
    /// Why.
    pub error: StepError,
}

/// Runs blocking steps in order, appending to `reports`; stops at the first fatal failure.
pub fn run_blocking<C: Send + Sync + 'static>(
    steps: &[Step<Blocking<C>>],
    context: &Arc<C>,
    reports: &mut Vec<StepReport>,
) -> Result<(), FatalStep> {
    for step in steps {
        let (began, clock) = (crate::since_boot(), Instant::now());
        let mut attempts = 0;
        let outcome = loop {
            attempts += 1;
            let outcome = attempt_on_thread(step, context);
            if outcome.is_ok() || attempts >= step.on_failure.attempts() {
                break outcome;
            }
            note_retry(step.name, attempts, &outcome);
            std::thread::sleep(step.on_failure.pause());
        };
        let report = StepReport {
            name: step.name,
            began,
            took: clock.elapsed(),
            attempts,
            outcome,
        };
        conclude(step.on_failure, report, reports)?;
    }
    Ok(())
}

/// Runs steps of the event loop in order, appending to `reports`; stops at the first fatal failure.
pub async fn run_eventual<C>(
    steps: &[Step<Eventual<C>>],
    context: &C,
    reports: &mut Vec<StepReport>,
) -> Result<(), FatalStep> {
    for step in steps {
        let (began, clock) = (crate::since_boot(), Instant::now());
        let mut attempts = 0;
        let outcome = loop {
            attempts += 1;
            let outcome = tokio::time::timeout(step.deadline, (step.run)(context))
                .await
                .unwrap_or_else(|_| Err(overdue(step.deadline)));
            if outcome.is_ok() || attempts >= step.on_failure.attempts() {
                break outcome;
            }
            note_retry(step.name, attempts, &outcome);
            tokio::time::sleep(step.on_failure.pause()).await;
        };
        let report = StepReport {
            name: step.name,
            began,
            took: clock.elapsed(),
            attempts,
            outcome,
        };
        conclude(step.on_failure, report, reports)?;
    }
    Ok(())
}

fn attempt_on_thread<C: Send + Sync + 'static>(
    step: &Step<Blocking<C>>,
    context: &Arc<C>,
) -> Result<String, StepError> {
    let (done, outcome) = mpsc::sync_channel(1);
    let (run, context) = (step.run, Arc::clone(context));
    let thread = std::thread::Builder::new()
        .name(step.name.to_owned())
        .spawn(move || {
            // The receiver is gone when the deadline passed: nobody wants the result any more.
            let _ = done.send(run(&context));
        });
    if let Err(error) = thread {
        return Err(StepError::new(format!("cannot start a thread: {error}")));
    }
    match outcome.recv_timeout(step.deadline) {
        Ok(outcome) => outcome,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(overdue(step.deadline)),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(StepError::new("panicked")),
    }
}

fn overdue(deadline: Duration) -> StepError {
    StepError::new(format!(
        "no result within its deadline of {} ms",
        deadline.as_millis()
    ))
}

fn note_retry(step: &str, attempt: u32, outcome: &Result<String, StepError>) {
    if let Err(error) = outcome {
        tracing::warn!(step, attempt, "boot step failed, trying again: {error}");
    }
}

fn conclude(
    on_failure: OnFailure,
    report: StepReport,
    reports: &mut Vec<StepReport>,
) -> Result<(), FatalStep> {
    let took_ms = report.took.as_micros() as f64 / 1000.0;
    let at_ms = report.began.as_millis() as u64;
    let verdict = match &report.outcome {
        Ok(detail) => {
            tracing::info!(step = report.name, at_ms, took_ms, "{detail}");
            Ok(())
        }
        Err(error) if on_failure.is_fatal() => {
            tracing::error!(step = report.name, at_ms, took_ms, "fatal: {error}");
            Err(FatalStep {
                step: report.name,
                error: error.clone(),
            })
        }
        Err(error) => {
            tracing::warn!(
                step = report.name,
                at_ms,
                took_ms,
                "going on without it: {error}"
            );
            Ok(())
        }
    };
    reports.push(report);
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[derive(Default)]
    struct Calls {
        tries: AtomicU32,
        after: AtomicU32,
    }

    const SOON: Duration = Duration::from_millis(1);

    fn step(on_failure: OnFailure, run: Blocking<Calls>) -> Step<Blocking<Calls>> {
        Step {
            name: "tried",
            deadline: Duration::from_secs(20),
            on_failure,
            run,
        }
    }

    fn check(first: Step<Blocking<Calls>>) -> (Result<(), FatalStep>, Vec<StepReport>, u32, u32) {
        let after: Blocking<Calls> = |calls| {
            calls.after.fetch_add(1, Ordering::SeqCst);
            Ok("ran".into())
        };
        let calls = Arc::new(Calls::default());
        let mut reports = Vec::new();
        let steps = [
            first,
            Step {
                name: "after",
                ..step(OnFailure::Continue, after)
            },
        ];
        let verdict = run_blocking(&steps, &calls, &mut reports);
        let count = |counter: &AtomicU32| counter.load(Ordering::SeqCst);
        (verdict, reports, count(&calls.tries), count(&calls.after))
    }

    fn failing(calls: &Calls) -> Result<String, StepError> {
        calls.tries.fetch_add(1, Ordering::SeqCst);
        Err(StepError::new("no"))
    }

    #[test]
    fn a_fatal_failure_stops_the_steps_after_it() {
        let (verdict, reports, tries, after) = check(step(OnFailure::Fatal, failing));
        assert_eq!(
            verdict,
            Err(FatalStep {
                step: "tried",
                error: StepError::new("no")
            })
        );
        assert_eq!((reports.len(), tries, after), (1, 1, 0));
    }

    #[test]
    fn a_tolerated_failure_lets_the_next_step_run() {
        let (verdict, reports, tries, after) = check(step(OnFailure::Continue, failing));
        assert_eq!((verdict, tries, after), (Ok(()), 1, 1));
        assert_eq!(reports[0].outcome, Err(StepError::new("no")));
        assert_eq!(reports[1].outcome, Ok("ran".into()));
    }

    #[test]
    fn retries_are_counted_and_then_fatal_or_not() {
        let retry = |last| OnFailure::Retry {
            attempts: 3,
            pause: SOON,
            last,
        };
        let (verdict, reports, tries, after) = check(step(retry(Last::Fatal), failing));
        assert!(verdict.is_err());
        assert_eq!((reports[0].attempts, tries, after), (3, 3, 0));
        let (verdict, _, tries, after) = check(step(retry(Last::Continue), failing));
        assert_eq!((verdict, tries, after), (Ok(()), 3, 1));
    }

    #[test]
    fn a_retry_that_succeeds_ends_the_attempts() {
        let second: Blocking<Calls> = |calls| match calls.tries.fetch_add(1, Ordering::SeqCst) {
            0 => Err(StepError::new("not yet")),
            _ => Ok("done".into()),
        };
        let on_failure = OnFailure::Retry {
            attempts: 5,
            pause: SOON,
            last: Last::Fatal,
        };
        let (verdict, reports, tries, _) = check(step(on_failure, second));
        assert_eq!((verdict, tries, reports[0].attempts), (Ok(()), 2, 2));
    }

    #[test]
    fn a_step_that_hangs_is_abandoned_at_its_deadline() {
        let hanging: Blocking<Calls> = |_| loop {
            std::thread::park();
        };
        let hanging = Step {
            deadline: SOON,
            ..step(OnFailure::Continue, hanging)
        };
        let (verdict, reports, _, after) = check(hanging);
        assert_eq!((verdict, after), (Ok(()), 1));
        assert!(
            reports[0]
                .outcome
                .as_ref()
                .is_err_and(|error| error.0.contains("deadline"))
        );
    }

    #[test]
    fn an_eventual_step_that_hangs_is_abandoned_at_its_deadline() {
        let hanging: Eventual<()> = |()| Box::pin(std::future::pending());
        let ready: Eventual<()> = |()| Box::pin(async { Ok("ran".into()) });
        let hanging = Step {
            name: "hangs",
            deadline: SOON,
            on_failure: OnFailure::Continue,
            run: hanging,
        };
        let steps = [
            hanging,
            Step {
                name: "ready",
                run: ready,
                ..hanging
            },
        ];
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let mut reports = Vec::new();
        runtime
            .block_on(run_eventual(&steps, &(), &mut reports))
            .unwrap();
        assert!(reports[0].outcome.is_err());
        assert_eq!(reports[1].outcome, Ok("ran".into()));
    }
}
