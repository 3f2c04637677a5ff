//! What is understood of NoCloud's `cidata` (cloud-init's disk of `user-data` and `meta-data`): the mapping
//! `wow:` of a `#cloud-config`, and the names of the host. The rest is for other programs and passed over.
//!
//! This is the piece of YAML that such files are written in: one `key: value` a line, plain or in quotes. It
//! is no parser of YAML; what is beyond it (lists, several lines, anchors) is a problem with its line.

use super::super::{Origin, Problem, Reading, Setting, printable};

/// The file for the machine's owner, and that for its name.
pub(super) const USER_DATA: &str = "user-data";
pub(super) const META_DATA: &str = "meta-data";

/// The name of the mapping with our keys.
const OURS: &str = "wow";
/// What makes `user-data` one of cloud-init's configurations, and no script.
const HEADER: &str = "#cloud-config";
/// Keys that name the host, at the outermost level of either file.
const HOST_NAMES: [&str; 2] = ["hostname", "local-hostname"];

/// Reads `user-data`; a script or another format has nothing for us.
pub(super) fn user_data(reading: &mut Reading, disk: &str, text: &str) {
    if text
        .lines()
        .next()
        .is_none_or(|line| line.trim_end() != HEADER)
    {
        return;
    }
    mapping(reading, disk, USER_DATA, text);
}

/// Reads `meta-data`.
pub(super) fn meta_data(reading: &mut Reading, disk: &str, text: &str) {
    mapping(reading, disk, META_DATA, text);
}

fn mapping(reading: &mut Reading, disk: &str, file: &str, text: &str) {
    let mut ours = false;
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let indented = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let pair = line
            .split_once(':')
            .map(|(key, value)| (key.trim(), value.trim()));
        let origin = |key: &str| {
            let place = format!("{file} line {number}, `{}`", printable(key));
            Origin::new(disk, place)
        };
        let not_understood = |key: &str| Problem::Source {
            origin: origin(key),
            complaint: format!("below `{OURS}:` each line is KEY: VALUE; text may be in quotes"),
        };
        match pair {
            _ if indented && !ours => {}
            // Somebody else's, or the next mapping.
            Some((key, value)) if !indented => {
                ours = key == OURS;
                if ours && !scalar(value).is_some_and(|value| value.is_empty()) {
                    reading.problems.push(not_understood(key));
                }
                if HOST_NAMES.contains(&key)
                    && let Some(value) = scalar(value).filter(|value| !value.is_empty())
                {
                    reading.push(Setting::new("hostname", &value, origin(key)));
                }
            }
            None if !indented => ours = false,
            Some((key, value)) => match scalar(value) {
                Some(value) => reading.push(Setting::new(key, &value, origin(key))),
                None => reading.problems.push(not_understood(key)),
            },
            // The line may be a secret that was broken in two: it is not shown.
            None => reading.problems.push(not_understood("?")),
        }
    }
}

/// A value on one line: in quotes, or plain up to a comment. `None` for what is no text on one line.
fn scalar(value: &str) -> Option<String> {
    for quote in ['"', '\''] {
        let Some(rest) = value.strip_prefix(quote) else {
            continue;
        };
        let (inner, rest) = rest.split_once(quote)?;
        let rest = rest.trim_start();
        // Escapes and doubled quotes do not occur in our values.
        let plain = !inner.contains('\\') && (rest.is_empty() || rest.starts_with('#'));
        return plain.then(|| inner.to_owned());
    }
    let end = value.find(" #").unwrap_or(value.len());
    let plain = match value.starts_with('#') {
        true => "",
        false => value[..end].trim_end(),
    };
    let special = ['[', '{', '|', '>', '&', '*', '!', '%', '@', '`'];
    (!plain.starts_with(special)).then(|| plain.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<(&'static str, String)>, Vec<String>) {
        let mut reading = Reading::default();
        user_data(&mut reading, "sr0", text);
        let entries = reading.entries.iter();
        let entries = entries.map(|it| (it.key().name, it.value().to_owned()));
        let problems = reading.problems.iter().map(ToString::to_string);
        (entries.collect(), problems.collect())
    }

    #[test]
    fn our_mapping_is_read_and_the_rest_passed_over() {
        let (entries, problems) = read(
            "#cloud-config\nusers:\n  - name: admin\n    ticket: another's\nhostname: h1\nwow:\n  \
             ticket: wow-ticket-1.abc # ours\n  name: \"n1\"\n  seeds: 'a:1,b:2'\n\n  # no more\nruncmd: \
             [ a, b ]\nname: nobody's\n",
        );
        let expected = [
            ("hostname", "h1"),
            ("ticket", "wow-ticket-1.abc"),
            ("name", "n1"),
            ("seeds", "a:1,b:2"),
        ];
        assert_eq!(
            entries,
            expected.map(|(key, value)| (key, value.to_owned()))
        );
        assert!(problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn what_is_no_cloud_config_is_somebody_elses() {
        for text in ["", "#!/bin/sh\nwow:\n  name: x\n", "wow:\n  name: x\n"] {
            assert_eq!(read(text), (vec![], vec![]), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_told_with_its_line_and_without_the_value() {
        let check = |text: &str, words: &str| {
            let (entries, problems) = read(&format!("#cloud-config\n{text}"));
            assert!(entries.is_empty(), "{entries:?}");
            assert!(problems[0].contains(words), "{problems:?}");
            assert!(!problems[0].contains("SECRET"), "{problems:?}");
        };
        check("wow:\n  seeds: [ SECRET ]\n", "user-data line 3, `seeds`");
        check(
            "wow:\n  ticket: |\n    SECRET\n",
            "user-data line 3, `ticket`",
        );
        check("wow: {ticket: SECRET}\n", "user-data line 2, `wow`");
        check("wow:\n  tikcet: SECRET\n", "unknown key `tikcet`");
        check("wow:\n  ticket: \"SECRET\\n\"\n", "line 3");
        check("wow:\n  ticket: 'SECRET\n", "line 3");
    }
}
