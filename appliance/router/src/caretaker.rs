//! Looks after the machine around an appliance's node while it runs: configuration disks and the state's disk that
//! come, go or fail, and network cards. What is wrong stands on the board, which the screen shows, and is told to
//! the node, which tells everybody who asks; it goes when its cause goes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use wow_init::config::Sources;
use wow_init::network;
use wow_init::state::{self, MOUNTED_ON, Partition};

use crate::api::Op;
use crate::keeper::Keeper;
use crate::screen::Board;
use crate::{configuration, ipc};

/// Where problems are found, as the node is told of them.
pub const CONFIGURATION: &str = "configuration";
const STATE: &str = "state";
const NETWORK: &str = "network";

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);
/// How often a disk that fails, or a configuration in which something is wrong, is tried again.
const RETRY: Duration = Duration::from_secs(15);
/// How long disks may take to be looked through; then they are left alone until they come back.
const DISKS_MAX: Duration = Duration::from_secs(10);
/// How long a card may be without an address before that is named: a lease may take some time.
const ADDRESS_MAX: Duration = Duration::from_secs(10);
/// How often the node is told what it was told before: it may be another node by now.
const TELL: Duration = Duration::from_secs(10);
/// How long it may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// See the module.
pub struct Caretaker {
    board: Board,
    sources: Arc<Sources>,
    keeper: Keeper,
    network: Option<watch::Receiver<network::Status>>,
    socket: PathBuf,
    partition: Partition,
    /// The device that the state was on before it was pulled.
    pulled: Option<String>,
    /// How the disks were when they were last looked through.
    disks: Vec<String>,
    tried: Instant,
    /// When the configuration was last read.
    read: Instant,
    /// Since when there is no address.
    unreachable: Option<Instant>,
    told: (BTreeMap<&'static str, Vec<String>>, Instant),
}

impl Caretaker {
    /// Takes over a machine whose boot has left it with `partition`. Needs a running event loop.
    pub fn new(
        board: Board,
        sources: Arc<Sources>,
        partition: Partition,
        network: Option<watch::Receiver<network::Status>>,
        socket: PathBuf,
    ) -> Self {
        let keeper = Keeper::default();
        let disks = sources.changes();
        let now = Instant::now();
        if let Partition::Mounted { .. } = partition {
            // Nobody runs yet whose it could not be.
            let _ = keeper.attach(Path::new(MOUNTED_ON));
        }
        let mut caretaker = Caretaker {
            board,
            sources,
            keeper,
            network,
            socket,
            partition,
            pulled: None,
            disks,
            tried: now,
            read: now,
            unreachable: None,
            told: (BTreeMap::new(), now),
        };
        caretaker.note();
        caretaker
    }

    /// What keeps the node's files.
    pub fn keeper(&self) -> Keeper {
        self.keeper.clone()
    }

    /// Looks after the machine for as long as it runs.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let disks = self.sources.changes();
            if disks != self.disks {
                self.disks = disks;
                tracing::info!("disks have changed: looking through them");
                self.follow_state().await;
                self.read_configuration().await;
            } else if self.is_configuration_due() {
                self.read_configuration().await;
            } else if self.keeper.trouble().is_some() && self.tried.elapsed() >= RETRY {
                self.tried = Instant::now();
                if matches!(self.partition, Partition::Mounted { .. }) && !self.partition.is_well()
                {
                    self.follow_state().await;
                }
                self.keeper.retry();
            }
            self.note();
            self.tell().await;
        }
    }

    /// What is wrong with the configuration may have been put right where nothing tells of a change: hypervisors'
    /// properties.
    fn is_configuration_due(&self) -> bool {
        let problems = self.board.problems();
        let is_wrong = problems
            .get(CONFIGURATION)
            .is_some_and(|all| !all.is_empty());
        is_wrong && self.read.elapsed() >= RETRY
    }

    async fn read_configuration(&mut self) {
        let merged = self.sources.read_aside().await;
        self.board
            .set_problems(CONFIGURATION, configuration::problems(&merged));
        self.read = Instant::now();
    }

    /// The state's disk may have gone or come.
    async fn follow_state(&mut self) {
        if self.partition.is_well() && self.keeper.is_attached() {
            return;
        }
        // Nothing is to be written to the directory that a disk is no longer mounted on.
        self.keeper.detach();
        self.partition.detach();
        if let Partition::Mounted { device } = &self.partition {
            self.pulled = Some(device.clone());
        }
        let keeper = self.keeper.clone();
        let accept = move |directory: &Path| {
            let attached = keeper.attach(directory);
            attached.map_err(|error| format!("{error:#}"))
        };
        let look = tokio::task::spawn_blocking(move || state::attach(accept));
        self.partition = match timeout(DISKS_MAX, look).await {
            Ok(Ok(partition)) => partition,
            Ok(Err(_)) | Err(_) => Partition::Refused(
                "a disk does not answer: the state partition is looked for when disks change"
                    .to_owned(),
            ),
        };
        match &self.partition {
            Partition::Mounted { device } => {
                tracing::info!(device, "the state is kept here");
                self.pulled = None;
            }
            Partition::Refused(why) => tracing::error!("{why}"),
            Partition::Absent => {}
        }
    }

    /// Writes on the board what is wrong.
    fn note(&mut self) {
        let mut problems = Vec::new();
        if let Partition::Refused(why) = &self.partition {
            problems.push(why.clone());
        }
        if let Some(device) = &self.pulled {
            problems.push(format!(
                "the state's disk {device} is gone: what the node learns now is lost with a restart, until the disk \
                 is attached again"
            ));
        }
        self.board.set_problems(STATE, problems);
        let network = self
            .network
            .as_ref()
            .map(|network| network.borrow().clone());
        let reachable = network
            .as_ref()
            .is_none_or(|network| network.underlay.is_some());
        let since = match reachable {
            true => None,
            false => Some(self.unreachable.unwrap_or_else(Instant::now)),
        };
        self.unreachable = since;
        let late = since.is_some_and(|since| since.elapsed() >= ADDRESS_MAX);
        let told = network
            .filter(|_| late)
            .map(|network| unreachable(&network));
        self.board.set_problems(NETWORK, told.into_iter().collect());
    }

    /// Tells the node, if there is one.
    async fn tell(&mut self) {
        let problems = self.board.problems();
        let (told, when) = &self.told;
        if problems == *told && when.elapsed() < TELL {
            return;
        }
        for (place, sentences) in &problems {
            let op = Op::Trouble {
                from: (*place).to_owned(),
                sentences: sentences.clone(),
            };
            // A node that does not run yet is told later.
            if ipc::client::ask::<bool>(&self.socket, op, ANSWER_MAX)
                .await
                .is_err()
            {
                return;
            }
        }
        self.told = (problems, Instant::now());
    }
}

/// What to say of a machine without an address.
fn unreachable(network: &network::Status) -> String {
    match network.interfaces.is_empty() {
        true => "there is no network card: attach one; it is taken into use at once".to_owned(),
        false => format!(
            "there is no address on {}: is its cable plugged in, and does a DHCP server answer? An address can be \
             fixed by `net`",
            network.interfaces.join(" ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use wow_init::config::{Origin, Problem, Rank, Reading, Source};

    /// A source that nothing tells of a change of, as a hypervisor's properties are.
    struct Silent(Arc<Mutex<Option<&'static str>>>);

    impl Source for Silent {
        fn rank(&self) -> Rank {
            Rank::GuestInfo
        }

        fn read(&self) -> Reading {
            let complaint = *self.0.lock().unwrap();
            let problem = complaint.map(|complaint| Problem::Source {
                origin: Origin::new("hypervisor", "property"),
                complaint: complaint.to_owned(),
            });
            Reading {
                problems: problem.into_iter().collect(),
                ..Reading::default()
            }
        }

        fn example(&self, key: &str) -> String {
            key.to_owned()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_wrong_with_the_configuration_is_looked_at_again_until_it_is_mended() {
        let complaint = Arc::new(Mutex::new(Some("is no text")));
        let sources = Sources::new(vec![Box::new(Silent(Arc::clone(&complaint)))]);
        let board = Board::default();
        let wrong = configuration::problems(&sources.read());
        assert_eq!(wrong, ["hypervisor, property: is no text"]);
        board.set_problems(CONFIGURATION, wrong.clone());
        let socket = PathBuf::from("/nowhere");
        let sources = Arc::new(sources);
        let caretaker = Caretaker::new(board.clone(), sources, Partition::Absent, None, socket);
        let told = || {
            board
                .problems()
                .get(CONFIGURATION)
                .cloned()
                .unwrap_or_default()
        };
        let mended = async {
            tokio::time::sleep(RETRY * 3).await;
            assert_eq!(told(), wrong);
            *complaint.lock().unwrap() = None;
            while !told().is_empty() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let limit = RETRY * 10;
        tokio::select! {
            () = caretaker.run() => unreachable!("it looks for ever"),
            () = mended => {}
            () = tokio::time::sleep(limit) => panic!("still {:?}", told()),
        }
    }
}
