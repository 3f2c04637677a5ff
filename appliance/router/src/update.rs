//! Updates of the appliance: [`Updates`] writes what an operator sends to the other slot of the disk, [`trial`]
//! confirms it or goes back, and [`client`] is the command `wow update`.
//!
//! How the disk is written, and why that survives everything, is [`wow_init::slots`].

pub mod client;
pub mod trial;

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use wow_init::power::{Request, Shutdown};
use wow_init::slots::{self, Slot, SlotsError, Standing, Store, Table, Upload};

use crate::random;

/// An update that nothing came of for so long gives way to another one.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// For the answer to leave before the machine restarts.
const FAREWELL: Duration = Duration::from_millis(500);

/// How long a trial may take, in seconds.
pub const WITHIN_S: std::ops::RangeInclusive<u32> = 20..=24 * 3600;

/// Bytes of an image in one request, which must fit a line with all around them.
pub const PIECE_BYTES_MAX: usize = 2880;

/// What an operator asks of a machine's slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// Begin to write an image: [`Begun`].
    Begin {
        /// Its length.
        bytes: u64,
        /// Its SHA-256 in hexadecimal digits.
        sha256: String,
        /// How long its trial may take, in seconds.
        within_s: u32,
    },
    /// The next bytes of it: how many there are now.
    Write {
        /// The number that `begin` gave.
        update: u64,
        /// Bytes before these.
        offset: u64,
        /// At most [`PIECE_BYTES_MAX`] bytes in Base64.
        data: String,
    },
    /// Check it, put it on trial, and restart: its version.
    Finish {
        /// The number that `begin` gave.
        update: u64,
    },
}

/// An update that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Its number, for what follows.
    pub update: u64,
    /// The slot that is written to.
    pub slot: String,
    /// The most bytes in one request.
    pub piece_bytes: usize,
}

/// A machine's slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotsReport {
    /// The slot that runs: `a` or `b`.
    pub running: String,
    /// The slot that is booted.
    pub default: String,
    /// `settled`, `pending`, `on_trial`, `died`, `too_late` or `stray`.
    pub state: String,
    /// The same in a sentence, with what to do.
    pub told: String,
    /// How long the last trial might take, in seconds.
    pub within_s: u32,
    /// The version in slot `a`; none where it is empty.
    pub a: Option<String>,
    /// The version in slot `b`; none where it is empty.
    pub b: Option<String>,
}

/// The machine's slots, for one update at a time.
#[derive(Debug, Clone)]
pub struct Updates {
    current: Arc<Mutex<Option<Current>>>,
    power: mpsc::Sender<Request>,
}

/// An update under way.
#[derive(Debug)]
struct Current {
    number: u64,
    store: Store<File>,
    upload: Upload,
    sha256: [u8; 32],
    within_s: u32,
    touched: Instant,
}

impl Updates {
    /// Those of the machine that is restarted by `power`.
    pub fn new(power: mpsc::Sender<Request>) -> Self {
        Self {
            current: Arc::default(),
            power,
        }
    }

    /// What is in the slots.
    pub async fn report(&self) -> Result<SlotsReport, String> {
        aside(|| {
            let running = slots::booted()?;
            Ok(report(slots::open()?.table(), running))
        })
        .await
    }

    /// Does a step of an update, with the answer that it has.
    pub async fn execute(&self, step: Step) -> Result<serde_json::Value, String> {
        let current = Arc::clone(&self.current);
        let finishes = matches!(step, Step::Finish { .. });
        let answer = blocking(move || {
            let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
            match step {
                Step::Begin {
                    bytes,
                    sha256,
                    within_s,
                } => json(begin(&mut current, bytes, &sha256, within_s)?),
                Step::Write {
                    update,
                    offset,
                    data,
                } => json(write(&mut current, update, offset, &data)?),
                Step::Finish { update } => json(finish(&mut current, update)?),
            }
        })
        .await?;
        if finishes {
            let power = self.power.clone();
            tokio::spawn(async move {
                tokio::time::sleep(FAREWELL).await;
                let _ = power.try_send(Request {
                    shutdown: Shutdown::Restart,
                    cause: "an update is to be tried",
                });
            });
        }
        Ok(answer)
    }
}

fn begin(
    current: &mut Option<Current>,
    bytes: u64,
    sha256: &str,
    within_s: u32,
) -> Result<Begun, String> {
    if let Some(busy) = current
        && busy.touched.elapsed() < IDLE_MAX
    {
        return Err("another update is being written; try again when it is done".into());
    }
    if !WITHIN_S.contains(&within_s) {
        let (least, most) = (WITHIN_S.start(), WITHIN_S.end());
        return Err(format!("a trial lasts {least} to {most} seconds"));
    }
    let digest = HEXLOWER_PERMISSIVE.decode(sha256.as_bytes()).ok();
    let digest = digest.and_then(|digest| <[u8; 32]>::try_from(digest).ok());
    let sha256 = digest.ok_or("a SHA-256 has 64 hexadecimal digits")?;
    *current = None;
    let running = slots::booted().map_err(shown)?;
    let mut store = slots::open().map_err(shown)?;
    let upload = store.begin(running, bytes).map_err(shown)?;
    let begun = Begun {
        // JSON's readers lose digits of longer ones.
        update: random::number() >> 11,
        slot: upload.slot().to_string(),
        piece_bytes: PIECE_BYTES_MAX,
    };
    tracing::info!(slot = begun.slot, bytes, "an update is being written");
    *current = Some(Current {
        number: begun.update,
        store,
        upload,
        sha256,
        within_s,
        touched: Instant::now(),
    });
    Ok(begun)
}

fn write(
    current: &mut Option<Current>,
    update: u64,
    offset: u64,
    data: &str,
) -> Result<u64, String> {
    let at = under_way(current, update)?;
    if offset != at.upload.written_bytes() {
        return Err(format!(
            "{} bytes are written, so these are not the next ones",
            at.upload.written_bytes()
        ));
    }
    let bytes = BASE64.decode(data.as_bytes());
    let bytes = bytes.map_err(|error| format!("the bytes are no Base64: {error}"))?;
    at.touched = Instant::now();
    let written = at.store.write(&mut at.upload, &bytes);
    let written = written.map(|()| at.upload.written_bytes());
    // Nothing that follows could make it whole.
    written.map_err(|error| {
        *current = None;
        shown(error)
    })
}

fn finish(current: &mut Option<Current>, update: u64) -> Result<String, String> {
    under_way(current, update)?;
    let Current {
        mut store,
        upload,
        sha256,
        within_s,
        ..
    } = current.take().expect("it is under way");
    let version = store.finish(upload, &sha256, within_s).map_err(shown)?;
    tracing::info!(
        version,
        within_s,
        "an update is written; restarting to try it"
    );
    Ok(version)
}

fn under_way(current: &mut Option<Current>, update: u64) -> Result<&mut Current, String> {
    let current = current.as_mut().filter(|current| current.number == update);
    current.ok_or_else(|| "this update is over, or gave way to another: begin again".into())
}

/// The slots in words.
fn report(table: &Table, running: Slot) -> SlotsReport {
    let standing = table.standing(running);
    let version = |slot: Slot| table.kernel(slot).map(|kernel| kernel.version.clone());
    let named = |slot: Slot| version(slot).unwrap_or_else(|| "unknown".into());
    let (own, other) = (named(running), named(running.other()));
    let within = humantime::format_duration(Duration::from_secs(table.within_s.into()));
    let (state, told) = match standing {
        Standing::Settled => ("settled", format!("version {own} runs")),
        Standing::Pending => (
            "pending",
            format!("version {own} runs; version {other} is tried at the next start"),
        ),
        Standing::OnTrial => (
            "on_trial",
            format!("version {own} is on trial: it stays if it joins its pool within {within}"),
        ),
        Standing::Died => (
            "died",
            format!(
                "the update to version {other} stopped, or was stopped, before it had joined; the earlier version \
                 {own} runs: try another image"
            ),
        ),
        Standing::TooLate => (
            "too_late",
            format!(
                "the update to version {other} did not join within {within}; the earlier version {own} runs: try \
                 again with a longer --within, or another image"
            ),
        ),
        Standing::Stray => (
            "stray",
            format!(
                "slot {} cannot be started, so version {own} in slot {running} runs: write that slot anew with `wow \
                 update`",
                table.default
            ),
        ),
    };
    SlotsReport {
        running: running.to_string(),
        default: table.default.to_string(),
        state: state.into(),
        told,
        within_s: table.within_s,
        a: version(Slot::A),
        b: version(Slot::B),
    }
}

/// Works on the disk, which may be slow, beside the event loop.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SlotsError> + Send + 'static,
) -> Result<T, String> {
    blocking(|| work().map_err(shown)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err("the node is stopping".into()))
}

fn shown(error: SlotsError) -> String {
    error.to_string()
}

fn json(value: impl Serialize) -> Result<serde_json::Value, String> {
    serde_json::to_value(value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Op, REQUEST_BYTES_MAX, Request};

    #[test]
    fn the_longest_piece_fits_a_request() {
        let step = Step::Write {
            update: u64::MAX >> 11,
            offset: u64::MAX >> 11,
            data: BASE64.encode(&[0; PIECE_BYTES_MAX]),
        };
        let request = Request {
            id: u64::MAX >> 11,
            op: Op::Update(step.clone()),
        };
        let line = serde_json::to_string(&request).unwrap();
        assert!(line.len() <= REQUEST_BYTES_MAX, "{}", line.len());
        let read: Request = serde_json::from_str(&line).unwrap();
        assert_eq!(read.op, Op::Update(step));
    }

    #[tokio::test]
    async fn a_machine_without_slots_says_what_to_do() {
        let (power, _requests) = mpsc::channel(1);
        let updates = Updates::new(power);
        let begin = |within_s| Step::Begin {
            bytes: 1000,
            sha256: "0".repeat(64),
            within_s,
        };
        let refused = updates.execute(begin(120)).await.unwrap_err();
        assert!(refused.contains("start it with the new image"), "{refused}");
        let refused = updates.execute(begin(1)).await.unwrap_err();
        assert!(refused.contains("20 to 86400 seconds"), "{refused}");
        let finish = Step::Finish { update: 7 };
        let refused = updates.execute(finish).await.unwrap_err();
        assert!(refused.contains("begin again"), "{refused}");
    }
}
