//! The appliance's status screen: drawn in place on the machine's screen, and printed on its serial console when
//! something changes; a few keys on both. It asks the node by its control socket, as anybody else.

mod keys;
mod shell;
mod view;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval};
use wow_init::network;
use wow_init::power::{Request, Shutdown};
use wow_init::reaper::OwnedChild;
use wow_init::terminal::Terminal;

use self::keys::{Action, Keys, Page};
pub use self::view::Phase;
use crate::api::{Op, Peer, Status};
use crate::{ipc, logging};

/// How often the screen is drawn anew, which also repairs what the kernel wrote over it.
const DRAW: Duration = Duration::from_secs(1);
/// How often the node is asked.
const ASK: Duration = Duration::from_secs(2);
/// How long it may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// On the serial console changes are gathered for so long, and shown together.
const SETTLE: Duration = Duration::from_secs(3);
/// A PC's screen.
const COLUMNS: usize = 80;
const ROWS: usize = 25;
/// Messages that a serial console shows at once.
const PRINTED_LOGS: usize = 20;
/// Sentences of problems kept of each place.
const PROBLEMS_MAX: usize = 16;

/// What the machine says of itself besides its node; shared between the machine's tasks.
#[derive(Debug, Clone)]
pub struct Board(Rc<RefCell<Said>>);

#[derive(Debug)]
struct Said {
    phase: Phase,
    /// By where they are found.
    problems: BTreeMap<&'static str, Vec<String>>,
}

impl Default for Board {
    fn default() -> Self {
        let phase = Phase::Waiting(String::new());
        let problems = BTreeMap::new();
        Board(Rc::new(RefCell::new(Said { phase, problems })))
    }
}

impl Board {
    /// What the machine does now.
    pub fn set_phase(&self, phase: Phase) {
        self.0.borrow_mut().phase = phase;
    }

    /// What is wrong now in one place, instead of what was said of it before; a sentence each.
    pub fn set_problems(&self, place: &'static str, mut problems: Vec<String>) {
        problems.truncate(PROBLEMS_MAX);
        self.0.borrow_mut().problems.insert(place, problems);
    }

    /// What is wrong now, by where it is found.
    pub fn problems(&self) -> BTreeMap<&'static str, Vec<String>> {
        self.0.borrow().problems.clone()
    }
}

/// The screen's task.
pub struct Screen {
    board: Board,
    network: Option<watch::Receiver<network::Status>>,
    power: mpsc::Sender<Request>,
    socket: PathBuf,
    node: Option<(Status, Vec<Peer>)>,
    display: Option<Shown>,
    serial: Option<Shown>,
    summary: Summary,
    has_shell: bool,
}

/// A terminal and what was pressed on it.
struct Shown {
    terminal: Terminal,
    keys: Keys,
    /// What has the terminal meanwhile.
    shell: Option<OwnedChild>,
}

/// What a log was last told, and what it may be told next.
#[derive(Debug, Default)]
struct Summary {
    printed: Vec<String>,
    /// The last one that differs, and since when it stands.
    pending: Option<(Vec<String>, Instant)>,
}

impl Summary {
    /// The lines to print, once they have stood for a while.
    fn settle(&mut self, lines: Vec<String>, now: Instant) -> Option<&[String]> {
        if lines == self.printed {
            self.pending = None;
            return None;
        }
        match &self.pending {
            Some((pending, since)) if *pending == lines => {
                if now.duration_since(*since) < SETTLE {
                    return None;
                }
            }
            _ => {
                self.pending = Some((lines, now));
                return None;
            }
        }
        self.pending = None;
        self.printed = lines;
        Some(&self.printed)
    }
}

impl Screen {
    /// A screen on the machine's own terminals, as far as it has any. Needs a running event loop.
    pub fn new(
        board: Board,
        network: Option<watch::Receiver<network::Status>>,
        power: mpsc::Sender<Request>,
        socket: PathBuf,
    ) -> Self {
        let has_shell = shell::is_there();
        let shown = |terminal| Shown {
            terminal,
            keys: Keys::new(has_shell),
            shell: None,
        };
        Screen {
            board,
            network,
            power,
            socket,
            node: None,
            display: Terminal::screen().map(shown),
            serial: Terminal::serial().map(shown),
            summary: Summary::default(),
            has_shell,
        }
    }

    /// Shows for as long as the machine runs.
    pub async fn run(mut self) {
        let (mut draw, mut ask) = (interval(DRAW), interval(ASK));
        // The cursor is of no use here.
        self.write_display("\x1b[2J\x1b[?25l");
        loop {
            tokio::select! {
                _ = draw.tick() => {
                    self.draw();
                    self.tell_changes();
                }
                _ = ask.tick() => self.ask().await,
                event = event(&mut self.display) => match event {
                    Event::Key(key) => self.press_on_display(key),
                    Event::ShellEnded => self.write_display("\x1b[2J\x1b[?25l"),
                    Event::Gone => self.display = None,
                },
                event = event(&mut self.serial) => match event {
                    Event::Key(key) => self.press_on_serial(key),
                    Event::ShellEnded => self.print(Page::Status),
                    Event::Gone => self.serial = None,
                },
            }
        }
    }

    /// Asks the node how it is; one that is not there answers at once.
    async fn ask(&mut self) {
        let running = matches!(self.board.0.borrow().phase, Phase::Running);
        let node = async {
            let status = ipc::client::ask(&self.socket, Op::Status, ANSWER_MAX).await?;
            let peers = ipc::client::ask(&self.socket, Op::Peers, ANSWER_MAX).await?;
            anyhow::Ok((status, peers))
        };
        self.node = match running {
            true => node.await.ok(),
            false => None,
        };
    }

    fn facts(&self) -> view::Facts {
        let said = self.board.0.borrow();
        let (status, peers) = self.node.clone().unzip();
        let network = self.network.as_ref().map(|status| status.borrow().clone());
        view::Facts {
            phase: said.phase.clone(),
            status,
            peers: peers.unwrap_or_default(),
            network: network.unwrap_or_default(),
            problems: said.problems.values().flatten().cloned().collect(),
            last_trouble: logging::last_trouble(),
            uptime: wow_init::since_boot(),
            shell: self.has_shell,
        }
    }

    fn write_display(&mut self, text: &str) {
        if let Some(display) = &mut self.display
            && display.shell.is_none()
        {
            display.terminal.write(text);
        }
    }

    fn draw(&mut self) {
        let Some(display) = &mut self.display else {
            return;
        };
        display.keys.expire(wow_init::since_boot());
        let page = display.keys.page();
        let lines = view::page(&self.facts(), page, &logging::last(ROWS), COLUMNS, ROWS);
        // Each line takes the place of the one that was there; the last has no line feed, or all would move.
        let text = format!("\x1b[H\x1b[K{}", lines.join("\n\x1b[K"));
        self.write_display(&text);
    }

    fn press_on_display(&mut self, key: u8) {
        let Some(display) = &mut self.display else {
            return;
        };
        match display.keys.press(key, wow_init::since_boot()) {
            Some(Action::Show(_)) => self.draw(),
            Some(Action::Restart) => self.restart("the screen's keyboard"),
            Some(Action::Shell) => display.open_shell(),
            None => {}
        }
    }

    fn press_on_serial(&mut self, key: u8) {
        let Some(serial) = &mut self.serial else {
            return;
        };
        match serial.keys.press(key, wow_init::since_boot()) {
            Some(Action::Show(page)) => self.print(page),
            Some(Action::Restart) => self.restart("the serial console"),
            Some(Action::Shell) => serial.open_shell(),
            None => {}
        }
    }

    fn print(&mut self, page: Page) {
        let lines = view::printed(&self.facts(), page, &logging::last(PRINTED_LOGS));
        if let Some(serial) = &mut self.serial {
            serial.terminal.write(&format!("\n{}\n", lines.join("\n")));
        }
    }

    /// A few lines into the log of whoever records the console. Not among the log's own messages, where it would
    /// be one of its own causes.
    fn tell_changes(&mut self) {
        let summary = view::summary(&self.facts());
        let Some(serial) = &mut self.serial else {
            return;
        };
        if serial.shell.is_some() {
            return;
        }
        if let Some(lines) = self.summary.settle(summary, Instant::now()) {
            let lines: String = lines.iter().map(|line| format!("wow: {line}\n")).collect();
            serial.terminal.write(&lines);
        }
    }

    fn restart(&mut self, cause: &'static str) {
        let shutdown = Shutdown::Restart;
        // A full queue holds another request to end.
        let _ = self.power.try_send(Request { shutdown, cause });
    }
}

/// What happens on a terminal.
enum Event {
    Key(u8),
    /// The terminal is the screen's again.
    ShellEnded,
    Gone,
}

/// The next event; waits for ever without a terminal.
async fn event(shown: &mut Option<Shown>) -> Event {
    let Some(shown) = shown else {
        return std::future::pending().await;
    };
    if let Some(shell) = &mut shown.shell {
        // However it ended: whoever sat there has seen it.
        let _ = shell.wait().await;
        shown.shell = None;
        shown.terminal.take_back();
        return Event::ShellEnded;
    }
    match shown.terminal.key().await {
        Ok(key) => Event::Key(key),
        Err(_) => Event::Gone,
    }
}

impl Shown {
    fn open_shell(&mut self) {
        self.terminal.write("\x1b[?25h\n");
        match shell::open(&mut self.terminal) {
            Ok(shell) => {
                tracing::warn!("a shell was opened on the machine's terminal");
                self.shell = Some(shell);
            }
            Err(error) => {
                self.terminal.take_back();
                tracing::error!(%error, "no shell could be opened");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_told_of_what_has_settled_and_of_nothing_twice() {
        let mut summary = Summary::default();
        let start = Instant::now();
        let lines = |text: &str| vec![text.to_owned()];
        let mut at = |seconds, text: &str| {
            let now = start + Duration::from_secs(seconds);
            summary.settle(lines(text), now).map(<[String]>::to_vec)
        };
        assert_eq!(at(0, "joining"), None);
        assert_eq!(at(2, "joined"), None, "it changed meanwhile");
        assert_eq!(at(4, "joined"), None);
        assert_eq!(at(5, "joined"), Some(lines("joined")));
        assert_eq!(at(60, "joined"), None);
        assert_eq!(at(61, "joining"), None);
        assert_eq!(at(62, "joined"), None, "back before it settled");
        assert_eq!(at(65, "joined"), None);
    }
}
