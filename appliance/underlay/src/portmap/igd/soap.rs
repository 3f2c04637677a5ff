//! Calling a service's actions: SOAP 1.1 over HTTP (UPnP Device Architecture 1.1, clause 3).

use std::fmt::Write;

use hyper::StatusCode;

use super::description::Service;
use super::{IgdError, http, xml};

/// The text of an answer to an action that was carried out.
pub struct Done(pub(super) String);

impl Done {
    /// A value of the answer.
    pub fn value<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        let document = xml::parse(&self.0)?;
        xml::text(document.root_element(), name)?
            .trim()
            .parse()
            .ok()
    }
}

/// Calls `action` with `arguments` in the standard's order, which some gateways insist on. They are
/// numbers, addresses and words of ours: nothing in them needs escaping.
pub async fn call(
    service: &Service,
    action: &str,
    arguments: &[(&str, String)],
) -> Result<Done, IgdError> {
    let kind = service.kind;
    let mut body = format!(
        "<?xml version=\"1.0\"?>\r\n\
         <s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>\
         <u:{action} xmlns:u=\"{kind}\">"
    );
    for (name, value) in arguments {
        // Writing into a string does not fail.
        let _ = write!(body, "<{name}>{value}</{name}>");
    }
    let _ = write!(body, "</u:{action}></s:Body></s:Envelope>\r\n");
    let answer = http::post(&service.control, &format!("{kind}#{action}"), body).await?;
    let done = Done(answer.text);
    match done.value("errorCode") {
        Some(code) => Err(IgdError::Refused(code)),
        None if answer.status == StatusCode::OK => Ok(done),
        None => Err(IgdError::Status(answer.status.as_u16())),
    }
}
