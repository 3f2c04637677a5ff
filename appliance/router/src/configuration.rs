//! `wow config show`: which value of a machine's configuration came from where, what it won against, and what
//! was wrong with others. Secrets stay where they are: it is told that there is one.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use wow_init::config::{Lost, Merged, Setting, Sources};

use crate::api::Op;
use crate::cli::ConfigShowArgs;
use crate::client::{PATIENCE, Socket};
use crate::output;

/// Where a machine's configuration comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The values that count, by their keys.
    pub settings: Vec<Value>,
    /// What was wrong with others, a sentence each.
    pub problems: Vec<String>,
    /// Every place that was looked in, as one would give the key `KEY` there.
    pub looked_in: Vec<String>,
}

/// A value that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// Its key.
    pub key: String,
    /// The value; none of a secret.
    pub value: Option<String>,
    /// The source, and the place in it.
    pub from: String,
    /// What other sources have for the key, in their order.
    pub lost: Vec<LostValue>,
}

/// A value that does not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostValue {
    /// The value; none of a secret.
    pub value: Option<String>,
    /// The source, and the place in it.
    pub from: String,
    /// Whether it says something else, and is no default of the image.
    pub contradicts: bool,
}

/// What is told of the machine's configuration.
pub fn report(merged: &Merged) -> Report {
    let lost = |key: &'static str| {
        let of_key = move |lost: &&Lost| lost.setting().key().name == key;
        let lost = merged.lost().iter().filter(of_key);
        lost.map(|lost| LostValue {
            value: shown(lost.setting()),
            from: lost.setting().origin().to_string(),
            contradicts: lost.is_contradiction(),
        })
    };
    Report {
        settings: merged
            .iter()
            .map(|setting| Value {
                key: setting.key().name.to_owned(),
                value: shown(setting),
                from: setting.origin().to_string(),
                lost: lost(setting.key().name).collect(),
            })
            .collect(),
        problems: problems(merged),
        looked_in: merged.looked_in().to_vec(),
    }
}

/// What an operator should look at: unusable values, and sources that disagree.
pub fn problems(merged: &Merged) -> Vec<String> {
    let wrong = merged.problems().iter().map(ToString::to_string);
    let lost = merged.lost().iter().filter(|lost| lost.is_contradiction());
    wrong
        .chain(lost.map(|lost| merged.contradiction(lost)))
        .collect()
}

fn shown(setting: &Setting) -> Option<String> {
    (!setting.key().secret).then(|| setting.value().to_owned())
}

/// `wow config show`.
pub fn show(node: &Socket, args: &ConfigShowArgs) -> Result<()> {
    let report = match args.machine {
        true => report(&Sources::default().read()),
        false => node.ask(Op::Config, PATIENCE)?,
    };
    if args.client.json {
        return output::json(&report);
    }
    output::rows(&["KEY", "VALUE", "FROM"], rows(&report))?;
    let mut text = String::new();
    for problem in &report.problems {
        text += &format!("\nproblem: {problem}");
    }
    if report.settings.is_empty() {
        text += "\nnothing is configured; looked in:";
        for place in &report.looked_in {
            text += &format!("\n  {place}");
        }
    }
    match text.is_empty() {
        true => Ok(()),
        false => output::say(&(text + "\n")),
    }
}

fn rows(report: &Report) -> Vec<Vec<String>> {
    let masked = |value: &Option<String>| value.clone().unwrap_or("(secret)".to_owned());
    let mut rows = Vec::new();
    for setting in &report.settings {
        let cells = [&setting.key, &masked(&setting.value), &setting.from];
        rows.push(cells.map(String::clone).to_vec());
        for lost in &setting.lost {
            let verdict = match lost.contradicts {
                true => "lost, contradicts",
                false => "lost",
            };
            let from = format!("{} ({verdict})", lost.from);
            rows.push(vec![String::new(), masked(&lost.value), from]);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use wow_init::config::{Origin, Rank, Reading, Source};

    struct Fixed(Rank, &'static str, Vec<(&'static str, &'static str)>);

    impl Source for Fixed {
        fn rank(&self) -> Rank {
            self.0
        }

        fn read(&self) -> Reading {
            let mut reading = Reading::default();
            for (key, value) in &self.2 {
                match Setting::new(key, value, Origin::new(self.1, "")) {
                    Ok(setting) => reading.entries.push(setting),
                    Err(problem) => reading.problems.push(problem),
                }
            }
            reading
        }

        fn example(&self, key: &str) -> String {
            format!("{}: {key}", self.1)
        }
    }

    fn merged() -> Merged {
        let first = vec![("ticket", "SECRET-1"), ("name", "n1"), ("nmae", "x")];
        let second = vec![("ticket", "SECRET-2"), ("name", "n2"), ("mtu", "1400")];
        let image = vec![("mtu", "1500")];
        Sources::new(vec![
            Box::new(Fixed(Rank::FwCfg, "fw", first)),
            Box::new(Fixed(Rank::Disk, "disk sr0", second)),
            Box::new(Fixed(Rank::Image, "file", image)),
        ])
        .read()
    }

    #[test]
    fn values_are_shown_with_their_places_and_what_they_won_against() {
        let rows = rows(&report(&merged()));
        let rows: Vec<_> = rows.iter().map(|row| row.join("|")).collect();
        let expected = [
            "mtu|1400|disk sr0",
            "|1500|file (lost)",
            "name|n1|fw",
            "|n2|disk sr0 (lost, contradicts)",
            "ticket|(secret)|fw",
            "|(secret)|disk sr0 (lost, contradicts)",
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn problems_name_both_sources_and_no_report_holds_a_secret() {
        let report = report(&merged());
        assert_eq!(report.problems.len(), 3, "{:?}", report.problems);
        let disagree = &report.problems[1];
        assert!(disagree.contains("ticket from disk sr0"), "{disagree}");
        assert!(disagree.contains("otherwise from fw"), "{disagree}");
        let json = serde_json::to_string(&report).unwrap();
        assert!(!json.contains("SECRET"), "{json}");
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }
}
