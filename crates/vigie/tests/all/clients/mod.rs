//! Client libraries of other houses, unmodified, and a browser, against the real program: what arrives has the right person,
//! time and meaning, as its own API tells it. Each client has a workspace of its own, so that all of them can be the same
//! person. `make python-env node-env` installs them, pinned, below the build directory; `make tools` the browser.

mod browser;
mod libraries;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use vigie_event::{Source, Timestamp};

use crate::support::{Books, Keys, Launch, Server, Starting, until};

/// A running server with workspaces for clients.
struct Site {
    server: Server,
    _dir: TempDir,
}

/// An accepted event, as SQL tells it.
#[derive(Debug, Deserialize)]
struct Row {
    event_id: String,
    signal: String,
    name: Option<String>,
    source: String,
    customer: String,
    anonymous_id: Option<String>,
    /// Absent when nothing was learnt from it.
    at: Option<String>,
    decision: String,
    human_permille: Option<u16>,
    amount: Option<f64>,
    currency: Option<String>,
    order_id: Option<String>,
    page_url: Option<String>,
    payload: String,
}

fn key(kind: &str, workspace: &str) -> String {
    format!("{kind}-key-of-{workspace}")
}

impl Site {
    /// Starts a server that knows these workspaces; pages of any origin may write to those in `open`.
    fn start(open: &[&str], closed: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("vigie.toml");
        let mut config = "[links]\npublic-url = \"http://links.example\"\n\n\
                          [[link-keys]]\nid = \"k1\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n"
            .to_owned();
        for workspace in open.iter().chain(closed) {
            for kind in ["write", "read", "admin"] {
                let key = key(kind, workspace);
                config += &format!("\n[[keys]]\nworkspace = \"{workspace}\"\nkind = \"{kind}\"\nkey = \"{key}\"\n");
                if kind == "write" && open.contains(workspace) {
                    config += "origins = [\"*\"]\n";
                }
            }
        }
        std::fs::write(&file, config).unwrap();
        let first = open.iter().chain(closed).next().unwrap();
        let launch = Launch {
            args: vec!["--config".to_owned(), file.to_str().unwrap().to_owned()],
            keys: Some(Keys {
                write: key("write", first),
                history: String::new(),
                read: key("read", first),
                admin: key("admin", first),
            }),
            ..Launch::default()
        };
        Self {
            server: Starting::launch(&dir.path().join("data"), &launch).up(),
            _dir: dir,
        }
    }

    fn ask(&self, workspace: &str, path: &str) -> Value {
        let answer = self.server.client.get(path, &key("read", workspace)).unwrap();
        assert_eq!(answer.status, 200, "{workspace}: {path}: {answer:?}");
        answer.json()
    }

    /// Waits until so many events of a workspace have been applied or suppressed, whatever else may still come.
    #[track_caller]
    fn arrived(&self, workspace: &str, events: u64) {
        until(&format!("{events} events of {workspace}"), || {
            let books: Books = serde_json::from_value(self.ask(workspace, "/v1/books")).unwrap();
            (books.accepted >= events && books.in_flight == 0).then_some(())
        });
    }

    /// All events of a workspace, once nothing is in flight; none of them was refused.
    #[track_caller]
    fn events(&self, workspace: &str) -> Vec<Row> {
        let books = until("nothing is in flight", || {
            let books: Books = serde_json::from_value(self.ask(workspace, "/v1/books")).unwrap();
            (books.in_flight == 0).then_some(books)
        });
        let refused = self.server.client.get("/inspect?output=json", &key("admin", workspace));
        let refused = refused.unwrap().json()["refused"].take();
        assert_eq!(refused, json!([]), "{workspace}: refused");
        let sql = "SELECT event_id, signal, name, source, customer, anonymous_id, at, decision, human_permille, amount, \
                   currency, order_id, page_url, payload FROM events ORDER BY received_at, at, log_offset";
        let question = json!({"sql": sql, "format": "json"}).to_string();
        let answer = self
            .server
            .client
            .post("/v1/query", &key("read", workspace), &question)
            .unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        let events: Vec<Row> = serde_json::from_value(answer.json()).unwrap();
        assert_eq!(
            events.len() as u64,
            books.accepted,
            "{workspace}: {books:?} {events:#?}"
        );
        let ids: std::collections::BTreeSet<_> = events.iter().map(|event| event.event_id.as_str()).collect();
        assert_eq!(ids.len(), events.len(), "{workspace}: every event has an id of its own");
        events
    }
}

/// A client, and what is particular about it. Every one of them tells the same story: a visitor looks at the page with the
/// shoes, turns out to be customer 42 if the client has a word for that, and orders number 1001 for 29.34 EUR.
struct Client {
    name: &'static str,
    source: Source,
    /// What the client calls the visitor; a browser makes an id up.
    visitor: Option<&'static str>,
    /// Whether it says that the visitor is customer 42.
    identifies: bool,
    /// Times are sent in steps of this many milliseconds.
    step_ms: i64,
}

impl Client {
    const fn new(name: &'static str, source: Source, visitor: Option<&'static str>, identifies: bool) -> Self {
        Self {
            name,
            source,
            visitor,
            identifies,
            step_ms: 1,
        }
    }

    fn events(&self) -> u64 {
        if self.identifies { 3 } else { 2 }
    }

    /// Looks at what arrived of a story that began at `began`, with an order that the client dated `ordered_at` or did not date.
    #[track_caller]
    fn check(&self, site: &Site, began: Timestamp, ordered_at: Option<Timestamp>) {
        let name = self.name;
        let events = site.events(name);
        assert_eq!(events.len() as u64, self.events(), "{name}: {events:#?}");
        let one = |signal: &str| -> &Row {
            let found = events.iter().find(|event| event.signal == signal);
            found.unwrap_or_else(|| panic!("{name}: no {signal} among {events:#?}"))
        };
        for event in &events {
            let said = (event.source.as_str(), event.decision.as_str(), event.human_permille);
            assert_eq!(said, (self.source.name(), "applied", Some(1000)), "{name}: {event:#?}");
            let at = Timestamp::parse(event.at.as_deref().unwrap()).unwrap();
            match ordered_at.filter(|_| event.signal == "purchase") {
                Some(told) => assert_eq!(
                    at.0,
                    told.0 - told.0 % self.step_ms,
                    "{name}: the time that the shop gave"
                ),
                // A whole second may be what is left of a time.
                None => assert!(
                    (-1_000..600_000).contains(&at.ms_since(began)),
                    "{name}: since {began}: {event:#?}"
                ),
            }
        }
        let (page, order) = (one("page.view"), one("purchase"));
        let visitor = match self.visitor {
            Some(visitor) => visitor.to_owned(),
            None => format!("anonymous:{}", page.anonymous_id.as_deref().unwrap()),
        };
        if self.source != Source::CloudEvents {
            let url = page.page_url.as_deref().unwrap_or_default();
            assert!(url.ends_with("/shoes"), "{name}: {page:#?}");
        }
        let bought = (order.amount, order.currency.as_deref(), order.order_id.as_deref());
        assert_eq!(bought, (Some(29.34), Some("EUR"), Some("1001")), "{name}");
        assert_eq!(order.customer, "42", "{name}");

        // What it means: customer 42 has bought once, and was the visitor if the client said so.
        let customer = until("the visitor and the customer are one", || {
            let customer = site.ask(name, "/v1/customers/42");
            let identities = customer["identities"].as_array().unwrap();
            (!self.identifies || identities.contains(&json!(visitor))).then_some(customer)
        });
        assert_eq!(customer["id"], "42", "{name}");
        assert_eq!(customer["value"]["historical"], 29.34, "{name}: {customer:#}");
        let asked = if self.identifies {
            site.ask(name, &format!("/v1/customers/{visitor}"))["id"].take()
        } else {
            assert_eq!(customer["identities"], json!(["42"]), "{name}");
            json!(page.customer)
        };
        let expected = if self.identifies { "42" } else { &visitor };
        assert_eq!(asked, expected, "{name}: whose page it was");
    }
}

/// The place of an installation: a variable that the Makefile sets, or where it installs.
fn installed(variable: &str, place: &str, target: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = std::env::var_os(variable).map_or_else(|| root.join(place), PathBuf::from);
    let told = path.display();
    assert!(
        path.exists(),
        "there is no {told}: run `make {target}`, or set {variable}"
    );
    path
}

fn node_modules() -> PathBuf {
    installed("VIGIE_NODE_MODULES", "target/node/node_modules", "node-env")
}

/// A program that drives clients.
fn script(name: &str) -> String {
    format!("{}/tests/all/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}
