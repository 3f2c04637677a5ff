//! Headless Chromium in a network namespace, led by its DevTools protocol over two named pipes.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};
use tempfile::TempDir;
use wow_builder::host::Guarded;

use crate::command::wait_until;
use crate::interrupt;
use crate::namespaces;

/// The program, as Debian calls it.
const PROGRAM: &str = "chromium";

/// For one answer of the browser's; its first one includes its start.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// How often Ctrl-C is looked for meanwhile.
const POLL: Duration = Duration::from_millis(100);

/// Opens the pipes as the protocol's descriptors. Without `exec` here the browser would lose them.
const LAUNCH: &str = r#"exec 3<"$1" 4>"$2"; shift 2; exec "$@""#;

const OPTIONS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
];

/// A running browser; it ends with this value.
pub struct Browser {
    process: Guarded,
    to: File,
    from: Receiver<Value>,
    calls: u64,
    /// What it told without being asked, the last of it.
    events: VecDeque<Value>,
    _profile: TempDir,
}

/// Events kept, the oldest go first.
const EVENTS_MAX: usize = 1024;

/// One of its pages.
pub struct Page<'b> {
    browser: &'b mut Browser,
    session: String,
}

/// How a page is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// The window's width, in CSS pixels.
    pub width: u32,
    /// Its height.
    pub height: u32,
    /// Whether the person prefers dark colours.
    pub dark: bool,
    /// Whether it is a phone.
    pub phone: bool,
}

impl Browser {
    /// Starts one in the namespace `space`; what it says goes to `log`.
    pub fn start(space: &str, log: &Path) -> Result<Self> {
        let profile = tempfile::tempdir().context("cannot make a temporary directory")?;
        let [asked, told] = ["asked", "told"].map(|name| profile.path().join(name));
        for pipe in [&asked, &told] {
            let mode = Mode::RUSR | Mode::WUSR;
            mknodat(CWD, pipe, FileType::Fifo, mode, 0).context("cannot make a named pipe")?;
        }
        let log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = namespaces::inside(space, Path::new("sh"));
        command.args(["-c", LAUNCH, "sh"]).arg(&asked).arg(&told);
        command.arg(PROGRAM).args(OPTIONS);
        let data = profile.path().join("profile");
        command.arg(format!("--user-data-dir={}", data.display()));
        command.env("HOME", profile.path());
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let process = Guarded::spawn(command).context("cannot start chromium")?;
        // For both ways, so that it does not wait for the other end.
        let to = File::options().read(true).write(true).open(&asked)?;
        let (sender, from) = mpsc::channel();
        std::thread::spawn(move || {
            let Ok(told) = File::open(told) else {
                return;
            };
            for message in BufReader::new(told).split(0) {
                let Ok(message) = message else { return };
                let Ok(message) = serde_json::from_slice(&message) else {
                    return;
                };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        Ok(Browser {
            process,
            to,
            from,
            calls: 0,
            events: VecDeque::new(),
            _profile: profile,
        })
    }

    /// A new page at `url`.
    pub fn open(&mut self, url: &str) -> Result<Page<'_>> {
        let target = self.call(None, "Target.createTarget", json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = self.call(None, "Target.attachToTarget", attach)?;
        let session = attached["sessionId"].as_str().context("no session")?;
        let mut page = Page {
            session: session.to_owned(),
            browser: self,
        };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), json!({}))?;
        }
        page.go(url)?;
        Ok(page)
    }

    fn call(&mut self, session: Option<&str>, method: &str, parameters: Value) -> Result<Value> {
        self.calls += 1;
        let id = self.calls;
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.to.write_all(&bytes)?;
        let deadline = Instant::now() + ANSWER_MAX;
        loop {
            interrupt::check()?;
            if let Some(status) = self.process.try_wait()? {
                bail!("chromium ended with {status}");
            }
            let mut told = match self.from.recv_timeout(POLL) {
                Ok(told) => told,
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => continue,
                Err(error) => bail!("chromium does not answer {method}: {error}"),
            };
            if told["id"] == id {
                if told["error"].is_object() {
                    bail!("chromium refuses {method}: {}", told["error"]);
                }
                return Ok(told["result"].take());
            }
            if self.events.len() == EVENTS_MAX {
                self.events.pop_front();
            }
            self.events.push_back(told);
        }
    }
}

impl Page<'_> {
    fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        let session = self.session.clone();
        self.browser.call(Some(&session), method, parameters)
    }

    /// Goes to `url`, or loads it again.
    pub fn go(&mut self, url: &str) -> Result<()> {
        let gone = self.call("Page.navigate", json!({"url": url}))?;
        if let Some(error) = gone["errorText"].as_str() {
            bail!("chromium cannot load {url}: {error}");
        }
        Ok(())
    }

    /// The value of an expression of the page's JavaScript.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let evaluate =
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut told = self.call("Runtime.evaluate", evaluate)?;
        if told["exceptionDetails"].is_object() {
            bail!("{expression}: {}", told["exceptionDetails"]);
        }
        Ok(told["result"]["value"].take())
    }

    /// Waits until an expression is true.
    pub fn wait(&mut self, what: &str, expression: &str, limit: Duration) -> Result<()> {
        wait_until(what, limit, || {
            // Between two documents there may be nothing to ask.
            let value = self.evaluate(expression).unwrap_or(Value::Null);
            Ok((value == Value::Bool(true)).then_some(()))
        })
    }

    /// Looks at it in another way.
    pub fn look(&mut self, look: Look) -> Result<()> {
        let metrics = json!({
            "width": look.width, "height": look.height, "mobile": look.phone,
            "deviceScaleFactor": if look.phone { 2 } else { 1 },
        });
        self.call("Emulation.setDeviceMetricsOverride", metrics)?;
        let scheme = if look.dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}))?;
        Ok(())
    }

    /// Writes what is seen as PNG.
    pub fn screenshot(&mut self, file: &Path) -> Result<()> {
        let whole = json!({"format": "png", "captureBeyondViewport": true});
        let picture = self.call("Page.captureScreenshot", whole)?;
        let text = picture["data"].as_str().context("no picture")?;
        let bytes = data_encoding::BASE64.decode(text.as_bytes())?;
        std::fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
    }

    /// What the page and the browser complained of: exceptions, and errors of its console.
    pub fn complaints(&self) -> Vec<String> {
        let events = self.browser.events.iter();
        let bad = events.filter(|event| {
            let method = event["method"].as_str().unwrap_or_default();
            method == "Runtime.exceptionThrown"
                || method == "Log.entryAdded" && event["params"]["entry"]["level"] == "error"
        });
        bad.map(|event| event["params"].to_string()).collect()
    }
}
