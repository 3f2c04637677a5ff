use super::*;

use rand::{RngExt, SeedableRng};

use crate::Rng;

const WANTED: usize = 8939;
const TIMEOUT: Duration = Duration::from_millis(100);
const RTT: Duration = Duration::from_millis(20);

/// A path that carries some lengths, and loses a share of all else that is sent.
struct Path {
    mtu: PathMtu,
    now: Instant,
    heard: Instant,
    carries: usize,
    is_down: bool,
    loss: f64,
    dice: Rng,
    probes: u64,
    black_holes: usize,
}

impl Path {
    fn new(carries: usize) -> Path {
        let remote = Remote::udp(([192, 0, 2, 1], 4001).into());
        let now = Instant::ZERO + Duration::from_secs(1);
        Path {
            mtu: PathMtu::new(remote, WANTED, now),
            now,
            heard: now,
            carries,
            is_down: false,
            loss: 0.0,
            dice: Rng::seed_from_u64(1),
            probes: 0,
            black_holes: 0,
        }
    }

    /// Lets so much time pass, in which something is heard all the time while the path is there.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let due = self.mtu.deadline().map(|due| due.max(self.now));
            let Some(due) = due.filter(|due| *due <= end) else {
                break;
            };
            self.now = due;
            if !self.is_down {
                self.heard = due;
            }
            let length = match self.mtu.step(self.now, self.heard) {
                Step::Wait => continue,
                Step::Probe(length) => length,
                Step::BlackHole(length) => {
                    self.black_holes += 1;
                    length
                }
            };
            self.probes += 1;
            let fresh = self.probes;
            let token = self.mtu.on_probe_sent(fresh, self.now, self.heard, TIMEOUT);
            let lost = self.loss > 0.0 && self.dice.random_bool(self.loss);
            if length <= self.carries && !self.is_down && !lost {
                self.now = self.now + RTT;
                self.heard = self.now;
                assert!(self.mtu.on_ack(token, self.now));
            }
        }
        self.now = self.now.max(end);
    }

    /// Somebody sends datagrams of all lengths for so long.
    fn use_for(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.mtu.want(WANTED, self.now);
            self.mtu.on_sent(self.mtu.passes());
            self.pass(Duration::from_millis(50));
        }
    }
}

fn check(carries: usize, at_most: u64) {
    let mut path = Path::new(carries);
    path.mtu.want(1300, path.now);
    path.pass(Duration::from_secs(30));
    let found = path.mtu.passes();
    let best = carries.min(WANTED);
    assert!(
        found <= best && best - found < STEP_BYTES,
        "{found} of {best}"
    );
    assert!(path.mtu.is_settled());
    assert!(
        path.probes <= at_most,
        "{} probes for {carries}",
        path.probes
    );
}

#[test]
fn the_search_finds_what_passes_and_begins_with_what_is_likely() {
    check(65_000, 1);
    check(1500 - 28, 7);
    check(1492 - 28, 40);
    check(1280 - 28, 40);
    for carries in (1252..9100).step_by(37) {
        check(carries, 60);
    }
}

#[test]
fn nothing_is_probed_where_nothing_is_long() {
    let mut path = Path::new(1472);
    path.mtu.want(1252, path.now);
    path.mtu.on_sent(1252);
    assert_eq!(path.mtu.deadline(), None);
    path.mtu.want(1253, path.now);
    assert!(path.mtu.deadline().is_some());
}

#[test]
fn what_passes_is_found_though_a_tenth_is_lost() {
    let mut path = Path::new(WANTED);
    path.loss = 0.1;
    path.use_for(Duration::from_secs(60));
    assert_eq!(path.mtu.passes(), WANTED);
}

#[test]
fn an_idle_path_is_not_asked_again() {
    let mut path = Path::new(WANTED);
    path.use_for(Duration::from_secs(2));
    path.pass(Duration::from_secs(5));
    let before = path.probes;
    path.pass(Duration::from_secs(3600));
    assert_eq!(path.probes, before);
}

#[test]
fn a_path_that_becomes_narrower_is_noticed_within_three_seconds_of_use() {
    let mut path = Path::new(WANTED);
    path.use_for(Duration::from_secs(5));
    assert_eq!(path.mtu.passes(), WANTED);
    path.carries = 1400;
    path.use_for(Duration::from_secs(3));
    assert_eq!(path.black_holes, 1);
    assert!(path.mtu.passes() <= 1400);
    path.use_for(Duration::from_secs(20));
    assert!(path.mtu.is_settled());
    assert!((1393..=1400).contains(&path.mtu.passes()));
}

#[test]
fn a_path_that_becomes_wider_is_noticed_when_the_result_is_old_or_questioned() {
    let mut path = Path::new(1252);
    path.use_for(Duration::from_secs(20));
    assert!(path.mtu.is_settled());
    path.carries = 1472;
    path.use_for(Duration::from_secs(60));
    assert_eq!(path.mtu.passes(), 1252);
    path.mtu.question(path.now);
    path.use_for(Duration::from_secs(20));
    assert_eq!(path.mtu.passes(), 1472);
    path.carries = WANTED;
    path.use_for(RAISE_AFTER + Duration::from_secs(1));
    assert_eq!(path.mtu.passes(), WANTED);
}

#[test]
fn a_path_that_is_down_for_a_while_is_not_taken_for_a_narrow_one() {
    let mut path = Path::new(WANTED);
    path.use_for(Duration::from_secs(5));
    path.is_down = true;
    path.use_for(Duration::from_secs(10));
    assert_eq!((path.mtu.passes(), path.black_holes), (WANTED, 0));
    path.is_down = false;
    path.use_for(Duration::from_secs(5));
    assert_eq!((path.mtu.passes(), path.black_holes), (WANTED, 0));
}

#[test]
fn what_the_machine_refuses_needs_no_timeout() {
    let mut path = Path::new(1472);
    path.mtu.want(WANTED, path.now);
    let mut lengths = Vec::new();
    while let Step::Probe(length) = path.mtu.step(path.now, path.heard) {
        path.mtu.on_probe_sent(1, path.now, path.heard, TIMEOUT);
        lengths.push(length);
        if length > 1472 {
            path.mtu.on_refused(length, path.now);
        } else {
            path.mtu.on_ack(1, path.now);
        }
    }
    assert_eq!(lengths[..2], [WANTED, 1472]);
    assert!((1472..1472 + STEP_BYTES).contains(&path.mtu.passes()));
    // The link has become narrower while it was used.
    path.mtu.on_refused(path.mtu.passes(), path.now);
    assert_eq!(path.mtu.passes(), 1252);
    assert!(!path.mtu.is_settled());
    // What every path carries is not given up, and what nobody sent says nothing.
    path.mtu.on_refused(1252, path.now);
    path.mtu.on_refused(9000, path.now);
    assert_eq!(path.mtu.passes(), 1252);
}

#[test]
fn an_answer_that_is_later_than_all_tries_counts_still() {
    let mut path = Path::new(WANTED);
    path.use_for(Duration::from_secs(5));
    path.mtu.on_sent(WANTED);
    let mut last = 0;
    loop {
        path.now = path.mtu.deadline().unwrap().max(path.now);
        path.heard = path.now;
        match path.mtu.step(path.now, path.heard) {
            Step::Probe(_) => last = path.mtu.on_probe_sent(99, path.now, path.heard, TIMEOUT),
            Step::BlackHole(_) => break,
            Step::Wait => panic!("it was due"),
        }
    }
    assert!(!path.mtu.is_settled() && path.mtu.passes() == 1252);
    assert!(path.mtu.on_ack(last, path.now));
    assert!(path.mtu.is_settled() && path.mtu.passes() == WANTED);
}

#[test]
fn only_the_probe_that_is_out_can_be_answered() {
    let mut path = Path::new(WANTED);
    path.mtu.want(WANTED, path.now);
    assert_eq!(path.mtu.step(path.now, path.heard), Step::Probe(WANTED));
    path.mtu.on_probe_sent(7, path.now, path.heard, TIMEOUT);
    assert!(!path.mtu.on_ack(8, path.now));
    assert!(path.mtu.on_ack(7, path.now) && !path.mtu.on_ack(7, path.now));
}
