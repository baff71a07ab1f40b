//! The house that the tests live in: a store with a handful of customers and flags, and a client that checks every answer
//! against the published document.

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tower::ServiceExt;
use vigie_event::{
    Channel, CustomerKey, DAY_MS, EventId, FlagId, Money, Partition, PersonId, Signal, Timestamp, Workspace,
    partition_for,
};
use vigie_relance::{Flag, FlagKind, FlagReason, FlagScore, Plan, PolicySet};
use vigie_scoring::{CustomerState, Model, Observation};
use vigie_serve::{Access, Active, ApiState, Books, Build, Readiness, Surveyed, Unavailable, router};
use vigie_store::{Commit, CustomerWrite, FlagRow, MemoryStore, Projection, Store};

pub(crate) const PARTITIONS: u16 = 4;

pub(crate) fn now() -> Timestamp {
    Timestamp::parse("2026-11-21T12:00:00Z").unwrap()
}

pub(crate) fn shop() -> Workspace {
    Workspace::new("shop").unwrap()
}

pub(crate) fn known(id: &str) -> PersonId {
    PersonId::known(id).unwrap()
}

/// A record with purchases so many days before now.
pub(crate) fn buyer(id: &PersonId, days_ago: &[i64]) -> CustomerState {
    let mut state = CustomerState::default();
    for days in days_ago {
        let at = now().plus_ms(-days * DAY_MS);
        let money = Some(Money {
            minor: 4_200,
            currency: vigie_event::Currency::parse("EUR").unwrap(),
        });
        let bought = Observation {
            at,
            signal: Signal::Purchase,
            channel: Channel::Web,
            money,
            human: true,
        };
        let _ = state.fold(id, &bought);
        state.cite(id, &bought, &EventId::new(&format!("order-{days}")).unwrap());
        state.last_received = state.last_received.max(at.plus_ms(500));
    }
    state
}

pub(crate) struct House {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) surveyed: Arc<ArcSwap<Surveyed>>,
    pub(crate) epoch: u64,
    pub(crate) document: Value,
    router: Router,
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::with(Readiness::default(), Ok(books())).await
    }

    pub(crate) async fn with(readiness: Readiness, books: Result<Books, Unavailable>) -> Self {
        let store = Arc::new(MemoryStore::new(PARTITIONS));
        let partitions: Vec<_> = (0..PARTITIONS).map(Partition).collect();
        let epoch = store.claim(&partitions).await.unwrap();
        let active = Active {
            model: Model::shipped().unwrap(),
            policies: PolicySet::shipped().unwrap(),
            config_version: "c-1".to_owned(),
        };
        let surveyed: Arc<ArcSwap<Surveyed>> = Arc::default();
        let state = ApiState {
            surveyed: Arc::clone(&surveyed),
            store: Arc::clone(&store),
            active: Arc::new(ArcSwap::from_pointee(active)),
            clock: Arc::new(now),
            authorize: Arc::new(|key| match key {
                "read-shop" => Access::Read(shop()),
                "read-other" => Access::Read(Workspace::new("other").unwrap()),
                "write-shop" => Access::WrongKind,
                _ => Access::Unknown,
            }),
            readiness: Arc::new(move || readiness.clone()),
            books: Arc::new(move |_| {
                let books = books.clone();
                Box::pin(async move { books })
            }),
            build: Build {
                version: "1.2.3".to_owned(),
                revision: None,
            },
            also_documented: &[],
            past: None,
            requests: AtomicU64::new(0),
        };
        let mut house = Self {
            store,
            surveyed,
            epoch,
            document: Value::Null,
            router: router(state),
        };
        house.document = house.send(Method::GET, "/openapi.json", None, None).await.json();
        house
    }

    /// Writes records; the rank is the position from the end, so that the first one is most at risk.
    pub(crate) async fn put(&self, workspace: &Workspace, records: Vec<(PersonId, CustomerState)>) {
        let count = records.len() as u16;
        let write = |(index, (person, state)): (usize, (PersonId, CustomerState))| CustomerWrite {
            partition: partition_for(person.as_str(), PARTITIONS),
            rank: state.linked_to.is_none().then(|| count - index as u16),
            key: CustomerKey::new(workspace.clone(), person),
            bytes: state.encode().into(),
            timer: None,
            previous_timer: None,
            stale_timers: Vec::new(),
            previous_rank: None,
            fields: Projection::default(),
        };
        let customers = records.into_iter().enumerate().map(write).collect();
        let _ = self
            .store
            .commit(Commit {
                epoch: self.epoch,
                customers,
                ..Commit::default()
            })
            .await
            .unwrap();
    }

    /// Adds flags numbered `range`.
    pub(crate) async fn raise(&self, range: std::ops::Range<u8>) {
        let row = |n: u8| {
            let id = FlagId([n; 16]);
            let flag = Flag {
                id: id.to_string(),
                workspace: "shop".to_owned(),
                customer: "ada".to_owned(),
                policy: "win-back".to_owned(),
                policy_version: "0123456789abcdef".to_owned(),
                kind: if n.is_multiple_of(10) {
                    FlagKind::HeldOut
                } else {
                    FlagKind::Flagged
                },
                score: FlagScore {
                    kind: "attrition".to_owned(),
                    value: 0.7,
                    threshold: 0.65,
                },
                raised_at: now().to_string(),
                stage: "at_risk".to_owned(),
                reasons: vec![FlagReason {
                    code: "no_purchase_since".to_owned(),
                    text: "No purchase.".to_owned(),
                    events: vec!["order-1".to_owned()],
                }],
                model: "m@1".to_owned(),
                play: "attention".to_owned(),
                customer_benefit: "You are asked how you are.".to_owned(),
                segment: None,
                recalls: None,
                band: None,
                plan: Plan::default(),
            };
            let body = serde_json::to_vec(&flag).unwrap();
            FlagRow {
                workspace: shop(),
                partition: partition_for("ada", PARTITIONS),
                id,
                body: body.into(),
            }
        };
        let commit = Commit {
            epoch: self.epoch,
            flags: range.map(row).collect(),
            ..Commit::default()
        };
        let _ = self.store.commit(commit).await.unwrap();
    }

    /// A request with the shop's read key; its answer has been checked against the document.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, Some("Bearer read-shop"), None).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        authorization: Option<&str>,
        body: Option<Vec<u8>>,
    ) -> Reply {
        let mut request = Request::builder().method(method.clone()).uri(path);
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.body(body.map_or_else(Body::empty, Body::from)).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let reply = Reply { status, headers, body };
        assert_eq!(reply.headers["x-content-type-options"], "nosniff", "{path}");
        assert!(reply.headers.contains_key("x-request-id"), "{path}");
        if !self.document.is_null() {
            self.check(&method, path, &reply);
        }
        reply
    }

    /// The answer is one that the document announces for this route and status.
    fn check(&self, method: &Method, path: &str, reply: &Reply) {
        let path = path.split('?').next().unwrap();
        let paths = self.document["paths"].as_object().unwrap();
        let template = match path {
            exact if paths.contains_key(exact) => exact,
            p if p.starts_with("/v1/customers/") => "/v1/customers/{id}",
            p if p.starts_with("/v1/relances/") => "/v1/relances/{id}",
            _ => return,
        };
        if reply.status == StatusCode::METHOD_NOT_ALLOWED {
            return;
        }
        let answer = &paths[template][method.as_str().to_lowercase()]["responses"][reply.status.as_str()];
        assert!(
            answer.is_object(),
            "{method} {template} does not announce {}",
            reply.status
        );
        let content_type = reply.headers["content-type"]
            .to_str()
            .unwrap()
            .split(';')
            .next()
            .unwrap();
        let schema = &answer["content"][content_type]["schema"];
        assert!(
            schema.is_object(),
            "{method} {template} {} does not announce {content_type}",
            reply.status
        );
        if content_type.ends_with("json") {
            let mut schema = schema.clone();
            schema["components"] = self.document["components"].clone();
            let validator = jsonschema::validator_for(&schema).unwrap();
            let body = reply.json();
            let faults: Vec<_> = validator
                .iter_errors(&body)
                .map(|fault| format!("{}: {fault}", fault.instance_path()))
                .collect();
            assert!(
                faults.is_empty(),
                "{method} {template} {}: {faults:?}\n{body:#}",
                reply.status
            );
        }
    }
}

pub(crate) fn books() -> Books {
    Books {
        accepted: 10,
        applied: 6,
        duplicate: 1,
        dead_letter: 1,
        suppressed: 1,
        in_flight: 1,
    }
}
