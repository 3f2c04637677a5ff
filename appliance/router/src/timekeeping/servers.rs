//! The machine's clock by SNTP (RFC 4330, section 5): a question to the configured servers now and then, and at
//! once after the machine stood still. The clock is stepped; an appliance runs nothing that minds.
//!
//! Left out: slewing, a choice between servers by their quality, authentication. Certificates hold for days, so
//! a second is enough.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::UdpSocket;
use tokio::time::timeout;
use wow_init::clock;

use crate::{dns, random};

const PORT: u16 = 123;
const PACKET_BYTES: usize = 48;
/// Seconds from 1900, where NTP's time begins, to 1970; its counter begins anew in 2036 and every 136 years.
const NTP_TO_UNIX: u64 = 2_208_988_800;
const ERA_SECONDS: u64 = 1 << 32;
/// The clock is left as it is within this.
const TOLERANCE: Duration = Duration::from_millis(100);
/// For one server's answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Addresses of one server that are tried.
const ADDRESSES_MAX: usize = 3;
/// The pause between two questions: public servers ask for no fewer than 15 s, and a machine's clock drifts by
/// some ten milliseconds in this time.
const INTERVAL: Duration = Duration::from_secs(1024);
/// The first pause when no server answers; it doubles up to the above.
const RETRY: Duration = Duration::from_secs(16);
/// How often it is looked whether the machine stood still.
const LOOK: Duration = Duration::from_secs(1);

/// Why an answer does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no answer to this question.
    #[error("is no answer to what was asked")]
    Foreign,
    /// The server has no time itself, or wants to be left alone.
    #[error("the server has no time to give")]
    Unsynchronised,
}

/// A question. Its transmit time is a random number, which the answer repeats: who cannot see the question
/// cannot answer it.
#[derive(Debug, Clone, Copy)]
struct Question {
    nonce: [u8; 8],
}

impl Question {
    fn new() -> Self {
        Self {
            nonce: random::number().to_be_bytes(),
        }
    }

    fn packet(&self) -> [u8; PACKET_BYTES] {
        let mut packet = [0; PACKET_BYTES];
        // No warning, version 4, client.
        packet[0] = 4 << 3 | 3;
        packet[40..].copy_from_slice(&self.nonce);
        packet
    }

    /// The time in the middle between the question's arrival and the answer's departure, since 1970.
    fn read(&self, answer: &[u8], about: Duration) -> Result<Duration, Refusal> {
        let Some(answer) = answer.first_chunk::<PACKET_BYTES>() else {
            return Err(Refusal::Foreign);
        };
        const SERVER: u8 = 4;
        if answer[0] & 7 != SERVER || answer[24..32] != self.nonce {
            return Err(Refusal::Foreign);
        }
        let (alarm, stratum) = (answer[0] >> 6, answer[1]);
        let field = |at: usize| {
            let field = answer[at..at + 8]
                .try_into()
                .expect("eight bytes were taken");
            u64::from_be_bytes(field)
        };
        let (received, sent) = (field(32), field(40));
        if alarm == 3 || !(1..16).contains(&stratum) || sent == 0 || received == 0 {
            return Err(Refusal::Unsynchronised);
        }
        let held = sent.wrapping_sub(received) / 2;
        Ok(unix(received.wrapping_add(held), about))
    }
}

/// NTP's time in the era that is nearest to `about`, since 1970.
fn unix(time: u64, about: Duration) -> Duration {
    let seconds = time >> 32;
    let nanos = ((time & 0xffff_ffff) * 1_000_000_000) >> 32;
    let base = (about.as_secs() + NTP_TO_UNIX) / ERA_SECONDS * ERA_SECONDS;
    let near = [base.wrapping_sub(ERA_SECONDS), base, base + ERA_SECONDS];
    let candidates = near.into_iter().map(|era| {
        let since_1900 = era.wrapping_add(seconds);
        Duration::from_secs(since_1900.saturating_sub(NTP_TO_UNIX))
    });
    let seconds = candidates
        .min_by_key(|candidate| candidate.abs_diff(about))
        .expect("there are three");
    seconds + Duration::from_nanos(nanos)
}

/// Keeps the clock by these servers, `HOST` or `HOST:PORT`, for ever.
pub async fn run(servers: Vec<String>) {
    let mut retry = RETRY;
    loop {
        let pauses = clock::pauses();
        let pause = match ask_all(&servers).await {
            Some((server, offset)) => {
                retry = RETRY;
                correct(&server, offset);
                INTERVAL
            }
            None => {
                tracing::warn!(retry_in = ?retry, "no time server answers: {}", servers.join(", "));
                let pause = retry;
                retry = (retry * 2).min(INTERVAL);
                pause
            }
        };
        let stood_still = async {
            while clock::pauses() == pauses {
                tokio::time::sleep(LOOK).await;
            }
        };
        // Whichever comes first; then it is asked again.
        let _ = timeout(pause, stood_still).await;
    }
}

/// How far this machine's clock is behind (or ahead of) a server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offset {
    Behind(Duration),
    Ahead(Duration),
}

impl Offset {
    fn of(own: Duration, true_time: Duration) -> Self {
        match true_time.checked_sub(own) {
            Some(behind) => Self::Behind(behind),
            None => Self::Ahead(own - true_time),
        }
    }

    fn size(self) -> Duration {
        match self {
            Self::Behind(size) | Self::Ahead(size) => size,
        }
    }

    fn correct(self, time: Duration) -> Duration {
        match self {
            Self::Behind(by) => time + by,
            Self::Ahead(by) => time.saturating_sub(by),
        }
    }
}

fn correct(server: &str, offset: Offset) {
    if offset.size() < TOLERANCE {
        return tracing::debug!(server, ?offset, "the clock is right");
    }
    match clock::step_to(offset.correct(now())) {
        Ok(true) => tracing::info!(server, ?offset, "the clock was set"),
        Ok(false) => tracing::debug!(server, ?offset, "the clock is another's to set"),
        Err(error) => tracing::warn!(server, %error, "the clock cannot be set"),
    }
}

/// The first answer of these servers, asked in their order.
async fn ask_all(servers: &[String]) -> Option<(String, Offset)> {
    for server in servers {
        match ask(server).await {
            Ok(offset) => return Some((server.clone(), offset)),
            Err(error) => tracing::info!("time server {server}: {error:#}"),
        }
    }
    None
}

async fn ask(server: &str) -> anyhow::Result<Offset> {
    let mut last = anyhow::anyhow!("has no address");
    for address in addresses(server).await?.into_iter().take(ADDRESSES_MAX) {
        match timeout(PATIENCE, ask_one(address)).await {
            Ok(Ok(offset)) => return Ok(offset),
            Ok(Err(error)) => last = error,
            Err(_) => last = anyhow::anyhow!("no answer"),
        }
    }
    Err(last)
}

async fn addresses(server: &str) -> anyhow::Result<Vec<SocketAddr>> {
    if let Ok(address) = server.parse() {
        return Ok(vec![address]);
    }
    if let Ok(ip) = server.parse::<IpAddr>() {
        return Ok(vec![(ip, PORT).into()]);
    }
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) => (host, port.parse()?),
        None => (server, PORT),
    };
    let found = dns::lookup(host).await?;
    Ok(found.into_iter().map(|ip| (ip, port).into()).collect())
}

async fn ask_one(server: SocketAddr) -> anyhow::Result<Offset> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let question = Question::new();
    let (asked, clock) = (now(), tokio::time::Instant::now());
    socket.send(&question.packet()).await?;
    let mut answer = [0; 512];
    loop {
        let length = socket.recv(&mut answer).await?;
        // The wall clock may have been set meanwhile; half of the way is measured by the other.
        let middle = asked + clock.elapsed() / 2;
        match question.read(&answer[..length], middle) {
            // Perhaps an answer to somebody else's question; the right one may still come.
            Err(Refusal::Foreign) => {}
            read => return Ok(Offset::of(middle, read?)),
        }
    }
}

fn now() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}

#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    //! An entrance for fuzzers.

    use super::*;

    /// Reads an answer to the question with this number, as it may come from anywhere.
    pub fn time(nonce: [u8; 8], answer: &[u8]) {
        let about = Duration::from_secs(1_800_000_000);
        if let Ok(time) = (Question { nonce }).read(answer, about) {
            // Half an era at most, and what the answer itself took.
            assert!(time.abs_diff(about) <= Duration::from_secs(ERA_SECONDS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: Duration = Duration::from_secs(1_800_000_000);

    /// The NTP time of a time since 1970.
    fn ntp(time: Duration) -> [u8; 8] {
        let seconds = (time.as_secs() + NTP_TO_UNIX) % ERA_SECONDS;
        let fraction = (u64::from(time.subsec_nanos()) << 32) / 1_000_000_000;
        (seconds << 32 | fraction).to_be_bytes()
    }

    fn answer(question: &Question, received: Duration, sent: Duration) -> [u8; PACKET_BYTES] {
        let mut packet = [0; PACKET_BYTES];
        packet[0] = 4 << 3 | 4;
        packet[1] = 2;
        packet[24..32].copy_from_slice(&question.packet()[40..]);
        packet[32..40].copy_from_slice(&ntp(received));
        packet[40..].copy_from_slice(&ntp(sent));
        packet
    }

    #[test]
    fn an_answer_tells_the_time_in_its_middle() {
        let question = Question::new();
        let check = |about: Duration| {
            let sent = about + Duration::from_secs(4);
            let read = question
                .read(&answer(&question, about, sent), ABOUT)
                .unwrap();
            let expected = about + Duration::from_secs(2);
            assert!(
                read.abs_diff(expected) < Duration::from_micros(1),
                "{read:?}"
            );
        };
        check(ABOUT + Duration::from_millis(1500));
        check(ABOUT - Duration::from_secs(3600));
        // Beyond 2036, where NTP's counter has begun anew.
        check(Duration::from_secs(2_090_000_000));
    }

    #[test]
    fn what_is_no_answer_does_not_count() {
        let question = Question::new();
        let good = answer(&question, ABOUT, ABOUT);
        let check = |change: &dyn Fn(&mut [u8; PACKET_BYTES]), expected: Refusal| {
            let mut packet = good;
            change(&mut packet);
            assert_eq!(question.read(&packet, ABOUT), Err(expected));
        };
        check(&|packet| packet[24] ^= 1, Refusal::Foreign);
        check(&|packet| packet[0] = 4 << 3 | 3, Refusal::Foreign);
        check(&|packet| packet[0] |= 3 << 6, Refusal::Unsynchronised);
        check(&|packet| packet[1] = 0, Refusal::Unsynchronised);
        check(&|packet| packet[1] = 16, Refusal::Unsynchronised);
        check(&|packet| packet[40..].fill(0), Refusal::Unsynchronised);
        assert_eq!(question.read(&good[..47], ABOUT), Err(Refusal::Foreign));
    }

    #[tokio::test]
    async fn a_server_is_asked_and_strangers_are_passed_over() {
        let server = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        let address = server.local_addr().unwrap();
        let behind = Duration::from_secs(1000);
        let serve = async {
            let mut packet = [0; 64];
            let (length, from) = server.recv_from(&mut packet).await.unwrap();
            assert_eq!(length, PACKET_BYTES);
            let nonce = *packet[40..].first_chunk().unwrap();
            let time = now() + behind;
            let stranger = answer(&Question::new(), time, time);
            server.send_to(&stranger, from).await.unwrap();
            let good = answer(&Question { nonce }, time, time);
            server.send_to(&good, from).await.unwrap();
        };
        let servers = ["127.0.0.1:1".to_owned(), address.to_string()];
        let (answered, ()) = tokio::join!(ask_all(&servers), serve);
        let (who, offset) = answered.unwrap();
        assert_eq!(who, address.to_string());
        let Offset::Behind(by) = offset else {
            panic!("{offset:?}");
        };
        assert!(by.abs_diff(behind) < Duration::from_secs(100), "{by:?}");
        assert_eq!(Offset::of(ABOUT, ABOUT + by).correct(ABOUT), ABOUT + by);
        assert_eq!(Offset::of(ABOUT, ABOUT - by).correct(ABOUT), ABOUT - by);
    }
}
