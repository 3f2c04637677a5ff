//! The loop: how things are, what role that gives, and putting right what is not.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::command;
use crate::daemon::{Daemon, Status};
use crate::head::Head;
use crate::live;
use crate::machine;
use crate::member::Member;
use crate::network::Network;
use crate::options::Options;
use crate::role::Role;
use crate::trouble::Trouble;

/// How often things are looked at: soon while something is wrong, else now and then.
const SOON: Duration = Duration::from_secs(2);
const LATER: Duration = Duration::from_secs(10);

/// What the machine does.
enum Duty {
    Head(Box<Head>),
    Member(Box<Member>),
}

/// How things are.
enum State {
    /// As they should be.
    Well,
    /// Something is to be done, or cannot be.
    Troubled,
    /// The machine has another role now: whoever starts this program again starts with that.
    Other,
}

/// Works until it is told to end, or the machine's role is another.
pub fn run(options: Options) -> Result<()> {
    let daemon = Daemon::new(options.socket.clone());
    let stop = stop_signals()?;
    let mut trouble = Trouble::default();
    let mut network = Network::default();
    let mut duty: Option<(Role, Duty)> = None;
    loop {
        let state = turn(&daemon, &options, &mut duty, &mut network, &mut trouble);
        // Nothing is done about it here, so it is looked for no sooner.
        for sentence in live::trouble() {
            trouble.add(sentence);
        }
        trouble.tell(&daemon);
        let pause = match state {
            State::Well => LATER,
            State::Troubled => SOON,
            State::Other => break,
        };
        match stop.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if let Some((_, Duty::Member(member))) = &mut duty
        && machine_ends()
    {
        member.leave();
    }
    Ok(())
}

fn turn(
    daemon: &Daemon,
    options: &Options,
    duty: &mut Option<(Role, Duty)>,
    network: &mut Network,
    trouble: &mut Trouble,
) -> State {
    let status = match daemon.status() {
        Ok(status) => status,
        Err(error) => {
            trouble.add(format!("{error:#}"));
            return State::Troubled;
        }
    };
    trouble.check(network.tend(status.joined));
    let role = match Role::choose(&status) {
        Ok(role) => role,
        Err(words) => {
            trouble.add(words);
            return match duty {
                Some(held) => give_up(held),
                None => State::Troubled,
            };
        }
    };
    if let Some(held) = duty.as_ref().filter(|(held, _)| *held != role) {
        return give_up(held);
    }
    // The daemon says itself why it has not joined. Whoever is at work goes on meanwhile.
    if !status.joined {
        return State::Troubled;
    }
    if duty.is_none() {
        match take_up(daemon, options, &status, role) {
            Ok(taken) => {
                tracing::info!(%role, pool = status.pool, "this machine's role");
                *duty = Some((role, taken));
            }
            Err(error) => {
                trouble.add(format!("{error:#}"));
                return State::Troubled;
            }
        }
    }
    match duty {
        Some((_, Duty::Head(head))) => head.tend(&status, trouble),
        Some((_, Duty::Member(member))) => member.tend(&status, trouble),
        None => {}
    }
    match trouble.is_none() {
        true => State::Well,
        false => State::Troubled,
    }
}

fn give_up((role, duty): &(Role, Duty)) -> State {
    tracing::info!(%role, "this machine's role is another now");
    if let Duty::Head(head) = duty {
        head.retire();
    }
    State::Other
}

fn take_up(daemon: &Daemon, options: &Options, status: &Status, role: Role) -> Result<Duty> {
    let (daemon, options) = (daemon.clone(), options.clone());
    Ok(match role {
        Role::Head => Duty::Head(Box::new(Head::new(daemon, options, status)?)),
        Role::Worker | Role::Login => Duty::Member(Box::new(Member::new(daemon, options, role))),
    })
}

fn stop_signals() -> Result<Receiver<()>> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("cannot catch signals")?;
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if sender.send(()).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Whether it is the machine that ends, and not only this program. Without systemd they are one.
fn machine_ends() -> bool {
    if !machine::has_systemd() {
        return true;
    }
    // It fails for any state but `running`, and names it in its output.
    let state = "systemctl is-system-running || true";
    command::run("sh", &["-c", state], command::LOCAL).is_ok_and(|text| text.trim() == "stopping")
}
