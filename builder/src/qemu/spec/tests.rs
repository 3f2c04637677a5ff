//! Command lines of every machine, as QEMU gets them.

use super::*;

fn spec(machine: Machine, firmware: Firmware) -> VmSpec {
    VmSpec {
        name: "a1".into(),
        machine,
        hardware: Hardware::Virtio,
        firmware,
        image: ImageFiles {
            kernel: "/i/bzImage".into(),
            loader: None,
            disk: "/i/disk.raw".into(),
            disk_format: Format::Raw,
            own_disk: false,
        },
        uefi: Some(Uefi {
            code: "/o/code.fd".into(),
            variables: "/r/vars.fd".into(),
        }),
        memory_mib: 64,
        cpus: 1,
        nics: vec![Nic {
            mac: [0x52, 0x54, 0, 1, 2, 3],
            backend: Backend::Stream("/r/a1.net".into()),
        }],
        disks: Vec::new(),
        serial: Serial::Socket {
            path: "/r/a1.serial".into(),
            log: "/l/a1.log".into(),
        },
        control: Some("/r/a1.sock".into()),
        qmp: Some("/r/a1.qmp".into()),
        fw_cfg: vec![FwCfg {
            name: "opt/wow/ticket".into(),
            file: "/r/ticket".into(),
        }],
        append: Vec::new(),
        reboots: false,
        incoming: None,
        ports: 0,
        rtc: None,
    }
}

fn values<'a>(arguments: &'a [String], option: &str) -> Vec<&'a str> {
    arguments
        .windows(2)
        .filter(|pair| pair[0] == option)
        .map(|pair| pair[1].as_str())
        .collect()
}

#[test]
fn a_kernel_whose_root_is_on_the_disk_gets_initramfs_command_line_and_disk() {
    let mut spec = spec(Machine::Q35, Firmware::Direct);
    spec.image.loader = Some(Loader {
        initrd: "/i/initrd.img".into(),
        command_line: "root=LABEL=wow-root ro".into(),
    });
    spec.image.own_disk = true;
    spec.append = vec!["wow.log=debug".into()];
    let line = spec.arguments(Accelerator::Tcg).unwrap();
    assert_eq!(values(&line, "-initrd"), ["/i/initrd.img"]);
    assert_eq!(
        values(&line, "-append"),
        ["root=LABEL=wow-root ro wow.log=debug nolapic_timer"]
    );
    let drive = "if=none,id=disk0,format=raw,snapshot=off,file=/i/disk.raw";
    assert_eq!(values(&line, "-drive"), [drive]);
}

#[test]
fn q35_direct_loads_the_kernel_and_no_disk() {
    let line = spec(Machine::Q35, Firmware::Direct)
        .arguments(Accelerator::Tcg)
        .unwrap();
    assert_eq!(
        values(&line, "-machine"),
        ["q35,sata=off,smbus=off,hpet=off"]
    );
    assert_eq!(values(&line, "-accel"), ["tcg"]);
    assert_eq!(values(&line, "-cpu"), ["max"]);
    assert_eq!(values(&line, "-m"), ["64M"]);
    assert_eq!(values(&line, "-kernel"), ["/i/bzImage"]);
    assert_eq!(values(&line, "-append"), ["nolapic_timer"]);
    assert_eq!(values(&line, "-drive"), [""; 0]);
    assert_eq!(
        values(&line, "-netdev"),
        ["stream,id=net0,server=on,addr.type=unix,addr.path=/r/a1.net"]
    );
    assert_eq!(
        values(&line, "-device"),
        [
            "virtio-net-pci,netdev=net0,mac=52:54:00:01:02:03,romfile=",
            "virtio-serial-pci",
            "virtserialport,chardev=control0,name=wow.control",
            "virtio-rng-pci,rng=rng0",
        ]
    );
    assert_eq!(
        values(&line, "-fw_cfg"),
        ["name=opt/wow/ticket,file=/r/ticket"]
    );
    assert_eq!(values(&line, "-qmp"), ["unix:/r/a1.qmp,server=on,wait=off"]);
    assert_eq!(
        values(&line, "-chardev"),
        [
            "socket,id=serial0,path=/r/a1.serial,server=on,wait=off,logfile=/l/a1.log",
            "socket,id=control0,path=/r/a1.sock,server=on,wait=off",
        ]
    );
    assert!(line.iter().any(|word| word == "-no-reboot"));
}

#[test]
fn microvm_has_devices_without_pci() {
    let mut spec = spec(Machine::Microvm, Firmware::Direct);
    spec.append.push("wow.name=a1".into());
    let line = spec.arguments(Accelerator::Kvm).unwrap();
    assert_eq!(values(&line, "-machine"), ["microvm,acpi=off"]);
    assert_eq!(values(&line, "-cpu"), ["host"]);
    assert_eq!(values(&line, "-append"), ["wow.name=a1"]);
    let emulated = spec.arguments(Accelerator::Tcg).unwrap();
    assert_eq!(values(&emulated, "-append"), ["wow.name=a1 nolapic_timer"]);
    assert!(!line.iter().any(|word| word.contains("-pci")), "{line:?}");
}

#[test]
fn bios_and_uefi_boot_the_disk_without_writing_to_it() {
    let bios = spec(Machine::Q35, Firmware::Bios)
        .arguments(Accelerator::Tcg)
        .unwrap();
    let disk = "if=none,id=disk0,format=raw,snapshot=on,file=/i/disk.raw";
    assert_eq!(values(&bios, "-drive"), [disk]);
    assert_eq!(values(&bios, "-kernel"), [""; 0]);
    assert!(values(&bios, "-device").contains(&"virtio-blk-pci,drive=disk0,bootindex=0"));

    let uefi = spec(Machine::Q35, Firmware::Uefi)
        .arguments(Accelerator::Tcg)
        .unwrap();
    assert_eq!(
        values(&uefi, "-drive"),
        [
            "if=pflash,format=raw,unit=0,readonly=on,file=/o/code.fd",
            "if=pflash,format=raw,unit=1,readonly=off,file=/r/vars.fd",
            disk,
        ]
    );
}

#[test]
fn the_terminal_is_shared_with_the_monitor() {
    let mut spec = spec(Machine::Q35, Firmware::Direct);
    spec.serial = Serial::Terminal { log: None };
    spec.nics[0].backend = Backend::User;
    spec.control = None;
    let line = spec.arguments(Accelerator::Tcg).unwrap();
    assert_eq!(
        values(&line, "-chardev"),
        ["stdio,id=serial0,mux=on,signal=off"]
    );
    assert_eq!(values(&line, "-mon"), ["chardev=serial0,mode=readline"]);
    assert_eq!(values(&line, "-netdev"), ["user,id=net0"]);
}

#[test]
fn commas_in_paths_are_doubled_except_where_qemu_takes_them_bare() {
    let mut spec = spec(Machine::Q35, Firmware::Direct);
    spec.image.kernel = "/a,b/bzImage".into();
    spec.control = Some("/a,b/c".into());
    let line = spec.arguments(Accelerator::Tcg).unwrap();
    assert_eq!(values(&line, "-kernel"), ["/a,b/bzImage"]);
    assert!(values(&line, "-chardev")[1].contains("path=/a,,b/c,"));
}

#[test]
fn impossible_machines_are_refused() {
    let refused = |spec: &VmSpec| spec.arguments(Accelerator::Tcg).unwrap_err();
    assert_eq!(
        refused(&spec(Machine::Microvm, Firmware::Uefi)),
        SpecError::MicrovmFirmware(Firmware::Uefi)
    );
    let mut without = spec(Machine::Q35, Firmware::Uefi);
    without.uefi = None;
    assert_eq!(refused(&without), SpecError::NoUefi);
    let mut appended = spec(Machine::Q35, Firmware::Bios);
    appended.append.push("x".into());
    assert_eq!(refused(&appended), SpecError::Append(Firmware::Bios));
    let mut long = spec(Machine::Q35, Firmware::Direct);
    long.qmp = Some(PathBuf::from(format!("/{}", "x".repeat(120))));
    assert!(matches!(refused(&long), SpecError::SocketPath(_)));
}

#[test]
fn other_hardware_has_its_own_cards_and_disks() {
    let devices = |hardware| {
        let mut spec = spec(Machine::Q35, Firmware::Bios);
        spec.hardware = hardware;
        spec.image.disk_format = Format::Vmdk;
        let line = spec.arguments(Accelerator::Tcg).unwrap();
        assert!(values(&line, "-drive")[0].contains("format=vmdk,snapshot=on"));
        (
            values(&line, "-device").join(" "),
            values(&line, "-machine").join(" "),
        )
    };
    let (vmware, _) = devices(Hardware::Vmware);
    for part in [
        "pvscsi,id=scsi0",
        "scsi-hd,bus=scsi0.0,drive=disk0,bootindex=0",
        "vmxnet3,netdev=net0",
    ] {
        assert!(vmware.contains(part), "{vmware}");
    }
    let (plain, board) = devices(Hardware::Plain);
    for part in [
        "ide-hd,bus=ide.0,drive=disk0,bootindex=0",
        "e1000e,netdev=net0",
    ] {
        assert!(plain.contains(part), "{plain}");
    }
    assert!(!board.contains("sata=off"), "{board}");
    let mut small = spec(Machine::Microvm, Firmware::Direct);
    small.hardware = Hardware::Plain;
    let refused = small.arguments(Accelerator::Tcg).unwrap_err();
    assert_eq!(refused, SpecError::MicrovmHardware);
}

#[test]
fn more_disks_are_written_to_and_virtios() {
    let mut spec = spec(Machine::Q35, Firmware::Direct);
    spec.disks = vec!["/r/state".into()];
    let line = spec.arguments(Accelerator::Tcg).unwrap();
    let drive = "if=none,id=more0,format=raw,file=/r/state";
    assert_eq!(values(&line, "-drive"), [drive]);
    let devices = values(&line, "-device");
    assert!(
        devices.contains(&"virtio-blk-pci,drive=more0"),
        "{devices:?}"
    );
    spec.hardware = Hardware::Plain;
    assert_eq!(spec.arguments(Accelerator::Tcg), Err(SpecError::Disks));
}

#[test]
fn a_cd_rom_is_read_only_and_on_ahci() {
    let mut spec = spec(Machine::Q35, Firmware::Bios);
    spec.image.disk_format = Format::Iso;
    spec.image.disk = "/i/disc.iso".into();
    let line = spec.arguments(Accelerator::Tcg).unwrap();
    let drive = "if=none,id=disk0,format=raw,media=cdrom,readonly=on,file=/i/disc.iso";
    assert_eq!(values(&line, "-drive"), [drive]);
    assert_eq!(values(&line, "-machine"), ["q35,smbus=off,hpet=off"]);
    let devices = values(&line, "-device").join(" ");
    let disc = "ide-cd,bus=ide.0,drive=disk0,bootindex=0 virtio-net-pci,";
    assert!(devices.starts_with(disc), "{devices}");
}
