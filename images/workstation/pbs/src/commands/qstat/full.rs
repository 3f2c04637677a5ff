//! Attributes in full: PBS's indented text, and OpenPBS's JSON.

use serde_json::{Map, Value, json};

use crate::slurm::queue::{Entry, Queue};
use crate::{site, time};

use super::Letters;
use super::attributes::{Attribute, Attributes};

/// PBS's lines are this long and go on behind a tab.
const WIDTH: usize = 78;

/// `qstat -f`.
pub fn text(entries: &[Entry], queue: &Queue, letters: Letters, one_line: bool) {
    for entry in entries {
        println!("Job Id: {}", entry.id.full());
        let attributes = Attributes::new(entry, queue).all(letters.of(entry));
        // Variables are one attribute in text.
        let (variables, others): (Vec<_>, Vec<_>) = attributes
            .iter()
            .partition(|attribute| attribute.name == "Variable_List");
        for attribute in others {
            let name = match &attribute.resource {
                Some(resource) => format!("{}.{resource}", attribute.name),
                None => attribute.name.to_owned(),
            };
            println!("{}", line(&name, &written(attribute), one_line));
        }
        let list: Vec<String> = variables
            .iter()
            .filter_map(|variable| {
                Some(format!(
                    "{}={}",
                    variable.resource.as_ref()?,
                    written(variable)
                ))
            })
            .collect();
        if !list.is_empty() {
            println!("{}", line("Variable_List", &list.join(","), one_line));
        }
        println!();
    }
}

/// `qstat -f -F json`.
pub fn json(entries: &[Entry], queue: &Queue, letters: Letters) {
    let mut jobs = Map::new();
    for entry in entries {
        let mut object = Map::new();
        for attribute in Attributes::new(entry, queue).all(letters.of(entry)) {
            let value = if attribute.moment {
                json!(written(&attribute))
            } else {
                attribute.value.clone()
            };
            match attribute.resource {
                None => {
                    object.insert(attribute.name.to_owned(), value);
                }
                Some(resource) => {
                    let group = object
                        .entry(attribute.name)
                        .or_insert_with(|| Value::Object(Map::new()));
                    if let Value::Object(group) = group {
                        group.insert(resource, value);
                    }
                }
            }
        }
        jobs.insert(entry.id.full(), Value::Object(object));
    }
    print(queue, "Jobs", jobs);
}

/// OpenPBS's frame around objects of one kind.
pub fn print(queue: &Queue, kind: &str, objects: Map<String, Value>) {
    let mut frame = json!({
        "timestamp": queue.now,
        "pbs_version": site::VERSION,
        "pbs_server": site::server(),
    });
    frame[kind] = Value::Object(objects);
    println!("{frame:#}");
}

/// One attribute, broken behind commas where it is too long.
pub fn line(name: &str, value: &str, one_line: bool) -> String {
    let mut text = format!("    {name} = ");
    if one_line {
        return text + value;
    }
    let mut width = text.chars().count();
    let begin = width;
    for piece in value.split_inclusive(',') {
        let length = piece.chars().count();
        if width + length > WIDTH && width > begin.min(WIDTH) {
            text.push_str("\n\t");
            width = 8;
        }
        for letter in piece.chars() {
            if width > WIDTH {
                text.push_str("\n\t");
                width = 8;
            }
            text.push(letter);
            width += 1;
        }
    }
    text
}

fn written(attribute: &Attribute) -> String {
    match &attribute.value {
        Value::Number(seconds) if attribute.moment => {
            time::format_moment(seconds.as_i64().unwrap_or(0))
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_go_on_behind_a_tab() {
        let value = format!("{},{},end", "a".repeat(40), "b".repeat(40));
        let text = line("Variable_List", &value, false);
        assert_eq!(
            text,
            format!(
                "    Variable_List = {},\n\t{},end",
                "a".repeat(40),
                "b".repeat(40)
            )
        );
        assert_eq!(line("x", &value, true), format!("    x = {value}"));
        let endless = line("x", &"c".repeat(200), false);
        assert!(
            endless.lines().all(|line| line.len() <= WIDTH + 1),
            "{endless}"
        );
        assert_eq!(endless.matches('c').count(), 200);
    }
}
