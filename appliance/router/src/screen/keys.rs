//! What a key does. A machine of a few states: no key alone restarts anything.

use std::time::Duration;

/// How long a question waits for its answer.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);

const ESCAPE: u8 = 0x1b;

/// What is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Page {
    /// How the node is.
    #[default]
    Status,
    /// The last log messages.
    Logs,
    /// Interfaces, addresses, gateways.
    Network,
    /// The question whether to restart.
    Restart,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Show this page; a line terminal prints it.
    Show(Page),
    /// Restart the machine.
    Restart,
    /// Open a shell on this terminal.
    Shell,
}

/// The keys so far.
#[derive(Debug, Default)]
pub struct Keys {
    page: Page,
    /// Since when a question waits.
    asked: Option<Duration>,
    /// Within what a function key sends.
    escaped: Escape,
    /// Whether the machine has a shell.
    shell: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    Begun,
    Sequence,
}

impl Keys {
    /// The keys of a machine that has a shell, or none.
    pub fn new(shell: bool) -> Self {
        Keys {
            shell,
            ..Self::default()
        }
    }

    /// The page that is shown.
    pub fn page(&self) -> Page {
        self.page
    }

    /// A key, at a time of any beginning.
    pub fn press(&mut self, key: u8, now: Duration) -> Option<Action> {
        match (self.escaped, key) {
            (_, ESCAPE) => {
                self.escaped = Escape::Begun;
                return Some(self.show(Page::Status));
            }
            (Escape::Begun, b'[' | b'O') => {
                self.escaped = Escape::Sequence;
                return None;
            }
            (Escape::Sequence, last) => {
                if (0x40..=0x7e).contains(&last) {
                    self.escaped = Escape::None;
                }
                return None;
            }
            _ => self.escaped = Escape::None,
        }
        let asked = self.asked.take();
        match key.to_ascii_lowercase() {
            b'y' if asked.is_some_and(|asked| now.saturating_sub(asked) <= ANSWER_MAX) => {
                self.page = Page::Status;
                Some(Action::Restart)
            }
            b'r' => {
                self.asked = Some(now);
                Some(self.show(Page::Restart))
            }
            b'x' if self.shell => {
                self.page = Page::Status;
                Some(Action::Shell)
            }
            b'l' => Some(self.show(Page::Logs)),
            b'n' => Some(self.show(Page::Network)),
            b's' | b'\r' | b'\n' | b' ' => Some(self.show(Page::Status)),
            // Whatever else answers a question says no.
            _ if asked.is_some() => Some(self.show(Page::Status)),
            _ => None,
        }
    }

    /// Whether a question was left without an answer; the status is shown again.
    pub fn expire(&mut self, now: Duration) -> bool {
        let late = self
            .asked
            .is_some_and(|asked| now.saturating_sub(asked) > ANSWER_MAX);
        if late {
            self.asked = None;
            self.page = Page::Status;
        }
        late
    }

    fn show(&mut self, page: Page) -> Action {
        if page != Page::Restart {
            self.asked = None;
        }
        self.page = page;
        Action::Show(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn press_all(keys: &mut Keys, text: &[u8]) -> Vec<Option<Action>> {
        text.iter().map(|key| keys.press(*key, NOW)).collect()
    }

    #[test]
    fn keys_choose_pages_and_unknown_ones_do_nothing() {
        let mut keys = Keys::default();
        let shown = |page| Some(Action::Show(page));
        let done = press_all(&mut keys, b"lNq\r");
        let expected = [
            shown(Page::Logs),
            shown(Page::Network),
            None,
            shown(Page::Status),
        ];
        assert_eq!(done, expected);
    }

    #[test]
    fn a_restart_needs_an_answer_in_time() {
        let restarts = |text: &[u8]| {
            let mut keys = Keys::default();
            press_all(&mut keys, text).contains(&Some(Action::Restart))
        };
        assert!(restarts(b"ry") && restarts(b"RY"));
        for other in [&b"y"[..], b"rny", b"rly", b"r\x1by", b"rqy", b"r\x1b[Ay"] {
            assert!(!restarts(other), "{other:?}");
        }
        let mut late = Keys::default();
        late.press(b'r', NOW);
        assert!(!late.expire(NOW + ANSWER_MAX));
        let after = NOW + ANSWER_MAX + Duration::from_secs(1);
        assert_eq!(late.press(b'y', after), Some(Action::Show(Page::Status)));
        late.press(b'r', NOW);
        assert!(late.expire(after));
        assert_eq!(late.page(), Page::Status);
    }

    #[test]
    fn a_shell_opens_only_where_there_is_one() {
        assert_eq!(Keys::new(true).press(b'x', NOW), Some(Action::Shell));
        assert_eq!(Keys::new(false).press(b'x', NOW), None);
        let mut asked = Keys::new(true);
        press_all(&mut asked, b"rx");
        assert_eq!(asked.press(b'y', NOW), None, "x was the answer");
    }

    #[test]
    fn what_a_function_key_sends_is_no_letter() {
        let mut keys = Keys::default();
        // The up arrow, F5, and a lone escape before a letter.
        press_all(&mut keys, b"\x1b[A\x1b[15~");
        assert_eq!(keys.page(), Page::Status);
        press_all(&mut keys, b"\x1bOR");
        assert_eq!(keys.page(), Page::Status);
        assert_eq!(keys.press(b'l', NOW), Some(Action::Show(Page::Logs)));
        press_all(&mut keys, b"\x1bn");
        assert_eq!(keys.page(), Page::Network);
    }
}
