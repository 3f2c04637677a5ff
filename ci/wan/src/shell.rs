//! The world attached to machines: one thread, a task a port and one for the timer, all around one
//! [`World`]. Reads and writes go in batches; nothing polls in vain. What packets mean is not
//! known here.

use std::{
    cell::RefCell,
    future::Future,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
};
use tokio::{io::unix::AsyncFd, sync::Notify, task::LocalSet};

use crate::{
    config::{Attachment, Config},
    report::{AttachmentCounters, Report},
    time::Instant,
    world::{PortId, World},
};

mod control;
mod framing;
mod tap;
mod unix;

/// Why the emulator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// A TAP device cannot be made.
    #[error("cannot create the TAP device {name} of port \"{port}\": {reason}; {remedy}")]
    Tap {
        /// The device.
        name: String,
        /// The port.
        port: String,
        /// What the system said.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The control socket cannot be opened.
    #[error("cannot open the control socket {}: {source}; {remedy}", path.display())]
    Control {
        /// Where it was to be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The timer or the event loop cannot be made.
    #[error("cannot set up {what}: {source}; check the limit of open files (ulimit -n)")]
    Setup {
        /// What was to be set up.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Everything the tasks share. Single-threaded, and never borrowed across an await.
struct Hub {
    world: World,
    clock: Clock,
    links: Vec<Link>,
    timer: Rc<AsyncFd<OwnedFd>>,
    armed: Option<Instant>,
    touched: Vec<usize>,
}

/// A port's way out.
struct Link {
    sink: Sink,
    counters: AttachmentCounters,
    /// Tells the port's task that frames wait for the machine to take them.
    blocked: Rc<Notify>,
}

enum Sink {
    Detached,
    Unix(unix::Sink),
    Tap(tap::Sink),
}

/// The monotonic clock, from its reading at the start.
#[derive(Clone, Copy)]
struct Clock {
    start: Duration,
}

/// Runs the emulator until `stop` is done. `ready` is called when all TAP devices exist and all
/// Unix sockets are being connected to (a socket may appear, vanish and come back at any time).
/// `control` is where operators connect, see [`crate::control`]; for this user alone.
/// Needs a current-thread runtime with I/O and time.
pub async fn run(
    config: &Config,
    control: Option<&Path>,
    ready: impl FnOnce(),
    stop: impl Future<Output = ()>,
) -> Result<Report, ShellError> {
    let mut devices = Vec::new();
    for port in config.ports() {
        devices.push(match &port.attachment {
            Attachment::Tap(name) => Some(tap::create(&port.name, name)?),
            Attachment::Unix(_) => None,
        });
    }
    let control = control.map(control::Server::bind).transpose()?;
    let timer = Rc::new(make_timer()?);
    let link = |_| Link {
        sink: Sink::Detached,
        counters: AttachmentCounters::default(),
        blocked: Rc::new(Notify::new()),
    };
    let hub = Rc::new(RefCell::new(Hub {
        world: World::new(config),
        clock: Clock { start: monotonic() },
        links: config.ports().iter().map(link).collect(),
        timer: timer.clone(),
        armed: None,
        touched: Vec::new(),
    }));
    let tasks = LocalSet::new();
    tasks.spawn_local(drive_timer(hub.clone(), timer));
    if let Some(control) = control {
        tasks.spawn_local(control.serve(hub.clone()));
    }
    for ((index, port), device) in config.ports().iter().enumerate().zip(devices) {
        let (hub, id, name) = (hub.clone(), PortId(index), port.name.clone());
        match (&port.attachment, device) {
            (Attachment::Tap(_), Some(device)) => {
                tap::attach(&hub, id, &device);
                tasks.spawn_local(tap::serve(hub, id, name, device));
            }
            (Attachment::Tap(_), None) => {}
            (Attachment::Unix(path), _) => {
                tasks.spawn_local(unix::serve(hub, id, name, PathBuf::from(path)));
            }
        }
    }
    ready();
    tasks.run_until(stop).await;
    let hub = hub.borrow();
    Ok(report(&hub.world, &hub.links, hub.clock))
}

fn report(world: &World, links: &[Link], clock: Clock) -> Report {
    let attachments: Vec<_> = links.iter().map(|link| link.counters).collect();
    Report::new(world, &attachments, clock.now())
}

impl Hub {
    /// Hands out what the world has to send, and arms the timer for what comes next. To be called
    /// once after each batch of input.
    fn pump(&mut self) {
        while let Some(transmit) = self.world.poll_transmit() {
            let index = transmit.port.0;
            let link = &mut self.links[index];
            if link.push(&transmit.frame) {
                self.touched.push(index);
            }
            self.world.recycle(transmit.frame);
        }
        for index in self.touched.drain(..) {
            self.links[index].flush();
        }
        let next = self.world.next_deadline().map(|(at, _)| at);
        if next != self.armed {
            self.armed = next;
            self.arm(next);
        }
    }

    fn arm(&self, next: Option<Instant>) {
        // An absolute time in the past fires at once; all zeros would disarm.
        let at = next.map_or(Duration::ZERO, |at| self.clock.absolute(at));
        let spec = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: i64::try_from(at.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: at.subsec_nanos().into(),
            },
        };
        let outcome =
            rustix::time::timerfd_settime(&*self.timer, TimerfdTimerFlags::ABSTIME, &spec);
        if let Err(error) = outcome {
            tracing::error!(%error, "cannot arm the timer");
        }
    }
}

impl Link {
    /// Takes a frame; true if it is the first since the last flush.
    fn push(&mut self, frame: &[u8]) -> bool {
        match &mut self.sink {
            Sink::Detached => {
                self.counters.dropped_detached += 1;
                false
            }
            Sink::Unix(sink) => sink.push(frame, &mut self.counters),
            Sink::Tap(sink) => sink.push(frame, &mut self.counters),
        }
    }

    fn flush(&mut self) {
        let blocked = match &mut self.sink {
            Sink::Detached => false,
            Sink::Unix(sink) => sink.flush(&mut self.counters),
            Sink::Tap(sink) => sink.flush(&mut self.counters),
        };
        if blocked {
            self.blocked.notify_one();
        }
    }

    /// Whether frames wait for the machine to take them.
    fn is_blocked(&self) -> bool {
        match &self.sink {
            Sink::Detached => false,
            Sink::Unix(sink) => sink.is_blocked(),
            Sink::Tap(sink) => sink.is_blocked(),
        }
    }
}

impl Clock {
    fn now(self) -> Instant {
        Instant::ZERO + monotonic().saturating_sub(self.start)
    }

    fn absolute(self, at: Instant) -> Duration {
        self.start + Duration::from_nanos(at.as_nanos())
    }
}

fn monotonic() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A timerfd: tokio's own timer counts whole milliseconds, too coarse for latencies.
fn make_timer() -> Result<AsyncFd<OwnedFd>, ShellError> {
    let what = "the timer";
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let fd = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags).map_err(|error| {
        ShellError::Setup {
            what,
            source: error.into(),
        }
    })?;
    register(fd).map_err(|source| ShellError::Setup { what, source })
}

/// Registers a descriptor that its owner keeps open as long as it lives, as `OwnedFd` and
/// `tun::Device` do; that is what the deprecation of `AsyncFd::new` is about, and its successor
/// is `unsafe`, which this crate forbids.
#[expect(deprecated)]
fn register<T: AsRawFd>(owner: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::new(owner)
}

async fn drive_timer(hub: Rc<RefCell<Hub>>, timer: Rc<AsyncFd<OwnedFd>>) {
    loop {
        let mut guard = match timer.readable().await {
            Ok(guard) => guard,
            Err(error) => {
                tracing::error!(%error, "the timer failed: delayed packets stop");
                return;
            }
        };
        let mut expirations = [0; 8];
        let read = rustix::io::read(&*timer, &mut expirations);
        if read == Err(rustix::io::Errno::AGAIN) {
            guard.clear_ready();
            continue;
        }
        let mut hub = hub.borrow_mut();
        let now = hub.clock.now();
        hub.armed = None;
        hub.world.handle_deadline(now);
        hub.pump();
    }
}
