//! Other overlays between the two ends, as their manuals set them up.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use wow_builder::host::Guarded;

use super::bed::{Bed, End, SHORT, Tunnel};
use crate::command::wait_until;

/// The address of each end inside the tunnel.
const INSIDE_A: &str = "10.99.0.1";
const INSIDE_B: &str = "10.99.0.2";
const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 2));

/// Each end, its name, its address inside.
const ENDS: [(End, &str, &str); 2] = [(End::A, "a", INSIDE_A), (End::B, "b", INSIDE_B)];

fn tunnel(processes: Vec<Guarded>) -> Tunnel {
    Tunnel {
        processes,
        far: FAR,
        note: String::new(),
    }
}

fn other(name: &str) -> &'static str {
    if name == "a" { "b" } else { "a" }
}

fn outside(bed: &Bed, name: &str) -> Ipv4Addr {
    bed.address(if name == "a" { End::A } else { End::B })
}

/// wireguard-go, configured through `wg`.
pub fn wireguard(bed: &Bed) -> Result<Tunnel> {
    let mut publics = Vec::new();
    let mut processes = Vec::new();
    for (end, name, _) in ENDS {
        let private = bed.run(end, &["wg", "genkey"])?;
        bed.write(&format!("{name}.key"), &private)?;
        let script = format!("wg pubkey < {}", Bed::within(&format!("{name}.key")));
        publics.push(bed.run(end, &["sh", "-c", &script])?.trim().to_owned());
        // The tree is shared, and with it the directory of the control sockets.
        let words = ["wireguard-go", "--foreground", &format!("wgb{name}")];
        processes.push(bed.start(end, name, &words)?);
    }
    for ((end, name, inside), public) in ENDS.into_iter().zip(publics.iter().rev()) {
        let device = format!("wgb{name}");
        bed.raise(end, &device, &format!("{inside}/24"))?;
        let key = Bed::within(&format!("{name}.key"));
        let endpoint = format!("{}:51820", outside(bed, other(name)));
        let words = ["wg", "set", &device, "listen-port", "51820", "private-key"];
        let peer = ["peer", public, "endpoint", &endpoint];
        let words = [&words[..], &[&key], &peer, &["allowed-ips", "0.0.0.0/0"]].concat();
        wait_until("wireguard-go", SHORT, || Ok(bed.run(end, &words).ok()))?;
    }
    Ok(tunnel(processes))
}

/// Nebula with AES, which it prefers itself.
pub fn nebula(bed: &Bed) -> Result<Tunnel> {
    let within = Bed::within;
    let (ca_crt, ca_key) = (within("ca.crt"), within("ca.key"));
    let ca = ["-name", "bench", "-out-crt", &ca_crt, "-out-key", &ca_key];
    bed.run(End::A, &[&["nebula-cert", "ca"], &ca[..]].concat())?;
    let mut processes = Vec::new();
    for (end, name, inside) in ENDS {
        let (crt, key) = (
            within(&format!("{name}.crt")),
            within(&format!("{name}.key")),
        );
        let ip = format!("{inside}/24");
        let by = ["-ca-crt", &ca_crt, "-ca-key", &ca_key];
        let own = [
            "-name", name, "-ip", &ip, "-out-crt", &crt, "-out-key", &key,
        ];
        bed.run(end, &[&["nebula-cert", "sign"], &by[..], &own].concat())?;
        let far = other(name);
        let inside_far = if far == "a" { INSIDE_A } else { INSIDE_B };
        let outside_far = outside(bed, far);
        let config = format!(
            "pki: {{ca: {ca_crt}, cert: {crt}, key: {key}}}\n\
             static_host_map: {{\"{inside_far}\": [\"{outside_far}:4242\"]}}\n\
             lighthouse: {{am_lighthouse: false}}\n\
             listen: {{host: 0.0.0.0, port: 4242}}\n\
             punchy: {{punch: false}}\n\
             cipher: aes\n\
             tun: {{dev: nebula1}}\n\
             firewall:\n  outbound: [{{port: any, proto: any, host: any}}]\n  \
             inbound: [{{port: any, proto: any, host: any}}]\n"
        );
        bed.write(&format!("{name}.yml"), &config)?;
        let file = within(&format!("{name}.yml"));
        processes.push(bed.start(end, name, &["nebula", "-config", &file])?);
    }
    Ok(tunnel(processes))
}

/// tinc in its router mode.
pub fn tinc(bed: &Bed) -> Result<Tunnel> {
    for (end, name, inside) in ENDS {
        let far = other(name);
        let config = format!("Name = {name}\nInterface = tinc0\nConnectTo = {far}\n");
        bed.write(&format!("{name}/tinc.conf"), &config)?;
        let host = format!("Address = {}\nSubnet = {inside}/32\n", outside(bed, name));
        bed.write(&format!("{name}/hosts/{name}"), &host)?;
        // The new public key goes into the host's file.
        bed.run(end, &["tincd", "-c", &Bed::within(name), "-K2048"])?;
    }
    for (_, name, _) in ENDS {
        let own = bed.private(&format!("{name}/hosts/{name}"));
        let copy = bed.private(&format!("{}/hosts/{name}", other(name)));
        std::fs::copy(own, copy).context("cannot exchange tinc's host files")?;
    }
    let mut processes = Vec::new();
    for (end, name, inside) in ENDS {
        let (dir, pid) = (Bed::within(name), Bed::within(&format!("{name}.pid")));
        let words = ["tincd", "-c", &dir, "-D", "--pidfile", &pid];
        processes.push(bed.start(end, name, &words)?);
        bed.raise(end, "tinc0", &format!("{inside}/24"))?;
    }
    Ok(tunnel(processes))
}

/// OpenVPN between two ends that know each other's certificates.
pub fn openvpn(bed: &Bed) -> Result<Tunnel> {
    let mut fingerprints = Vec::new();
    for (end, name, _) in ENDS {
        let (key, crt) = (
            Bed::within(&format!("{name}.key")),
            Bed::within(&format!("{name}.crt")),
        );
        let request = [
            "openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2",
        ];
        let curve = [
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-subj",
            "/CN=bench",
        ];
        let out = ["-keyout", &key, "-out", &crt];
        bed.run(end, &[&request[..], &curve, &out].concat())?;
        let words = [
            "openssl",
            "x509",
            "-in",
            &crt,
            "-noout",
            "-fingerprint",
            "-sha256",
        ];
        let said = bed.run(end, &words)?;
        let (_, fingerprint) = said.trim().split_once('=').context("no fingerprint")?;
        fingerprints.push(fingerprint.to_owned());
    }
    let mut processes = Vec::new();
    for ((end, name, inside), fingerprint) in ENDS.into_iter().zip(fingerprints.iter().rev()) {
        let (key, crt) = (
            Bed::within(&format!("{name}.key")),
            Bed::within(&format!("{name}.crt")),
        );
        let far = other(name);
        let (remote, inside_far) = (
            outside(bed, far).to_string(),
            if far == "a" { INSIDE_A } else { INSIDE_B },
        );
        let role: &[&str] = if name == "b" {
            &["--tls-server"]
        } else {
            &["--tls-client"]
        };
        let words = [
            "openvpn",
            "--dev",
            "ovpn0",
            "--dev-type",
            "tun",
            "--dh",
            "none",
        ];
        let far = ["--remote", &remote, "--ifconfig", inside, inside_far];
        let own = [
            "--cert",
            &crt,
            "--key",
            &key,
            "--peer-fingerprint",
            fingerprint,
        ];
        let cipher = ["--data-ciphers", "AES-256-GCM", "--disable-dco"];
        let words = [&words[..], &far, &own, &cipher, role].concat();
        // Only the server's end takes what is for Diffie-Hellman.
        let words: Vec<_> = match name {
            "b" => words,
            _ => words
                .into_iter()
                .filter(|word| *word != "--dh" && *word != "none")
                .collect(),
        };
        processes.push(bed.start(end, name, &words)?);
    }
    // It sets the address by itself where it finds `ip`, which the tree does not have.
    for (end, _, inside) in ENDS {
        bed.raise(end, "ovpn0", &format!("{inside}/24"))?;
    }
    Ok(tunnel(processes))
}

/// Yggdrasil, one end connected to the other.
pub fn yggdrasil(bed: &Bed) -> Result<Tunnel> {
    let mut processes = Vec::new();
    for (end, name, _) in ENDS {
        let generated = bed.run(end, &["yggdrasil", "-genconf", "-json"])?;
        let mut config: serde_json::Value =
            serde_json::from_str(&generated).context("yggdrasil writes no JSON")?;
        config["IfName"] = format!("ygg{name}").into();
        config["AdminListen"] = "none".into();
        config["MulticastInterfaces"] = serde_json::json!([]);
        match name {
            "b" => config["Listen"] = serde_json::json!(["tcp://0.0.0.0:9001"]),
            _ => {
                let peer = format!("tcp://{}:9001", outside(bed, "b"));
                config["Peers"] = serde_json::json!([peer]);
            }
        }
        bed.write(&format!("{name}.json"), &config.to_string())?;
        let file = Bed::within(&format!("{name}.json"));
        processes.push(bed.start(end, name, &["yggdrasil", "-useconffile", &file])?);
    }
    let file = Bed::within("b.json");
    let far = bed.run(End::B, &["yggdrasil", "-useconffile", &file, "-address"])?;
    Ok(Tunnel {
        processes,
        far: far.trim().parse().context("yggdrasil tells no address")?,
        note: "IPv6 over TCP".into(),
    })
}

/// n2n with AES, its supernode beside the first end.
pub fn n2n(bed: &Bed) -> Result<Tunnel> {
    let supernode = bed.start(End::A, "supernode", &["supernode", "-l", "7654"])?;
    let at = format!("{}:7654", outside(bed, "a"));
    let mut processes = vec![supernode];
    for (end, name, inside) in ENDS {
        let words = ["edge", "-d", "n2n0", "-a", inside, "-c", "bench"];
        let key = ["-k", "bench-only", "-l", &at];
        processes.push(bed.start(end, name, &[&words[..], &key].concat())?);
        bed.raise(end, "n2n0", &format!("{inside}/24"))?;
    }
    Ok(tunnel(processes))
}

/// socat, which carries what the device gives to the other end as it is: the least that a program between the
/// two can take for a packet.
pub fn socat(bed: &Bed) -> Result<Tunnel> {
    let mut processes = Vec::new();
    for (end, name, inside) in ENDS {
        let device = format!("TUN:{inside}/24,tun-name=soc0,iff-no-pi,iff-up");
        let (own, far) = (outside(bed, name), outside(bed, other(name)));
        let socket = format!("UDP4-DATAGRAM:{far}:7777,bind={own}:7777");
        processes.push(bed.start(end, name, &["socat", &device, &socket])?);
    }
    Ok(Tunnel {
        processes,
        far: FAR,
        note: "neither seals nor batches".into(),
    })
}
