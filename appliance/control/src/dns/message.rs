//! Queries read, answers written. Every answer fits what its asker takes: one that is too long for UDP
//! says so and is empty, and is asked for again over TCP.

use std::net::{Ipv4Addr, Ipv6Addr};

use domain::base::iana::{Class, Opcode, OptRcode, Rcode};
use domain::base::message_builder::{AnswerBuilder, AuthorityBuilder, PushError};
use domain::base::{Message, MessageBuilder, Name, Rtype, Serial, Ttl};
use domain::rdata::{A, Aaaa, Ns, Ptr, Soa, Srv};

use super::zone::{Kind, Zone};

type DnsName = Name<Vec<u8>>;

/// The longest answer over UDP: what passes every link that IPv6 passes, with headers.
const UDP_BYTES_MAX: u16 = 1232;
/// What everybody takes who does not say more (RFC 1035).
const UDP_BYTES_PLAIN: u16 = 512;

/// Names move when nodes do, so nobody may rely on an answer for long.
const TTL: Ttl = Ttl::from_secs(30);
/// That a name is missing: nodes come within seconds.
const TTL_MISSING: Ttl = Ttl::from_secs(5);

/// What a message wants.
pub enum Wanted {
    /// An answer.
    Answer(Query),
    /// To be told that it makes no sense.
    Refusal(Vec<u8>),
    /// It is no query.
    Nothing,
}

/// A query that makes sense.
pub struct Query {
    message: Message<Vec<u8>>,
    kind: Rtype,
    /// Whether the asker knows EDNS.
    edns: bool,
    /// The longest answer that it takes.
    limit: usize,
    recursion_available: bool,
}

/// What an answer holds besides the question.
type Content<'a> = &'a dyn Fn(&mut AnswerBuilder<Vec<u8>>) -> Result<(), PushError>;

const NONE: Content<'static> = &|_| Ok(());

impl Query {
    pub fn parse(bytes: &[u8], tcp: bool, recursion_available: bool) -> Wanted {
        let Ok(message) = Message::from_octets(bytes.to_vec()) else {
            return Wanted::Nothing;
        };
        let header = message.header();
        if header.qr() {
            return Wanted::Nothing;
        }
        let mut query = Query {
            message,
            kind: Rtype::A,
            edns: false,
            limit: match tcp {
                true => usize::from(u16::MAX),
                false => UDP_BYTES_PLAIN.into(),
            },
            recursion_available,
        };
        if header.opcode() != Opcode::QUERY {
            return Wanted::Refusal(query.plain(Rcode::NOTIMP));
        }
        let Ok(question) = query.message.sole_question() else {
            return Wanted::Refusal(query.plain(Rcode::FORMERR));
        };
        let (kind, class) = (question.qtype(), question.qclass());
        let Ok(options) = query.options() else {
            return Wanted::Refusal(query.plain(Rcode::FORMERR));
        };
        query.kind = kind;
        if let Some((size, version)) = options {
            query.edns = true;
            if !tcp {
                query.limit = size.clamp(UDP_BYTES_PLAIN, UDP_BYTES_MAX).into();
            }
            if version > 0 {
                return Wanted::Refusal(query.write(OptRcode::BADVERS, false, NONE, None));
            }
        }
        let transfer = kind == Rtype::AXFR || kind == Rtype::IXFR;
        if transfer || class != Class::IN && class != Class::ANY {
            return Wanted::Refusal(query.refused());
        }
        Wanted::Answer(query)
    }

    /// The payload size and the version that the asker's EDNS record tells.
    fn options(&self) -> Result<Option<(u16, u8)>, ()> {
        let section = self.message.additional().map_err(|_| ())?;
        let mut found = None;
        for record in section {
            let record = record.map_err(|_| ())?;
            if record.rtype() != Rtype::OPT {
                continue;
            }
            if found.is_some() {
                return Err(());
            }
            let [_, version, _, _] = record.ttl().as_secs().to_be_bytes();
            found = Some((record.class().to_int(), version));
        }
        Ok(found)
    }

    /// The name that is asked about, in lower case, without a dot at its end.
    pub fn name(&self) -> String {
        let question = self.message.sole_question();
        let name = question.map_or_else(|_| String::new(), |question| question.qname().to_string());
        name.trim_end_matches('.').to_ascii_lowercase()
    }

    pub fn wants_recursion(&self) -> bool {
        self.message.header().rd()
    }

    fn asks_for(&self, kind: Rtype) -> bool {
        self.kind == kind || self.kind == Rtype::ANY
    }

    /// The suffix itself: the control address.
    pub fn apex(&self, zone: &Zone) -> Vec<u8> {
        let Some(name) = name(&zone.names.suffix) else {
            return self.failed();
        };
        let (v4, v6) = zone.control;
        let known = [Rtype::A, Rtype::AAAA, Rtype::SOA, Rtype::NS];
        if !known.iter().any(|kind| self.asks_for(*kind)) {
            return self.no_data(zone);
        }
        self.write(
            OptRcode::NOERROR,
            true,
            &|answer| {
                if self.asks_for(Rtype::A) {
                    answer.push((&name, TTL, A::new(v4)))?;
                }
                if self.asks_for(Rtype::AAAA) {
                    answer.push((&name, TTL, Aaaa::new(v6)))?;
                }
                if self.asks_for(Rtype::SOA) {
                    answer.push((&name, TTL, soa(&name)))?;
                }
                if self.asks_for(Rtype::NS) {
                    answer.push((&name, TTL, Ns::new(name.clone())))?;
                }
                Ok(())
            },
            None,
        )
    }

    /// An address's name.
    pub fn pointer(&self, target: &str) -> Vec<u8> {
        let (Some(target), Ok(question)) = (name(target), self.message.sole_question()) else {
            return self.failed();
        };
        self.write(
            OptRcode::NOERROR,
            true,
            &|answer| {
                if self.asks_for(Rtype::PTR) {
                    answer.push((question.qname(), TTL, Ptr::new(target.clone())))?;
                }
                Ok(())
            },
            None,
        )
    }

    /// A node that was looked up.
    pub fn found(
        &self,
        zone: &Zone,
        kind: Kind,
        node: &str,
        (v4, v6): (Ipv4Addr, Ipv6Addr),
        port: Option<u16>,
    ) -> Vec<u8> {
        let whole = format!("{node}.{}", zone.names.suffix);
        let (Some(target), Ok(question)) = (name(&whole), self.message.sole_question()) else {
            return self.failed();
        };
        let asked = question.qname();
        // Guests behind a node have none.
        let wants_v6 = self.asks_for(Rtype::AAAA) && !v6.is_unspecified();
        let wanted = match kind {
            Kind::Addresses => self.asks_for(Rtype::A) || wants_v6,
            Kind::Pointer => self.asks_for(Rtype::PTR),
            Kind::Service => self.asks_for(Rtype::SRV) && port.is_some(),
        };
        if !wanted {
            return match kind {
                Kind::Pointer => self.pointer(&whole),
                Kind::Addresses | Kind::Service => self.no_data(zone),
            };
        }
        self.write(
            OptRcode::NOERROR,
            true,
            &|answer| {
                match (kind, port) {
                    (Kind::Addresses, _) => {
                        if self.asks_for(Rtype::A) {
                            answer.push((asked, TTL, A::new(v4)))?;
                        }
                        if wants_v6 {
                            answer.push((asked, TTL, Aaaa::new(v6)))?;
                        }
                    }
                    (Kind::Pointer, _) => answer.push((asked, TTL, Ptr::new(target.clone())))?,
                    (Kind::Service, Some(port)) => {
                        answer.push((asked, TTL, Srv::new(0, 0, port, target.clone())))?;
                    }
                    (Kind::Service, None) => {}
                }
                Ok(())
            },
            None,
        )
    }

    /// The name is there, what was asked for is not.
    pub fn no_data(&self, zone: &Zone) -> Vec<u8> {
        self.write(OptRcode::NOERROR, true, NONE, Some(zone))
    }

    pub fn no_name(&self, zone: &Zone) -> Vec<u8> {
        self.write(OptRcode::NXDOMAIN, true, NONE, Some(zone))
    }

    pub fn refused(&self) -> Vec<u8> {
        self.write(OptRcode::REFUSED, false, NONE, None)
    }

    pub fn failed(&self) -> Vec<u8> {
        self.write(OptRcode::SERVFAIL, false, NONE, None)
    }

    /// Another server's answer, if it is one to this query and not too long.
    pub fn forwarded(&self, answer: Vec<u8>) -> Vec<u8> {
        let Ok(told) = Message::from_octets(&answer[..]) else {
            return self.failed();
        };
        if !told.is_answer(&self.message) {
            return self.failed();
        }
        if answer.len() > self.limit {
            return self.truncated(OptRcode::NOERROR);
        }
        answer
    }

    /// A message of the query's header and question alone.
    fn plain(&self, code: Rcode) -> Vec<u8> {
        let builder =
            MessageBuilder::from_target(Vec::new()).expect("a vector has room for a header");
        let mut answer = builder.start_error(&self.message, code);
        answer.header_mut().set_ra(self.recursion_available);
        answer.finish()
    }

    fn truncated(&self, code: OptRcode) -> Vec<u8> {
        let builder =
            MessageBuilder::from_target(Vec::new()).expect("a vector has room for a header");
        let mut answer = builder.start_error(&self.message, code.rcode());
        let header = answer.header_mut();
        header.set_tc(true);
        header.set_ra(self.recursion_available);
        let answer = answer.authority();
        self.with_options(answer, code)
            .unwrap_or_else(|_| self.plain(Rcode::SERVFAIL))
    }

    /// An answer with this content, and the zone's SOA record where something is missing in it.
    fn write(
        &self,
        code: OptRcode,
        authoritative: bool,
        content: Content<'_>,
        missing: Option<&Zone>,
    ) -> Vec<u8> {
        let builder =
            MessageBuilder::from_target(Vec::new()).expect("a vector has room for a header");
        let mut answer = builder.start_error(&self.message, code.rcode());
        let header = answer.header_mut();
        header.set_aa(authoritative);
        header.set_ra(self.recursion_available);
        let written = content(&mut answer).and_then(|()| {
            let mut authority = answer.authority();
            let apex = missing.and_then(|zone| name(&zone.names.suffix));
            // What is missing in another zone, as a reversed address is, is none of this one's word.
            if let Some(apex) = apex.filter(|_| self.is_below(missing)) {
                authority.push((&apex, TTL_MISSING, soa(&apex)))?;
            }
            self.with_options(authority, code)
        });
        match written {
            Ok(bytes) if bytes.len() <= self.limit => bytes,
            Ok(_) => self.truncated(code),
            Err(_) => self.plain(Rcode::SERVFAIL),
        }
    }

    fn is_below(&self, zone: Option<&Zone>) -> bool {
        zone.is_some_and(|zone| self.name().ends_with(&zone.names.suffix))
    }

    fn with_options(
        &self,
        answer: AuthorityBuilder<Vec<u8>>,
        code: OptRcode,
    ) -> Result<Vec<u8>, PushError> {
        let mut additional = answer.additional();
        if self.edns {
            additional.opt(|options| {
                options.set_udp_payload_size(UDP_BYTES_MAX);
                options.set_rcode(code);
                Ok(())
            })?;
        }
        Ok(additional.finish())
    }
}

fn name(text: &str) -> Option<DnsName> {
    text.parse().ok()
}

/// Nobody transfers the zone, so only the last number says something: how long a denial holds.
fn soa(apex: &DnsName) -> Soa<DnsName> {
    let hour = Ttl::from_secs(3600);
    Soa::new(
        apex.clone(),
        apex.clone(),
        Serial(1),
        hour,
        hour,
        hour,
        TTL_MISSING,
    )
}
