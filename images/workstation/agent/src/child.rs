//! A daemon of somebody else's, kept running.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Between two starts of one that ends by itself.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LONGEST: Duration = Duration::from_secs(60);

/// One that ran for so long has started well.
const WELL: Duration = Duration::from_secs(60);

/// How long one may take to end.
const END_MAX: Duration = Duration::from_secs(10);

/// See the module. It is told to end when this is dropped.
pub struct Kept {
    words: Vec<String>,
    running: Option<(Child, Instant)>,
    pause: Duration,
    due: Instant,
    trouble: Option<String>,
}

impl Kept {
    /// One that [`Self::tend`] starts.
    pub fn new(words: Vec<String>) -> Self {
        Self {
            words,
            running: None,
            pause: PAUSE_FIRST,
            due: Instant::now(),
            trouble: None,
        }
    }

    /// Program and arguments.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// How long it has been running.
    pub fn running_for(&self) -> Option<Duration> {
        self.running.as_ref().map(|(_, since)| since.elapsed())
    }

    /// Starts it if it does not run and the time has come; what is wrong with it, if something is.
    pub fn tend(&mut self) -> Option<&str> {
        let ended = match &mut self.running {
            Some((child, since)) => match child.try_wait() {
                Ok(None) => {
                    if since.elapsed() >= WELL {
                        self.pause = PAUSE_FIRST;
                        self.trouble = None;
                    }
                    None
                }
                Ok(Some(status)) => Some(status.to_string()),
                Err(error) => Some(error.to_string()),
            },
            None => None,
        };
        if let Some(status) = ended {
            self.running = None;
            self.due = Instant::now() + self.pause;
            self.pause = (self.pause * 2).min(PAUSE_LONGEST);
            self.complain(&format!("ended with {status}"));
        }
        if self.running.is_none() && self.due <= Instant::now() {
            self.start();
        }
        self.trouble.as_deref()
    }

    /// Ends it; [`Self::tend`] starts it again.
    pub fn stop(&mut self) {
        let Some((mut child, _)) = self.running.take() else {
            return;
        };
        // It may have ended by itself.
        let _ = kill_process(Pid::from_child(&child), Signal::TERM);
        let deadline = Instant::now() + END_MAX;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                tracing::warn!("{} does not end; killing it", self.words[0]);
                let _ = child.kill();
                let _ = child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.due = Instant::now();
        self.pause = PAUSE_FIRST;
        self.trouble = None;
    }

    fn start(&mut self) {
        let started = Command::new(&self.words[0])
            .args(&self.words[1..])
            .stdin(Stdio::null())
            .spawn();
        match started {
            Ok(child) => {
                tracing::info!("started {}", self.words.join(" "));
                self.running = Some((child, Instant::now()));
            }
            Err(error) => {
                self.due = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(PAUSE_LONGEST);
                self.complain(&format!("cannot be started: {error}"));
            }
        }
    }

    fn complain(&mut self, what: &str) {
        let program = &self.words[0];
        self.trouble = Some(format!(
            "{program} {what}; it is started again, and says why in the journal"
        ));
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(kept: &mut Kept, condition: impl Fn(&Kept, Option<&str>) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let trouble = kept.tend().map(str::to_owned);
            if condition(kept, trouble.as_deref()) {
                return;
            }
            assert!(Instant::now() < deadline, "{trouble:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn one_that_ends_is_told_and_started_again() {
        let mut kept = Kept::new(vec!["false".into()]);
        until(&mut kept, |_, trouble| {
            trouble.is_some_and(|text| text.contains("false"))
        });
        until(&mut kept, |kept, _| kept.running_for().is_some());
    }

    #[test]
    fn one_that_is_stopped_is_gone_and_can_be_started_anew() {
        let mut kept = Kept::new(vec!["sleep".into(), "600".into()]);
        assert_eq!(kept.tend(), None);
        assert!(kept.running_for().is_some());
        kept.stop();
        assert!(kept.running_for().is_none());
        assert_eq!(kept.tend(), None);
        assert!(kept.running_for().is_some());
    }

    #[test]
    fn one_that_cannot_be_started_is_told() {
        let mut kept = Kept::new(vec!["/nonexistent".into()]);
        assert!(
            kept.tend()
                .is_some_and(|text| text.contains("cannot be started"))
        );
    }
}
