//! A gateway in memory: the twin of [`Igd`](super::Igd) for tests, at an address of the loopback.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, UdpSocket};

use super::xml;
use crate::portmap::gateway::Gateway;

const SERVICE: &str = "urn:schemas-upnp-org:service:WANIPConnection:1";

/// What the gateway does and has done.
pub struct Table {
    pub external_ip: String,
    /// The description instead of an ordinary one.
    pub description: Option<String>,
    /// The description's address instead of the gateway's own.
    pub location: Option<String>,
    /// Leases that end are refused.
    pub permanent_only: bool,
    /// External ports that others have.
    pub taken: Vec<u16>,
    /// By protocol and external port: our port, and the lease in seconds.
    pub mappings: BTreeMap<(String, u16), (u16, u32)>,
    /// Mappings granted, renewals included.
    pub granted: usize,
}

#[derive(Clone)]
pub struct FakeIgd {
    pub gateway: Gateway,
    table: Arc<Mutex<Table>>,
}

/// Addresses of the loopback that no other process and no other test has.
pub fn loopback(number: u8) -> Gateway {
    let [.., high, low] = std::process::id().to_be_bytes();
    Gateway {
        router: Ipv4Addr::new(127, high, low, number),
        own: Ipv4Addr::LOCALHOST,
    }
}

impl FakeIgd {
    /// A gateway that does as it is asked. `number` is the test's own.
    pub async fn start(number: u8) -> Self {
        let gateway = loopback(number);
        let igd = FakeIgd {
            gateway,
            table: Arc::new(Mutex::new(Table {
                external_ip: "203.0.113.5".into(),
                description: None,
                location: None,
                permanent_only: false,
                taken: Vec::new(),
                mappings: BTreeMap::new(),
                granted: 0,
            })),
        };
        let web = TcpListener::bind((gateway.router, 0)).await.unwrap();
        let port = web.local_addr().unwrap().port();
        let searched = UdpSocket::bind((gateway.router, 1900)).await.unwrap();
        tokio::spawn(igd.clone().answer_searches(searched, port));
        tokio::spawn(igd.clone().serve(web));
        igd
    }

    pub fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap()
    }

    async fn answer_searches(self, socket: UdpSocket, port: u16) {
        let mut room = [0; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut room).await.unwrap();
            let question = String::from_utf8_lossy(&room[..length]).into_owned();
            if !question.contains("InternetGatewayDevice:1") {
                continue;
            }
            let own = format!("http://{}:{port}/igd/root.xml", self.gateway.router);
            let location = self.table().location.clone().unwrap_or(own);
            let answer = format!("HTTP/1.1 200 OK\r\nST: x\r\nLOCATION: {location}\r\n\r\n");
            socket.send_to(answer.as_bytes(), from).await.unwrap();
        }
    }

    async fn serve(self, web: TcpListener) {
        loop {
            let (stream, _) = web.accept().await.unwrap();
            let igd = self.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| igd.answer(request));
                // Who asks may hang up on an answer that it does not like.
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path = head.uri.path();
        let answer = match (head.method, path) {
            (Method::GET, "/igd/root.xml") => {
                let given = self.table().description.clone();
                Ok(given.unwrap_or_else(|| description("ctl/IPConn")))
            }
            (Method::POST, "/igd/ctl/IPConn") => {
                let action = head.headers["soapaction"]
                    .to_str()
                    .unwrap()
                    .trim_matches('"');
                let action = action.strip_prefix(&format!("{SERVICE}#")).unwrap();
                self.act(action, std::str::from_utf8(&body).unwrap())
            }
            _ => Err(401),
        };
        let (status, body) = match answer {
            Ok(body) => (200, body),
            Err(code) => (
                500,
                format!(
                    "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body><s:Fault>\
                 <detail><UPnPError xmlns=\"urn:schemas-upnp-org:control-1-0\">\
                 <errorCode>{code}</errorCode></UPnPError></detail></s:Fault></s:Body></s:Envelope>"
                ),
            ),
        };
        Ok(Response::builder()
            .status(status)
            .body(body.into())
            .unwrap())
    }

    fn act(&self, action: &str, body: &str) -> Result<String, u16> {
        let document = xml::parse(body).unwrap();
        let text = |name| xml::text(document.root_element(), name).unwrap_or_default();
        let number = |name| text(name).parse::<u32>().unwrap();
        let mut table = self.table();
        let mut values = String::new();
        match action {
            "GetExternalIPAddress" => {
                let ip = &table.external_ip;
                values = format!("<NewExternalIPAddress>{ip}</NewExternalIPAddress>");
            }
            "AddPortMapping" => {
                let (external, lease) =
                    (number("NewExternalPort") as u16, number("NewLeaseDuration"));
                assert_eq!(text("NewInternalClient"), self.gateway.own.to_string());
                if table.permanent_only && lease > 0 {
                    return Err(725);
                }
                if table.taken.contains(&external) {
                    return Err(718);
                }
                let internal = number("NewInternalPort") as u16;
                table.granted += 1;
                table
                    .mappings
                    .insert((text("NewProtocol").into(), external), (internal, lease));
            }
            "DeletePortMapping" => {
                let mapping = (
                    text("NewProtocol").to_owned(),
                    number("NewExternalPort") as u16,
                );
                table.mappings.remove(&mapping).ok_or(714_u16)?;
            }
            _ => return Err(401),
        }
        Ok(format!(
            "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\">\
             <s:Body><u:{action}Response xmlns:u=\"{SERVICE}\">{values}</u:{action}Response>\
             </s:Body></s:Envelope>"
        ))
    }
}

/// A description in the standard's form, its service controlled at `control`.
pub fn description(control: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?>\n<root xmlns=\"urn:schemas-upnp-org:device-1-0\"><device>\
         <deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><serviceList>\
         <service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType>\
         <controlURL>/other</controlURL></service></serviceList><deviceList><device><deviceList>\
         <device><serviceList><service><serviceType>{SERVICE}</serviceType><SCPDURL>/x</SCPDURL>\
         <controlURL>{control}</controlURL></service></serviceList></device></deviceList></device>\
         </deviceList></device></root>"
    )
}
