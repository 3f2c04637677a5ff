//! What the control socket carries: requests and replies as JSON, one a line. No sockets here.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{config::Fault, world::World};

/// Longest request line; a longer one is refused.
pub const REQUEST_BYTES_MAX: usize = 16 << 10;

/// A request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Repeated in the reply.
    #[serde(default)]
    pub id: u64,
    /// What is wanted.
    #[serde(flatten)]
    pub op: Op,
}

/// What may be wanted of a running emulator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Plug a port into another domain.
    Move {
        /// The port's name.
        port: String,
        /// The domain's name.
        domain: String,
    },
    /// Change a domain's line or NAT.
    Domain {
        /// The domain's name.
        name: String,
        /// Keys of its `[[domain]]`; null takes one away.
        set: Map<String, Value>,
    },
    /// Make a domain's NAT forget all mappings.
    Forget {
        /// The domain's name.
        domain: String,
    },
    /// Let nothing pass between two domains.
    Cut {
        /// The domains' names.
        between: [String; 2],
    },
    /// Let it pass again.
    Heal {
        /// The domains' names.
        between: [String; 2],
    },
    /// Change the latency between two domains.
    Latency {
        /// The domains' names.
        between: [String; 2],
        /// One way; absent or null: as without a setting.
        #[serde(default)]
        latency_ms: Option<f64>,
    },
    /// Tell the counters: [`crate::report::Report`].
    Report,
    /// Tell the configuration as it stands, in TOML.
    Config,
}

/// A reply: one of `ok` and `error`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's id; 0 when the request could not be read.
    pub id: u64,
    /// The result; an empty object when there is nothing to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<Value>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Reply {
    /// A refusal.
    pub fn error(id: u64, message: impl Into<String>) -> Reply {
        Reply {
            id,
            ok: None,
            error: Some(message.into()),
        }
    }
}

/// Carries out a line; `report` makes the report, which knows more than the world.
pub fn handle(world: &mut World, line: &[u8], report: impl FnOnce(&World) -> Value) -> Reply {
    let Request { id, op } = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => return Reply::error(0, format!("not a request: {error}")),
    };
    let done = |outcome: Result<(), Fault>| outcome.map(|()| Value::Object(Map::new()));
    let outcome = match &op {
        Op::Move { port, domain } => done(world.move_port(port, domain)),
        Op::Domain { name, set } => done(world.change_domain(name, set)),
        Op::Forget { domain } => done(world.forget_mappings(domain)),
        Op::Cut { between: [a, b] } => done(world.change_pair([a, b], |pair| pair.cut = true)),
        Op::Heal { between: [a, b] } => done(world.change_pair([a, b], |pair| pair.cut = false)),
        Op::Latency {
            between: [a, b],
            latency_ms,
        } => {
            let latency = latency_ms.map(|ms| Duration::try_from_secs_f64(ms * 1e-3));
            let Ok(latency) = latency.transpose() else {
                return Reply::error(id, "latency_ms must be a time >= 0");
            };
            done(world.change_pair([a, b], |pair| pair.latency = latency))
        }
        Op::Report => Ok(report(world)),
        Op::Config => Ok(Value::String(world.config().to_toml())),
    };
    match outcome {
        Ok(value) => Reply {
            id,
            ok: Some(value),
            error: None,
        },
        Err(fault) => Reply::error(id, fault.message),
    }
}
