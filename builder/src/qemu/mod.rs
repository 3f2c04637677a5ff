//! Virtual machines under QEMU: a working accelerator, the command line as a pure function of a
//! description, and a process that never outlives its owner. Nothing here knows what runs inside.

mod boot_sector;
pub mod firmware;
pub mod probe;
pub mod qmp;
pub mod spec;
pub mod vm;

pub use firmware::Uefi;
pub use probe::{Accelerator, Choice, Emulator};
pub use spec::{
    Backend, Firmware, FwCfg, Hardware, ImageFiles, Loader, Machine, Nic, Serial, SpecError, VmSpec,
};
pub use vm::{Vm, VmError};
