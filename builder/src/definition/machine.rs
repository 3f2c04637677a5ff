//! The virtual machine that a hypervisor makes of an image which is handed over whole, as an OVA.

use std::collections::BTreeSet;

use serde::Deserialize;
use toml::Spanned;

use super::DefinitionError;
use super::checker::Checker;

/// VMware gives memory in steps of this.
const MEMORY_STEP_MIB: u32 = 4;
const MEMORY_MIB: std::ops::RangeInclusive<u32> = 64..=1 << 20;
const CPUS: std::ops::RangeInclusive<u32> = 1..=128;

/// A virtual machine, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualMachine {
    /// Its memory, unless whoever deploys it says otherwise.
    pub memory_mib: u32,
    /// Its processors, likewise.
    pub cpus: u32,
    /// What whoever deploys it is asked.
    pub properties: Vec<Property>,
}

/// A value that whoever deploys the image may give it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Property {
    /// The key of the machine's configuration.
    pub key: String,
    /// What stands beside the field.
    pub label: String,
    /// What stands below it.
    pub help: String,
    /// Whether what is typed is hidden.
    #[serde(default)]
    pub secret: bool,
}

/// As it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawMachine {
    memory_mib: Spanned<u32>,
    cpus: Spanned<u32>,
    #[serde(default)]
    properties: Vec<Spanned<Property>>,
}

impl Checker<'_> {
    pub(super) fn machine(&self, raw: RawMachine) -> Result<VirtualMachine, DefinitionError> {
        let (memory_mib, cpus) = (*raw.memory_mib.get_ref(), *raw.cpus.get_ref());
        if !MEMORY_MIB.contains(&memory_mib) || !memory_mib.is_multiple_of(MEMORY_STEP_MIB) {
            let message = format!(
                "a virtual machine has {} to {} MiB of memory, in steps of {MEMORY_STEP_MIB}, not {memory_mib}",
                MEMORY_MIB.start(),
                MEMORY_MIB.end()
            );
            return Err(self.at(&raw.memory_mib, message));
        }
        if !CPUS.contains(&cpus) {
            let message = format!(
                "a virtual machine has {} to {} processors, not {cpus}",
                CPUS.start(),
                CPUS.end()
            );
            return Err(self.at(&raw.cpus, message));
        }
        let mut keys = BTreeSet::new();
        for entry in &raw.properties {
            let key = &entry.get_ref().key;
            // DSP0243 keeps the period for itself.
            if key.is_empty()
                || !key
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            {
                let message =
                    format!("{key:?} is no key: it has small letters, digits and hyphens");
                return Err(self.at(entry, message));
            }
            if !keys.insert(key) {
                return Err(self.at(entry, format!("{key} is asked for twice: remove one")));
            }
        }
        Ok(VirtualMachine {
            memory_mib,
            cpus,
            properties: raw
                .properties
                .into_iter()
                .map(Spanned::into_inner)
                .collect(),
        })
    }
}
