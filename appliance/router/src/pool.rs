//! `wow pool …` and `wow ticket …`: making pools and tickets, looking at them, ending memberships.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use wow_overlay::id::NodeId;
use wow_overlay::membership::{PoolAuthority, PoolSummary, Revoked, Ticket, TicketId};
use zeroize::Zeroizing;

use crate::cli::{PoolVerb, TicketVerb};
use crate::client::{self, Socket};
use crate::files::{self, Existing};
use crate::{output, random, wall_clock};

/// Runs a verb of `wow pool`.
pub fn run(verb: PoolVerb, node: &Socket) -> Result<()> {
    match verb {
        PoolVerb::New {
            name,
            range,
            seeds,
            dir,
        } => {
            let path = dir.join(format!("{name}.pool"));
            let pool = PoolAuthority::create(name, range, seeds, &mut random::rng())?;
            let text = Zeroizing::new(line(pool.encode()));
            write(&path, text.as_bytes(), "pool file")?;
            output::say(&format!(
                "{}: the pool {}\n",
                path.display(),
                pool.facts().name
            ))?;
            show_pool(&pool.facts().summary(), false)?;
            if pool.facts().seeds.is_empty() {
                eprintln!(
                    "note: the pool names no seed; nodes will need --seed HOST:PORT to find each other"
                );
            }
            Ok(())
        }
        PoolVerb::Ticket {
            pool: path,
            roles,
            expires,
            label,
            out,
        } => {
            let pool = read_pool(&path)?;
            let now = wall_clock::now();
            let ticket = pool.issue_ticket(roles, now, now + expires, label, &mut random::rng())?;
            let text = Zeroizing::new(line(ticket.encode()));
            let out = out.unwrap_or_else(|| path.with_extension("ticket"));
            if out == Path::new("-") {
                std::io::stdout()
                    .write_all(text.as_bytes())
                    .context("cannot write the ticket to standard output")?;
                return Ok(());
            }
            write(&out, text.as_bytes(), "ticket")?;
            output::say(&format!(
                "{}: a ticket to {} for {roles} until {}\n",
                out.display(),
                pool.facts().name,
                wall_clock::show(ticket.not_after()),
            ))
        }
        PoolVerb::Revoke { pool, target, out } => revoke(&read_pool(&pool)?, &target, out, node),
        PoolVerb::Show { pool, json } => show_pool(&read_pool(&pool)?.facts().summary(), json),
    }
}

fn revoke(pool: &PoolAuthority, target: &str, out: Option<PathBuf>, node: &Socket) -> Result<()> {
    let (revoked, note) = find_revoked(pool, target, node)?;
    let revocation = pool.revoke(revoked).encode();
    match out {
        Some(out) if out == Path::new("-") => output::say(&line(revocation))?,
        Some(out) => {
            write(&out, line(revocation).as_bytes(), "revocation")?;
            output::say(&format!(
                "{}: a revocation of {revoked}; `wow revoke` on any node spreads it\n",
                out.display()
            ))?;
        }
        None => {
            let told = client::spread(node, revocation).context(
                "the revocation was not spread; run this where a node of the pool runs, or write it \
                 to a file with --out and carry it to one",
            )?;
            output::say(&client::show_revocation(&told))?;
        }
    }
    if let Some(note) = note {
        eprintln!("note: {note}");
    }
    Ok(())
}

/// Whom a person means, and what there is to say about it.
fn find_revoked(
    pool: &PoolAuthority,
    target: &str,
    node: &Socket,
) -> Result<(Revoked, Option<&'static str>)> {
    const AGAIN: &str = "the node can come back with a new identity while its ticket holds; revoke \
                         the ticket too, unless others use it";
    if let Ok(id) = target.parse::<NodeId>() {
        return Ok((Revoked::Node(id), Some(AGAIN)));
    }
    if let Ok(id) = target.parse::<TicketId>() {
        return Ok((Revoked::Ticket(id), None));
    }
    let path = Path::new(target);
    if path.exists() {
        let ticket = read_ticket(path)?;
        ticket.check_pool(pool.pool_id())?;
        return Ok((Revoked::Ticket(ticket.id()), None));
    }
    let found = client::find(node, target).with_context(|| {
        format!("{target} is no id and no file, and the running node does not know it as a node")
    })?;
    let id = found.id.parse().context("the running node's answer")?;
    Ok((Revoked::Node(id), Some(AGAIN)))
}

/// Runs a verb of `wow ticket`.
pub fn run_ticket(verb: TicketVerb) -> Result<()> {
    let TicketVerb::Show { ticket: path, json } = verb;
    let ticket = read_ticket(&path)?;
    let summary = ticket.summary();
    if json {
        #[derive(Serialize)]
        struct Shown<'a> {
            #[serde(flatten)]
            ticket: &'a wow_overlay::membership::TicketSummary,
            usable: bool,
        }
        return output::json(&Shown {
            ticket: &summary,
            usable: ticket.check(wall_clock::now()).is_ok(),
        });
    }
    let label = summary.label.as_ref().map(ToString::to_string);
    let usable = match ticket.check(wall_clock::now()) {
        Ok(()) => "yes".to_owned(),
        Err(error) => format!("no: {error}"),
    };
    output::facts(&[
        ("ticket", summary.id.to_string()),
        ("label", label.unwrap_or_default()),
        ("roles", summary.roles.to_string()),
        ("from", wall_clock::show(summary.not_before)),
        ("until", wall_clock::show(summary.not_after)),
        ("usable now", usable),
    ])?;
    show_pool(&summary.pool, false)
}

/// Reads and verifies a ticket's file. Whether it holds now is for the caller to ask.
pub fn read_ticket(path: &Path) -> Result<Ticket> {
    let text = files::read_private_text(path, "ticket")?;
    Ticket::parse(text.trim()).with_context(|| format!("the ticket {} is refused", path.display()))
}

fn read_pool(path: &Path) -> Result<PoolAuthority> {
    let text = files::read_private_text(path, "pool file")?;
    PoolAuthority::parse(text.trim()).with_context(|| format!("{} is refused", path.display()))
}

fn write(path: &Path, content: &[u8], what: &str) -> Result<()> {
    match files::write_private(path, content, Existing::Keep) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => bail!(
            "{} is there already and is not overwritten; move it away or choose another place",
            path.display()
        ),
        result => result.with_context(|| format!("cannot write the {what} {}", path.display())),
    }
}

fn line(mut text: String) -> String {
    text.push('\n');
    text
}

fn show_pool(pool: &PoolSummary, json: bool) -> Result<()> {
    if json {
        return output::json(pool);
    }
    let seeds: Vec<_> = pool.seeds.iter().map(ToString::to_string).collect();
    output::facts(&[
        ("pool", pool.name.to_string()),
        ("pool id", pool.id.to_string()),
        ("range", pool.range.to_string()),
        ("control", pool.control_address.to_string()),
        ("IPv6 prefix", pool.v6_prefix.to_string()),
        ("seeds", seeds.join(", ")),
    ])
}
