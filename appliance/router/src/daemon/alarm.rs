//! What rings when something is due.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::read;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::time::{Instant, Sleep, sleep_until};
use wow_underlay::Descriptor;

/// Rings once for each time that it is set.
///
/// The kernel's timer stays set while the event loop wakes and sleeps. A timeout of the loop is set anew each time it
/// sleeps, and cleared when it wakes: where nothing else is due sooner on that processor, both of these program the
/// processor's timer, which takes a virtual machine ten microseconds.
pub struct Alarm {
    timer: Timer,
    due: Instant,
    has_rung: bool,
}

enum Timer {
    Kernel(Descriptor),
    Runtime(Pin<Box<Sleep>>),
}

impl Alarm {
    /// Rings at once. Must be called inside a tokio runtime.
    pub fn new() -> Self {
        let timer = kernel_timer().map(Timer::Kernel);
        let timer = timer.unwrap_or_else(|error| {
            tracing::info!(%error, "no timer of the kernel's: going on with the event loop's");
            runtime_timer(Instant::now())
        });
        Self::with(timer)
    }

    /// The same by the runtime's clock, which a test can move on.
    #[cfg(test)]
    pub fn of_runtime() -> Self {
        Self::with(runtime_timer(Instant::now()))
    }

    fn with(timer: Timer) -> Self {
        let due = Instant::now();
        let mut alarm = Alarm {
            timer,
            due,
            has_rung: false,
        };
        alarm.set(due);
        alarm
    }

    /// When it rings, or rang.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Whether it was heard since it was set.
    pub fn has_rung(&self) -> bool {
        self.has_rung
    }

    /// Has it ring at `due`, and no longer when it was to ring before.
    pub fn set(&mut self, due: Instant) {
        self.due = due;
        self.has_rung = false;
        let set = match &mut self.timer {
            Timer::Kernel(timer) => set_kernel(timer, due),
            Timer::Runtime(sleep) => {
                sleep.as_mut().reset(due);
                Ok(())
            }
        };
        if let Err(error) = set {
            self.give_up_kernel(&error);
        }
    }

    /// Waits until it rings.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Timer::Kernel(timer) = &self.timer {
            let mut times = [0; size_of::<u64>()];
            let rung = timer.poll_read_with(cx, |fd| Ok(read(fd, &mut times)?));
            if let Err(error) = ready!(rung) {
                self.give_up_kernel(&error);
            }
        }
        if let Timer::Runtime(sleep) = &mut self.timer {
            ready!(sleep.as_mut().poll(cx));
        }
        self.has_rung = true;
        Poll::Ready(())
    }

    fn give_up_kernel(&mut self, error: &io::Error) {
        tracing::warn!(%error, "the kernel's timer fails: going on with the event loop's");
        self.timer = runtime_timer(self.due);
    }
}

fn runtime_timer(due: Instant) -> Timer {
    Timer::Runtime(Box::pin(sleep_until(due)))
}

fn kernel_timer() -> io::Result<Descriptor> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    Descriptor::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)
}

fn set_kernel(timer: &Descriptor, due: Instant) -> io::Result<()> {
    let left = due.saturating_duration_since(Instant::now());
    // None at all would stop it.
    let left = left.max(Duration::from_nanos(1));
    let once = Itimerspec {
        it_interval: Timespec::default(),
        it_value: left.try_into().map_err(io::Error::other)?,
    };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn ring(alarm: &mut Alarm) {
        let heard = tokio::time::timeout(PATIENCE, poll_fn(|cx| alarm.poll(cx)));
        heard.await.expect("it rings");
    }

    #[tokio::test]
    async fn it_rings_once_for_each_time_it_is_set_and_not_too_early() {
        let mut alarm = Alarm::new();
        assert!(matches!(alarm.timer, Timer::Kernel(_)));
        assert!(!alarm.has_rung());
        ring(&mut alarm).await;
        assert!(alarm.has_rung());
        for due in [
            Instant::now() + Duration::from_millis(30),
            Instant::now() - Duration::from_millis(1),
        ] {
            alarm.set(due);
            assert_eq!((alarm.due(), alarm.has_rung()), (due, false));
            ring(&mut alarm).await;
            assert!(Instant::now() >= due);
        }
        let more = poll_fn(|cx| Poll::Ready(alarm.poll(cx).is_ready()));
        assert!(!more.await, "it has rung for all");
    }

    #[tokio::test]
    async fn what_it_was_set_to_before_counts_no_more() {
        let mut alarm = Alarm::new();
        alarm.set(Instant::now() + Duration::from_secs(3600));
        let due = Instant::now() + Duration::from_millis(20);
        alarm.set(due);
        ring(&mut alarm).await;
        assert!(Instant::now() >= due);
        alarm.set(Instant::now());
        // It has gone off, unheard.
        let Timer::Kernel(timer) = &alarm.timer else {
            panic!("the kernel has timers");
        };
        let patience = Timespec::try_from(PATIENCE).unwrap();
        let gone_off = poll(&mut [PollFd::new(timer, PollFlags::IN)], Some(&patience));
        assert_eq!(gone_off.unwrap(), 1);
        alarm.set(Instant::now() + Duration::from_secs(3600));
        let more = poll_fn(|cx| Poll::Ready(alarm.poll(cx).is_ready()));
        assert!(!more.await);
    }
}
