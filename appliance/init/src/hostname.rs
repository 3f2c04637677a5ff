//! The machine's host name: validated as a DNS label, then given to the kernel.

use crate::config::{Merged, Setting};
use crate::step::StepError;

/// The name of a machine that was given none.
pub const DEFAULT: &str = "wow";

/// RFC 1035's limit of a label, also below the kernel's limit of 64.
const LABEL_BYTES: usize = 63;

/// Chooses the host name: `hostname`, else `name`, else [`DEFAULT`]. An unusable value is an error and
/// the next one is taken.
pub fn choose(settings: &Merged) -> (String, Option<String>) {
    let mut complaint = None;
    for setting in ["hostname", "name"]
        .into_iter()
        .filter_map(|key| settings.get(key))
    {
        match check(setting) {
            Ok(name) => return (name.to_owned(), complaint),
            Err(words) => complaint = complaint.or(Some(words)),
        }
    }
    (DEFAULT.to_owned(), complaint)
}

fn check(setting: &Setting) -> Result<&str, String> {
    let name = setting.value();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let usable = (1..=LABEL_BYTES).contains(&name.len())
        && name.bytes().all(plain)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if usable {
        return Ok(name);
    }
    Err(format!(
        "{}: {name:?} is no host name; use 1 to {LABEL_BYTES} letters, digits and inner hyphens",
        setting.origin()
    ))
}

pub(crate) fn step(settings: &Merged) -> Result<String, StepError> {
    let (name, complaint) = choose(settings);
    rustix::system::sethostname(name.as_bytes())
        .map_err(|error| StepError::new(format!("cannot set host name {name}: {error}")))?;
    match complaint {
        None => Ok(name),
        Some(complaint) => Err(StepError::new(format!("{complaint}; using `{name}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::merged;

    #[test]
    fn hostname_wins_over_name_and_an_unusable_one_is_passed_over() {
        let check = |pairs: &[(&str, &str)], expected: &str, complains: bool| {
            let (name, complaint) = choose(&merged(pairs));
            assert_eq!(name, expected, "{pairs:?}");
            assert_eq!(complaint.is_some(), complains, "{pairs:?}");
        };
        check(&[], DEFAULT, false);
        check(&[("name", "left")], "left", false);
        check(&[("name", "left"), ("hostname", "right")], "right", false);
        check(&[("name", "left"), ("hostname", "-bad")], "left", true);
        check(&[("hostname", "a b")], DEFAULT, true);
        check(&[("hostname", &"a".repeat(64))], DEFAULT, true);
        check(&[("hostname", &"a".repeat(63))], &"a".repeat(63), false);
    }
}
