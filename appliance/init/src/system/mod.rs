//! The system calls that no safe crate wraps; the crate's only `unsafe`. Each function here is safe
//! to call; policy lives with the callers.

pub mod packet;
pub mod ports;
pub mod readable;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `_IOW('R', 0x03, int[2])` of linux/random.h.
const RNDADDENTROPY: u64 = 0x4008_5203;
/// `_IOWR('W', 6, int)` of linux/watchdog.h.
const WDIOC_SETTIMEOUT: u64 = 0xc004_5706;

/// Most bytes one [`credit_entropy`] takes.
pub const ENTROPY_BYTES: usize = 64;

/// Adds `bytes` to the kernel's entropy pool and credits them in full; needs CAP_SYS_ADMIN.
pub fn credit_entropy(random: &File, bytes: &[u8; ENTROPY_BYTES]) -> io::Result<()> {
    /// linux/random.h's `struct rand_pool_info` with its trailing buffer.
    #[repr(C)]
    struct PoolInfo {
        entropy_bits: libc::c_int,
        byte_count: libc::c_int,
        buffer: [u8; ENTROPY_BYTES],
    }
    let info = PoolInfo {
        entropy_bits: 8 * ENTROPY_BYTES as libc::c_int,
        byte_count: ENTROPY_BYTES as libc::c_int,
        buffer: *bytes,
    };
    // SAFETY: the descriptor is open for the call; RNDADDENTROPY reads two ints and then
    // `byte_count` bytes from the pointer, which is exactly `PoolInfo`, and writes nothing.
    let result = unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY as _, &raw const info) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Sets a watchdog's timeout; returns the one the device chose.
pub fn set_watchdog_timeout(device: &File, seconds: u32) -> io::Result<u32> {
    let mut value = libc::c_int::try_from(seconds).unwrap_or(libc::c_int::MAX);
    // SAFETY: the descriptor is open for the call; WDIOC_SETTIMEOUT reads and writes one int at the
    // pointer, which is a live, exclusive `c_int`.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), WDIOC_SETTIMEOUT as _, &raw mut value) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u32::try_from(value).unwrap_or(seconds))
}

/// Takes variables out of the environment; does nothing where another thread runs that could read it.
pub fn forget(names: &[&str]) {
    for name in names.iter().filter(|name| std::env::var_os(name).is_some()) {
        // There is no /proc yet where process 1 begins.
        let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
        if threads == 1 {
            // SAFETY: this is the only thread, so nobody reads the environment meanwhile.
            unsafe { std::env::remove_var(name) };
        }
    }
}

/// Sends `signal` to every other process of the PID namespace, should there be any. Only process 1 may:
/// in any other place it would end its user's session.
pub fn signal_all(signal: libc::c_int) -> io::Result<()> {
    if std::process::id() != 1 {
        return Err(io::Error::other("only process 1 signals every process"));
    }
    // SAFETY: kill takes no pointers; -1 addresses all processes but this one, as is meant.
    if unsafe { libc::kill(-1, signal) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        error => Err(error),
    }
}

/// What a hardware clock says; its months count from 0, its years from 1900.
#[derive(Debug, Clone, Copy)]
pub struct RtcTime {
    pub year: i64,
    pub month: i64,
    pub day: i64,
    pub hour: i64,
    pub minute: i64,
    pub second: i64,
}

/// Reads a hardware clock.
pub fn read_rtc(device: &File) -> io::Result<RtcTime> {
    /// `_IOR('p', 0x09, struct rtc_time)` of linux/rtc.h.
    const RTC_RD_TIME: u64 = 0x8024_7009;
    // linux/rtc.h's `struct rtc_time`: nine ints.
    let mut fields: [libc::c_int; 9] = [0; 9];
    // SAFETY: the descriptor is open for the call; RTC_RD_TIME writes one `struct rtc_time`, which is exactly this
    // live, exclusive array.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), RTC_RD_TIME as _, &raw mut fields) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let [second, minute, hour, day, month, year, ..] = fields.map(i64::from);
    Ok(RtcTime {
        year,
        month,
        day,
        hour,
        minute,
        second,
    })
}

/// Whether the kernel's clock is kept by somebody who compares it with others, and is right by that.
pub fn is_clock_synchronised() -> io::Result<bool> {
    // SAFETY: `timex` is plain data for which all zero bytes are a valid value; no modes means that nothing is set.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live, exclusive `timex`; adjtimex reads and writes that alone.
    let result = unsafe { libc::adjtimex(&raw mut state) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0)
}

/// The id of some zombie child, which stays one; `None` when there is none.
pub fn peek_zombie() -> Option<i32> {
    // SAFETY: `siginfo_t` is plain data for which all zero bytes are a valid value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the pointer is to a live, exclusive `siginfo_t`; waitid writes at most that.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) };
    if result != 0 {
        return None; // ECHILD: there are no children at all
    }
    // SAFETY: waitid either filled in the SIGCHLD fields or left the zeroes, so `si_pid` is set.
    let pid = unsafe { info.si_pid() };
    (pid > 0).then_some(pid)
}
