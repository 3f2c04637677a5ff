//! qselect: the identifiers of jobs that fit.

use std::ffi::OsString;

use crate::arguments;
use crate::failure::Failure;
use crate::slurm::job::State;
use crate::slurm::queue::Queue;

/// `qselect [-u USERS] [-s STATES] [-q QUEUE] [-N NAME] [-A ACCOUNT] [-T] [-x]`
pub fn run(arguments: Vec<OsString>) -> Result<u8, Failure> {
    let parsed = arguments::parse("u:s:q:N:A:TJxHt", arguments)?;
    if let Some(states) = parsed.value('s')
        && !states.chars().all(|state| "BEFHQRSTWX".contains(state))
    {
        return Err(Failure::illegal('s'));
    }
    let history = parsed.has('x') || parsed.has('H');
    let queue = Queue::load()?;
    for entry in queue.entries(parsed.has('T') || parsed.has('t')) {
        let user = |users: &str| {
            users
                .split(',')
                .any(|user| user.split('@').next() == Some(&entry.job.user_name))
        };
        let state = |states: &str| states.contains(entry.state.letter());
        let of_queue = |name: &str| name.split('@').next() == Some(&entry.job.partition);
        let fits = (history || entry.state != State::Finished)
            && parsed.value('u').is_none_or(user)
            && parsed.value('s').is_none_or(state)
            && parsed.value('q').is_none_or(of_queue)
            && parsed.value('N').is_none_or(|name| name == entry.job.name)
            && parsed
                .value('A')
                .is_none_or(|account| account == entry.job.account)
            && (!parsed.has('J') || entry.id.part == crate::job_id::Part::Array);
        if fits {
            println!("{}", entry.id.full());
        }
    }
    Ok(0)
}
