//! A wall clock that is at least sane: from the kernel, else the RTC, else the image's own date.
//!
//! Certificates have validity periods, so a machine that believes it is 1970 can join nothing. The
//! floor is the date written into the image at build time (a `SOURCE_DATE_EPOCH`, so that the image
//! stays reproducible); no time before it can be true.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use crate::step::StepError;

/// Holds the image's date, Unix seconds in decimal; written by the image builder.
pub const IMAGE_DATE_FILE: &str = "/etc/wow.date";

/// Floor for an image without [`IMAGE_DATE_FILE`]: 2026-01-01, before the first release.
pub const OLDEST: u64 = 1_767_225_600;

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
    /// None was believable: it runs from the image's date and is probably late.
    Floor,
    /// Moved forward by [`raise_to`].
    Raised,
}

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
/// whole machine, which the system clocks do not.
pub fn rtc() -> Option<u64> {
    fs::read_to_string("/sys/class/rtc/rtc0/since_epoch")
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Moves the wall clock forward to `unix_seconds`, unless it comes from a believable source or is
/// there already. For evidence found after boot, such as the start of a ticket's validity. Returns
/// whether it moved.
pub fn raise_to(unix_seconds: u64) -> bool {
    let believed = !matches!(source(), ClockSource::Floor | ClockSource::Raised);
    if believed || now() >= unix_seconds || !is_believable(unix_seconds, floor()) {
        return false;
    }
    set(unix_seconds, ClockSource::Raised).is_ok()
}

/// What to do with the clock, decided apart from doing it.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Keep,
    Set(u64, ClockSource),
}

fn choose(now: u64, rtc: Option<u64>, floor: u64) -> Choice {
    if is_believable(now, floor) {
        return Choice::Keep;
    }
    match rtc {
        Some(rtc) if is_believable(rtc, floor) => Choice::Set(rtc, ClockSource::Rtc),
        _ => Choice::Set(floor, ClockSource::Floor),
    }
}

fn is_believable(time: u64, floor: u64) -> bool {
    time >= floor && time - floor <= BELIEVABLE_SECONDS
}

fn floor() -> u64 {
    floor_from(Path::new(IMAGE_DATE_FILE))
}

/// The image's date, never before [`OLDEST`]; a missing or absurd file counts as none.
fn floor_from(file: &Path) -> u64 {
    fs::read_to_string(file)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .filter(|date| is_believable(*date, OLDEST))
        .unwrap_or(OLDEST)
}

fn set(unix_seconds: u64, source: ClockSource) -> std::io::Result<()> {
    let tv_sec = i64::try_from(unix_seconds).map_err(std::io::Error::other)?;
    clock_settime(ClockId::Realtime, Timespec { tv_sec, tv_nsec: 0 })?;
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
    match choose(was, rtc(), floor()) {
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
                    "neither the kernel's time ({was}) nor an RTC is believable: set to the image's \
                     date, {time}; give the machine an RTC"
                ))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: u64 = OLDEST + 1000;

    #[test]
    fn a_believable_kernel_clock_is_kept() {
        assert_eq!(choose(FLOOR, Some(FLOOR + 5), FLOOR), Choice::Keep);
    }

    #[test]
    fn an_absurd_clock_is_set_from_the_rtc_or_else_to_the_floor() {
        assert_eq!(
            choose(0, Some(FLOOR + 5), FLOOR),
            Choice::Set(FLOOR + 5, ClockSource::Rtc)
        );
        let floor = Choice::Set(FLOOR, ClockSource::Floor);
        assert_eq!(choose(0, None, FLOOR), floor);
        assert_eq!(choose(FLOOR - 1, Some(17), FLOOR), floor);
        assert_eq!(
            choose(u64::MAX, Some(FLOOR + BELIEVABLE_SECONDS + 1), FLOOR),
            floor
        );
    }

    #[test]
    fn the_floor_comes_from_the_image_unless_it_is_absurd() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("wow.date");
        let check = |text: &str, expected: u64| {
            fs::write(&file, text).unwrap();
            assert_eq!(floor_from(&file), expected, "{text:?}");
        };
        check(&format!("{FLOOR}\n"), FLOOR);
        check("0", OLDEST);
        check("soon", OLDEST);
        check("99999999999999", OLDEST);
        fs::remove_file(&file).unwrap();
        assert_eq!(floor_from(&file), OLDEST);
    }
}
