//! What booting verbs share: packages, built images, the emulator's options.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use wow_builder::host::{self, Consent, Purpose};
use wow_builder::manifest::{Format, Manifest};
use wow_builder::qemu::{Accelerator, Choice, Emulator, Firmware, Hardware, ImageFiles, Machine};

use crate::image;

/// QEMU's side of a machine, as options of several verbs.
#[derive(Debug, Clone, clap::Args)]
pub struct MachineArguments {
    /// QEMU's board: q35 or microvm.
    #[arg(long, default_value_t = Machine::Q35)]
    pub machine: Machine,
    /// What network cards and disks are attached by: virtio, vmware (vmxnet3, pvscsi) or plain (e1000e, AHCI).
    #[arg(long, default_value_t = Hardware::Virtio)]
    pub hardware: Hardware,
    /// How the image starts: direct, bios or uefi.
    #[arg(long, default_value_t = Firmware::Direct)]
    pub firmware: Firmware,
    /// Memory, such as 64M or 1G. Default: 64M, by UEFI 256M for the firmware's sake; 1G for Debian.
    #[arg(long, value_parser = parse_memory)]
    pub memory: Option<u32>,
    /// What executes the guest: auto tries kvm with a tiny guest, and falls back to tcg.
    #[arg(long, default_value = "auto", value_parser = parse_accelerator)]
    pub accel: Accel,
}

/// A wished accelerator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// Whatever works.
    Auto,
    /// This one.
    Fixed(Accelerator),
}

/// `auto`, or an accelerator.
pub fn parse_accelerator(text: &str) -> Result<Accel, String> {
    match text {
        "auto" => Ok(Accel::Auto),
        "kvm" => Ok(Accel::Fixed(Accelerator::Kvm)),
        "tcg" => Ok(Accel::Fixed(Accelerator::Tcg)),
        _ => Err("there are auto, kvm and tcg".into()),
    }
}

/// A size in MiB from a number with M or G (or none, which is M).
pub fn parse_memory(text: &str) -> Result<u32, String> {
    let (number, factor) = match text.strip_suffix(['G', 'g']) {
        Some(number) => (number, 1024),
        None => (text.strip_suffix(['M', 'm']).unwrap_or(text), 1),
    };
    let mib = number
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_mul(factor));
    match mib {
        Some(mib @ 16..=1_048_576) => Ok(mib),
        _ => Err(format!("{text:?} is no size; take one from 16M to 1024G")),
    }
}

impl MachineArguments {
    /// A PC that starts directly, on this accelerator.
    pub fn plain(accel: Accel) -> Self {
        Self {
            machine: Machine::Q35,
            hardware: Hardware::Virtio,
            firmware: Firmware::Direct,
            memory: None,
            accel,
        }
    }

    /// Memory in MiB, of Debian or of an appliance.
    pub fn memory_mib(&self, debian: bool) -> u32 {
        self.memory.unwrap_or(match self.firmware {
            _ if debian => 1024,
            Firmware::Uefi => 256,
            Firmware::Direct | Firmware::Bios => 64,
        })
    }

    /// Refuses what cannot be before anything is built.
    pub fn check(&self) -> Result<()> {
        if self.machine == Machine::Microvm && self.firmware != Firmware::Direct {
            bail!("microvm boots only with --firmware direct");
        }
        if self.machine == Machine::Microvm && self.hardware != Hardware::Virtio {
            bail!("microvm has --hardware virtio alone");
        }
        Ok(())
    }

    /// The installed QEMU, and the accelerator as wished or probed; says which and why.
    pub fn emulator(&self, target: &Path) -> Result<(Emulator, Choice)> {
        let emulator = Emulator::find()?;
        let choice = match self.accel {
            Accel::Auto => Accelerator::probe(&emulator, &target.join("cache"))?,
            Accel::Fixed(accelerator) => Choice {
                accelerator,
                reason: "as --accel says".into(),
                cached: false,
            },
        };
        eprintln!("{choice}");
        Ok((emulator, choice))
    }
}

/// Installs what `purposes` need.
pub fn ensure_packages(purposes: &[Purpose]) -> Result<()> {
    host::ensure(purposes, Consent::AsUsual, &mut |line| eprintln!("{line}"))?;
    Ok(())
}

/// An image, built now unless it is up to date.
pub fn build(name: &str) -> Result<Built> {
    build_with(name, &[])
}

/// The same with these packages besides those of its definition.
pub fn build_with(name: &str, packages: &[String]) -> Result<Built> {
    built(image::build(name, packages)?)
}

/// The same as a CD-ROM, besides what is made of every image.
pub fn build_disc(name: &str, packages: &[String]) -> Result<Built> {
    let formats = [&Format::DEFAULT[..], &[Format::Iso]].concat();
    let manifest = image::build_as(name, packages, &formats)?;
    let disk = manifest.path(Format::Iso);
    let disk =
        disk.with_context(|| format!("{name} has no CD-ROM: its definition has no [disc]"))?;
    let mut built = built(manifest)?;
    built.files.disk = disk;
    built.files.disk_format = Format::Iso;
    Ok(built)
}

/// The same in every format.
pub fn build_all(name: &str) -> Result<Built> {
    built(image::build_as(name, &[], &Format::ALL)?)
}

/// An appliance with a shell.
pub fn build_with_shell(name: &str) -> Result<Built> {
    built(image::build_with_shell(name)?)
}

fn built(manifest: Manifest) -> Result<Built> {
    Ok(Built {
        files: ImageFiles::of(&manifest)?,
        directory: manifest.directory,
    })
}

/// A built image.
#[derive(Debug, Clone)]
pub struct Built {
    /// Its bootable files.
    pub files: ImageFiles,
    /// Where they are.
    pub directory: PathBuf,
}

/// The static `wow` that went into the image; it runs on the host as well.
pub fn wow(target: &Path) -> Result<PathBuf> {
    let path = target.join("x86_64-unknown-linux-gnu/release/wow");
    anyhow::ensure!(
        path.is_file(),
        "the image's build left no {}",
        path.display()
    );
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_sizes_have_units_and_bounds() {
        assert_eq!(parse_memory("64M"), Ok(64));
        assert_eq!(parse_memory("64"), Ok(64));
        assert_eq!(parse_memory("2G"), Ok(2048));
        for wrong in ["", "M", "8M", "-1", "64K", "9999999G"] {
            assert!(parse_memory(wrong).is_err(), "{wrong}");
        }
    }
}
