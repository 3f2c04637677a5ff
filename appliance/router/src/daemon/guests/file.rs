//! The file that remembers a LAN's guests: a line of JSON for the pool, then one for each guest. Whatever is wrong with
//! it costs what it is wrong with, and is told.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use wow_control::lan::{GUESTS_KEPT_MAX, Kept, Mac};
use wow_overlay::membership::PoolFacts;
use wow_overlay::membership::addresses::check_v4;

use crate::keeper::Files;

/// Its name.
const FILE: &str = "guests";

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    pool: String,
}

/// A guest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    mac: Mac,
    address: Ipv4Addr,
    #[serde(default)]
    name: Option<String>,
    bound: bool,
}

/// The guests in the file, none if there is none, and a sentence for the operator where it is not as it should be.
pub fn read(files: &Files, pool: &PoolFacts) -> (Vec<Kept>, Option<String>) {
    let text = files.read(FILE).and_then(|bytes| {
        let text = bytes.map(|bytes| String::from_utf8(bytes.to_vec()));
        text.transpose().context("the list of guests is no text")
    });
    match text {
        Ok(None) => (Vec::new(), None),
        Ok(Some(text)) => parse(&text, pool),
        Err(error) => {
            let told = format!("guests known before are forgotten: {error:#}");
            (Vec::new(), Some(told))
        }
    }
}

fn parse(text: &str, pool: &PoolFacts) -> (Vec<Kept>, Option<String>) {
    let mut lines = (1..).zip(text.lines()).peekable();
    let first = lines.peek().map_or("", |(_, line)| *line);
    if let Ok(header) = serde_json::from_str::<Header>(first) {
        lines.next();
        if header.pool != pool.pool_id().to_string() {
            let told = format!(
                "guests known before are forgotten: their list is of another pool ({})",
                header.pool.chars().take(64).collect::<String>(),
            );
            return (Vec::new(), Some(told));
        }
    }
    let (mut kept, mut bad, mut why) = (Vec::new(), 0, String::new());
    for (number, line) in lines {
        match guest(line, pool.range) {
            Ok(_) if kept.len() >= GUESTS_KEPT_MAX => {
                bad += 1;
                why = format!("there are more than {GUESTS_KEPT_MAX}");
            }
            Ok(guest) => kept.push(guest),
            Err(error) => {
                bad += 1;
                why = format!("line {number}: {error:#}");
            }
        }
    }
    let told = (bad > 0).then(|| {
        format!(
            "{bad} lines of the list of guests are passed over, and their guests forgotten: {why}"
        )
    });
    (kept, told)
}

fn guest(line: &str, range: Ipv4Net) -> Result<Kept> {
    let line: Line = serde_json::from_str(line).context("it is damaged")?;
    check_v4(range, line.address)?;
    Ok(Kept {
        mac: line.mac,
        address: line.address,
        name: line.name,
        bound: line.bound,
    })
}

/// Replaces the file.
pub fn write(files: &Files, pool: &PoolFacts, kept: Vec<Kept>) -> Result<()> {
    let header = Header {
        pool: pool.pool_id().to_string(),
    };
    let mut text = serde_json::to_string(&header).context("cannot write the pool as JSON")?;
    text.push('\n');
    for kept in kept {
        let line = Line {
            mac: kept.mac,
            address: kept.address,
            name: kept.name,
            bound: kept.bound,
        };
        text.push_str(&serde_json::to_string(&line).context("cannot write a guest as JSON")?);
        text.push('\n');
    }
    files.write(FILE, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;
    use wow_overlay::membership::{PoolAuthority, PoolName};

    fn pool() -> PoolFacts {
        let range = wow_overlay::membership::pool::DEFAULT_RANGE;
        let name = PoolName::new("lab").unwrap();
        let pool = PoolAuthority::create(name, range, vec![], &mut random::rng()).unwrap();
        pool.facts().clone()
    }

    fn guest(number: u8) -> Kept {
        Kept {
            mac: [2, 0, 0, 0, 0, number],
            address: Ipv4Addr::new(10, 128, 3, number),
            name: (number == 1).then(|| "printer".into()),
            bound: number == 1,
        }
    }

    #[test]
    fn guests_are_read_as_they_were_written_and_what_is_wrong_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let files = Files::In(dir.path().to_owned());
        let (ours, others) = (pool(), pool());
        assert_eq!(read(&files, &ours), (Vec::new(), None));
        let kept = vec![guest(1), guest(2)];
        write(&files, &ours, kept.clone()).unwrap();
        assert_eq!(read(&files, &ours), (kept.clone(), None));
        let (none, told) = read(&files, &others);
        assert!(none.is_empty() && told.unwrap().contains("another pool"));

        // Of a damaged file what is whole counts.
        let good = std::fs::read_to_string(&path).unwrap();
        let foreign = good.replace("10.128.3.2", "192.0.2.1");
        let (cut, _) = good.rsplit_once("\"bound\"").unwrap();
        for (text, what) in [
            (
                format!("{good}{{\"mac\":[1,2]}}\n"),
                "line 4: it is damaged",
            ),
            (foreign, "line 3: the address 192.0.2.1 is outside"),
            (cut.to_owned(), "line 3: it is damaged"),
            (
                good.replace("\"pool\"", "\"pond\""),
                "line 1: it is damaged",
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let (read, told) = read(&files, &ours);
            assert_eq!(read[0], kept[0]);
            assert!(told.as_ref().unwrap().contains(what), "{told:?}");
        }
        std::fs::write(&path, b"\xff\xfe\x00").unwrap();
        let (none, told) = read(&files, &ours);
        assert!(none.is_empty() && told.unwrap().contains("no text"));
        let many = (0..=255u8).map(|number| Kept {
            mac: [2, 0, 0, 0, 1, number],
            ..guest(number)
        });
        write(&files, &ours, many.collect()).unwrap();
        let (read, told) = read(&files, &ours);
        assert_eq!(read.len(), GUESTS_KEPT_MAX);
        assert!(told.unwrap().contains("more than 128"));
    }
}
