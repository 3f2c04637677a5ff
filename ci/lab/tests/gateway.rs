//! An appliance without a guest leads programs of other machines into its pool, and the pool to a server beside it.
//!
//! `cargo xtask test` runs these: it builds what they need and says where it is.

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wow_builder::qemu::{Backend, Nic, VmSpec};
use wow_lab::control::Control;

use support::machine::{
    LIMIT, POWER_OFF_LIMIT, Place, free_port, free_tcp_port, seed, value, wait,
};

/// A connection is tried so long before another one.
const ATTEMPT: Duration = Duration::from_secs(10);
/// An answer, under the translator.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

fn connect(port: u16) -> Option<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(ANSWER_LIMIT)).ok()?;
    Some(stream)
}

/// What a node tells of itself over HTTP, if it does.
fn status(mut stream: TcpStream) -> Option<Value> {
    let request =
        "GET /api/v1/status HTTP/1.1\r\nHost: seed.lab.internal\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

/// A connection to a name's port by the SOCKS5 server at the other end.
fn by_socks(mut stream: TcpStream, name: &str, port: u16) -> Option<TcpStream> {
    stream.write_all(&[5, 1, 0]).ok()?;
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).ok()?;
    assert_eq!(chosen, [5, 0], "no authentication");
    let mut request = vec![5, 1, 0, 3, u8::try_from(name.len()).unwrap()];
    request.extend_from_slice(name.as_bytes());
    request.extend_from_slice(&port.to_be_bytes());
    stream.write_all(&request).ok()?;
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).ok()?;
    (answer[..2] == [5, 0]).then_some(stream)
}

#[test]
fn an_appliance_leads_into_its_pool_and_out_of_it() {
    let place = Place::new("gateway");
    let (underlay, beside) = (free_port(), TcpListener::bind("127.0.0.1:0").unwrap());
    let ticket = place.ticket(&[format!("10.0.2.2:{underlay}")]);
    let wow = support::tools().wow;
    // Beside the appliance, as its own network has it: the host.
    let outward = format!("pool:7000=10.0.2.2:{}", beside.local_addr().unwrap().port());
    let back = free_tcp_port();
    let inward = format!("127.0.0.1:{back}=gate:7000");
    let more = ["--forward", inward.as_str()];
    let _seed = seed(&wow, place.directory.path(), underlay, &more);
    let spec = VmSpec {
        nics: vec![Nic {
            mac: [0x52, 0x54, 0x00, 0x77, 0x05, 0x01],
            backend: Backend::User,
        }],
        fw_cfg: vec![
            value("ticket", ticket),
            place.value("name", "gate"),
            place.value("guest", "none"),
            place.value("dns", "192.0.2.53"),
            place.value("socks", "0.0.0.0:1080"),
            place.value("gateway-for-all", "on"),
        ],
        // The kernel's command line holds `=` and commas too.
        append: vec![format!("wow.forward=0.0.0.0:8080=seed:80,{outward}")],
        ..place.spec("gateway")
    };
    let mut vm = place.start(&spec);
    let (web, socks) = (free_tcp_port(), free_tcp_port());
    let mut qmp = place.qmp(&mut vm);
    qmp.forward("net0", web, 8080).unwrap();
    qmp.forward("net0", socks, 1080).unwrap();
    drop(qmp);

    let told = wait("the seed's page by a forward", &mut vm, || {
        status(connect(web)?)
    });
    assert_eq!(told["name"], "seed", "{told}");
    let told = wait("the seed's page by SOCKS", &mut vm, || {
        status(by_socks(connect(socks)?, "seed", 80)?)
    });
    assert_eq!(told["name"], "seed", "{told}");

    // The seed takes a connection before it knows whether it leads anywhere, and closes those that do not.
    beside.set_nonblocking(true).unwrap();
    let mut server = wait("a port of the appliance's in the pool", &mut vm, || {
        let mut inside = connect(back)?;
        inside.write_all(b"from the pool").ok()?;
        let tried = Instant::now();
        while tried.elapsed() < ATTEMPT {
            if let Ok((server, _)) = beside.accept() {
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    });
    server.set_nonblocking(false).unwrap();
    server.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
    let mut heard = [0; 13];
    server.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"from the pool");

    let mut control = Control::connect(&place.private("control")).unwrap();
    let status: Value = control.ask(json!({"op": "status"}), LIMIT).unwrap();
    assert_eq!(status["trouble"], json!([]), "every key is known");
    assert!(vm.power_off(POWER_OFF_LIMIT));
}
