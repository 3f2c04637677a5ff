//! The kernel command line: `wow.KEY=VALUE`, by the kernel's own quoting rules. The last of several
//! equal keys wins, as the kernel has it, so that a boot loader's line overrides the built-in one.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use super::{Origin, Problem, Rank, Reading, Setting, Source, printable};

/// The source's name in messages.
pub(super) const NAME: &str = "kernel command line";
const PREFIX: &str = "wow.";
/// The kernel's limit on x86 is 2 KiB; other architectures and boot configurations go higher.
const MAX_BYTES: u64 = 64 * 1024;

/// What boot loaders say by the same prefix, and no setting: see [`crate::slots`].
const NO_SETTING: &str = "slot";

/// The value of a parameter of this machine's kernel command line; the last of several counts.
pub(crate) fn cmdline_value(name: &str) -> Option<String> {
    let line = std::fs::read_to_string(KernelCommandLine::default().path).ok()?;
    let (_, value) = parameters(&line)
        .into_iter()
        .rfind(|(found, _)| *found == name)?;
    value.map(str::to_owned)
}

/// `wow.KEY=VALUE` on the kernel command line.
#[derive(Debug)]
pub struct KernelCommandLine {
    path: PathBuf,
}

impl Default for KernelCommandLine {
    fn default() -> Self {
        Self {
            path: "/proc/cmdline".into(),
        }
    }
}

impl Source for KernelCommandLine {
    fn rank(&self) -> Rank {
        Rank::KernelCommandLine
    }

    fn read(&self) -> Reading {
        let mut bytes = Vec::new();
        let read =
            File::open(&self.path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
        match read {
            Ok(_) => parse(&String::from_utf8_lossy(&bytes)),
            Err(error) => Reading {
                absent: Some(format!("cannot read {}: {error}", self.path.display())),
                ..Reading::default()
            },
        }
    }

    fn example(&self, key: &str) -> String {
        format!("{NAME}: {PREFIX}{key}=…")
    }
}

pub(super) fn parse(line: &str) -> Reading {
    let mut reading = Reading::default();
    for (name, value) in parameters(line) {
        let Some(key) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if key == NO_SETTING {
            continue;
        }
        let origin = || Origin::new(NAME, printable(name));
        let Some(value) = value else {
            reading.problems.push(Problem::Source {
                origin: origin(),
                complaint: format!("has no value; write {PREFIX}KEY=VALUE"),
            });
            continue;
        };
        match Setting::new(key, value, origin()) {
            Ok(setting) => {
                reading
                    .entries
                    .retain(|earlier| earlier.key().name != setting.key().name);
                reading.entries.push(setting);
            }
            Err(problem) => reading.problems.push(problem),
        }
    }
    reading
}

/// Splits as the kernel's `next_arg` (lib/cmdline.c) does: blanks separate except within double
/// quotes; quotes around a whole parameter or around its value are taken away, others stay.
fn parameters(line: &str) -> Vec<(&str, Option<&str>)> {
    let mut found = Vec::new();
    let mut rest = line.trim_start_matches(is_blank);
    while !rest.is_empty() {
        let quoted = rest.starts_with('"');
        let text = if quoted { &rest[1..] } else { rest };
        let mut in_quote = quoted;
        let mut equals = None;
        let mut end = text.len();
        for (at, c) in text.char_indices() {
            if is_blank(c) && !in_quote {
                end = at;
                break;
            }
            match c {
                // The kernel, too, takes a leading `=` for part of the name.
                '=' if equals.is_none() && at > 0 => equals = Some(at),
                '"' => in_quote = !in_quote,
                _ => {}
            }
        }
        found.push(split(&text[..end], equals, quoted));
        rest = text[end..].trim_start_matches(is_blank);
    }
    found
}

fn split(parameter: &str, equals: Option<usize>, quoted: bool) -> (&str, Option<&str>) {
    let unquote_end = |text| if quoted { strip_one_quote(text) } else { text };
    let Some(equals) = equals else {
        return (unquote_end(parameter), None);
    };
    let (name, value) = (&parameter[..equals], &parameter[equals + 1..]);
    let value = match value.strip_prefix('"') {
        Some(inner) => strip_one_quote(inner),
        None => unquote_end(value),
    };
    (name, Some(value))
}

fn strip_one_quote(text: &str) -> &str {
    text.strip_suffix('"').unwrap_or(text)
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parameters_split_by_the_kernels_rules() {
        let check = |line: &str, expected: &[(&str, Option<&str>)]| {
            assert_eq!(parameters(line), expected, "{line:?}");
        };
        check("", &[]);
        check("  quiet\n", &[("quiet", None)]);
        check("a=1 b=2", &[("a", Some("1")), ("b", Some("2"))]);
        check("a=b=c", &[("a", Some("b=c"))]);
        check("a=", &[("a", Some(""))]);
        check("=a", &[("=a", None)]);
        check(r#"a="x y" b"#, &[("a", Some("x y")), ("b", None)]);
        check(r#""a=x y" b"#, &[("a", Some("x y")), ("b", None)]);
        check(r#"a=x" "y"#, &[("a", Some(r#"x" "y"#))]);
        check(r#"a="open to the end"#, &[("a", Some("open to the end"))]);
        check(r#"a=" -- b=2"#, &[("a", Some(" -- b=2"))]);
        check(
            "quiet -- b=2",
            &[("quiet", None), ("--", None), ("b", Some("2"))],
        );
        check("\"", &[("", None)]);
    }

    #[test]
    fn our_keys_are_picked_out_and_the_last_of_equal_ones_wins() {
        let reading = parse(r#"console=ttyS0 wow.name=a panic=10 wow.net="static:1 2" wow.name=b"#);
        let found: Vec<_> = reading
            .entries
            .iter()
            .map(|s| (s.key().name, s.value()))
            .collect();
        // What a boot loader adds is no setting, and no mistake.
        assert!(parse("wow.slot=a").problems.is_empty());
        assert_eq!(found, [("net", "static:1 2"), ("name", "b")]);
        assert!(reading.problems.is_empty());
    }

    #[test]
    fn unknown_keys_and_missing_values_are_problems_that_name_them() {
        let reading = parse("wow.nmae=a wow.ticket wow.=x wow.name=");
        assert!(reading.entries.is_empty());
        let problems: Vec<String> = reading.problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(problems[0].contains("wow.nmae") && problems[0].contains("unknown key"));
        assert!(problems[1].contains("wow.ticket") && problems[1].contains("no value"));
        assert!(problems[3].contains("wow.name") && problems[3].contains("empty"));
    }

    proptest! {
        #[test]
        fn any_line_splits_without_panic_and_a_quoted_value_survives(
            noise in "[ a-z=\"\u{e9}]{0,40}",
            value in "[a-z ,:/]{1,20}",
        ) {
            parameters(&noise);
            let line = format!("quiet wow.name=\"{value}\" last");
            let expected = [("quiet", None), ("wow.name", Some(value.as_str())), ("last", None)];
            prop_assert_eq!(parameters(&line), expected);
        }
    }
}
