//! Our lines in a file that is also somebody else's, between two markers.

use std::path::Path;

use anyhow::Result;

use crate::files::{self, PUBLIC};

const BEGIN: &str = "# wow-workstation: begin; what stands up to the end is replaced";
const END: &str = "# wow-workstation: end";

/// Puts these lines into a file; whether it was not so already.
pub fn write(path: &Path, lines: &str) -> Result<bool> {
    let text = with(&files::text(path)?, lines);
    files::write(path, text.as_bytes(), PUBLIC)
}

/// A file's text with these lines in it. The file's own last line may lack its end.
fn with(text: &str, lines: &str) -> String {
    let mut kept = String::new();
    let mut ours = false;
    for line in text.lines() {
        match line {
            BEGIN => ours = true,
            END => ours = false,
            line if !ours => {
                kept.push_str(line);
                kept.push('\n');
            }
            _ => {}
        }
    }
    if lines.is_empty() {
        return kept;
    }
    let newline = if lines.ends_with('\n') { "" } else { "\n" };
    format!("{kept}{BEGIN}\n{lines}{newline}{END}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_lines_are_replaced_and_others_kept() {
        let first = with("theirs\nlast without end", "a\nb\n");
        assert_eq!(
            first,
            format!("theirs\nlast without end\n{BEGIN}\na\nb\n{END}\n")
        );
        let added = format!("{first}added later\n");
        let second = with(&added, "c");
        assert_eq!(
            second,
            format!("theirs\nlast without end\nadded later\n{BEGIN}\nc\n{END}\n")
        );
        assert_eq!(with(&second, "c"), second);
        assert_eq!(with(&second, ""), "theirs\nlast without end\nadded later\n");
    }
}
