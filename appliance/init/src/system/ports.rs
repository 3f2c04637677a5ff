//! Raw I/O ports of a PC, for devices without a driver that is of use: see `config::fw_cfg` and its
//! floppy drive.

use std::io;
use std::ops::Range;

/// A range of I/O ports that the kernel lets this process use.
#[derive(Debug)]
pub struct Ports(Range<u16>);

impl Ports {
    /// Asks the kernel for `range`; needs CAP_SYS_RAWIO and a kernel with CONFIG_X86_IOPL_IOPERM.
    #[cfg(target_arch = "x86_64")]
    pub fn claim(range: Range<u16>) -> io::Result<Ports> {
        let count = libc::c_ulong::from(range.end.saturating_sub(range.start));
        // SAFETY: ioperm takes no pointers; it changes only which ports this thread may use.
        let result = unsafe { libc::ioperm(range.start.into(), count, 1) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Ports(range))
    }

    /// There are no I/O ports on this architecture.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn claim(_range: Range<u16>) -> io::Result<Ports> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Writes 16 bits to a port of the range.
    pub fn write_u16(&self, port: u16, value: u16) {
        assert!(self.0.contains(&port), "only claimed ports are written");
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the kernel granted the port to this thread (`claim`), so `out` does not fault; it
        // touches no memory and no flags.
        unsafe {
            core::arch::asm!("out dx, ax", in("dx") port, in("ax") value,
                options(nomem, nostack, preserves_flags));
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = value;
    }

    /// Writes 8 bits to a port of the range.
    pub fn write_u8(&self, port: u16, value: u8) {
        assert!(self.0.contains(&port), "only claimed ports are written");
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as in `write_u16`.
        unsafe {
            core::arch::asm!("out dx, al", in("dx") port, in("al") value,
                options(nomem, nostack, preserves_flags));
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = value;
    }

    /// Reads 8 bits from a port of the range.
    pub fn read_u8(&self, port: u16) -> u8 {
        assert!(self.0.contains(&port), "only claimed ports are read");
        let value: u8;
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as in `write_u16`; `in` writes only its output register.
        unsafe {
            core::arch::asm!("in al, dx", in("dx") port, out("al") value,
                options(nomem, nostack, preserves_flags));
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            value = u8::MAX;
        }
        value
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        {
            let count = libc::c_ulong::from(self.0.end.saturating_sub(self.0.start));
            // SAFETY: as in `claim`; giving the ports back cannot harm anybody.
            unsafe { libc::ioperm(self.0.start.into(), count, 0) };
        }
    }
}
