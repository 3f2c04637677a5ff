use std::os::unix::fs::symlink;

use super::*;

/// A tree as the kernel shows it, with cards at these addresses, driven by virtio-pci.
fn tree(cards: &[(&str, &str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let pci = root.path().join("bus/pci");
    for driver in ["virtio-pci", UIO_DRIVER] {
        std::fs::create_dir_all(pci.join("drivers").join(driver)).unwrap();
    }
    for (address, vendor, device) in cards {
        let directory = pci.join("devices").join(address);
        std::fs::create_dir_all(directory.join("virtio2/net/eth1")).unwrap();
        std::fs::write(directory.join("vendor"), format!("{vendor}\n")).unwrap();
        std::fs::write(directory.join("device"), format!("{device}\n")).unwrap();
        bind(root.path(), address, "virtio-pci");
    }
    root
}

fn bind(root: &Path, address: &str, driver: &str) {
    let link = root.join("bus/pci/devices").join(address).join("driver");
    let _ = std::fs::remove_file(&link);
    symlink(root.join("bus/pci/drivers").join(driver), link).unwrap();
}

fn written(root: &Path, file: &str) -> String {
    std::fs::read_to_string(root.join("bus/pci").join(file)).unwrap()
}

#[test]
fn addresses_are_read_with_and_without_domain_and_nothing_else_is() {
    for text in ["0000:00:03.0", "00:03.0", "0:3.0"] {
        let address: PciAddress = text.parse().unwrap();
        assert_eq!(address.to_string(), "0000:00:03.0");
        assert_eq!(address.place(), (0, 3, 0));
    }
    let far: PciAddress = "10000:e1:1f.7".parse().unwrap();
    assert_eq!(far.to_string(), "10000:e1:1f.7");
    for wrong in [
        "",
        "eth1",
        "00:03",
        "00:20.0",
        "00:03.8",
        "+0:03.0",
        "../00:03.0",
        "0:0:0:3.0",
    ] {
        assert!(wrong.parse::<PciAddress>().is_err(), "{wrong:?}");
    }
}

#[test]
fn network_cards_of_virtio_are_found_in_order_with_their_interfaces() {
    let root = tree(&[
        ("0000:00:04.0", "0x1af4", "0x1041"),
        ("0000:00:03.0", "0x1af4", "0x1000"),
        ("0000:00:02.0", "0x1af4", "0x1001"),
        ("0000:00:01.0", "0x8086", "0x1000"),
    ]);
    let found = cards(root.path());
    let places: Vec<String> = found.iter().map(|card| card.address.to_string()).collect();
    assert_eq!(places, ["0000:00:03.0", "0000:00:04.0"]);
    assert_eq!(found[0].driver.as_deref(), Some("virtio-pci"));
    assert_eq!(found[0].interface.as_deref(), Some("eth1"));
    assert!(cards(Path::new("/nowhere")).is_empty());
}

#[test]
fn a_card_that_uio_has_already_is_kept_and_given_back_in_the_end() {
    let root = tree(&[("0000:00:03.0", "0x1af4", "0x1041")]);
    bind(root.path(), "0000:00:03.0", UIO_DRIVER);
    let address = "00:03.0".parse().unwrap();
    let taken = Taken::new(root.path(), address).unwrap();
    assert!(!taken.directory().join("driver_override").exists());
    drop(taken);
    assert_eq!(
        written(root.path(), "devices/0000:00:03.0/driver_override"),
        "\n"
    );
    assert_eq!(
        written(root.path(), "drivers/uio_pci_generic/unbind"),
        "0000:00:03.0"
    );
    assert_eq!(written(root.path(), "drivers_probe"), "0000:00:03.0");
}

#[test]
fn a_card_that_uio_does_not_take_goes_back_to_the_kernel() {
    let root = tree(&[("0000:00:03.0", "0x1af4", "0x1041")]);
    let address = "00:03.0".parse().unwrap();
    // Files bind nothing, as a kernel that refuses.
    let error = Taken::new(root.path(), address).unwrap_err();
    assert!(matches!(error, TakeError::NotTaken(_)), "{error}");
    assert_eq!(
        written(root.path(), "drivers/virtio-pci/unbind"),
        "0000:00:03.0"
    );
    assert_eq!(
        written(root.path(), "devices/0000:00:03.0/driver_override"),
        "\n"
    );
    assert_eq!(written(root.path(), "drivers_probe"), "0000:00:03.0");
    let bare = tempfile::tempdir().unwrap();
    let missing = Taken::new(bare.path(), address).unwrap_err();
    assert!(missing.to_string().contains("CONFIG_UIO_PCI_GENERIC"));
}

#[test]
fn memory_regions_are_told_from_ports_and_unused_ones() {
    let directory = tempfile::tempdir().unwrap();
    let text = "0x000000000000c040 0x000000000000c05f 0x0000000000040101\n\
                0x00000000febd1000 0x00000000febd1fff 0x0000000000040200\n\
                0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                nonsense\n\
                0x00000000fe000000 0x00000000fe003fff 0x000000000014220c\n\
                0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                0x00000000feb00000 0x00000000feb3ffff 0x0000000000046200\n";
    std::fs::write(directory.path().join("resource"), text).unwrap();
    let found = regions(directory.path()).unwrap();
    assert_eq!(found, [(1, 0xfebd_1000, 0x1000), (4, 0xfe00_0000, 0x4000)]);
}
