//! The PC's floppy drive A, read byte by byte through its controller's ports: 1.44 MB disks, and never written.
//!
//! Linux has a driver. But where there is no controller it waits three seconds for one, at every start, and needs
//! the old DMA. Commands, registers and results are those of Intel's 82077AA, in its mode without DMA.

use std::cell::RefCell;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::volume::Medium;
use crate::system::ports::Ports;

/// What the drive is called.
pub(super) const NAME: &str = "fd0";

const BASE: u16 = 0x3f0;
/// Digital output: motors, and the controller's reset.
const OUTPUT: u16 = BASE + 2;
/// Main status.
const STATUS: u16 = BASE + 4;
const DATA: u16 = BASE + 5;
/// Read: whether the disk was changed. Written: the data rate.
const CHANGE_AND_RATE: u16 = BASE + 7;

/// Status: a byte may be moved; to the processor; it is a sector's; a command is under way.
const READY: u8 = 0x80;
const INWARD: u8 = 0x40;
const SECTORS: u8 = 0x20;
const BUSY: u8 = 0x10;
/// What an address without a device reads as.
const NOBODY: u8 = 0xff;

/// Output: out of reset, the first drive selected; its motor.
const RUNNING: u8 = 0x04;
const MOTOR: u8 = 0x10;
const CHANGED: u8 = 0x80;

const SPECIFY: u8 = 0x03;
const RECALIBRATE: u8 = 0x07;
const SENSE: u8 = 0x08;
const SEEK: u8 = 0x0f;
const CONFIGURE: u8 = 0x13;
/// Read, by modified frequency modulation, as all since 1977.
const READ: u8 = 0x46;

const SECTOR_BYTES: usize = 512;
const SECTORS_PER_TRACK: u8 = 18;
const TRACK_BYTES: usize = SECTOR_BYTES * SECTORS_PER_TRACK as usize;
const HEADS: u64 = 2;
const TRACKS: u64 = 80 * HEADS;

/// A turn takes 200 ms, and a seek over all tracks 300.
const ANSWER_MAX: Duration = Duration::from_millis(700);
/// A motor's start, which no virtual drive needs.
const SPIN_UP: Duration = Duration::from_millis(500);
const TRIES: usize = 3;
/// Longest result of a command.
const RESULT_BYTES_MAX: usize = 10;

/// The controller's registers.
pub(super) trait Registers {
    fn read(&mut self, register: u16) -> u8;
    fn write(&mut self, register: u16, value: u8);
}

/// The controller, for one reader at a time.
pub(super) struct Controller {
    ports: Ports,
    _alone: MutexGuard<'static, ()>,
}

impl Controller {
    /// None where there is none, or this process may not use it.
    pub(super) fn claim() -> Option<Controller> {
        static TAKEN: Mutex<()> = Mutex::new(());
        let alone = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let ports = Ports::claim(OUTPUT..CHANGE_AND_RATE + 1).ok()?;
        (ports.read_u8(STATUS) != NOBODY).then_some(Controller {
            ports,
            _alone: alone,
        })
    }
}

impl Registers for Controller {
    fn read(&mut self, register: u16) -> u8 {
        self.ports.read_u8(register)
    }

    fn write(&mut self, register: u16, value: u8) {
        self.ports.write_u8(register, value);
    }
}

/// A disk in the drive.
pub(super) struct Floppy<R: Registers> {
    drive: RefCell<Drive<R>>,
}

struct Drive<R: Registers> {
    registers: R,
    /// The track that was read last, and which it is.
    track: Vec<u8>,
    held: Option<u64>,
}

impl<R: Registers> Floppy<R> {
    /// Starts the drive. ENOMEDIUM where nothing is in it.
    pub(super) fn open(registers: R) -> io::Result<Self> {
        let mut drive = Drive {
            registers,
            track: Vec::with_capacity(TRACK_BYTES),
            held: None,
        };
        drive.reset()?;
        // The change is told until the heads have moved with a disk in the drive.
        drive.seek(1)?;
        drive.recalibrate()?;
        if drive.registers.read(CHANGE_AND_RATE) & CHANGED != 0 {
            return Err(empty());
        }
        Ok(Floppy {
            drive: RefCell::new(drive),
        })
    }
}

impl<R: Registers> Medium for Floppy<R> {
    fn read_at(&self, offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        let mut drive = self.drive.borrow_mut();
        let mut offset = offset;
        while !buffer.is_empty() {
            let track = drive.track(offset / TRACK_BYTES as u64)?;
            let from = usize::try_from(offset % TRACK_BYTES as u64).expect("less than a track");
            let count = buffer.len().min(TRACK_BYTES - from);
            let (now, later) = buffer.split_at_mut(count);
            now.copy_from_slice(&track[from..from + count]);
            offset += count as u64;
            buffer = later;
        }
        Ok(())
    }
}

impl<R: Registers> Drop for Drive<R> {
    fn drop(&mut self) {
        self.registers.write(OUTPUT, 0);
    }
}

impl<R: Registers> Drive<R> {
    fn track(&mut self, wanted: u64) -> io::Result<&[u8]> {
        if wanted >= TRACKS {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if self.held != Some(wanted) {
            self.held = None;
            let mut tries = 1;
            while let Err(error) = self.read_track(wanted) {
                if tries == TRIES {
                    return Err(error);
                }
                tries += 1;
                std::thread::sleep(SPIN_UP);
                self.reset()?;
            }
            self.held = Some(wanted);
        }
        Ok(&self.track)
    }

    fn read_track(&mut self, wanted: u64) -> io::Result<()> {
        let cylinder = u8::try_from(wanted / HEADS).expect("80 cylinders");
        let head = u8::try_from(wanted % HEADS).expect("two heads");
        self.seek(cylinder)?;
        // Sectors of 512 bytes, from the first to the last of the track; the gap between them.
        let place = [head << 2, cylinder, head, 1];
        let extent = [2, SECTORS_PER_TRACK, 0x1b, 0xff];
        self.command(&[&[READ], &place[..], &extent[..]].concat())?;
        self.track.clear();
        loop {
            let status = self.ready()?;
            if status & SECTORS == 0 {
                break;
            }
            let byte = self.registers.read(DATA);
            if self.track.len() < TRACK_BYTES {
                self.track.push(byte);
            }
        }
        // Without DMA nobody tells the controller that this was all: it may complain that the track has ended.
        let result = self.result()?;
        match self.track.len() {
            TRACK_BYTES => Ok(()),
            _ => Err(io::Error::other(format!(
                "the floppy drive failed on track {cylinder}, side {head}: {result:02x?}"
            ))),
        }
    }

    fn reset(&mut self) -> io::Result<()> {
        self.registers.write(OUTPUT, 0);
        std::thread::sleep(Duration::from_micros(20));
        self.registers.write(OUTPUT, RUNNING | MOTOR);
        // 500 kbit/s.
        self.registers.write(CHANGE_AND_RATE, 0);
        self.ready()?;
        for _ in 0..4 {
            self.sense()?;
        }
        // Its buffer is used, and it does not look at the drives by itself.
        self.command(&[CONFIGURE, 0, 0x17, 0])?;
        // Times of steps and of the heads' landing; no DMA.
        self.command(&[SPECIFY, 0xdf, 0x03])?;
        self.recalibrate()
    }

    fn recalibrate(&mut self) -> io::Result<()> {
        self.command(&[RECALIBRATE, 0])?;
        self.arrive(0)
    }

    fn seek(&mut self, cylinder: u8) -> io::Result<()> {
        self.command(&[SEEK, 0, cylinder])?;
        self.arrive(cylinder)
    }

    /// Waits until the heads are there.
    fn arrive(&mut self, cylinder: u8) -> io::Result<()> {
        const SEEK_END: u8 = 0x20;
        /// There was no track 0 to be found: there is no drive.
        const CHECK: u8 = 0x10;
        let deadline = Instant::now() + ANSWER_MAX;
        while Instant::now() < deadline {
            if let [status, at] = self.sense()?[..]
                && status & SEEK_END != 0
            {
                // Heads that do not move have no drive, or a virtual one nothing in it.
                return match status & CHECK == 0 && at == cylinder {
                    true => Ok(()),
                    false => Err(empty()),
                };
            }
            std::thread::yield_now();
        }
        Err(silent())
    }

    /// What has ended, and where the heads are.
    fn sense(&mut self) -> io::Result<Vec<u8>> {
        self.command(&[SENSE])?;
        self.result()
    }

    fn command(&mut self, bytes: &[u8]) -> io::Result<()> {
        for byte in bytes {
            if self.ready()? & INWARD != 0 {
                return Err(silent());
            }
            self.registers.write(DATA, *byte);
        }
        Ok(())
    }

    fn result(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(RESULT_BYTES_MAX);
        while self.ready()? & (INWARD | BUSY) == INWARD | BUSY {
            bytes.push(self.registers.read(DATA));
            if bytes.len() == RESULT_BYTES_MAX {
                return Err(silent());
            }
        }
        Ok(bytes)
    }

    /// Waits until a byte may be moved; the status then.
    fn ready(&mut self) -> io::Result<u8> {
        let deadline = Instant::now() + ANSWER_MAX;
        loop {
            let status = self.registers.read(STATUS);
            if status == NOBODY {
                return Err(silent());
            }
            if status & READY != 0 {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(silent());
            }
        }
    }
}

fn empty() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOMEDIUM)
}

fn silent() -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        "the floppy drive does not answer as one does",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A controller with a drive, in memory.
    #[derive(Default)]
    struct Twin {
        disk: Option<Vec<u8>>,
        command: Vec<u8>,
        /// Bytes of sectors, and of the result, in turn.
        sectors: Vec<u8>,
        result: Vec<u8>,
        cylinder: u8,
        has_arrived: bool,
        /// There is a controller alone: nothing moves.
        has_no_drive: bool,
        /// Reads that fail first.
        failing: usize,
        is_dead: bool,
    }

    impl Twin {
        fn run(&mut self) {
            let command = std::mem::take(&mut self.command);
            match command[..] {
                [SENSE] if self.has_arrived => {
                    self.has_arrived = false;
                    self.result = vec![self.cylinder, 0x20];
                }
                [SENSE] => self.result = vec![0x80],
                [RECALIBRATE, 0] => (self.cylinder, self.has_arrived) = (0, true),
                [SEEK, 0, _] if self.has_no_drive => self.has_arrived = true,
                [SEEK, 0, cylinder] => (self.cylinder, self.has_arrived) = (cylinder, true),
                [CONFIGURE, 0, _, 0] | [SPECIFY, _, 0x03] => {}
                [READ, side, cylinder, head, 1, 2, 18, _, _] => {
                    assert_eq!((side, cylinder), (head << 2, self.cylinder));
                    let track = usize::from(cylinder) * 2 + usize::from(head);
                    let disk = self.disk.as_ref().expect("nothing is read without a disk");
                    let mut sectors = disk[track * TRACK_BYTES..][..TRACK_BYTES].to_vec();
                    if self.failing > 0 {
                        self.failing -= 1;
                        sectors.truncate(700);
                    }
                    sectors.reverse();
                    self.sectors = sectors;
                    self.result = vec![2, 1, head, cylinder, 0, 0x80, 0x40];
                }
                _ => self.command = command,
            }
        }
    }

    impl Registers for Twin {
        fn read(&mut self, register: u16) -> u8 {
            match register {
                STATUS if self.is_dead => 0,
                STATUS if !self.sectors.is_empty() => READY | INWARD | SECTORS | BUSY,
                STATUS if !self.result.is_empty() => READY | INWARD | BUSY,
                STATUS if !self.command.is_empty() => READY | BUSY,
                STATUS => READY,
                DATA => match self.sectors.pop() {
                    Some(byte) => byte,
                    None => self.result.pop().expect("read when something is there"),
                },
                _ => match self.disk {
                    Some(_) => 0,
                    None => CHANGED,
                },
            }
        }

        fn write(&mut self, register: u16, value: u8) {
            if register == DATA {
                self.command.push(value);
                self.run();
            }
        }
    }

    fn disk() -> Vec<u8> {
        let length = TRACK_BYTES * usize::try_from(TRACKS).unwrap();
        (0..length).map(|at| (at / 7 + at / 512) as u8).collect()
    }

    fn twin() -> Twin {
        Twin {
            disk: Some(disk()),
            ..Twin::default()
        }
    }

    #[test]
    fn what_is_on_the_disk_is_read_across_tracks_and_not_beyond_its_end() {
        let (disk, floppy) = (disk(), Floppy::open(twin()).unwrap());
        for (offset, length) in [
            (0, 512),
            (TRACK_BYTES - 3, 5),
            (100_001, 30_000),
            (disk.len() - 9, 9),
        ] {
            let mut buffer = vec![0; length];
            floppy.read_at(offset as u64, &mut buffer).unwrap();
            assert_eq!(buffer, disk[offset..offset + length]);
        }
        let error = floppy
            .read_at(disk.len() as u64 - 9, &mut [0; 10])
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_track_is_tried_again_and_one_that_fails_is_told() {
        let bad = |failing| {
            let twin = Twin { failing, ..twin() };
            Floppy::open(twin).unwrap().read_at(0, &mut [0; 512])
        };
        bad(TRIES - 1).unwrap();
        let error = bad(TRIES).unwrap_err().to_string();
        assert!(error.contains("failed on track 0, side 0"), "{error}");
    }

    #[test]
    fn no_disk_or_no_drive_is_no_fault_and_a_dead_controller_is_one() {
        let empty = Floppy::open(Twin::default()).err().unwrap();
        assert_eq!(empty.raw_os_error(), Some(libc::ENOMEDIUM));
        let without = Twin {
            has_no_drive: true,
            ..twin()
        };
        let error = Floppy::open(without).err().unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEDIUM));
        let dead = Twin {
            is_dead: true,
            ..twin()
        };
        let error = Floppy::open(dead).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
