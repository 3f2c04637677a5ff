//! What `wow` does because it is process 1: boot steps, configuration sources, network bring-up,
//! reaping, power events, shutdown. It knows nothing of the pool: tickets and addresses are text
//! here, and the event loop belongs to the router.
//!
//! # How a `main` uses it
//!
//! ```no_run
//! # fn install_logging() {}
//! # fn parse(text: &str) -> Result<String, String> { Ok(text.to_owned()) }
//! use wow_init::{Boot, power::{PowerEvents, Shutdown}, reaper, shutdown};
//! use std::time::Duration;
//!
//! if wow_init::is_process_one() {
//!     wow_init::console::claim();              // from here on, logs are seen
//!     install_logging();                       // a tracing subscriber on stderr
//!     let mut boot = Boot::start();            // mounts … hostname; restarts the machine if fatal
//!     let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()
//!         .expect("a runtime needs only an epoll and a pipe");
//!     let mut watchdog = None;
//!     let how = runtime.block_on(async {
//!         let mut power = PowerEvents::start().expect("signal handlers can be installed once");
//!         tokio::spawn(reaper::run());
//!         let network = boot.start_network().await;   // links up, DHCP running
//!         let sources = boot.sources();
//!         let ticket = sources.until("ticket", |found| {
//!             parse(found.require("ticket")?.value())
//!         });
//!         tokio::select! {
//!             request = power.next() => return request.shutdown,
//!             _ticket = ticket => {}
//!         }
//!         // … run the daemon on `network.status()`; once its loop turns: `Watchdog::open()`, and
//!         // `pet` it where packets make progress …
//!         watchdog = wow_init::watchdog::Watchdog::open();
//!         let request = power.next().await;
//!         shutdown::bounded("goodbye to the neighbours", Duration::from_secs(2), async {}).await;
//!         request.shutdown
//!     });
//!     shutdown::finish(how, watchdog);    // never returns
//! }
//! ```
#![deny(unsafe_code)]

pub mod backoff;
pub mod boot;
pub mod clock;
pub mod config;
pub mod console;
pub mod entropy;
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    //! Entrances for fuzzers to parsers that are private to this crate.
    pub use crate::config::fuzzing::{
        command_line, config_disk, fw_cfg, image_file, ovf_environment,
    };
    pub use crate::network::dhcp::fuzzing::dhcp;
    pub use crate::slots::fuzzing::slots;
}
pub mod hostname;
pub mod mounts;
pub mod network;
pub mod panic;
pub mod power;
mod process;
pub mod reaper;
pub mod shutdown;
pub mod slots;
pub mod state;
pub mod step;
#[allow(unsafe_code)]
mod system;
pub mod terminal;
pub mod watchdog;

pub use boot::Boot;

/// Whether this process is process 1 of its PID namespace, and so has to be the init.
pub fn is_process_one() -> bool {
    std::process::id() == 1
}

/// Whether this process is process 1 of the whole machine and not of a container, whose file systems
/// and clock are its host's as well.
pub(crate) fn is_machine_init() -> bool {
    use std::os::unix::fs::MetadataExt;
    /// PROC_PID_INIT_INO of linux/proc_ns.h: the first PID namespace.
    const FIRST_NAMESPACE: u64 = 0xEFFF_FFFC;
    // A kernel without namespaces has no such file, and but one namespace.
    is_process_one()
        && std::fs::metadata("/proc/self/ns/pid").map_or(true, |own| own.ino() == FIRST_NAMESPACE)
}

/// Time since the kernel started, suspended time included.
pub fn since_boot() -> std::time::Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    std::time::Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}
