//! Remembers that something wants to be looked at, and tells whoever drives it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// A waker for many futures, of which whoever drives it looks at all when it was raised: the stack's connections and
/// answers, or what an event loop seldom hears of.
#[derive(Default)]
pub struct Flag {
    raised: AtomicBool,
    driver: Mutex<Option<Waker>>,
}

impl Flag {
    /// Wants them to be looked at.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        let driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(driver) = &*driver {
            driver.wake_by_ref();
        }
    }

    /// Whether it was raised since this was last asked.
    pub fn lower(&self) -> bool {
        self.raised.swap(false, Ordering::AcqRel)
    }

    /// Ready while it is raised.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        if !driver
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *driver = Some(cx.waker().clone());
        }
        if self.raised.load(Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.raise();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.raise();
    }
}
