//! Appliances with a wrong clock take the time from their pool, and give it on; those with none go by a certificate.
//!
//! `cargo xtask test` runs these: it builds what they need and says where it is.

mod support;

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use wow_builder::qemu::{Backend, Nic, Vm, VmSpec};
use wow_lab::control::Control;
use wow_lab::interrupt;

use support::machine::{
    LIMIT, POWER_OFF_LIMIT, Place, free_port, free_tcp_port, run, seed, value, wait,
};

const HOUR: i64 = 3600;
/// How wrong a clock may still be: answers take long under the translator.
const TOLERANCE_S: f64 = 5.0;
/// By how much a machine's clock is wrong besides: it runs from when the machine really starts.
const START_MAX_S: f64 = 600.0;
/// Long enough to be noticed by the hardware's clock.
const STANDSTILL: Duration = Duration::from_secs(6);

/// A machine whose clock is off by some hours, in a pool whose one seed vouches for its own.
struct Bed {
    place: Place,
    vm: Vm,
    off: i64,
    begun: Instant,
}

fn status(socket: &Path) -> Option<Value> {
    let mut control = Control::connect(socket).ok()?;
    control.ask(json!({"op": "status"}), LIMIT).ok()
}

impl Bed {
    fn start(name: &str, number: u8, off: i64, ticket: &Path, guest: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let wrong = i64::try_from(now.as_secs()).unwrap() + off;
        let base = run("date", &["-u", "-d", &format!("@{wrong}"), "+%FT%T"]);
        let keys = [("name", name), ("guest", guest)];
        let (place, vm) = machine(name, number, ticket, Some(base.trim().to_owned()), &keys);
        Bed {
            place,
            vm,
            off,
            begun: Instant::now(),
        }
    }

    /// The clock as the machine tells of it, once it was compared later than `after`.
    fn compared(&mut self, after: Instant) -> Value {
        let control = self.place.private("control");
        let deadline = Instant::now() + LIMIT;
        loop {
            let status = status(&control);
            let clock = status.map_or(Value::Null, |status| status["clock"].clone());
            let age = clock["age_ms"].as_u64().map(Duration::from_millis);
            let is_known = clock["stratum"] != Value::Null;
            if is_known && age.is_some_and(|age| age < after.elapsed()) {
                println!("{clock}");
                return clock;
            }
            self.vm.check_running().unwrap();
            interrupt::check().unwrap();
            assert!(Instant::now() < deadline, "no time from the pool: {clock}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn check(&mut self) {
        let clock = self.compared(self.begun);
        // It was behind by what its hardware's clock was ahead.
        let off = clock["offset_ms"].as_f64().unwrap() / 1000.0;
        let wrong = (off + self.off as f64).abs();
        assert!(wrong < START_MAX_S, "{clock}");
        assert_eq!(clock["from"], "the member seed");
        assert_eq!(clock["stratum"], 8, "given on as the pool's");
        // What was put right stays so, and is compared at once when the machine has stood still.
        let mut qmp = self.place.qmp(&mut self.vm);
        qmp.stop().unwrap();
        std::thread::sleep(STANDSTILL);
        let resumed = Instant::now();
        qmp.resume().unwrap();
        let clock = self.compared(resumed);
        let off = clock["offset_ms"].as_f64().unwrap() / 1000.0;
        assert!(off.abs() < TOLERANCE_S, "{clock}");
        let status = status(&self.place.private("control")).unwrap();
        assert_eq!(status["trouble"], json!([]));
    }
}

#[test]
fn machines_with_wrong_clocks_take_the_time_from_their_pool() {
    let place = Place::new("time/pool");
    let port = free_port();
    let ticket = place.ticket(&[format!("10.0.2.2:{port}")]);
    let wow = support::tools().wow;
    let more = ["--give-time", "always"];
    let _seed = seed(&wow, place.directory.path(), port, &more);
    // One asks by its kernel, the other by the stack in the guest's place.
    let mut ahead = Bed::start("ahead", 1, 20 * HOUR, &ticket, "tun");
    ahead.check();
    let mut behind = Bed::start("behind", 2, -20 * HOUR, &ticket, "none");
    behind.check();
    for mut bed in [ahead, behind] {
        assert!(bed.vm.power_off(POWER_OFF_LIMIT));
    }
}

/// A machine with these keys, whose hardware's clock says this or the truth.
fn machine(
    name: &str,
    number: u8,
    ticket: &Path,
    rtc: Option<String>,
    keys: &[(&str, &str)],
) -> (Place, Vm) {
    let place = Place::new(&format!("time/{name}"));
    let mut fw_cfg = vec![value("ticket", ticket.into())];
    fw_cfg.extend(keys.iter().map(|(key, text)| place.value(key, text)));
    let spec = VmSpec {
        nics: vec![Nic {
            mac: [0x52, 0x54, 0x00, 0x77, 0x04, number],
            backend: Backend::User,
        }],
        fw_cfg,
        rtc,
        ..place.spec(&format!("time-{name}"))
    };
    let vm = place.start(&spec);
    (place, vm)
}

/// Waits until the node's status is so.
fn wait_status(place: &Place, vm: &mut Vm, what: &str, look: impl Fn(&Value) -> bool) {
    let mut last = Value::Null;
    wait(what, vm, || {
        let status = status(&place.private("control"))?;
        if status["trouble"] != last {
            last = status["trouble"].clone();
            println!("{what}? {last}");
        }
        look(&status).then_some(())
    });
}

#[test]
fn a_machine_without_a_clock_goes_by_a_members_certificate_and_one_with_a_clock_by_that() {
    let place = Place::new("time/evidence");
    let port = free_tcp_port();
    let ticket = place.ticket(&[format!("tcp:10.0.2.2:{port}")]);
    // What its certificate says the others could not have known by the ticket.
    let later = run("date", &["-u", "-d", "3 days", "+%FT%T"]);
    let keys = [("tcp-listen", "443")];
    let (member, mut its_vm) = machine("member", 3, &ticket, Some(later.trim().to_owned()), &keys);
    let mut qmp = member.qmp(&mut its_vm);
    qmp.forward("net0", port, 443).unwrap();
    drop(qmp);
    wait_status(&member, &mut its_vm, "the member", |_| true);

    let (believes, mut right_vm) = machine("believes", 4, &ticket, None, &[]);
    wait_status(&believes, &mut right_vm, "refused", |status| {
        status["trouble"].to_string().contains("was refused")
    });
    let lost = Some("2000-01-01T00:00:00".to_owned());
    let (learns, mut lost_vm) = machine("learns", 5, &ticket, lost, &[]);
    wait_status(&learns, &mut lost_vm, "a session", |status| {
        status["peers"].as_u64() == Some(1) && status["joined"] == true
    });
    let status = status(&believes.private("control")).unwrap();
    assert_eq!(status["peers"], 0, "{status}");
    for mut vm in [its_vm, right_vm, lost_vm] {
        assert!(vm.power_off(POWER_OFF_LIMIT));
    }
}
