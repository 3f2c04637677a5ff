//! `wow update`: sends an image to a machine, and waits for what becomes of it.

use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use data_encoding::{BASE64, HEXLOWER};
use sha2::{Digest, Sha256};
use wow_init::slots::Mark;

use super::{Begun, SlotsReport, Step};
use crate::api::Op;
use crate::cli::UpdateArgs;
use crate::client::{PATIENCE, Socket};
use crate::failure::Negative;
use crate::ipc::client::{Conversation, ask};
use crate::output;

/// No image is longer: what is longer is not read to its end.
const IMAGE_BYTES_MAX: u64 = 64 << 20;
/// Reading back what was written, on a slow disk.
const FINISH_MAX: Duration = Duration::from_secs(120);
/// Added to the trial's time: for the end of the old version, firmware, and the way back.
const RESTARTS_MAX: Duration = Duration::from_secs(240);
/// Between two questions to a machine that restarts, and how long each is waited for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_MAX: Duration = Duration::from_secs(5);

/// `wow update`.
pub fn run(node: &Socket, args: &UpdateArgs) -> Result<()> {
    let Some(path) = &args.image else {
        return status(node, args);
    };
    let image = read(path)?;
    let shown = path.display();
    let mark = Mark::of(&image).with_context(|| format!("{shown} is refused"))?;
    let sha256 = HEXLOWER.encode(&Sha256::digest(&image));
    if let Some(expected) = &args.sha256 {
        ensure!(
            expected.eq_ignore_ascii_case(&sha256),
            "{shown} is not what it should be: its SHA-256 is {sha256}"
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(async {
        say(&format!("version {} ({})", mark.version, mark.name));
        let version = send(node.path(), &image, sha256, args).await?;
        if args.no_wait {
            say("written and checked; the machine restarts to try it");
            return Ok(());
        }
        say("written and checked; the machine restarts to try it, which is waited for");
        outcome(node.path(), &version, args.within).await
    })
}

fn status(node: &Socket, args: &UpdateArgs) -> Result<()> {
    let report: SlotsReport = node.ask(Op::Slots, PATIENCE)?;
    if args.client.json {
        return output::json(&report);
    }
    let slot = |letter: &str, version: &Option<String>| {
        let mut words = vec![version.clone().unwrap_or_else(|| "empty".into())];
        let is = |slot: &str, word: &str| (slot == letter).then(|| word.to_owned());
        words.extend(is(&report.running, "running"));
        words.extend(is(&report.default, "booted by default"));
        words.join(", ")
    };
    output::facts(&[
        ("slot a", slot("a", &report.a)),
        ("slot b", slot("b", &report.b)),
        ("state", report.told.clone()),
    ])
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let shown = path.display();
    let file = std::fs::File::open(path).with_context(|| format!("cannot open {shown}"))?;
    let mut image = Vec::new();
    file.take(IMAGE_BYTES_MAX + 1)
        .read_to_end(&mut image)
        .with_context(|| format!("cannot read {shown}"))?;
    ensure!(
        image.len() as u64 <= IMAGE_BYTES_MAX,
        "{shown} is too long for an image of an appliance: give the bzImage, not the disk"
    );
    Ok(image)
}

/// Sends the image; the version as the machine has read it back.
async fn send(socket: &Path, image: &[u8], sha256: String, args: &UpdateArgs) -> Result<String> {
    let mut node = Conversation::open(socket).await?;
    let begin = Step::Begin {
        bytes: image.len() as u64,
        sha256,
        within_s: u32::try_from(args.within.as_secs()).unwrap_or(u32::MAX),
    };
    let begun: Begun = node.ask(Op::Update(begin), PATIENCE).await?;
    ensure!(begun.piece_bytes > 0, "the node takes no bytes");
    let mut progress = Progress::new(image.len());
    let mut offset = 0;
    for piece in image.chunks(begun.piece_bytes) {
        let write = Step::Write {
            update: begun.update,
            offset,
            data: BASE64.encode(piece),
        };
        offset = node.ask(Op::Update(write), PATIENCE).await?;
        progress.show(&begun.slot, offset);
    }
    progress.end();
    let finish = Step::Finish {
        update: begun.update,
    };
    node.ask(Op::Update(finish), FINISH_MAX).await
}

/// Waits for the machine to run the version for good, or to have gone back.
async fn outcome(socket: &Path, version: &str, within: Duration) -> Result<()> {
    let deadline = Instant::now() + within + RESTARTS_MAX;
    let mut on_trial = false;
    while Instant::now() < deadline {
        // While it restarts there is no answer.
        if let Ok(report) = ask::<SlotsReport>(socket, Op::Slots, LOOK_MAX).await {
            let running = match &*report.running {
                "a" => &report.a,
                _ => &report.b,
            };
            let is_new = running.as_deref() == Some(version);
            match &*report.state {
                "settled" if is_new => {
                    say(&format!("version {version} has joined and stays"));
                    return Ok(());
                }
                "on_trial" if !on_trial => {
                    on_trial = true;
                    say("it has started, and has yet to join the pool");
                }
                "died" | "too_late" | "stray" => {
                    say(&report.told);
                    return Err(Negative.into());
                }
                _ => {}
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bail!("no word from the machine; look at its screen, and ask `wow update --status` later")
}

/// How much is written, for a person or a log.
struct Progress {
    total: u64,
    shown: u64,
    is_terminal: bool,
}

impl Progress {
    fn new(total: usize) -> Self {
        Self {
            total: (total as u64).max(1),
            shown: 0,
            is_terminal: std::io::stderr().is_terminal(),
        }
    }

    fn show(&mut self, slot: &str, bytes: u64) {
        let percent = bytes * 100 / self.total;
        let step = if self.is_terminal { 1 } else { 25 };
        if percent < self.shown + step && percent < 100 || percent == self.shown {
            return;
        }
        self.shown = percent;
        let end = if self.is_terminal { '\r' } else { '\n' };
        let mut err = std::io::stderr();
        // Who closes it does not want to read it.
        let _ = write!(err, "writing slot {slot}: {percent} %{end}");
        let _ = err.flush();
    }

    fn end(&self) {
        if self.is_terminal {
            eprintln!();
        }
    }
}

fn say(text: &str) {
    eprintln!("{text}");
}
