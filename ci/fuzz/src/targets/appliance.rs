//! What process 1 and the daemon read: the machine's configuration, name and address servers, and
//! the control socket.

use super::{TEXT_BYTES_MAX, text, texts};
use crate::Target;
use crate::script::Writer;

pub(super) const KERNEL_COMMAND_LINE: Target = Target {
    name: "kernel-command-line",
    input_bytes_max: TEXT_BYTES_MAX,
    run: |input| wow_init::fuzzing::command_line(&String::from_utf8_lossy(input)),
    seeds: || {
        texts(&[
            "console=ttyS0 wow.name=a wow.net=\"static:192.0.2.5/24,192.0.2.1\" \"wow.seeds=h:1\"",
            "wow.ticket=wow-ticket-1.AAAA panic=10 -- wow.name",
        ])
    },
};

pub(super) const FW_CFG: Target = Target {
    name: "fw-cfg",
    input_bytes_max: 2048,
    run: wow_init::fuzzing::fw_cfg,
    seeds: || {
        let entry = |name: &[u8]| {
            let mut entry = [0; 64];
            entry[..8].copy_from_slice(&[0, 0, 0, 4, 0, 0x20, 0, 0]);
            entry[8..8 + name.len()].copy_from_slice(name);
            entry
        };
        let [first, second] = [entry(b"opt/wow/name"), entry(b"etc/other")];
        vec![[b"QEMU\0\0\0\x02", &first[..], &second[..], b"node"].concat()]
    },
};

pub(super) const IMAGE_FILE: Target = Target {
    name: "image-file",
    input_bytes_max: TEXT_BYTES_MAX,
    run: |input| {
        if let Some(text) = text(input) {
            wow_init::fuzzing::image_file(text);
            // A value of the key `net` goes on to its own parser.
            let _ = text.parse::<wow_init::network::Plan>();
        }
    },
    seeds: || {
        texts(&[
            "name = \"a\"\nseeds = [\"h:1\", \"i:2\"] # both\n",
            "static:192.0.2.5/24,192.0.2.1,192.0.2.2",
        ])
    },
};

pub(super) const OVF_ENVIRONMENT: Target = Target {
    name: "ovf-environment",
    input_bytes_max: TEXT_BYTES_MAX,
    run: |input| {
        if let Some(text) = text(input) {
            wow_init::fuzzing::ovf_environment(text);
        }
    },
    seeds: || {
        texts(&[
            "<Environment xmlns=\"http://schemas.dmtf.org/ovf/environment/1\" \
             xmlns:oe=\"http://schemas.dmtf.org/ovf/environment/1\"><PropertySection>\
             <Property oe:key=\"wow.name\" oe:value=\"a\"/><Property oe:key=\"wow.x\" oe:value=\"&#7;\"/>\
             </PropertySection></Environment>",
        ])
    },
};

pub(super) const CONFIG_DISK: Target = Target {
    name: "config-disk",
    input_bytes_max: 128 * 1024,
    run: wow_init::fuzzing::config_disk,
    seeds: || {
        let all = [
            include_str!("../../../../appliance/init/src/config/disk/fixtures/fat12.txt"),
            include_str!("../../../../appliance/init/src/config/disk/fixtures/ext2.txt"),
            include_str!("../../../../appliance/init/src/config/disk/fixtures/iso-plain.txt"),
        ];
        all.into_iter().map(disk_image).collect()
    },
};

pub(super) const SLOTS: Target = Target {
    name: "slots",
    input_bytes_max: 4096,
    run: wow_init::fuzzing::slots,
    seeds: || {
        let table = include_bytes!("../../../../appliance/init/src/slots/fixtures/table.bin");
        // What a kernel's header is looked at for, and the beginning of a mark.
        let mut image = vec![0; 1024];
        for (at, bytes) in [
            (0, &b"MZ"[..]),
            (0x3c, &[0x40, 2]),
            (0x1fe, &[0x55, 0xaa]),
            (0x202, b"HdrS"),
            (0x236, &[1]),
            (0x240, b"PE\0\0\x64\x86"),
        ] {
            image[at..at + bytes.len()].copy_from_slice(bytes);
        }
        image.extend_from_slice(b"WOW APPLIANCE\0\0\0\x01\0\0\0x86_64\0\0");
        image.resize(1024 + 128, b'1');
        vec![table.to_vec(), [&table[..], &image].concat()]
    },
};

/// The image that a list of offsets and bytes describes.
fn disk_image(text: &str) -> Vec<u8> {
    let hexadecimal =
        |text| usize::from_str_radix(text, 16).expect("the fixtures are hexadecimal numbers");
    let mut image = Vec::new();
    for line in text.lines() {
        let (place, content) = line.split_once(' ').expect("an offset and its bytes");
        if place == "bytes" {
            image.resize(hexadecimal(content), 0);
            continue;
        }
        let bytes = content.as_bytes().chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).expect("hexadecimal digits");
            u8::try_from(hexadecimal(pair)).expect("two digits")
        });
        for (at, byte) in (hexadecimal(place)..).zip(bytes) {
            image[at] = byte;
        }
    }
    image
}

pub(super) const TIME: Target = Target {
    name: "time",
    input_bytes_max: 128,
    run: |input| {
        if let Some((nonce, answer)) = input.split_first_chunk() {
            wow_router::fuzzing::time(*nonce, answer);
        }
    },
    seeds: || {
        let nonce = *b"12345678";
        let mut answer = [0; 48];
        answer[0] = 0x24;
        answer[1] = 2;
        answer[24..32].copy_from_slice(&nonce);
        answer[32..40].copy_from_slice(&[0xed, 0, 0, 0, 0x80, 0, 0, 0]);
        answer[40..].copy_from_slice(&[0xed, 0, 0, 1, 0, 0, 0, 0]);
        vec![[&nonce[..], &answer].concat()]
    },
};

pub(super) const DHCP: Target = Target {
    name: "dhcp",
    input_bytes_max: 2048,
    run: wow_init::fuzzing::dhcp,
    seeds: || {
        let terms = |kind: u8| {
            let mut body = vec![192, 168, 7, 20];
            body.extend([53, 1, kind, 54, 4, 192, 168, 7, 1, 1, 4, 255, 255, 255, 0]);
            body.extend([
                3, 4, 192, 168, 7, 1, 6, 4, 192, 168, 7, 1, 51, 4, 0, 0, 2, 88,
            ]);
            body
        };
        let step = |w: Writer, operation, body: &[u8]| {
            let length = u8::try_from(body.len()).unwrap_or(u8::MAX);
            w.byte(operation).byte(length).raw(body)
        };
        let offered = step(Writer::default(), 1, &terms(2));
        let acknowledged = step(offered, 1, &terms(5)).byte(2).byte(255);
        let refused = step(acknowledged, 1, &terms(6)).byte(2).byte(40);
        vec![refused.0]
    },
};

pub(super) const REQUESTS: Target = Target {
    name: "requests",
    input_bytes_max: 6000,
    run: wow_router::fuzzing::requests,
    seeds: || {
        texts(&[
            "\n{\"id\":7,\"op\":\"status\"}\n{\"id\":8,\"op\":\"peers\"}\nno request\n",
            "{\"id\":7,\"op\":\"ping\",\"target\":\"n1\",\"count\":2,\"overlay\":true}\n",
            "{\"id\":7,\"op\":\"wait\",\"joined\":true,\"timeout_ms\":9}\n",
            "{\"id\":7,\"op\":\"resolve\",\"target\":\"10.128.0.9\"}\n",
            "{\"id\":7,\"op\":\"links\",\"nodes\":[{\"id\":\"00\",\"via\":\"11\"}]}\n",
        ])
    },
};

pub(super) const DNS: Target = Target {
    name: "dns",
    input_bytes_max: 1500,
    run: |input| {
        wow_router::fuzzing::answer(input);
        if let Some(text) = text(input) {
            wow_router::fuzzing::configuration(text);
        }
    },
    seeds: || {
        let mut answer = vec![0, 1, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0];
        answer.extend(b"\x04seed\x07example\0\0\x01\0\x01");
        answer.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x05");
        answer.extend(b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x02\xc0\x11");
        let texts = texts(&[
            "nameserver 192.0.2.1\n# x\n",
            "192.0.2.9 a.example Seed # b\n",
        ]);
        [vec![answer], texts].concat()
    },
};
