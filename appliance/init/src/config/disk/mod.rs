//! Disks, CDs and floppies with configuration: a file system labelled `WOW` that holds `wow.toml`, `ticket` or
//! both, or NoCloud's `cidata`.
//!
//! A disk that fails, or lies about itself, costs a message that names it and never the boot: each device is
//! read by a thread of its own, which is waited for until a deadline, and one that does not answer is left
//! alone until it does.

mod cidata;
mod ext;
mod fat;
mod floppy;
mod iso;
mod volume;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use self::floppy::{Controller, Floppy};
use self::volume::{Fault, Medium, Volume};
use super::{MAX_VALUE_BYTES, Origin, Problem, Rank, Reading, Setting, Source, file};

/// The labels of a disk for us, and of one for cloud-init; capital letters and small ones are the same.
const LABEL: &str = "WOW";
const LABEL_NO_CLOUD: &str = "cidata";
/// The files on it.
const TABLE: &str = "wow.toml";
const TICKET: &str = "ticket";

const FILE_BYTES_MAX: usize = 64 * 1024;
/// Devices looked at; a machine for routing has a few.
const DEVICES_MAX: usize = 32;
/// How long all of them together are waited for.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// The machine's disks and partitions.
#[derive(Debug)]
pub struct Disks {
    /// What the kernel knows: a directory for each block device.
    class: PathBuf,
    devices: PathBuf,
    /// Whether to look for a floppy drive, of which the kernel knows nothing.
    floppies: bool,
    answer_max: Duration,
    /// Devices whose threads have not come back.
    busy: Arc<Mutex<BTreeSet<String>>>,
}

impl Default for Disks {
    fn default() -> Self {
        Self {
            class: "/sys/class/block".into(),
            devices: "/dev".into(),
            floppies: true,
            answer_max: ANSWER_MAX,
            busy: Arc::default(),
        }
    }
}

impl Source for Disks {
    fn rank(&self) -> Rank {
        Rank::Disk
    }

    fn read(&self) -> Reading {
        let names = self.names();
        let seen = names.len();
        let mut reading = Reading::default();
        let mut found = false;
        for (_, of_device) in self.read_each(names, read_device) {
            let Some(of_device) = of_device else {
                continue;
            };
            found = true;
            reading.entries.extend(of_device.entries);
            reading.problems.extend(of_device.problems);
        }
        if !found {
            reading.absent = Some(match seen {
                0 => "no disk here".to_owned(),
                _ => "no disk with this label".to_owned(),
            });
        }
        reading
    }

    fn example(&self, key: &str) -> String {
        format!(
            "a disk, CD or floppy labelled {LABEL} with the file {TABLE}: {key} = \"…\", or with the ticket in the \
             file {TICKET}; or cloud-init's {LABEL_NO_CLOUD} with `wow:` in its user-data. It may be attached now"
        )
    }

    fn changes(&self) -> String {
        // Asked every second, also while the node runs. A floppy is left out: to look at one is to read it, which
        // is done when the sources are read again.
        let names = names(&self.class);
        let sizes = names.iter().map(|name| {
            let size = fs::read_to_string(self.class.join(name).join("size"));
            format!("{name}={};", size.unwrap_or_default().trim())
        });
        sizes.collect()
    }
}

impl Disks {
    /// The names of all that may hold something for us, in order.
    fn names(&self) -> Vec<String> {
        let mut names = names(&self.class);
        if self.floppies && Controller::claim().is_some() {
            names.insert(0, floppy::NAME.to_owned());
        }
        names
    }

    /// Reads the devices side by side, in the order of their names.
    fn read_each(
        &self,
        names: Vec<String>,
        read: fn(&Path, &str) -> Option<Reading>,
    ) -> Vec<(String, Option<Reading>)> {
        let (answers, receiver) = mpsc::channel();
        let mut waited_for = BTreeSet::new();
        let mut readings = Vec::new();
        for name in names {
            if !lock(&self.busy).insert(name.clone()) {
                readings.push((name.clone(), Some(silent(&name))));
                continue;
            }
            let (answers, busy) = (answers.clone(), Arc::clone(&self.busy));
            let path = self.devices.join(&name);
            let device = name.clone();
            let started = std::thread::Builder::new()
                .name(format!("disk {name}"))
                .spawn(move || {
                    let reading = read(&path, &device);
                    lock(&busy).remove(&device);
                    // Who no longer waits has said so.
                    let _ = answers.send((device, reading));
                });
            match started {
                Ok(_) => {
                    waited_for.insert(name);
                }
                Err(error) => {
                    lock(&self.busy).remove(&name);
                    readings.push((name.clone(), Some(broken(&name, &Fault::Io(error)))));
                }
            }
        }
        let deadline = Instant::now() + self.answer_max;
        while !waited_for.is_empty() {
            let rest = deadline.saturating_duration_since(Instant::now());
            let Ok((name, reading)) = receiver.recv_timeout(rest) else {
                break;
            };
            waited_for.remove(&name);
            readings.push((name, reading));
        }
        readings.extend(waited_for.into_iter().map(|name| {
            let silent = silent(&name);
            (name, Some(silent))
        }));
        readings.sort_by(|(one, _), (other, _)| one.cmp(other));
        readings
    }
}

/// The names of block devices, in order.
pub(crate) fn names(class: &Path) -> Vec<String> {
    let entries = fs::read_dir(class).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    // These are made of the machine's own memory and files.
    let virtual_ones = ["loop", "ram", "zram", "dm-", "md", "nbd"];
    let mut names: Vec<String> = names
        .filter(|name| !virtual_ones.iter().any(|kind| name.starts_with(kind)))
        .collect();
    names.sort();
    names.truncate(DEVICES_MAX);
    names
}

fn silent(name: &str) -> Reading {
    problem(
        name,
        "does not answer: it is left out until it does".to_owned(),
    )
}

fn broken(name: &str, fault: &Fault) -> Reading {
    problem(name, fault.to_string())
}

fn problem(name: &str, complaint: String) -> Reading {
    let origin = Origin::new(format!("disk {name}"), "");
    Reading {
        problems: vec![Problem::Source { origin, complaint }],
        ..Reading::default()
    }
}

/// What a device holds for us; `None` for one that is not meant for us.
fn read_device(path: &Path, name: &str) -> Option<Reading> {
    let reading = match name {
        floppy::NAME => Floppy::open(Controller::claim()?).map(|floppy| read_medium(&floppy, name)),
        _ => open(path).map(|file| read_medium(&file?, name)),
    };
    match reading {
        Ok(reading) => reading,
        Err(error) => match error.raw_os_error() {
            // An empty drive, one that is gone by now, or one that was never there.
            Some(libc::ENOMEDIUM | libc::ENXIO | libc::ENODEV | libc::ENOENT) => None,
            _ => Some(broken(name, &Fault::Io(error))),
        },
    }
}

/// `None` for what is no block device.
fn open(path: &Path) -> io::Result<Option<File>> {
    // Without waiting, a drive whose tray is open tells so at once.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NOCTTY)
        .open(path)?;
    Ok(file
        .metadata()?
        .file_type()
        .is_block_device()
        .then_some(file))
}

/// See [`read_device`].
fn read_medium(medium: &dyn Medium, name: &str) -> Option<Reading> {
    let volume = match Volume::open(medium) {
        Ok(volume) => volume?,
        Err(fault) => return Some(broken(name, &fault)),
    };
    let is = |label: &str| volume.label().eq_ignore_ascii_case(label);
    let no_cloud = is(LABEL_NO_CLOUD);
    if !no_cloud && !is(LABEL) {
        return None;
    }
    let disk = format!("disk {name} ({}, {})", volume.kind(), volume.label());
    let mut reading = Reading::default();
    let mut seen = 0;
    let mut take = |file: &str, understand: &dyn Fn(&mut Reading, &str)| {
        let origin = || Origin::new(&disk, file);
        let complaint = match volume.read(file, FILE_BYTES_MAX) {
            Ok(None) => return,
            Ok(Some(bytes)) => match String::from_utf8(bytes) {
                Ok(text) => {
                    seen += 1;
                    return understand(&mut reading, &text);
                }
                Err(_) => "is no text (UTF-8): is it the right file?".to_owned(),
            },
            Err(fault) => fault.to_string(),
        };
        seen += 1;
        let origin = origin();
        reading.problems.push(Problem::Source { origin, complaint });
    };
    take(TICKET, &|reading, text| {
        reading.push(ticket(text, Origin::new(&disk, TICKET)));
    });
    take(TABLE, &|reading, text| {
        let of_file = file::parse(&format!("{disk}, {TABLE}"), text);
        reading.entries.extend(of_file.entries);
        reading.problems.extend(of_file.problems);
    });
    if no_cloud {
        take(cidata::USER_DATA, &|reading, text| {
            cidata::user_data(reading, &disk, text)
        });
        take(cidata::META_DATA, &|reading, text| {
            cidata::meta_data(reading, &disk, text)
        });
    }
    if seen == 0 {
        let files = match no_cloud {
            true => "user-data, meta-data, ticket and wow.toml",
            false => "ticket and wow.toml",
        };
        reading.problems.push(Problem::Source {
            origin: Origin::new(disk, ""),
            complaint: format!("holds none of the files that are looked for: {files}"),
        });
    }
    Some(reading)
}

/// A partition that was looked for.
pub(crate) struct Found {
    pub(crate) device: PathBuf,
    /// Its file system.
    pub(crate) kind: &'static str,
}

/// The disks and partitions with a label, where something may be kept: no CD, no floppy.
pub(crate) fn find(label: &str) -> Vec<Found> {
    let disks = Disks::default();
    let names = names(&disks.class);
    let kept = names.iter().filter(|name| !name.starts_with("sr"));
    let mut all = Vec::new();
    for name in kept {
        let device = disks.devices.join(name);
        // What cannot be opened or read is another's to tell: it is no partition of ours, as far as is known.
        let Ok(Some(file)) = open(&device) else {
            continue;
        };
        match Volume::open(&file) {
            Ok(Some(volume)) if volume.label().eq_ignore_ascii_case(label) => {
                let kind = volume.kind();
                all.push(Found { device, kind });
            }
            Ok(_) => {}
            Err(fault) => tracing::debug!("{name}: {fault}"),
        }
    }
    all
}

/// The file holds one line, as `wow pool ticket` writes it.
fn ticket(text: &str, origin: Origin) -> Result<Setting, Problem> {
    if text.len() > MAX_VALUE_BYTES {
        let complaint = format!("is longer than {MAX_VALUE_BYTES} bytes: is it the right file?");
        return Err(Problem::Source { origin, complaint });
    }
    Setting::new(TICKET, text, origin)
}

/// Reads a disk's image as its device is read; for fuzzers.
#[cfg(feature = "fuzzing")]
pub(super) fn read_image(image: &[u8]) -> Option<Reading> {
    read_medium(&image, "image")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
