//! VMware's guestinfo: `guestinfo.wow.KEY` of the virtual machine, and what was filled in where an OVA was
//! deployed, which arrives as an XML document in `guestinfo.ovfEnv` (DMTF's DSP0243, its environment document).

use roxmltree::{Document, Node};

use super::{KEYS, MAX_VALUE_BYTES, Origin, Problem, Rank, Reading, Setting, Source, printable};

const NAME: &str = "VMware guestinfo";
/// Where hypervisors put the environment of a machine that was deployed from an OVF package.
const ENVIRONMENT: &str = "guestinfo.ovfEnv";
/// All keys at their longest would be more; no host of theirs takes as much.
const MAX_ENVIRONMENT_BYTES: usize = 64 * 1024;
const NAMESPACE: &str = "http://schemas.dmtf.org/ovf/environment/1";
/// Properties of the OVA are named so; others are not ours.
const PROPERTY_PREFIX: &str = "wow.";

/// What the hypervisor tells this machine, by VMware's back door.
#[derive(Debug, Default)]
pub struct GuestInfo;

impl Source for GuestInfo {
    fn rank(&self) -> Rank {
        Rank::GuestInfo
    }

    fn read(&self) -> Reading {
        match backdoor() {
            Ok(reading) => reading,
            Err(absent) => Reading {
                absent: Some(absent),
                ..Reading::default()
            },
        }
    }

    fn example(&self, key: &str) -> String {
        format!("{NAME}: guestinfo.wow.{key} = \"…\", or the OVA's properties")
    }
}

/// Asks the hypervisor, or says why it cannot be asked.
#[cfg(target_arch = "x86_64")]
fn backdoor() -> Result<Reading, String> {
    // On other hypervisors' ports might be something else.
    if !vmw_backdoor::is_vmware_cpu() {
        return Err("no machine of VMware's".to_owned());
    }
    let mut guard = vmw_backdoor::access_backdoor_privileged().map_err(|e| e.to_string())?;
    guard.probe_vmware_backdoor().map_err(|e| e.to_string())?;
    let mut channel = guard.open_enhanced_chan().map_err(|e| e.to_string())?;
    Ok(read_by(|name| {
        let answer = channel.get_guestinfo(name.as_bytes());
        answer.map_err(|error| format!("cannot be read: {error}"))
    }))
}

/// VMware's back door is x86's.
#[cfg(not(target_arch = "x86_64"))]
fn backdoor() -> Result<Reading, String> {
    Err("no machine of VMware's".to_owned())
}

/// Reads all keys with `get`, which looks up one name.
fn read_by(mut get: impl FnMut(&str) -> Result<Option<Vec<u8>>, String>) -> Reading {
    let mut reading = Reading::default();
    for key in KEYS {
        let name = format!("guestinfo.wow.{}", key.name);
        let origin = Origin::new(NAME, &name);
        match look_up(&mut get, &name, MAX_VALUE_BYTES) {
            Ok(None) => {}
            Ok(Some(value)) => reading.push(Setting::new(key.name, &value, origin)),
            Err(complaint) => reading.push(Err(Problem::Source { origin, complaint })),
        }
    }
    let environment = look_up(&mut get, ENVIRONMENT, MAX_ENVIRONMENT_BYTES);
    let environment = environment.unwrap_or_else(|complaint| {
        let origin = Origin::new(NAME, ENVIRONMENT);
        reading.push(Err(Problem::Source { origin, complaint }));
        None
    });
    if let Some(text) = &environment {
        take_environment(&mut reading, text);
    }
    let nothing = reading.entries.is_empty() && reading.problems.is_empty();
    reading.absent = nothing.then(|| match environment {
        Some(_) => "the properties are empty".to_owned(),
        None => "not given".to_owned(),
    });
    reading
}

fn look_up(
    get: &mut impl FnMut(&str) -> Result<Option<Vec<u8>>, String>,
    name: &str,
    most: usize,
) -> Result<Option<String>, String> {
    let Some(mut bytes) = get(name)? else {
        return Ok(None);
    };
    // Some hosts count C's end of text.
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    if bytes.len() > most {
        return Err(format!("is longer than {most} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "is no text (UTF-8)".to_owned())?;
    Ok(Some(text))
}

/// Takes in the properties that were filled in.
pub(super) fn take_environment(reading: &mut Reading, text: &str) {
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err(error) => {
            // The parser's own words may quote the document, and so a secret.
            let origin = Origin::new(NAME, format!("{ENVIRONMENT}, line {}", error.pos().row));
            let complaint = "is no well-formed XML: is the OVF environment damaged?".to_owned();
            reading.push(Err(Problem::Source { origin, complaint }));
            return;
        }
    };
    let is_property = |node: &Node<'_, '_>| node.has_tag_name((NAMESPACE, "Property"));
    for property in document.descendants().filter(is_property) {
        let attribute = |name| property.attribute((NAMESPACE, name));
        let (Some(name), Some(value)) = (attribute("key"), attribute("value")) else {
            continue;
        };
        let Some(key) = name.strip_prefix(PROPERTY_PREFIX) else {
            continue;
        };
        // A form has all fields, and most stay empty.
        if value.trim().is_empty() {
            continue;
        }
        let origin = Origin::new(NAME, format!("property {}", printable(name)));
        reading.push(Setting::new(key, value, origin));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::config::Sources;

    fn environment(properties: &str) -> String {
        format!(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<Environment xmlns="{NAMESPACE}" xmlns:oe="{NAMESPACE}" oe:id="">
   <PlatformSection><Kind>VMware ESXi</Kind><Version>8.0.2</Version></PlatformSection>
   <PropertySection>
{properties}
   </PropertySection>
</Environment>"#
        )
    }

    fn read(variables: &[(&str, &str)]) -> Reading {
        let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
        read_by(|name| Ok(variables.get(name).map(|value| value.as_bytes().to_vec())))
    }

    fn pairs(reading: &Reading) -> Vec<(&str, &str)> {
        let entries = reading.entries.iter();
        entries
            .map(|setting| (setting.key().name, setting.value()))
            .collect()
    }

    #[test]
    fn variables_are_read_by_their_keys_names() {
        let reading = read(&[
            ("guestinfo.wow.name", "n1\0"),
            ("guestinfo.wow.tcp-listen", " 443 "),
            ("guestinfo.name", "another's"),
        ]);
        assert_eq!(pairs(&reading), [("name", "n1"), ("tcp-listen", "443")]);
        assert!(reading.problems.is_empty());
        assert_eq!(reading.absent, None);
        let origin = reading.entries[0].origin().to_string();
        assert_eq!(origin, "VMware guestinfo, guestinfo.wow.name");
    }

    #[test]
    fn properties_that_were_filled_in_count_after_variables() {
        let text = environment(
            r#"<Property oe:key="wow.name" oe:value="from the form"/>
               <Property oe:key="wow.ticket" oe:value="a &amp; b"/>
               <Property oe:key="wow.role" oe:value=""/>
               <Property oe:key="vami.ip0.wow" oe:value="another's"/>
               <Property oe:key="wow.name"/>"#,
        );
        let reading = read(&[("guestinfo.wow.name", "n1"), (ENVIRONMENT, &text)]);
        let expected = [
            ("name", "n1"),
            ("name", "from the form"),
            ("ticket", "a & b"),
        ];
        assert_eq!(pairs(&reading), expected);
        assert!(reading.problems.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_without_its_value() {
        let text = environment(r#"<Property oe:key="wow.tikcet" oe:value="secret"/>"#);
        let broken = text.replace("</PropertySection>", "<secret");
        let long = "x".repeat(MAX_VALUE_BYTES + 1);
        let check = |variables: &[(&str, &str)], words: &str| {
            let reading = read(variables);
            assert!(reading.entries.is_empty() && reading.absent.is_none());
            let said = reading.problems[0].to_string();
            assert!(said.contains(words) && !said.contains("secret"), "{said}");
        };
        check(
            &[(ENVIRONMENT, &text)],
            "property wow.tikcet: unknown key `tikcet`",
        );
        check(&[(ENVIRONMENT, &broken)], "line 7: is no well-formed XML");
        check(&[("guestinfo.wow.ticket", &long)], "is longer than 16384");
        check(&[("guestinfo.wow.ticket", "se\u{7}cret")], "`ticket` holds");

        let refused = read_by(|_| Err("cannot be read: closed".to_owned()));
        assert_eq!(refused.problems.len(), KEYS.len() + 1);
        let no_text = read_by(|name| Ok((name == ENVIRONMENT).then(|| vec![0xff, 0xfe])));
        assert!(no_text.problems[0].to_string().contains("is no text"));
    }

    /// What a hypervisor would tell, as it is changed there.
    #[derive(Clone, Default)]
    struct Hypervisor(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

    impl Hypervisor {
        fn set(&self, name: &str, value: impl Into<Vec<u8>>) {
            self.0.lock().unwrap().insert(name.to_owned(), value.into());
        }
    }

    impl Source for Hypervisor {
        fn rank(&self) -> Rank {
            GuestInfo.rank()
        }

        fn read(&self) -> Reading {
            read_by(|name| Ok(self.0.lock().unwrap().get(name).cloned()))
        }

        fn example(&self, key: &str) -> String {
            GuestInfo.example(key)
        }
    }

    #[test]
    fn each_broken_property_is_named_with_its_place_spoils_no_other_and_is_over_when_mended() {
        let hypervisor = Hypervisor::default();
        let sources = Sources::new(vec![Box::new(hypervisor.clone())]);
        let form = |name: &str| {
            let ticket = r#"<Property oe:key="wow.ticket" oe:value="the ticket"/>"#;
            environment(&format!(
                r#"{ticket}<Property oe:key="wow.name" oe:value="{name}"/>"#
            ))
        };
        let told = || {
            let merged = sources.read();
            let ticket = merged
                .get("ticket")
                .map(|setting| setting.value().to_owned());
            let lost = merged.lost().iter().filter(|lost| lost.is_contradiction());
            let wrong = merged.problems().iter().map(ToString::to_string);
            let all = wrong.chain(lost.map(|lost| merged.contradiction(lost)));
            (
                ticket.as_deref() == Some("the ticket"),
                all.collect::<Vec<_>>(),
            )
        };
        let good = form("a");
        let long = "x".repeat(MAX_VALUE_BYTES + 1);
        let check = |name: &str, value: &[u8], whole: bool, words: [&str; 2]| {
            hypervisor.set(ENVIRONMENT, good.clone());
            hypervisor.set(name, value);
            let (has_ticket, problems) = told();
            assert_eq!(has_ticket, whole, "{name}");
            let [problem] = &problems[..] else {
                panic!("{name}: {problems:?}");
            };
            for part in words {
                assert!(problem.contains(part), "{problem}");
            }
            hypervisor.0.lock().unwrap().remove(name);
            hypervisor.set(ENVIRONMENT, good.clone());
            assert_eq!(told(), (true, Vec::new()), "{name}: mended");
        };
        let variable = "guestinfo.wow.mtu";
        check(variable, b"\xff\xfe", true, [variable, "is no text"]);
        check(variable, long.as_bytes(), true, [variable, "longer than"]);
        check(variable, b"14\x0700", true, [variable, "`mtu`"]);
        let other = "guestinfo.wow.name";
        check(other, b"b", true, [other, "property wow.name"]);
        let cut = &good.as_bytes()[..good.len() - 20];
        check(ENVIRONMENT, cut, false, [ENVIRONMENT, "well-formed"]);
        check(ENVIRONMENT, b"\xc3", false, [ENVIRONMENT, "is no text"]);
        let vast = form(&"x".repeat(MAX_ENVIRONMENT_BYTES));
        let vast = vast.as_bytes();
        check(ENVIRONMENT, vast, false, [ENVIRONMENT, "longer than"]);
        let long = form(&long);
        let property = "property wow.name";
        check(ENVIRONMENT, long.as_bytes(), true, [property, "`name`"]);
        let unknown = form("a").replace("wow.name", "wow.nmae");
        check(
            ENVIRONMENT,
            unknown.as_bytes(),
            true,
            ["wow.nmae", "unknown key"],
        );
    }

    #[test]
    fn nothing_given_is_told_from_a_form_left_empty() {
        let empty = environment(r#"<Property oe:key="wow.ticket" oe:value=" "/>"#);
        assert_eq!(read(&[]).absent.as_deref(), Some("not given"));
        let form = read(&[(ENVIRONMENT, &empty)]);
        assert_eq!(form.absent.as_deref(), Some("the properties are empty"));
    }

    #[test]
    fn an_entity_that_grows_is_refused() {
        let text = "<!DOCTYPE e [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;\">]><e>&b;</e>";
        let reading = read(&[(ENVIRONMENT, text)]);
        assert!(reading.problems[0].to_string().contains("well-formed"));
    }
}
