//! A wall clock that is at least sane: from the kernel, else the RTC, else a date no boot precedes.
//!
//! Certificates have validity periods, so a machine that believes it is 1970 can join nothing.

use std::fs::{self, File};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use crate::step::StepError;
use crate::system::{self, RtcTime};

/// No time before this can be true: 2026-01-01, before the first release.
const FLOOR: u64 = 1_767_225_600;

/// A clock further than this past the floor is not believed either (a cleared RTC reads 2099 on some
/// boards): 30 years.
const BELIEVABLE_SECONDS: u64 = 30 * 365 * 86_400;

/// Where the wall clock's value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockSource {
    /// The kernel set it, from the RTC or the hypervisor.
    Kernel,
    /// The RTC, read here.
    Rtc,
    /// None was believable: it runs from the earliest possible date and is late.
    Floor,
    /// Moved forward by [`raise_to`].
    Raised,
    /// A time server's.
    Network,
}

/// How often the machine was found to have stood still.
static PAUSES: AtomicU64 = AtomicU64::new(0);

/// How often the wall clock was set from here.
static SETS: AtomicU64 = AtomicU64::new(0);

/// By how many nanoseconds in all.
static MOVED_NS: AtomicI64 = AtomicI64::new(0);

const NANOS: i64 = 1_000_000_000;

static SOURCE: Mutex<ClockSource> = Mutex::new(ClockSource::Kernel);

/// Where the wall clock's value came from.
pub fn source() -> ClockSource {
    *SOURCE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The wall clock, Unix seconds.
pub fn now() -> u64 {
    u64::try_from(clock_gettime(ClockId::Realtime).tv_sec).unwrap_or(0)
}

/// The RTC's time in Unix seconds, where there is one; read anew, so that it also shows a pause of the
/// whole machine, which the system clocks do not. Kernels without its sysfs files, as the router's, have the device.
pub fn rtc() -> Option<u64> {
    match fs::read_to_string("/sys/class/rtc/rtc0/since_epoch") {
        Ok(seconds) => seconds.trim().parse().ok(),
        Err(_) => unix(system::read_rtc(&File::open("/dev/rtc0").ok()?).ok()?),
    }
}

/// Unix seconds of a date in UTC.
fn unix(time: RtcTime) -> Option<u64> {
    /// From 0000-03-01 to 1970-01-01.
    const EPOCH: i64 = 719_468;
    // Howard Hinnant's days_from_civil: years begin in March, so that a leap day comes last.
    let year = 1900 + time.year - i64::from(time.month < 2);
    let month = (time.month + 10) % 12;
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days = year * 365 + leaps + (153 * month + 2) / 5 + time.day - 1 - EPOCH;
    let seconds = ((days * 24 + time.hour) * 60 + time.minute) * 60 + time.second;
    u64::try_from(seconds).ok()
}

/// Tells when the whole machine has stood still: paused, suspended, or migrated while running.
///
/// The system clocks stand still together with the machine; only the RTC goes on (or the time that
/// the kernel counts as suspended).
#[derive(Debug)]
pub struct PauseWatch {
    before: Clocks,
}

/// Seconds by which two clocks are ahead of the ones that stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Clocks {
    /// The RTC, ahead of the wall clock without what this process has moved that by.
    rtc: Option<i64>,
    /// The time since boot, ahead of the time running.
    suspended: i64,
}

/// Both clocks have whole seconds, so that a difference of one means nothing.
const PAUSE_SECONDS_MIN: i64 = 2;

impl Clocks {
    fn read() -> Self {
        let seconds = |id| clock_gettime(id).tv_sec;
        let rtc = rtc().and_then(|rtc| i64::try_from(rtc).ok());
        // As if it had never been set: set back, it would look as if the RTC had gone on without it.
        let wall = nanos(clock_gettime(ClockId::Realtime)) - MOVED_NS.load(Ordering::Relaxed);
        Clocks {
            rtc: rtc.map(|rtc| rtc - wall.div_euclid(NANOS)),
            suspended: seconds(ClockId::Boottime) - seconds(ClockId::Monotonic),
        }
    }

    /// How long the machine stood still since `before`, by either clock.
    fn pause_since(self, before: Clocks) -> Option<i64> {
        let rtc = self.rtc.zip(before.rtc).map(|(now, before)| now - before);
        let longest = rtc.unwrap_or(0).max(self.suspended - before.suspended);
        (longest >= PAUSE_SECONDS_MIN).then_some(longest)
    }
}

impl PauseWatch {
    /// Watches from now on.
    #[allow(clippy::new_without_default)] // It reads clocks.
    pub fn new() -> Self {
        PauseWatch {
            before: Clocks::read(),
        }
    }

    /// How long the machine stood still since the last call. A machine whose own init we are has its
    /// wall clock moved on by as much. To be called every second or so: clocks that drift apart
    /// slowly are no pause.
    pub fn poll(&mut self) -> Option<Duration> {
        let clocks = Clocks::read();
        let before = std::mem::replace(&mut self.before, clocks);
        let seconds = clocks.pause_since(before)?;
        PAUSES.fetch_add(1, Ordering::Relaxed);
        if crate::is_machine_init() && clocks.rtc != before.rtc {
            let missed = u64::try_from(seconds).unwrap_or(0);
            if let Err(error) = set(now() + missed, source()) {
                tracing::warn!(%error, "cannot move the clock on after a pause");
            }
        }
        u64::try_from(seconds).ok().map(Duration::from_secs)
    }
}

/// How often the machine was found to have stood still, by whichever [`PauseWatch`] it has: whoever waits for
/// the next time compares.
pub fn pauses() -> u64 {
    PAUSES.load(Ordering::Relaxed)
}

/// How often this process has set the wall clock: whoever goes by it compares.
pub fn sets() -> u64 {
    SETS.load(Ordering::Relaxed)
}

/// Whether the kernel says that somebody keeps its clock by others', and that it is right: a host's NTP daemon.
pub fn is_synchronised() -> bool {
    system::is_clock_synchronised().unwrap_or(false)
}

/// Sets the wall clock to a time since 1970 that a server has told, if it is this machine's own and the time is
/// one that can be. Returns whether it did.
pub fn step_to(time: Duration) -> std::io::Result<bool> {
    if !crate::is_machine_init() || !is_believable(time.as_secs()) {
        return Ok(false);
    }
    set_exactly(time, ClockSource::Network)?;
    Ok(true)
}

/// Moves the wall clock forward to `unix_seconds`, unless it comes from a believable source or is
/// there already. For evidence found after boot, such as the start of a ticket's validity. Returns
/// whether it moved.
pub fn raise_to(unix_seconds: u64) -> bool {
    is_moved_on(source(), now(), unix_seconds) && set(unix_seconds, ClockSource::Raised).is_ok()
}

/// Whether a clock of this source moves on by evidence that it is `evidence` at least.
fn is_moved_on(source: ClockSource, now: u64, evidence: u64) -> bool {
    let believed = !matches!(source, ClockSource::Floor | ClockSource::Raised);
    !believed && now < evidence && is_believable(evidence)
}

/// What to do with the clock, decided apart from doing it.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Keep,
    Set(u64, ClockSource),
}

fn choose(now: u64, rtc: Option<u64>) -> Choice {
    if is_believable(now) {
        return Choice::Keep;
    }
    match rtc {
        Some(rtc) if is_believable(rtc) => Choice::Set(rtc, ClockSource::Rtc),
        _ => Choice::Set(FLOOR, ClockSource::Floor),
    }
}

fn is_believable(time: u64) -> bool {
    (FLOOR..=FLOOR + BELIEVABLE_SECONDS).contains(&time)
}

fn set(unix_seconds: u64, source: ClockSource) -> std::io::Result<()> {
    set_exactly(Duration::from_secs(unix_seconds), source)
}

/// Since 1970, for some 292 years.
fn nanos(time: Timespec) -> i64 {
    time.tv_sec
        .saturating_mul(NANOS)
        .saturating_add(time.tv_nsec)
}

fn set_exactly(time: Duration, source: ClockSource) -> std::io::Result<()> {
    let tv_sec = i64::try_from(time.as_secs()).map_err(std::io::Error::other)?;
    let tv_nsec = time.subsec_nanos().into();
    let (before, after) = (
        clock_gettime(ClockId::Realtime),
        Timespec { tv_sec, tv_nsec },
    );
    clock_settime(ClockId::Realtime, after)?;
    MOVED_NS.fetch_add(nanos(after) - nanos(before), Ordering::Relaxed);
    SETS.fetch_add(1, Ordering::Relaxed);
    *SOURCE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner) = source;
    Ok(())
}

pub(crate) fn step() -> Result<String, StepError> {
    let was = now();
    if !crate::is_machine_init() {
        return Ok(format!("the host's, {was}"));
    }
    match choose(was, rtc()) {
        Choice::Keep => Ok(format!("the kernel's, {was}")),
        Choice::Set(time, source) => {
            set(time, source).map_err(|error| {
                StepError::new(format!(
                    "cannot set the clock from {was} to {time}: {error}"
                ))
            })?;
            match source {
                ClockSource::Rtc => Ok(format!("{was} is absurd: set to the RTC's {time}")),
                _ => Err(StepError::new(format!(
                    "neither the kernel's time ({was}) nor an RTC is believable: set to \
                     {time}; give the machine an RTC"
                ))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_jump_of_seconds_is_a_pause() {
        let at = |rtc, suspended| Clocks { rtc, suspended };
        let before = at(Some(-3), 10);
        assert_eq!(at(Some(-2), 10).pause_since(before), None);
        assert_eq!(at(Some(-4), 11).pause_since(before), None);
        assert_eq!(at(Some(57), 10).pause_since(before), Some(60));
        assert_eq!(at(Some(-3), 70).pause_since(before), Some(60));
        // The wall clock was set forward by somebody.
        assert_eq!(at(Some(-600), 10).pause_since(before), None);
        assert_eq!(at(None, 10).pause_since(before), None);
        assert_eq!(at(Some(50), 10).pause_since(at(None, 10)), None);
    }

    #[test]
    fn the_rtcs_date_is_a_time_since_1970() {
        let check = |[year, month, day]: [i64; 3], [hour, minute, second]: [i64; 3], expected| {
            let time = RtcTime {
                year: year - 1900,
                month: month - 1,
                day,
                hour,
                minute,
                second,
            };
            assert_eq!(unix(time), expected, "{time:?}");
        };
        check([1970, 1, 1], [0, 0, 0], Some(0));
        check([1969, 12, 31], [23, 59, 59], None);
        check([2000, 2, 29], [23, 59, 59], Some(951_868_799));
        check([2026, 11, 29], [8, 42, 41], Some(1_795_941_761));
        check([2100, 3, 1], [0, 0, 0], Some(4_107_542_400));
    }

    #[test]
    fn a_machine_that_runs_has_not_stood_still() {
        let mut watch = PauseWatch::new();
        assert_eq!(watch.poll(), None);
    }

    #[test]
    fn a_believable_kernel_clock_is_kept() {
        assert_eq!(choose(FLOOR, Some(FLOOR + 5)), Choice::Keep);
    }

    #[test]
    fn only_a_clock_that_said_nothing_is_moved_on_and_never_back_or_to_an_absurd_time() {
        use ClockSource::{Floor, Kernel, Network, Raised, Rtc};
        let (now, later) = (FLOOR + 10, FLOOR + 11);
        for (source, moves) in [
            (Floor, true),
            (Raised, true),
            (Kernel, false),
            (Rtc, false),
            (Network, false),
        ] {
            assert_eq!(is_moved_on(source, now, later), moves, "{source:?}");
            for other in [0, now - 1, now, FLOOR + BELIEVABLE_SECONDS + 1, u64::MAX] {
                assert!(!is_moved_on(source, now, other), "{source:?}, {other}");
            }
        }
    }

    #[test]
    fn an_absurd_clock_is_set_from_the_rtc_or_else_to_the_floor() {
        let (floor, end) = (
            Choice::Set(FLOOR, ClockSource::Floor),
            FLOOR + BELIEVABLE_SECONDS,
        );
        let rtc = Choice::Set(FLOOR + 5, ClockSource::Rtc);
        assert_eq!(choose(0, Some(FLOOR + 5)), rtc);
        assert_eq!(choose(0, None), floor);
        assert_eq!(choose(FLOOR - 1, Some(17)), floor);
        assert_eq!(choose(u64::MAX, Some(end + 1)), floor);
    }
}
