//! `#PBS` lines: options within a script, up to its first command.

use crate::arguments::words;
use crate::failure::Failure;

/// What directives begin with unless `-C` or PBS_DPREFIX says otherwise.
pub const PREFIX: &str = "#PBS";

/// The words of all directives of `script`, in order. An empty prefix means: none.
pub fn find(script: &str, prefix: &str) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    if prefix.is_empty() {
        return Ok(found);
    }
    for (number, line) in script.lines().enumerate() {
        let line = line.trim();
        if let Some(text) = line.strip_prefix(prefix)
            && (text.is_empty() || text.starts_with([' ', '\t', '-']))
        {
            let words = words(text).map_err(|failure| {
                Failure::usage(format!("directive error: {text}: {}", failure.message))
            })?;
            found.extend(words);
            continue;
        }
        // `:` was the first line of scripts before `#!` was.
        let first = number == 0 && line.starts_with(':');
        if !(line.is_empty() || line.starts_with('#') || first) {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(script: &str) -> Vec<String> {
        find(script, PREFIX).unwrap()
    }

    #[test]
    fn directives_stand_before_the_first_command() {
        let script =
            "#!/bin/sh\n# a comment\n\n  #PBS -N a\n#PBS\t-l nodes=1 -V\necho\n#PBS -q late\n";
        assert_eq!(found(script), ["-N", "a", "-l", "nodes=1", "-V"]);
    }

    #[test]
    fn comments_that_look_alike_are_comments() {
        for line in [
            "##PBS -N a",
            "# PBS -N a",
            "#PBSX -N a",
            "#pbs -N a",
            "#SBATCH -N 1",
        ] {
            assert!(found(line).is_empty(), "{line}");
        }
    }

    #[test]
    fn a_prefix_of_ones_own_and_none() {
        assert_eq!(find("#Q -N a\n#PBS -N b", "#Q").unwrap(), ["-N", "a"]);
        assert!(find("#PBS -N b", "").unwrap().is_empty());
    }

    #[test]
    fn a_script_from_dos_and_a_first_line_of_old() {
        assert_eq!(found(":\r\n#PBS -N a\r\n\r\necho\r\n"), ["-N", "a"]);
    }

    #[test]
    fn an_open_quote_is_an_error() {
        let failure = find("#PBS -N 'a", PREFIX).unwrap_err();
        assert!(
            failure.message.starts_with("directive error:"),
            "{failure:?}"
        );
    }

    proptest! {
        #[test]
        fn nothing_after_the_first_command_counts(head in "(#[^\n]{0,20}\n){0,4}", tail in "\\PC{0,60}") {
            let script = format!("{head}true\n{tail}\n#PBS -N late\n");
            prop_assert_eq!(find(&script, PREFIX), find(&head, PREFIX));
        }

        #[test]
        fn any_text_is_read_without_harm(script in "(#PBS|#| |\n|'|\"|\\\\|\\PC){0,60}", prefix in "\\PC{0,4}") {
            let _ = find(&script, &prefix);
        }
    }
}
