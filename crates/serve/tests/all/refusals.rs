//! What the API refuses, with which status and code, and that a refusal gives nothing away.

use crate::house::{House, buyer, known, now, shop};
use axum::http::{Method, StatusCode};
use serde_json::json;
use vigie_event::{DAY_MS, Workspace};

#[tokio::test]
async fn a_read_key_is_needed_and_no_other() {
    let house = House::new().await;
    let paths = [
        "/v1/customers",
        "/v1/customers/ada",
        "/v1/relances",
        "/v1/relances/0",
        "/v1/books",
        "/v1/config",
    ];
    let table: &[(Option<&str>, StatusCode, &str)] = &[
        (None, StatusCode::UNAUTHORIZED, "unauthenticated"),
        (Some("Bearer nonsense"), StatusCode::UNAUTHORIZED, "unauthenticated"),
        (Some("Bearer"), StatusCode::UNAUTHORIZED, "unauthenticated"),
        (Some("Basic cmVhZC1zaG9w"), StatusCode::UNAUTHORIZED, "unauthenticated"),
        (Some("read-shop"), StatusCode::UNAUTHORIZED, "unauthenticated"),
        (Some("Bearer write-shop"), StatusCode::FORBIDDEN, "key_scope"),
    ];
    for path in paths {
        for (authorization, status, code) in table {
            let refused = house.send(Method::GET, path, *authorization, None).await;
            assert_eq!(
                (refused.status, refused.code().as_str()),
                (*status, *code),
                "{path} {authorization:?}"
            );
            assert_eq!(
                refused.headers.contains_key("www-authenticate"),
                *status == StatusCode::UNAUTHORIZED
            );
        }
    }
    let lower = house
        .send(Method::GET, "/v1/config", Some("bearer read-shop"), None)
        .await;
    assert_eq!(lower.status, StatusCode::OK);
}

#[tokio::test]
async fn each_bad_request_has_its_code() {
    let house = House::new().await;
    let ada = known("ada");
    house.put(&shop(), vec![(ada.clone(), buyer(&ada, &[40, 20]))]).await;
    let before = now().plus_ms(-30 * DAY_MS);
    let table: &[(&str, u16, &str)] = &[
        ("/v1/customers?limit=0", 400, "bad_limit"),
        ("/v1/customers?limit=-1", 400, "bad_limit"),
        ("/v1/customers?limit=1000000000", 400, "bad_limit"),
        ("/v1/customers?limit=abc", 400, "bad_limit"),
        ("/v1/customers?cursor=zzz", 400, "bad_cursor"),
        ("/v1/customers?sort=name", 400, "bad_query"),
        ("/v1/customers?limt=5", 400, "bad_query"),
        ("/v1/relances?limit=0", 400, "bad_limit"),
        ("/v1/relances?limit=1001", 400, "bad_limit"),
        ("/v1/relances?cursor=%00", 400, "bad_cursor"),
        ("/v1/relances?offset=3", 400, "bad_query"),
        ("/v1/relances/xyz", 404, "unknown_relance"),
        ("/v1/relances/00000000000000000000000000000000", 404, "unknown_relance"),
        ("/v1/customers/nobody", 404, "unknown_customer"),
        ("/v1/customers/%00", 404, "unknown_customer"),
        ("/v1/customers/%FF", 404, "unknown_customer"),
        ("/v1/customers/ada?at=yesterday", 400, "bad_at"),
        ("/v1/customers/ada?at=2126-01-01", 400, "bad_at"),
        ("/v1/customers/ada?when=now", 400, "bad_query"),
        (&format!("/v1/customers/ada?at={before}"), 422, "at_before_state"),
        ("/v2/customers", 404, "not_found"),
        ("/v1/customers/a/b", 404, "not_found"),
    ];
    for (path, status, code) in table {
        let refused = house.get(path).await;
        assert_eq!(
            (refused.status.as_u16(), refused.code().as_str()),
            (*status, *code),
            "{path}"
        );
        assert_eq!(refused.headers["content-type"], "application/problem+json", "{path}");
        assert_eq!(
            refused.json()["request_id"],
            refused.headers["x-request-id"].to_str().unwrap(),
            "{path}"
        );
    }
    let detail = house.get(&format!("/v1/customers/ada?at={before}")).await.json()["detail"].to_string();
    let newest = now().plus_ms(-20 * DAY_MS).to_string();
    assert!(detail.contains(&newest) && detail.contains("/history?to="), "{detail}");
    let method = house
        .send(Method::DELETE, "/v1/customers/ada", Some("Bearer read-shop"), None)
        .await;
    assert_eq!(
        (method.status.as_u16(), method.code().as_str()),
        (405, "method_not_allowed")
    );
    assert!(method.headers.contains_key("allow"));
}

#[tokio::test]
async fn each_bad_batch_has_its_code() {
    let house = House::new().await;
    let ids = |n: usize| json!({ "ids": vec!["ada"; n] }).to_string().into_bytes();
    let table: Vec<(Vec<u8>, u16, &str)> = vec![
        (b"{".to_vec(), 400, "bad_body"),
        (b"[]".to_vec(), 400, "bad_body"),
        (br#"{"ids": "ada"}"#.to_vec(), 400, "bad_body"),
        (br#"{"ids": [], "at": "now"}"#.to_vec(), 400, "bad_body"),
        (ids(1_001), 400, "too_many_ids"),
        (vec![b' '; 1024 * 1024 + 1], 413, "too_large"),
    ];
    for (body, status, code) in table {
        let refused = house
            .send(
                Method::POST,
                "/v1/customers/batch-get",
                Some("Bearer read-shop"),
                Some(body),
            )
            .await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (status, code));
    }
    let most = house
        .send(
            Method::POST,
            "/v1/customers/batch-get",
            Some("Bearer read-shop"),
            Some(ids(1_000)),
        )
        .await;
    assert_eq!(most.json()["customers"].as_array().unwrap().len(), 1_000);
}

#[tokio::test]
async fn another_workspaces_ids_are_as_unknown_as_none() {
    let house = House::new().await;
    let ada = known("ada");
    house.put(&shop(), vec![(ada.clone(), buyer(&ada, &[4]))]).await;
    house.raise(1..2).await;
    for path in ["/v1/customers/ada", "/v1/relances/01010101010101010101010101010101"] {
        assert_eq!(house.get(path).await.status, StatusCode::OK, "{path}");
        let foreign = house.send(Method::GET, path, Some("Bearer read-other"), None).await;
        let missing = house.get(&path.replace("ada", "eve").replace("01", "02")).await;
        assert_eq!(foreign.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(
            (foreign.code(), &foreign.json()["detail"]),
            (missing.code(), &missing.json()["detail"]),
            "{path}"
        );
    }
    // A cursor carries no workspace: another workspace's cursor opens nothing.
    let other = Workspace::new("other").unwrap();
    house
        .put(&other, vec![(known("eve"), buyer(&known("eve"), &[2]))])
        .await;
    let cursor = house.get("/v1/customers?limit=1").await.json()["next_cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    let page = house
        .send(
            Method::GET,
            &format!("/v1/customers?cursor={cursor}"),
            Some("Bearer read-other"),
            None,
        )
        .await;
    assert!(!String::from_utf8_lossy(&page.body).contains("ada"));
}

#[tokio::test]
async fn refusals_repeat_nothing_of_the_request() {
    let house = House::new().await;
    for path in [
        "/v1/customers/marker1%3Cscript%3E",
        "/v1/customers?limit=marker1",
        "/v1/customers?marker1=2",
        "/v1/customers?sort=marker1",
        "/v1/customers?cursor=marker1",
        "/v1/customers/ada?at=marker1",
        "/v1/relances/marker1",
        "/marker1",
    ] {
        let refused = house.get(path).await;
        assert!(refused.status.is_client_error(), "{path}");
        assert!(!String::from_utf8_lossy(&refused.body).contains("marker1"), "{path}");
    }
}

#[tokio::test]
async fn damaged_rows_are_an_error_and_never_nobody() {
    use vigie_event::{CustomerKey, FlagId, partition_for};
    use vigie_store::{Commit, CustomerWrite, FlagRow, Projection, Store};
    let house = House::new().await;
    let write = CustomerWrite {
        key: CustomerKey::new(shop(), known("ada")),
        partition: partition_for("ada", crate::house::PARTITIONS),
        bytes: vec![0xFF, 1, 2].into(),
        timer: None,
        previous_timer: None,
        stale_timers: Vec::new(),
        rank: Some(1),
        previous_rank: None,
        fields: Projection::default(),
    };
    let flag = FlagRow {
        workspace: shop(),
        partition: partition_for("ada", crate::house::PARTITIONS),
        id: FlagId([9; 16]),
        body: "{".into(),
    };
    let commit = Commit {
        epoch: house.epoch,
        customers: vec![write],
        flags: vec![flag],
        ..Commit::default()
    };
    let _ = house.store.commit(commit).await.unwrap();
    for path in ["/v1/customers/ada", "/v1/customers", "/v1/relances"] {
        let refused = house.get(path).await;
        assert_eq!(
            (refused.status.as_u16(), refused.code().as_str()),
            (500, "internal"),
            "{path}"
        );
    }
}
