//! The OVF descriptor: what a hypervisor has to make for the disk, in XML.

use std::io;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};

use super::Contents;
use crate::definition::Property;

const OVF: &str = "http://schemas.dmtf.org/ovf/envelope/1";
const CIM: &str = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2";
const STREAM_OPTIMIZED: &str =
    "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";
/// ESXi 6.7 and Workstation 15: what drives vmxnet3 and pvscsi, and old enough to be everywhere.
const HARDWARE: &str = "vmx-15";
/// CIM's number of a 64-bit Linux.
const LINUX_64: &str = "101";
const NETWORK: &str = "VM Network";

/// What the descriptor tells of.
pub(super) struct System<'a> {
    pub contents: &'a Contents<'a>,
    pub disk_file: &'a str,
    pub disk_bytes: u64,
}

type Xml = Writer<Vec<u8>>;

/// The descriptor's text.
pub(super) fn descriptor(system: &System<'_>) -> io::Result<Vec<u8>> {
    let mut xml = Writer::new_with_indent(Vec::new(), b' ', 2);
    xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let resource = format!("{CIM}/CIM_ResourceAllocationSettingData");
    let setting = format!("{CIM}/CIM_VirtualSystemSettingData");
    xml.create_element("Envelope")
        .with_attributes([
            ("xmlns", OVF),
            ("xmlns:ovf", OVF),
            ("xmlns:rasd", &resource),
            ("xmlns:vssd", &setting),
            ("xmlns:vmw", "http://www.vmware.com/schema/ovf"),
        ])
        .write_inner_content(|xml| envelope(xml, system))?;
    let mut text = xml.into_inner();
    text.push(b'\n');
    Ok(text)
}

fn envelope(xml: &mut Xml, system: &System<'_>) -> io::Result<()> {
    let (size, capacity) = (
        system.disk_bytes.to_string(),
        system.contents.capacity_bytes.to_string(),
    );
    xml.create_element("References")
        .write_inner_content(|xml| {
            xml.create_element("File")
                .with_attributes([
                    ("ovf:id", "file1"),
                    ("ovf:href", system.disk_file),
                    ("ovf:size", &size),
                ])
                .write_empty()?;
            Ok(())
        })?;
    xml.create_element("DiskSection")
        .write_inner_content(|xml| {
            element(xml, "Info", "The disks")?;
            xml.create_element("Disk")
                .with_attributes([
                    ("ovf:diskId", "disk1"),
                    ("ovf:fileRef", "file1"),
                    ("ovf:capacity", &capacity),
                    ("ovf:capacityAllocationUnits", "byte"),
                    ("ovf:format", STREAM_OPTIMIZED),
                ])
                .write_empty()?;
            Ok(())
        })?;
    xml.create_element("NetworkSection")
        .write_inner_content(|xml| {
            element(xml, "Info", "The networks")?;
            xml.create_element("Network")
                .with_attribute(("ovf:name", NETWORK))
                .write_inner_content(|xml| {
                    element(xml, "Description", "By which the machine reaches the pool")
                })?;
            Ok(())
        })?;
    xml.create_element("VirtualSystem")
        .with_attribute(("ovf:id", system.contents.name))
        .write_inner_content(|xml| virtual_system(xml, system.contents))?;
    Ok(())
}

fn virtual_system(xml: &mut Xml, contents: &Contents<'_>) -> io::Result<()> {
    element(xml, "Info", "A virtual machine")?;
    element(xml, "Name", contents.name)?;
    xml.create_element("OperatingSystemSection")
        .with_attributes([("ovf:id", LINUX_64), ("vmw:osType", "other3xLinux64Guest")])
        .write_inner_content(|xml| element(xml, "Info", "The operating system"))?;
    xml.create_element("VirtualHardwareSection")
        .with_attribute(("ovf:transport", "com.vmware.guestInfo"))
        .write_inner_content(|xml| hardware(xml, contents))?;
    // Its class is the first part of the properties' names in the machine: wow.KEY.
    xml.create_element("ProductSection")
        .with_attribute(("ovf:class", "wow"))
        .write_inner_content(|xml| {
            element(xml, "Info", "What the machine is told")?;
            element(xml, "Product", &format!("WOW {}", contents.name))?;
            element(xml, "Version", env!("CARGO_PKG_VERSION"))?;
            let properties = &contents.machine.properties;
            properties.iter().try_for_each(|one| property(xml, one))
        })?;
    Ok(())
}

fn hardware(xml: &mut Xml, contents: &Contents<'_>) -> io::Result<()> {
    element(xml, "Info", "The virtual hardware")?;
    xml.create_element("System").write_inner_content(|xml| {
        element(xml, "vssd:ElementName", "Virtual Hardware Family")?;
        element(xml, "vssd:InstanceID", "0")?;
        element(xml, "vssd:VirtualSystemIdentifier", contents.name)?;
        element(xml, "vssd:VirtualSystemType", HARDWARE)
    })?;
    let (cpus, memory) = (
        contents.machine.cpus.to_string(),
        contents.machine.memory_mib.to_string(),
    );
    // The schema wants the elements of an item in the order of their names.
    let items: [&[(&str, &str)]; 5] = [
        &[
            ("AllocationUnits", "hertz * 10^6"),
            ("ElementName", "Processors"),
            ("InstanceID", "1"),
            ("ResourceType", "3"),
            ("VirtualQuantity", &cpus),
        ],
        &[
            ("AllocationUnits", "byte * 2^20"),
            ("ElementName", "Memory"),
            ("InstanceID", "2"),
            ("ResourceType", "4"),
            ("VirtualQuantity", &memory),
        ],
        &[
            ("Address", "0"),
            ("ElementName", "SCSI controller"),
            ("InstanceID", "3"),
            ("ResourceSubType", "VirtualSCSI"),
            ("ResourceType", "6"),
        ],
        &[
            ("AddressOnParent", "0"),
            ("ElementName", "Disk"),
            ("HostResource", "ovf:/disk/disk1"),
            ("InstanceID", "4"),
            ("Parent", "3"),
            ("ResourceType", "17"),
        ],
        &[
            ("AddressOnParent", "7"),
            ("AutomaticAllocation", "true"),
            ("Connection", NETWORK),
            ("ElementName", "Network card"),
            ("InstanceID", "5"),
            ("ResourceSubType", "VmxNet3"),
            ("ResourceType", "10"),
        ],
    ];
    for item in items {
        xml.create_element("Item").write_inner_content(|xml| {
            item.iter()
                .try_for_each(|(name, text)| element(xml, &format!("rasd:{name}"), text))
        })?;
    }
    Ok(())
}

fn property(xml: &mut Xml, property: &Property) -> io::Result<()> {
    let mut attributes = vec![
        ("ovf:key", property.key.as_str()),
        ("ovf:type", "string"),
        ("ovf:userConfigurable", "true"),
        ("ovf:value", ""),
    ];
    if property.secret {
        attributes.push(("ovf:password", "true"));
    }
    xml.create_element("Property")
        .with_attributes(attributes)
        .write_inner_content(|xml| {
            element(xml, "Label", &property.label)?;
            element(xml, "Description", &property.help)
        })?;
    Ok(())
}

fn element(xml: &mut Xml, name: &str, text: &str) -> io::Result<()> {
    let element = xml.create_element(name);
    element.write_text_content(BytesText::new(text)).map(drop)
}
