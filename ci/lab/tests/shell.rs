//! An image that was built with a shell opens it on the machine's console by a key, and gives the console back.
//!
//! `cargo xtask test` runs these: it builds what they need and says where it is.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use wow_builder::qemu::Vm;
use wow_lab::interrupt;

use support::machine::{LIMIT, POWER_OFF_LIMIT, Place};

/// Between two looks; and a key that came too early is pressed again after so many of them.
const PAUSE: Duration = Duration::from_millis(100);
const LOOKS: u32 = 30;

/// Types until the console says something that was not there before.
fn type_until(vm: &mut Vm, console: &Path, serial: &mut UnixStream, text: &str, answer: &str) {
    let seen = || String::from_utf8_lossy(&std::fs::read(console).unwrap_or_default()).into_owned();
    let before = seen().matches(answer).count();
    let begun = Instant::now();
    loop {
        serial.write_all(text.as_bytes()).unwrap();
        for _ in 0..LOOKS {
            if seen().matches(answer).count() > before {
                return;
            }
            vm.check_running().unwrap();
            interrupt::check().unwrap();
            // What it says is read from the log; a console that nobody reads stands still.
            while serial.read(&mut [0; 4096]).is_ok_and(|length| length > 0) {}
            std::thread::sleep(PAUSE);
        }
        assert!(
            begun.elapsed() < LIMIT,
            "{text:?}: no {answer:?} in {}",
            seen()
        );
    }
}

#[test]
fn a_key_opens_the_shell_and_its_end_gives_the_console_back() {
    let place = Place::new("shell");
    let console = place.console();
    let mut vm = place.start(&place.spec("shell"));
    let begun = Instant::now();
    let mut serial = loop {
        match UnixStream::connect(place.private("serial")) {
            Ok(serial) => break serial,
            Err(error) => assert!(begun.elapsed() < LIMIT, "{error}"),
        }
        vm.check_running().unwrap();
        std::thread::sleep(PAUSE);
    };

    serial.set_nonblocking(true).unwrap();
    let mut check = |text: &str, answer: &str| {
        type_until(&mut vm, &console, &mut serial, text, answer);
    };
    check("", "wow: waiting for a configuration");
    // The image says plainly what it has.
    check("s", "x shell (this image has one)");
    check("x", "wow# ");
    // The terminal echoes what is typed, and the shell what it computes.
    check("echo $((6 * 7)) is the answer\n", "\n42 is the answer");
    // A key that interrupts does so.
    check("sleep 100000\n", "sleep 100000");
    check("\x03", "wow# ");
    check("exit\n", "waiting for a configuration");
    check("s", "x shell (this image has one)");
    assert!(vm.power_off(POWER_OFF_LIMIT));
}
