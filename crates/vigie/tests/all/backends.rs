//! The same product with its store in a Redis: the same audit, the same roots, and a store that went away is noticed, never
//! taken for an empty one. What a Redis may do to a worker is proved beside the store and the oracle.

#[path = "../../../store/tests/all/redis/server.rs"]
mod redis;

use crate::support::{Server, now, run};
use serde_json::{Value, json};

const DAY_MS: i64 = 86_400_000;

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_store_in_redis_is_audited_lost_and_rebuilt() {
    let redis = redis::Server::start(&[("appendonly", "yes")]);
    let dir = tempfile::tempdir().unwrap();
    let (data, config) = (dir.path().join("data"), dir.path().join("vigie.toml"));
    let text = format!(
        "[store]\nbackend = \"redis\"\n[redis]\nnodes = \"127.0.0.1:{}\"\nnamespace = \"shop\"\n",
        redis.port
    );
    std::fs::write(&config, text).unwrap();
    let file = config.to_str().unwrap();
    let server = Server::start(&data, &["--config", file]);
    let start = now().0 - 100 * DAY_MS;
    let event = |n: i64| {
        let signal = if n % 5 == 0 { "purchase" } else { "page.view" };
        json!({"id": format!("e{n}"), "user_id": format!("u{}", n % 60), "signal": signal, "timestamp": start + n * DAY_MS / 10})
    };
    server.post(&(0..900).map(event).collect::<Vec<_>>());
    server.post(&(850..950).map(event).collect::<Vec<_>>());
    let books = server.settled();
    assert_eq!((books.applied, books.duplicate), (950, 50));
    assert!(server.get_json("/v1/customers/u0")["attrition"]["score"].is_f64());
    drop(server);
    let here = ["--data-dir", data.to_str().unwrap(), "--config", file];
    let audited = || {
        let audit = run(&[&["audit", "--output", "json"], &here[..]].concat());
        assert_eq!(audit.code, Some(0), "{audit:?}");
        value(&audit.stdout)["root_live"].as_str().unwrap().to_owned()
    };
    let root = audited();
    let replay = run(&["replay", "--data-dir", here[1], "--output", "json"]);
    assert_eq!(
        value(&replay.stdout)["merkle_root"],
        root.as_str(),
        "in memory it is the same store"
    );
    let keys = redis.ask(&["--scan", "--pattern", "shop:*:customer:*"]);
    assert!(keys.lines().count() >= 60, "{keys}");
    let score = redis.ask(&["hget", keys.lines().next().unwrap(), "attrition"]);
    assert!(!score.trim().is_empty(), "others can read scores");

    // Emptied behind our back: neither a question nor a start takes it for a new shop.
    let _ok = redis.ask(&["flushall"]);
    for command in [&["audit"][..], &["up", "--set", "server.listen=127.0.0.1:0"]] {
        let refused = run(&[command, &here[..]].concat());
        assert!(refused.code.is_some_and(|code| code > 0), "{refused:?}");
        assert!(refused.stderr.contains("lost"), "{refused:?}");
    }
    let rebuilt = run(&[&["rebuild"], &here[..]].concat());
    assert_eq!(rebuilt.code, Some(0), "{rebuilt:?}");
    assert_eq!(audited(), root, "the same bytes");
    // And never over one that is there.
    let again = run(&[&["rebuild"], &here[..]].concat());
    assert!(again.code == Some(1) && again.stderr.contains("shop:"), "{again:?}");
}
