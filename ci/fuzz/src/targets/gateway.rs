//! A UPnP gateway's answers: none may send the router to another machine.

use std::net::Ipv4Addr;

use wow_underlay::fuzzing;

use super::{text, texts};
use crate::Target;

const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
/// A description has some kilobytes.
const DOCUMENT_BYTES_MAX: usize = 8192;

pub(super) const SEARCH: Target = Target {
    name: "upnp-search",
    input_bytes_max: 1500,
    run: |input| {
        let found = fuzzing::search(input, ROUTER);
        assert!(found.is_none_or(|server| *server.ip() == ROUTER));
    },
    seeds: || {
        texts(&[
            "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: urn:x\r\n\
             LOCATION: http://192.168.1.1:5000/igd.xml?a=b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nLocation: http://192.168.1.1@203.0.113.1/\r\n\r\n",
        ])
    },
};

pub(super) const DESCRIPTION: Target = Target {
    name: "upnp-description",
    input_bytes_max: DOCUMENT_BYTES_MAX,
    run: |input| {
        if let Some(text) = text(input) {
            let servers = fuzzing::services(text, ROUTER);
            assert!(servers.iter().all(|server| *server.ip() == ROUTER));
        }
    },
    seeds: || {
        texts(&[
            "<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\">\
             <URLBase>http://192.168.1.1:80/x/</URLBase><device><deviceList><device><serviceList>\
             <service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>\
             <controlURL>ctl/IPConn</controlURL></service>\
             <service><serviceType>urn:schemas-upnp-org:service:WANPPPConnection:1</serviceType>\
             <controlURL>http://192.168.1.1:5000/c</controlURL></service>\
             </serviceList></device></deviceList></device></root>",
        ])
    },
};

pub(super) const ACTION: Target = Target {
    name: "upnp-action",
    input_bytes_max: DOCUMENT_BYTES_MAX,
    run: |input| {
        if let Some(text) = text(input) {
            fuzzing::action(text);
        }
    },
    seeds: || {
        texts(&[
            "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body><u:R xmlns:u=\"x\">\
             <NewExternalIPAddress>203.0.113.7</NewExternalIPAddress></u:R></s:Body></s:Envelope>",
            "<a><errorCode> 725 </errorCode></a>",
        ])
    },
};
