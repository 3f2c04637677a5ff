//! Command lines in getopt's manner, as PBS reads them: bundled options, values attached or not, operands
//! anywhere, and what follows `--` left alone.

use std::ffi::OsString;

use crate::failure::Failure;

/// A command line by its parts.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The options in order, with the values of those that take one.
    pub options: Vec<(char, String)>,
    /// What is no option.
    pub operands: Vec<String>,
    /// What follows `--`, if that stands there.
    pub rest: Option<Vec<String>>,
}

impl Parsed {
    /// Whether the option was given.
    pub fn has(&self, option: char) -> bool {
        self.options.iter().any(|(given, _)| *given == option)
    }

    /// The value of the option's last appearance.
    pub fn value(&self, option: char) -> Option<&str> {
        self.options
            .iter()
            .rev()
            .find(|(given, _)| *given == option)
            .map(|(_, value)| value.as_str())
    }
}

/// Parses `arguments` by getopt's `spec`: letters, each followed by `:` when it takes a value.
pub fn parse(spec: &str, arguments: Vec<OsString>) -> Result<Parsed, Failure> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut parsed = Parsed::default();
    loop {
        // Only where an option may stand: `-N --` names a job so.
        if let Some(mut raw) = parser.try_raw_args()
            && raw.peek().is_some_and(|next| next == "--")
        {
            raw.next();
            parsed.rest = Some(raw.map(text).collect::<Result<_, _>>()?);
            return Ok(parsed);
        }
        let Some(argument) = parser.next().map_err(wrong)? else {
            return Ok(parsed);
        };
        match argument {
            lexopt::Arg::Short(letter) => match takes_value(spec, letter) {
                Some(true) => {
                    let value = text(parser.value().map_err(|_| {
                        Failure::usage(format!("option requires an argument -- '{letter}'"))
                    })?)?;
                    parsed.options.push((letter, value));
                }
                Some(false) => parsed.options.push((letter, String::new())),
                None => return Err(Failure::usage(format!("invalid option -- '{letter}'"))),
            },
            lexopt::Arg::Long(name) => {
                return Err(Failure::usage(format!("unrecognized option '--{name}'")));
            }
            lexopt::Arg::Value(value) => parsed.operands.push(text(value)?),
        }
    }
}

/// Splits a directive's text into words as PBS does: quotes group and vanish, a backslash takes the next
/// character as it is.
pub fn words(line: &str) -> Result<Vec<String>, Failure> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (_, '\\') => word
                .get_or_insert_default()
                .push(letters.next().unwrap_or('\\')),
            (Some(open), _) if letter == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, _) if letter.is_ascii_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err(Failure::usage("unmatched quote"));
    }
    words.extend(word);
    Ok(words)
}

fn takes_value(spec: &str, letter: char) -> Option<bool> {
    let mut letters = spec.chars();
    letters.find(|known| *known == letter && letter != ':')?;
    Some(letters.next() == Some(':'))
}

fn text(value: OsString) -> Result<String, Failure> {
    value
        .into_string()
        .map_err(|value| Failure::usage(format!("{} is no UTF-8", value.to_string_lossy())))
}

fn wrong(error: lexopt::Error) -> Failure {
    Failure::usage(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(spec: &str, line: &str) -> Result<Parsed, Failure> {
        parse(spec, line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn options_are_bundled_attached_and_between_operands() {
        let parsed = parsed("Vj:l:N:", "-Vjoe script -lwalltime=1 -l mem=2gb -N x").unwrap();
        let options: Vec<_> = parsed
            .options
            .iter()
            .map(|(letter, value)| format!("{letter}{value}"))
            .collect();
        assert_eq!(options, ["V", "joe", "lwalltime=1", "lmem=2gb", "Nx"]);
        assert_eq!(parsed.operands, ["script"]);
        assert_eq!(parsed.value('l'), Some("mem=2gb"));
    }

    #[test]
    fn what_follows_two_dashes_is_a_command_with_options_of_its_own() {
        let parsed = parsed("N:", "-N x -- sleep -N 5 -- 1").unwrap();
        assert_eq!(parsed.rest.unwrap(), ["sleep", "-N", "5", "--", "1"]);
        assert_eq!(parsed.options, [('N', "x".to_owned())]);
    }

    #[test]
    fn two_dashes_and_negative_numbers_can_be_values() {
        let parsed = parsed("N:p:", "-N -- -p -5").unwrap();
        assert_eq!(parsed.value('N'), Some("--"));
        assert_eq!(parsed.value('p'), Some("-5"));
    }

    #[test]
    fn unknown_options_and_missing_values_are_wrong_usage() {
        for line in ["-Y", "-N", "--name", "-:"] {
            assert_eq!(parsed("N:", line).unwrap_err().code, 2, "{line}");
        }
    }

    #[test]
    fn directive_words_keep_what_is_quoted_together() {
        assert_eq!(
            words(r#" -v "A=x y",B='"' -N a\ b "" "#).unwrap(),
            ["-v", "A=x y,B=\"", "-N", "a b", ""]
        );
        assert!(words("-N 'x").is_err());
    }
}
