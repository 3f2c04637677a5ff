//! What people and programs read on standard output.

use std::io::{self, Write};

use anyhow::{Context, Result};
use comfy_table::{Cell, Table, presets};
use serde::Serialize;

/// Prints text as it is.
pub fn say(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match printed {
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("cannot write to standard output"),
    }
}

/// Prints one JSON document.
pub fn json(value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).context("cannot write JSON")?;
    text.push('\n');
    say(&text)
}

/// Prints names with their values; empty values are left out.
pub fn facts(facts: &[(&str, String)]) -> Result<()> {
    let mut table = plain();
    for (name, value) in facts {
        if !value.is_empty() {
            table.add_row([strong(name), Cell::new(value)]);
        }
    }
    say(&format!("{}\n", table.trim_fmt()))
}

/// Prints rows under a header.
pub fn rows(header: &[&str], rows: Vec<Vec<String>>) -> Result<()> {
    let mut table = plain();
    table.set_header(header.iter().map(|name| strong(name)));
    for row in rows {
        table.add_row(row);
    }
    say(&format!("{}\n", table.trim_fmt()))
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// Bold on a terminal; plain text stays plain in pipes and files.
#[cfg(feature = "styles")]
fn strong(text: &str) -> Cell {
    use std::io::IsTerminal;

    let cell = Cell::new(text);
    if io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        cell.add_attribute(comfy_table::Attribute::Bold)
    } else {
        cell
    }
}

#[cfg(not(feature = "styles"))]
fn strong(text: &str) -> Cell {
    Cell::new(text)
}
