//! An archive is read as an importer reads it.

use std::collections::BTreeMap;
use std::io::Read as _;

use roxmltree::{Document, Node};

use super::*;
use crate::definition::{Definition, Property};

fn machine() -> VirtualMachine {
    VirtualMachine {
        memory_mib: 128,
        cpus: 2,
        properties: vec![
            Property {
                key: "ticket".into(),
                label: "Ticket <of> \"a & b\"".into(),
                help: "What `wow pool ticket` prints".into(),
                secret: true,
            },
            Property {
                key: "name".into(),
                label: "Name".into(),
                help: "From its id".into(),
                secret: false,
            },
        ],
    }
}

/// The files of an archive in their order.
fn packed(disk: &[u8]) -> Vec<(String, Vec<u8>)> {
    let directory = tempfile::tempdir().unwrap();
    let (vmdk, to) = (directory.path().join("disk"), directory.path().join("ova"));
    std::fs::write(&vmdk, disk).unwrap();
    let contents = Contents {
        name: "small",
        machine: &machine(),
        vmdk: &vmdk,
        capacity_bytes: 8 << 20,
    };
    write(&contents, &to).unwrap();
    let mut archive = tar::Archive::new(File::open(&to).unwrap());
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| {
            let mut entry = entry.unwrap();
            let header = entry.header();
            assert!(header.as_ustar().is_some());
            assert_eq!((header.mtime().unwrap(), header.uid().unwrap()), (0, 0));
            let name = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (name, content)
        })
        .collect()
}

#[test]
fn the_descriptor_comes_first_and_the_manifest_names_what_is_there() {
    let files = packed(b"a disk");
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["small.ovf", "small.mf", "small-disk1.vmdk"]);
    assert_eq!(files[2].1, b"a disk");
    let manifest = String::from_utf8(files[1].1.clone()).unwrap();
    let expected = format!(
        "SHA256(small.ovf)= {}\nSHA256(small-disk1.vmdk)= {}\n",
        Digest::of(&files[0].1),
        Digest::of(b"a disk")
    );
    assert_eq!(manifest, expected);
    assert_eq!(files, packed(b"a disk"));
}

#[test]
fn the_descriptor_is_of_the_standards_shape() {
    let files = packed(b"a disk");
    let text = String::from_utf8(files[0].1.clone()).unwrap();
    let document = Document::parse(&text).unwrap();
    let root = document.root_element();
    let children = |node: Node<'_, '_>| -> Vec<String> {
        let elements = node.children().filter(Node::is_element);
        elements
            .map(|node| node.tag_name().name().to_owned())
            .collect()
    };
    assert_eq!(
        children(root),
        [
            "References",
            "DiskSection",
            "NetworkSection",
            "VirtualSystem"
        ]
    );
    let all = |name: &'static str| -> Vec<Node<'_, '_>> {
        let nodes = document.descendants();
        nodes.filter(|node| node.has_tag_name(name)).collect()
    };
    // Every reference leads to something.
    let attribute = |name: &'static str, key: &str| {
        let namespace = root.lookup_namespace_uri(Some("ovf"));
        let node = all(name)[0];
        node.attribute((namespace.unwrap(), key)).map(str::to_owned)
    };
    assert_eq!(attribute("File", "href").unwrap(), "small-disk1.vmdk");
    assert_eq!(attribute("File", "size").unwrap(), "6");
    assert_eq!(attribute("File", "id"), attribute("Disk", "fileRef"));
    assert_eq!(attribute("Disk", "capacity").unwrap(), "8388608");
    let host = format!("ovf:/disk/{}", attribute("Disk", "diskId").unwrap());
    assert!(text.contains(&format!("<rasd:HostResource>{host}<")));
    let network = attribute("Network", "name").unwrap();
    assert!(text.contains(&format!("<rasd:Connection>{network}<")));
    // CIM's elements stand in the order of their names, and each item has a number of its own.
    let mut numbers = BTreeMap::new();
    for item in all("Item") {
        let names = children(item);
        assert!(names.is_sorted(), "{names:?}");
        let value = |name: &str| {
            let mut nodes = item.children();
            let node = nodes.find(|node| node.tag_name().name() == name);
            node.and_then(|node| node.text()).unwrap().to_owned()
        };
        let kind = value("ResourceType");
        assert_eq!(numbers.insert(value("InstanceID"), kind), None);
    }
    let kinds: Vec<&String> = numbers.values().collect();
    assert_eq!(kinds, ["3", "4", "6", "17", "10"]);
    assert!(text.contains("<rasd:VirtualQuantity>128<"));
    assert_eq!(
        children(all("ProductSection")[0]),
        ["Info", "Product", "Version", "Property", "Property"]
    );
    let property = all("Property")[0];
    let label = property.children().find(Node::is_element).unwrap();
    assert_eq!(label.text(), Some("Ticket <of> \"a & b\""));
    assert_eq!(attribute("Property", "password").unwrap(), "true");
    assert_eq!(attribute("ProductSection", "class").unwrap(), "wow");
}

/// The descriptors of the machine above and of our own images.
fn descriptors() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let own = ["router", "workstation"].map(|name| match Definition::load(root, name).unwrap() {
        Definition::Appliance(appliance) => appliance.machine,
        Definition::Debian(debian) => debian.machine,
    });
    let make = |machine: &VirtualMachine| {
        let contents = Contents {
            name: "small",
            machine,
            vmdk: Path::new("unused"),
            capacity_bytes: 8 << 20,
        };
        let system = descriptor::System {
            contents: &contents,
            disk_file: "small-disk1.vmdk",
            disk_bytes: 6,
        };
        String::from_utf8(descriptor::descriptor(&system).unwrap()).unwrap()
    };
    own.iter().chain([&machine()]).map(make).collect()
}

#[test]
fn descriptors_hold_to_the_schema() {
    for text in descriptors() {
        assert_eq!(schema::errors(&text), [""; 0], "{text}");
    }
}

#[test]
fn what_the_schema_forbids_is_found() {
    let text = descriptors().pop().unwrap();
    for (from, to, expected) in [
        (" ovf:id=\"file1\"", "", "lacks the attribute id"),
        ("ovf:size=\"6\"", "ovf:size=\"six\"", "is not of its type"),
        ("ovf:id=\"101\"", "ovf:id=\"70000\"", "is not of its type"),
        ("ovf:key=", "ovf:name=", "has no attribute name"),
        ("<Info>The disks</Info>", "", "lacks [\"Info\"]"),
        (
            "<Info>The disks</Info>",
            "<Info>The disks</Info><Info>Again</Info>",
            "2 times",
        ),
        ("<Name>small</Name>", "<Nick>small</Nick>", "out of order"),
        (
            "<rasd:Parent>3</rasd:Parent>",
            "<Parent>3</Parent>",
            "is not of",
        ),
        (
            "<rasd:ElementName>Memory</rasd:ElementName>",
            "",
            "lacks [\"ElementName\"]",
        ),
        ("<System>", "<System>text", "has text"),
        ("</Envelope>", "", "never closed"),
    ] {
        assert!(text.contains(from), "{from} in {text}");
        let errors = schema::errors(&text.replacen(from, to, 1)).join("\n");
        assert!(errors.contains(expected), "{from} to {to}: {errors}");
    }
    // An item whose elements do not stand in the order of their names.
    let swapped = text.replacen(
        "<rasd:InstanceID>1</rasd:InstanceID>",
        "<rasd:InstanceID>1</rasd:InstanceID><rasd:Address>0</rasd:Address>",
        1,
    );
    let errors = schema::errors(&swapped).join("\n");
    assert!(errors.contains("Address is out of order"), "{errors}");
}
