//! The routes: who may do what (security checklist 21), what is told of other workspaces (nothing), and answers as documented.

use crate::queue::{Kept, queue};
use crate::support::*;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use tower::ServiceExt;
use vigie_delivery::http::{Access, Desk, OPENAPI, router};
use vigie_event::Workspace;

struct Api {
    stage: Stage,
    router: axum::Router,
    lane: TestLane,
}

async fn api() -> Api {
    let stage = Stage::new(|_, _| BROKEN).await;
    stage.flags.raise([flag(1, "=1+1", START), flag(2, "C2", START)]).await;
    let lane = stage.lane();
    let authorize = |key: &str| match key {
        "reads" => Access::Read(shop()),
        "administers" => Access::Admin(shop()),
        "other-reads" => Access::Read(Workspace::new("other").unwrap()),
        "other-administers" => Access::Admin(Workspace::new("other").unwrap()),
        "writes" => Access::WrongKind,
        _ => Access::Unknown,
    };
    let desk = Desk {
        queue: queue(&stage, &Kept::default()),
        lanes: vec![lane.handle()],
        authorize: Arc::new(authorize),
        clock: stage.hand.clock(),
    };
    Api {
        router: router(Arc::new(desk)),
        stage,
        lane,
    }
}

impl Api {
    async fn raw(&self, key: &str, method: &str, path: &str, body: Option<&Value>) -> (StatusCode, String, String) {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {key}"));
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let answer = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let status = answer.status();
        let media = answer
            .headers()
            .get("content-type")
            .map(|value| value.to_str().unwrap().to_owned());
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (
            status,
            media.unwrap_or_default(),
            String::from_utf8(bytes.to_vec()).unwrap(),
        )
    }

    async fn ask(&self, key: &str, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let (status, _, text) = self.raw(key, method, path, body.as_ref()).await;
        (
            status.as_u16(),
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }
}

#[tokio::test]
async fn each_kind_of_key_opens_exactly_its_routes() {
    let api = api().await;
    let outcome = format!("/v1/relances/{}/outcome", id(2));
    let claim = json!({"max": 1});
    let routes: [(&str, &str, Option<Value>, &str); 6] = [
        ("POST", "/v1/relances/claim", Some(claim), "reads"),
        ("POST", &outcome, Some(json!({"outcome": "lost", "lease": 1})), "reads"),
        ("GET", "/v1/relances.csv", None, "reads"),
        ("GET", "/v1/deliveries", None, "administers"),
        (
            "POST",
            "/v1/deliveries/crm/redeliver",
            Some(json!({"parked": true})),
            "administers",
        ),
        ("POST", "/v1/deliveries/crm/resume", Some(json!({})), "administers"),
    ];
    for (method, path, body, right) in routes {
        for key in ["reads", "administers", "writes", "nobody"] {
            let (status, _) = api.ask(key, method, path, body.clone()).await;
            let expected = match key {
                key if key == right => status < 300,
                "nobody" => status == 401,
                _ => status == 403,
            };
            assert!(expected, "{key} {method} {path}: {status}");
        }
    }
}

#[tokio::test]
async fn of_other_workspaces_nothing_is_told() {
    let api = api().await;
    let (_, claimed) = api
        .ask("other-reads", "POST", "/v1/relances/claim", Some(json!({})))
        .await;
    assert_eq!(claimed, json!({"relances": []}));
    let outcome = format!("/v1/relances/{}/outcome", id(2));
    let (status, problem) = api
        .ask("other-reads", "POST", &outcome, Some(json!({"outcome": "lost"})))
        .await;
    assert_eq!((status, &problem["code"]), (404, &json!("unknown_relance")));
    let (_, listed) = api.ask("other-administers", "GET", "/v1/deliveries", None).await;
    assert_eq!(listed, json!({"deliveries": []}));
    let (status, _) = api
        .ask(
            "other-administers",
            "POST",
            "/v1/deliveries/crm/resume",
            Some(json!({})),
        )
        .await;
    assert_eq!(status, 404);
    let (_, _, table) = api.raw("other-reads", "GET", "/v1/relances.csv", None).await;
    assert_eq!(table.lines().count(), 1, "the header alone");
}

#[tokio::test]
async fn a_claim_an_outcome_and_a_table() {
    let api = api().await;
    let (_, media, table) = api.raw("reads", "GET", "/v1/relances.csv?policy=win-back", None).await;
    assert!(media.starts_with("text/csv"));
    assert!(table.contains(",'=1+1,win-back,at_risk,0.71,"), "{table}");
    let (status, claimed) = api
        .ask(
            "reads",
            "POST",
            "/v1/relances/claim",
            Some(json!({"max": 1, "channel": "phone"})),
        )
        .await;
    assert_eq!(status, 200);
    let first = &claimed["relances"][0];
    let path = format!("/v1/relances/{}/outcome", first["relance"]["id"].as_str().unwrap());
    let (status, problem) = api
        .ask("reads", "POST", &path, Some(json!({"outcome": "reached", "lease": 7})))
        .await;
    assert_eq!((status, &problem["code"]), (409, &json!("lease_lost")));
    let (status, _) = api
        .ask(
            "reads",
            "POST",
            &path,
            Some(json!({"outcome": "reached", "lease": first["lease"]})),
        )
        .await;
    assert_eq!(status, 202);
    for (path, body, part) in [
        ("/v1/relances/claim", json!({"max": 0}), "max is a number from 1 to 100"),
        (
            "/v1/relances/claim",
            json!({"max": 101}),
            "max is a number from 1 to 100",
        ),
        ("/v1/relances/claim", json!({"lease_seconds": 5}), "10 to 86400"),
        ("/v1/relances/claim", json!({"channel": "pigeon"}), "web, app, email"),
        ("/v1/relances/claim", json!({"mx": 1}), "the documented JSON object"),
        (&path, json!({"outcome": "maybe"}), "contacted, reached"),
        (
            "/v1/relances/xyz/outcome",
            json!({"outcome": "lost"}),
            "no relance has this id",
        ),
    ] {
        let (status, media, text) = api.raw("reads", "POST", path, Some(&body)).await;
        assert!(
            status.is_client_error() && text.contains(part),
            "{body}: {status} {text}"
        );
        assert_eq!(media, "application/problem+json");
    }
}

#[tokio::test]
async fn parked_flags_are_listed_and_opened_again() {
    let api = api().await;
    api.stage.play(&api.lane, START.plus_ms(120 * HOUR)).await;
    let (_, listed) = api.ask("administers", "GET", "/v1/deliveries", None).await;
    let lane = &listed["deliveries"][0];
    assert_eq!(
        (&lane["destination"], &lane["parked"], &lane["state"]),
        (&json!("crm"), &json!(2), &json!("failing"))
    );
    assert_eq!(lane["first_parked"][0]["attempts"], 10);
    api.stage.receiver.become_(|_, _| OK);
    let redeliver = "/v1/deliveries/crm/redeliver";
    let (status, opened) = api
        .ask("administers", "POST", redeliver, Some(json!({"from": 1, "to": 1})))
        .await;
    assert_eq!((status, opened), (202, json!({"opened": 1})));
    let (_, opened) = api
        .ask(
            "administers",
            "POST",
            redeliver,
            Some(json!({"ids": [id(2).to_string()]})),
        )
        .await;
    assert_eq!(opened, json!({"opened": 1}));
    api.stage.settle(&api.lane).await;
    assert_eq!(api.stage.receiver.ids().len(), 2);
    for bad in [
        json!({}),
        json!({"to": 3}),
        json!({"ids": ["x"]}),
        json!({"ids": [], "parked": true}),
    ] {
        assert_eq!(
            api.ask("administers", "POST", redeliver, Some(bad.clone())).await.0,
            400,
            "{bad}"
        );
    }
}

#[test]
fn the_document_names_every_route() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let documented: Vec<_> = document["paths"].as_object().unwrap().keys().cloned().collect();
    let expected = [
        "/v1/deliveries",
        "/v1/deliveries/{destination}/redeliver",
        "/v1/deliveries/{destination}/resume",
        "/v1/relances.csv",
        "/v1/relances/claim",
        "/v1/relances/{id}/outcome",
    ];
    let mut documented = documented;
    documented.sort();
    assert_eq!(documented, expected);
}
