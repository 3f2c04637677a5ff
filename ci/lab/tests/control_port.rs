//! A machine's control port answers every conversation, however short and whatever became of those before it.
//!
//! `cargo xtask test` runs these: it builds what they need and says where it is.

mod support;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wow_builder::qemu::VmSpec;
use wow_lab::control::Control;
use wow_lab::interrupt;

use support::machine::{LIMIT, POWER_OFF_LIMIT, Place, value};

/// Conversations, every one after some that were given up.
const CONVERSATIONS: usize = 300;

/// What those ask that do not wait for an answer.
const GIVEN_UP: [&str; 4] = [
    "",
    "{\"id\": 7, \"op\": \"status\"}\n",
    "{\"id\": 7, \"op\": \"sta",
    "{\"id\": 7, \"op\": \"wait\", \"joined\": true, \"timeout_ms\": 600000}\n{\"id\": 8, \"op\": \"peers\"}\n",
];

#[test]
fn every_conversation_is_answered_whatever_became_of_the_others() {
    let place = Place::new("control-port");
    let socket = place.private("control");
    let spec = VmSpec {
        fw_cfg: vec![value("ticket", place.ticket(&[]))],
        ..place.spec("control-port")
    };
    let mut vm = place.start(&spec);

    let begun = Instant::now();
    while UnixStream::connect(&socket).is_err() {
        vm.check_running().unwrap();
        assert!(begun.elapsed() < LIMIT, "the emulator does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut waited = Duration::ZERO;
    for number in 0..CONVERSATIONS {
        interrupt::check().unwrap();
        for round in 0..=number % 3 {
            let mut stream = UnixStream::connect(&socket).unwrap();
            let text = GIVEN_UP[(number + round) % GIVEN_UP.len()];
            // The machine may be far behind, and is not waited for.
            let _ = stream.write_all(text.as_bytes());
        }
        let begun = Instant::now();
        let answer = Control::connect(&socket)
            .unwrap()
            .ask::<Value>(json!({"op": "status"}), LIMIT);
        vm.check_running().unwrap();
        let status = answer.unwrap_or_else(|error| panic!("conversation {number}: {error:#}"));
        assert_eq!(status["pool"], "lab");
        waited = waited.max(begun.elapsed());
    }
    // The port needs no network; that there is none is said.
    let begun = Instant::now();
    loop {
        let status = Control::connect(&socket)
            .unwrap()
            .ask::<Value>(json!({"op": "status"}), LIMIT)
            .unwrap();
        let trouble = status["trouble"].to_string();
        if trouble.contains("there is no network card") {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "{trouble}");
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("{CONVERSATIONS} conversations, the longest took {waited:.2?}");
    assert!(vm.power_off(POWER_OFF_LIMIT));
}
