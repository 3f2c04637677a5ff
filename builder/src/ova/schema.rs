//! What the OVF schema says of the elements that our descriptors have: an excerpt as a table.
//!
//! Source: DMTF DSP8023 1.1.1 (the envelope), and the CIM schemas that it imports,
//! CIM_VirtualSystemSettingData and CIM_ResourceAllocationSettingData 2.x. The schemas themselves are not
//! here, and no package of Debian, crates.io, npm or PyPI was found that brings them. An element that
//! the table does not have is an error, and so is one out of its order or too often.

use roxmltree::{Document, Node};

const OVF: &str = "http://schemas.dmtf.org/ovf/envelope/1";
const RASD: &str =
    "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData";
const VSSD: &str = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData";

/// How often a child stands.
#[derive(Clone, Copy, PartialEq)]
enum Often {
    Once,
    Maybe,
    Any,
}
use Often::{Any, Maybe, Once};

/// What an element's text or attribute has to be.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    /// `xs:unsignedShort`.
    Short,
    /// `xs:unsignedLong`.
    Long,
    Flag,
}

/// Children with alternatives (the members of a substitution group), in order.
type Children = &'static [(&'static [&'static str], Often)];

struct Element {
    name: &'static str,
    children: Children,
    /// Of the attributes of OVF's namespace: name, kind, whether it must be there.
    attributes: &'static [(&'static str, Kind, bool)],
    text: Option<Kind>,
}

const fn text(name: &'static str) -> Element {
    Element {
        name,
        children: &[],
        attributes: &[],
        text: Some(Kind::Text),
    }
}

const ELEMENTS: &[Element] = &[
    Element {
        name: "Envelope",
        children: &[
            (&["References"], Once),
            (&["DiskSection", "NetworkSection"], Any),
            (&["VirtualSystem"], Once),
            (&["Strings"], Any),
        ],
        attributes: &[],
        text: None,
    },
    Element {
        name: "References",
        children: &[(&["File"], Any)],
        attributes: &[],
        text: None,
    },
    Element {
        name: "File",
        children: &[],
        attributes: &[
            ("id", Kind::Text, true),
            ("href", Kind::Text, true),
            ("size", Kind::Long, false),
            ("compression", Kind::Text, false),
            ("chunkSize", Kind::Long, false),
        ],
        text: None,
    },
    Element {
        name: "DiskSection",
        children: &[(&["Info"], Once), (&["Disk"], Any)],
        attributes: &[("required", Kind::Flag, false)],
        text: None,
    },
    Element {
        name: "Disk",
        children: &[],
        attributes: &[
            ("diskId", Kind::Text, true),
            ("fileRef", Kind::Text, false),
            ("capacity", Kind::Text, true),
            ("capacityAllocationUnits", Kind::Text, false),
            ("format", Kind::Text, false),
            ("populatedSize", Kind::Long, false),
            ("parentRef", Kind::Text, false),
        ],
        text: None,
    },
    Element {
        name: "NetworkSection",
        children: &[(&["Info"], Once), (&["Network"], Any)],
        attributes: &[("required", Kind::Flag, false)],
        text: None,
    },
    Element {
        name: "Network",
        children: &[(&["Description"], Maybe)],
        attributes: &[("name", Kind::Text, true)],
        text: None,
    },
    Element {
        name: "VirtualSystem",
        children: &[
            (&["Info"], Once),
            (&["Name"], Maybe),
            (
                &[
                    "OperatingSystemSection",
                    "VirtualHardwareSection",
                    "ProductSection",
                ],
                Any,
            ),
        ],
        attributes: &[("id", Kind::Text, true)],
        text: None,
    },
    Element {
        name: "OperatingSystemSection",
        children: &[(&["Info"], Once), (&["Description"], Maybe)],
        attributes: &[
            ("required", Kind::Flag, false),
            ("id", Kind::Short, true),
            ("version", Kind::Text, false),
        ],
        text: None,
    },
    Element {
        name: "VirtualHardwareSection",
        children: &[(&["Info"], Once), (&["System"], Maybe), (&["Item"], Any)],
        attributes: &[
            ("required", Kind::Flag, false),
            ("id", Kind::Text, false),
            ("transport", Kind::Text, false),
        ],
        text: None,
    },
    Element {
        name: "System",
        children: &[
            (&["AutomaticRecoveryAction"], Maybe),
            (&["AutomaticShutdownAction"], Maybe),
            (&["AutomaticStartupAction"], Maybe),
            (&["AutomaticStartupActionDelay"], Maybe),
            (&["AutomaticStartupActionSequenceNumber"], Maybe),
            (&["Caption"], Maybe),
            (&["ConfigurationDataRoot"], Maybe),
            (&["ConfigurationFile"], Maybe),
            (&["ConfigurationID"], Maybe),
            (&["CreationTime"], Maybe),
            (&["Description"], Maybe),
            (&["ElementName"], Once),
            (&["InstanceID"], Once),
            (&["LogDataRoot"], Maybe),
            (&["Notes"], Any),
            (&["RecoveryFile"], Maybe),
            (&["SnapshotDataRoot"], Maybe),
            (&["SuspendDataRoot"], Maybe),
            (&["SwapFileDataRoot"], Maybe),
            (&["VirtualSystemIdentifier"], Maybe),
            (&["VirtualSystemType"], Maybe),
        ],
        attributes: &[],
        text: None,
    },
    Element {
        name: "Item",
        children: &[
            (&["Address"], Maybe),
            (&["AddressOnParent"], Maybe),
            (&["AllocationUnits"], Maybe),
            (&["AutomaticAllocation"], Maybe),
            (&["AutomaticDeallocation"], Maybe),
            (&["Caption"], Maybe),
            (&["Connection"], Any),
            (&["ConsumerVisibility"], Maybe),
            (&["Description"], Maybe),
            (&["ElementName"], Once),
            (&["HostResource"], Any),
            (&["InstanceID"], Once),
            (&["Limit"], Maybe),
            (&["MappingBehavior"], Maybe),
            (&["OtherResourceType"], Maybe),
            (&["Parent"], Maybe),
            (&["PoolID"], Maybe),
            (&["Reservation"], Maybe),
            (&["ResourceSubType"], Maybe),
            (&["ResourceType"], Maybe),
            (&["VirtualQuantity"], Maybe),
            (&["VirtualQuantityUnits"], Maybe),
            (&["Weight"], Maybe),
        ],
        attributes: &[
            ("required", Kind::Flag, false),
            ("configuration", Kind::Text, false),
            ("bound", Kind::Text, false),
        ],
        text: None,
    },
    Element {
        name: "ProductSection",
        children: &[
            (&["Info"], Once),
            (&["Product"], Maybe),
            (&["Vendor"], Maybe),
            (&["Version"], Maybe),
            (&["FullVersion"], Maybe),
            (&["ProductUrl"], Maybe),
            (&["VendorUrl"], Maybe),
            (&["AppUrl"], Maybe),
            (&["Icon"], Any),
            (&["Category", "Property"], Any),
        ],
        attributes: &[
            ("required", Kind::Flag, false),
            ("class", Kind::Text, false),
            ("instance", Kind::Text, false),
        ],
        text: None,
    },
    Element {
        name: "Property",
        children: &[
            (&["Label"], Maybe),
            (&["Description"], Maybe),
            (&["Value"], Any),
        ],
        attributes: &[
            ("key", Kind::Text, true),
            ("type", Kind::Text, true),
            ("qualifiers", Kind::Text, false),
            ("userConfigurable", Kind::Flag, false),
            ("value", Kind::Text, false),
            ("password", Kind::Flag, false),
        ],
        text: None,
    },
    text("Info"),
    text("Name"),
    text("Description"),
    text("Label"),
    text("Product"),
    text("Version"),
    text("ElementName"),
    text("InstanceID"),
    text("VirtualSystemIdentifier"),
    text("VirtualSystemType"),
    text("Address"),
    text("AddressOnParent"),
    text("AllocationUnits"),
    text("Connection"),
    text("HostResource"),
    text("Parent"),
    text("ResourceSubType"),
    Element {
        name: "AutomaticAllocation",
        children: &[],
        attributes: &[],
        text: Some(Kind::Flag),
    },
    Element {
        name: "ResourceType",
        children: &[],
        attributes: &[],
        text: Some(Kind::Short),
    },
    Element {
        name: "VirtualQuantity",
        children: &[],
        attributes: &[],
        text: Some(Kind::Long),
    },
];

/// What is wrong with a descriptor by the table; nothing if it is valid.
pub fn errors(descriptor: &str) -> Vec<String> {
    let mut errors = Vec::new();
    match Document::parse(descriptor) {
        Ok(document) => {
            let root = document.root_element();
            match root.tag_name().name() {
                "Envelope" => visit(root, "", &mut errors),
                other => errors.push(format!("the root is {other}")),
            }
        }
        Err(error) => errors.push(error.to_string()),
    }
    errors
}

fn visit(node: Node<'_, '_>, parent: &str, errors: &mut Vec<String>) {
    let name = node.tag_name().name();
    let at = format!("{parent}/{name}");
    let namespace = match parent.rsplit('/').next() {
        Some("Item") => RASD,
        Some("System") => VSSD,
        _ => OVF,
    };
    if node.tag_name().namespace() != Some(namespace) {
        errors.push(format!("{at} is not of {namespace}"));
    }
    let Some(element) = ELEMENTS.iter().find(|element| element.name == name) else {
        errors.push(format!("{at} is not in the table"));
        return;
    };
    for attribute in node.attributes() {
        // Others' attributes may stand everywhere.
        if attribute.namespace() != Some(OVF) {
            continue;
        }
        let mut known = element.attributes.iter();
        match known.find(|known| known.0 == attribute.name()) {
            Some((_, kind, _)) => check(*kind, attribute.value(), &at, errors),
            None => errors.push(format!("{at} has no attribute {}", attribute.name())),
        }
    }
    for (wanted, _, must) in element.attributes {
        if *must && node.attribute((OVF, *wanted)).is_none() {
            errors.push(format!("{at} lacks the attribute {wanted}"));
        }
    }
    match element.text {
        Some(kind) => check(kind, node.text().unwrap_or_default(), &at, errors),
        None => {
            let texts = node.children().filter(Node::is_text);
            if texts
                .filter_map(|text| text.text())
                .any(|text| !text.trim().is_empty())
            {
                errors.push(format!("{at} has text"));
            }
        }
    }
    let children: Vec<_> = node.children().filter(Node::is_element).collect();
    order(element.children, &children, &at, errors);
    for child in children {
        visit(child, &at, errors);
    }
}

/// Goes through the children and the table side by side.
fn order(table: Children, children: &[Node<'_, '_>], at: &str, errors: &mut Vec<String>) {
    let mut children = children
        .iter()
        .map(|child| child.tag_name().name())
        .peekable();
    for (names, often) in table {
        let mut count = 0;
        while children.next_if(|child| names.contains(child)).is_some() {
            count += 1;
        }
        if count == 0 && *often == Once {
            errors.push(format!("{at} lacks {names:?} where it must be"));
        }
        if count > 1 && *often != Any {
            errors.push(format!("{at} has {names:?} {count} times"));
        }
    }
    if let Some(child) = children.next() {
        errors.push(format!("{at}: {child} is out of order"));
    }
}

fn check(kind: Kind, value: &str, at: &str, errors: &mut Vec<String>) {
    let is_right = match kind {
        Kind::Text => true,
        Kind::Short => value.parse::<u16>().is_ok(),
        Kind::Long => value.parse::<u64>().is_ok(),
        Kind::Flag => matches!(value, "true" | "false" | "0" | "1"),
    };
    if !is_right {
        errors.push(format!("{at}: {value:?} is not of its type"));
    }
}
