//! Paths, and that the description has them.

use super::*;
use serde_json::Value;

const ALL: [(&str, Route); 11] = [
    ("/", Route::Page),
    ("/openapi.json", Route::OpenApi),
    ("/metrics", Route::Document(Document::Metrics)),
    ("/api/v1/status", Route::Document(Document::Status)),
    ("/api/v1/peers", Route::Document(Document::Peers)),
    ("/api/v1/neighbours", Route::Document(Document::Neighbours)),
    ("/api/v1/leases", Route::Document(Document::Leases)),
    ("/api/v1/traffic", Route::Document(Document::Traffic)),
    ("/api/v1/ring", Route::Document(Document::Ring)),
    ("/api/v1/log", Route::Document(Document::Log { from: 0 })),
    (
        "/api/v1/overview",
        Route::Document(Document::Overview { from: 0 }),
    ),
];

#[test]
fn every_path_is_described_and_every_description_has_its_path() {
    let described: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut described: Vec<_> = described["paths"].as_object().unwrap().keys().collect();
    let mut served: Vec<_> = ALL.iter().map(|(path, _)| *path).collect();
    served.sort_unstable();
    described.sort_unstable();
    assert_eq!(described, served);
    for (path, expected) in ALL {
        assert_eq!(route(path, None), Some(Ok(expected)), "{path}");
    }
    for missing in [
        "",
        "/x",
        "/api/v1/",
        "/api/v1/status/",
        "/api/v2/status",
        "/index.html",
    ] {
        assert_eq!(route(missing, None), None, "{missing}");
    }
}

#[test]
fn the_log_is_read_on_from_a_line() {
    let log = |from| Some(Ok(Route::Document(Document::Log { from })));
    assert_eq!(route("/api/v1/log", Some("from=17")), log(17));
    assert_eq!(route("/api/v1/log", Some("x=1&from=17")), log(17));
    assert_eq!(route("/api/v1/log", Some("")), log(0));
    for wrong in [
        "from=",
        "from=-1",
        "from=x",
        "from=+1",
        "from=99999999999999999999",
    ] {
        let routed = route("/api/v1/log", Some(wrong));
        assert!(matches!(routed, Some(Err(_))), "{wrong}");
    }
}
