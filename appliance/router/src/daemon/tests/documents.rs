//! What is served over HTTP, held against its description.

use serde_json::Value;
use wow_control::{Document, OPENAPI};

use super::*;
use crate::ipc::Operator;
use crate::services::documents;

const SERVED: [(&str, Document); 8] = [
    ("/api/v1/status", Document::Status),
    ("/api/v1/peers", Document::Peers),
    ("/api/v1/neighbours", Document::Neighbours),
    ("/api/v1/leases", Document::Leases),
    ("/api/v1/traffic", Document::Traffic),
    ("/api/v1/ring", Document::Ring),
    ("/api/v1/log", Document::Log { from: 0 }),
    ("/api/v1/overview", Document::Overview { from: 0 }),
];

/// Whether `value` is as `schema` says, to the last field: what is not described, or described and not
/// there, is an error. Only as much of JSON Schema as the description uses.
fn check(root: &Value, schema: &Value, value: &Value, place: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let pointer = name.strip_prefix('#').expect("within the document");
        let target = root.pointer(pointer).unwrap_or_else(|| panic!("{name}"));
        return check(root, target, value, place);
    }
    if let Some(kinds) = schema["oneOf"].as_array() {
        let chosen = kinds
            .iter()
            .find(|kind| (kind["type"] == "null") == value.is_null());
        return check(root, chosen.expect(place), value, place);
    }
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        kind => vec![kind.clone()],
    };
    let fits = kinds.iter().any(|kind| match kind.as_str() {
        Some("null") => value.is_null(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => panic!("{place}: no type in {schema}"),
    });
    assert!(fits, "{place}: {value} is not {schema}");
    if let (Some(known), true) = (schema["enum"].as_array(), !value.is_null()) {
        assert!(known.contains(value), "{place}: {value}");
    }
    if let (Some(least), Some(number)) = (schema["minimum"].as_f64(), value.as_f64()) {
        assert!(number >= least, "{place}: {value}");
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        check(root, &schema["items"], item, &format!("{place}[{index}]"));
    }
    let Some(fields) = value.as_object() else {
        return;
    };
    for required in schema["required"].as_array().into_iter().flatten() {
        let name = required.as_str().expect("a name");
        assert!(fields.contains_key(name), "{place} lacks {name}");
    }
    for (name, field) in fields {
        let place = format!("{place}.{name}");
        let described = match &schema["additionalProperties"] {
            Value::Bool(false) => &schema["properties"][name],
            any => any,
        };
        assert!(described.is_object(), "{place} is not described");
        check(root, described, field, &place);
    }
}

/// Every sample belongs to a family that was announced, once, with its kind and unit.
fn check_metrics(text: &str) {
    let (mut families, mut samples) = (Vec::new(), Vec::new());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let (name, help) = line
            .strip_prefix("# HELP ")
            .and_then(|line| line.split_once(' '))
            .unwrap_or_else(|| panic!("no family begins with {line:?}"));
        assert!(help.ends_with('.'), "{help}");
        let kind = lines.next().and_then(|line| {
            let rest = line.strip_prefix("# TYPE ")?.strip_prefix(name)?;
            rest.strip_prefix(' ')
        });
        let kind = kind.unwrap_or_else(|| panic!("{name} has no type"));
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        assert!(!name.contains("_ms") && !families.contains(&name), "{name}");
        families.push(name);
        while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
            let (series, value) = sample.rsplit_once(' ').expect("a value");
            let of = series.split('{').next();
            assert_eq!(of, Some(name));
            assert!(value.parse::<f64>().is_ok(), "{sample}");
            assert!(!samples.contains(&series), "{series}");
            samples.push(series);
        }
    }
    for expected in [
        "wow_joined",
        "process_resident_memory_bytes",
        "wow_dropped_total{reason=\"malformed\"}",
        "wow_dropped_total{reason=\"control_http\"}",
        "wow_events_total{event=\"handshakes\"}",
        "wow_control_sent_bytes_total{purpose=\"probes\"}",
        "wow_peers{link=\"near\",path=\"udp\"}",
    ] {
        assert!(samples.contains(&expected), "{expected} in {samples:#?}");
    }
    assert!(
        samples
            .iter()
            .any(|name| name.starts_with("wow_peer_round_trip_seconds{id=\""))
    );
    assert!(
        samples
            .iter()
            .any(|name| name.starts_with("wow_lease_remaining_seconds{address=\"10."))
    );
}

#[tokio::test(start_paused = true)]
async fn every_document_is_as_it_is_described() {
    let described: Value = serde_json::from_str(OPENAPI).unwrap();
    LocalSet::new()
        .run_until(async {
            let (network, ticket) = (Network::new(), ticket());
            let nodes: Vec<_> = (1..=3).map(|n| start(&network, &ticket, n)).collect();
            nodes[1].joined().await;
            nodes[2].joined().await;
            let operator = Operator::new(nodes[1].commands.clone(), None);
            // Granted and measured soon after.
            let settled = async {
                loop {
                    let held = operator.ask(Command::Leases).await.unwrap();
                    let measured = nodes[1].peers().await;
                    if held.iter().any(|lease| lease.remaining_ms.is_some())
                        && measured.len() == 2
                        && measured.iter().all(|peer| peer.rtt_ms.is_some())
                    {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            tokio::time::timeout(PATIENCE, settled)
                .await
                .expect("settles");
            for (path, document) in SERVED {
                let bytes = documents::make(&operator, document).await.unwrap();
                let value: Value = serde_json::from_slice(&bytes).unwrap();
                let content = &described["paths"][path]["get"]["responses"]["200"]["content"];
                let schema = &content["application/json"]["schema"];
                check(&described, schema, &value, path);
                let count = |key: &str| value[key].as_array().map_or(0, Vec::len);
                match document {
                    Document::Peers => assert_eq!(value.as_array().unwrap().len(), 2),
                    Document::Neighbours => assert!(value.as_array().unwrap().len() >= 2),
                    Document::Ring => assert_eq!(count("nodes"), 3),
                    Document::Overview { .. } => assert_eq!(count("peers"), 2),
                    _ => {}
                }
            }
            let metrics = documents::make(&operator, Document::Metrics).await;
            check_metrics(&String::from_utf8(metrics.unwrap()).unwrap());
            for node in nodes {
                node.stop().await;
            }
        })
        .await;
}
