//! The targets, by the part that they are of.

mod appliance;
mod dataplane;
mod emulator;
mod gateway;
mod http;
mod images;
mod lan;
mod member;
mod membership;
mod names;
mod node;
mod replay;
mod stack;
mod times;
mod wire;

use crate::Target;

/// Every target, in the order in which they are run.
pub(crate) const ALL: &[Target] = &[
    wire::OUTER,
    wire::FRAME,
    wire::CONTROL,
    wire::QUERY,
    wire::ANSWER,
    wire::CLAIM,
    wire::HELLO,
    membership::TICKET,
    membership::TICKET_PAYLOAD,
    membership::POOL_FILE,
    membership::POOL_PAYLOAD,
    membership::CERTIFICATE,
    membership::REVOCATION,
    membership::IDENTITY,
    membership::WORDS,
    replay::REPLAY_WINDOW,
    node::NODE_TARGET,
    appliance::KERNEL_COMMAND_LINE,
    appliance::FW_CFG,
    appliance::IMAGE_FILE,
    appliance::OVF_ENVIRONMENT,
    appliance::CONFIG_DISK,
    appliance::SLOTS,
    appliance::DHCP,
    appliance::REQUESTS,
    appliance::DNS,
    appliance::TIME,
    http::CONTROL_ADDRESS,
    names::NAMES,
    times::TIMES,
    lan::LAN,
    gateway::SEARCH,
    gateway::DESCRIPTION,
    gateway::ACTION,
    dataplane::SEGMENT,
    dataplane::COALESCE,
    emulator::WAN,
    emulator::WAN_CONFIG,
    images::DEFINITION,
    images::FRAGMENT,
];

/// Most text inputs are files of a few lines.
const TEXT_BYTES_MAX: usize = 4096;

/// The input as text, where it is some.
fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

fn texts(seeds: &[&str]) -> Vec<Vec<u8>> {
    seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}
