//! What the API answers when all is well.

use crate::house::{House, buyer, known, now, shop};
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use vigie_event::{AccountId, CustomerKey, DAY_MS, PersonId, Workspace};
use vigie_relance::Census;
use vigie_scoring::state::Account;
use vigie_scoring::{CustomerState, Model};
use vigie_serve::{Readiness, Surveyed, Unavailable};

#[tokio::test]
async fn a_customer_has_scores_reasons_evidence_and_forecast() {
    let house = House::new().await;
    let ada = known("ada");
    house
        .put(&shop(), vec![(ada.clone(), buyer(&ada, &[200, 170, 140, 110, 80]))])
        .await;
    let answer = house.get("/v1/customers/ada").await;
    assert_eq!(answer.status, StatusCode::OK);
    let c = answer.json();
    assert_eq!((&c["id"], &c["identities"]), (&json!("ada"), &json!(["ada"])));
    assert_eq!(c["as_of"], now().to_string());
    assert_eq!(c["data_age_seconds"], 80 * 86_400 - 1);
    let purchases = &c["evidence"]["purchases"];
    assert_eq!((&purchases["x"], &purchases["usual_gap_days"]), (&json!(4), &json!(30)));
    assert_eq!(
        (purchases["t_x_weeks"].as_f64(), purchases["T_weeks"].as_f64()),
        (Some(120.0 / 7.0), Some(200.0 / 7.0))
    );
    let score = c["attrition"]["score"].as_f64().unwrap();
    let logit: f64 = c["attrition"]["contributions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["log_odds"].as_f64().unwrap())
        .sum();
    assert!(
        (score - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-9,
        "the contributions add up to the score"
    );
    assert!(!c["reasons"].as_array().unwrap().is_empty() && c["reasons"].as_array().unwrap().len() <= 3);
    assert_eq!(c["forecast"].as_array().unwrap().len(), 13);
    assert_eq!(c["forecast"][0]["attrition"].as_f64(), Some(score));
    let rising: Vec<_> = c["forecast"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["attrition"].as_f64().unwrap())
        .collect();
    assert!(rising.windows(2).all(|pair| pair[0] <= pair[1]), "{rising:?}");
}

#[tokio::test]
async fn churn_is_taken_apart_and_told_in_the_language_that_was_asked_for() {
    let house = House::new().await;
    let ada = known("ada");
    house
        .put(&shop(), vec![(ada.clone(), buyer(&ada, &[200, 170, 140, 110, 80]))])
        .await;
    let c = house.get("/v1/customers/ada").await.json();
    for churn in c["churn"].as_array().unwrap() {
        let score = churn["score"].as_f64().unwrap();
        let terms = churn["contributions"].as_array().unwrap().iter();
        let logit: f64 = terms.map(|term| term["log_odds"].as_f64().unwrap()).sum();
        assert!((score - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-9, "{churn}");
        let ends = [0, 1].map(|end| churn["interval"][end].as_f64().unwrap());
        assert!(ends[0] < score && score < ends[1], "{churn}");
    }
    assert!((1..=3).contains(&c["churn_reasons"].as_array().unwrap().len()), "{c}");
    // Each sentence is about the last purchase, 80 days ago, and says which event that was.
    for reason in c["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .chain(c["churn_reasons"].as_array().unwrap())
    {
        assert_eq!(reason["events"], json!(["order-80"]), "{reason}");
    }
    let french = house.get("/v1/customers/ada?lang=fr").await.json();
    let first = |c: &Value| c["reasons"][0]["text"].as_str().unwrap().to_owned();
    assert!(
        first(&french).contains(" du ") || first(&french).contains(" le "),
        "{french}"
    );
    assert_eq!(first(&house.get("/v1/customers/ada?lang=en").await.json()), first(&c));
    assert_eq!(c["churn"], french["churn"], "the language changes no number");
    let refused = house.get("/v1/customers/ada?lang=tlh").await;
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (StatusCode::BAD_REQUEST, &json!("bad_query"))
    );
}

#[tokio::test]
async fn at_asks_for_a_later_instant_and_the_forecast_crossing_is_where_the_score_crosses() {
    let house = House::new().await;
    let ada = known("ada");
    house
        .put(&shop(), vec![(ada.clone(), buyer(&ada, &[60, 45, 30, 15, 1]))])
        .await;
    let c = house.get("/v1/customers/ada").await.json();
    let crossings = c["crossings"].as_array().unwrap();
    let coming = crossings
        .iter()
        .find(|crossing| crossing["crosses_at"].is_string())
        .expect("a crossing in silence");
    let at = coming["crosses_at"].as_str().unwrap();
    let then = house.get(&format!("/v1/customers/ada?at={at}")).await.json();
    assert_eq!(then["as_of"], at);
    let same = then["crossings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["policy"] == coming["policy"])
        .unwrap();
    assert_eq!(same["reached"], true);
    let before = vigie_event::Timestamp::parse(at).unwrap().plus_ms(-1);
    let then = house.get(&format!("/v1/customers/ada?at={before}")).await.json();
    let same = then["crossings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["policy"] == coming["policy"])
        .unwrap();
    assert_eq!((&same["reached"], &same["crosses_at"]), (&json!(false), &json!(at)));
}

#[tokio::test]
async fn links_are_followed_and_prefixes_name_the_kind_of_id() {
    let house = House::new().await;
    let ada = known("ada");
    let browser = PersonId::anonymous("b1").unwrap();
    let odd = known("anonymous:x");
    let mut state = buyer(&ada, &[40, 10]);
    let _ = state.note_link(&browser);
    let stub = CustomerState {
        linked_to: Some(ada.clone()),
        ..CustomerState::default()
    };
    let cookie = PersonId::anonymous("c2").unwrap();
    house
        .put(
            &shop(),
            vec![
                (ada, state),
                (browser, stub),
                (cookie.clone(), buyer(&cookie, &[3])),
                (odd.clone(), buyer(&odd, &[5])),
            ],
        )
        .await;
    let c = house.get("/v1/customers/anonymous:b1").await.json();
    assert_eq!(
        (&c["id"], &c["identities"]),
        (&json!("ada"), &json!(["ada", "anonymous:b1"]))
    );
    assert_eq!(
        house.get("/v1/customers/anonymous%3Ac2").await.json()["id"],
        "anonymous:c2"
    );
    assert_eq!(
        house.get("/v1/customers/anonymous:x").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        house.get("/v1/customers/known:anonymous:x").await.status,
        StatusCode::OK
    );
    let listed = house.get("/v1/customers?sort=id").await.json();
    assert_eq!(
        listed["customers"].as_array().unwrap().len(),
        3,
        "a signpost is not a customer"
    );
}

#[tokio::test]
async fn a_circle_of_links_is_nobody() {
    let house = House::new().await;
    let stub = |to| CustomerState {
        linked_to: Some(known(to)),
        ..CustomerState::default()
    };
    house
        .put(&shop(), vec![(known("a"), stub("b")), (known("b"), stub("a"))])
        .await;
    assert_eq!(house.get("/v1/customers/a").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_customer_without_activity_says_why_there_is_no_score() {
    let house = House::new().await;
    house
        .put(&shop(), vec![(known("nemo"), CustomerState::default())])
        .await;
    let c = house.get("/v1/customers/nemo").await.json();
    assert_eq!(
        (&c["attrition"], &c["not_scored"], &c["p_alive"]),
        (&Value::Null, &json!("no_activity"), &Value::Null)
    );
}

#[tokio::test]
async fn a_batch_answers_in_the_order_of_the_request() {
    let house = House::new().await;
    let (ada, bob) = (known("ada"), known("bob"));
    house
        .put(
            &shop(),
            vec![(ada.clone(), buyer(&ada, &[4])), (bob.clone(), buyer(&bob, &[9]))],
        )
        .await;
    let body = json!({ "ids": ["bob", "nobody", "ada", "bob", ""] }).to_string();
    let batch = house
        .send(
            Method::POST,
            "/v1/customers/batch-get",
            Some("Bearer read-shop"),
            Some(body.into()),
        )
        .await
        .json();
    let found: Vec<_> = batch["customers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["customer"]["id"].clone())
        .collect();
    assert_eq!(
        found,
        [json!("bob"), Value::Null, json!("ada"), json!("bob"), Value::Null]
    );
    let single = house.get("/v1/customers/ada").await.json();
    assert_eq!(
        batch["customers"][2]["customer"], single,
        "a batch says the same as a single request"
    );
}

#[tokio::test]
async fn pages_of_customers_cover_the_list_once_in_order() {
    let house = House::new().await;
    let people: Vec<_> = (0..25).map(|n| known(&format!("c{n:02}"))).collect();
    house
        .put(
            &shop(),
            people.iter().map(|p| (p.clone(), buyer(p, &[30, 7]))).collect(),
        )
        .await;
    let other = Workspace::new("other").unwrap();
    house
        .put(&other, vec![(known("spy"), buyer(&known("spy"), &[1]))])
        .await;
    for sort in ["at-risk", "id"] {
        let mut path = format!("/v1/customers?sort={sort}&limit=10");
        let mut met = Vec::new();
        loop {
            let page = house.get(&path).await.json();
            met.extend(
                page["customers"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|c| c["id"].as_str().unwrap().to_owned()),
            );
            let Some(cursor) = page["next_cursor"].as_str() else {
                break;
            };
            path = format!("/v1/customers?sort={sort}&limit=10&cursor={cursor}");
        }
        let expected: Vec<_> = people.iter().map(|p| p.as_str().to_owned()).collect();
        assert_eq!(met, expected, "{sort}");
    }
}

#[tokio::test]
async fn a_reader_that_keeps_its_cursor_misses_no_relance() {
    let house = House::new().await;
    let empty = house.get("/v1/relances").await.json();
    assert_eq!((&empty["relances"], &empty["more"]), (&json!([]), &json!(false)));
    let mut cursor = empty["next_cursor"].as_str().unwrap().to_owned();
    let mut met = BTreeSet::new();
    for (raised, expected, more) in [(0..7u8, 5, true), (7..8, 3, false), (8..8, 0, false), (8..12, 4, false)] {
        house.raise(raised).await;
        let page = house.get(&format!("/v1/relances?limit=5&cursor={cursor}")).await.json();
        assert_eq!(
            (page["relances"].as_array().unwrap().len(), &page["more"]),
            (expected, &json!(more))
        );
        for relance in page["relances"].as_array().unwrap() {
            let id = relance["id"].as_str().unwrap();
            assert!(met.insert(id.to_owned()), "{id} came twice");
            assert_eq!(house.get(&format!("/v1/relances/{id}")).await.json(), *relance);
        }
        cursor = page["next_cursor"].as_str().unwrap().to_owned();
    }
    assert_eq!(met.len(), 12);
}

#[tokio::test]
async fn operators_learn_what_runs_and_whether_it_is_well() {
    let house = House::new().await;
    let open = async |path| house.send(Method::GET, path, None, None).await;
    for path in ["/healthz", "/health", "/_liveness"] {
        assert_eq!(open(path).await.body, "ok\n", "{path}");
    }
    for path in ["/readyz", "/_readiness"] {
        assert_eq!(open(path).await.json(), json!({ "reasons": [] }), "{path}");
    }
    assert_eq!(
        open("/version").await.json(),
        json!({ "version": "1.2.3", "revision": null })
    );
    assert_eq!(house.document["info"]["version"], "1.2.3");
    assert_eq!(house.document["openapi"], "3.1.0");
    let books = house.get("/v1/books").await.json();
    assert_eq!((&books["accepted"], &books["in_flight"]), (&json!(10), &json!(1)));
    let config = house.get("/v1/config").await.json();
    assert_eq!(config["config"], "c-1");
    assert!(config["policies"].as_array().unwrap().len() >= 2);

    let reasons = vec!["the log is poisoned".to_owned()];
    let house = House::with(
        Readiness { reasons },
        Err(Unavailable("the counters are being rebuilt".to_owned())),
    )
    .await;
    let ready = house.send(Method::GET, "/readyz", None, None).await;
    assert_eq!(
        (ready.status, ready.json()),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            json!({ "reasons": ["the log is poisoned"] })
        )
    );
    let books = house.get("/v1/books").await;
    assert_eq!(
        (books.status, books.code().as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    );
    assert_eq!(books.headers["retry-after"], "1");
}

#[tokio::test]
async fn pages_load_nothing_from_elsewhere_and_run_no_inline_script() {
    let house = House::new().await;
    for path in ["/", "/console.js", "/docs", "/docs.js", "/vigie.css"] {
        let page = house.send(Method::GET, path, None, None).await;
        assert_eq!(page.status, StatusCode::OK, "{path}");
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("unsafe"),
            "{path}: {policy}"
        );
        let text = String::from_utf8(page.body.to_vec())
            .unwrap()
            .replace("http://www.w3.org/2000/svg", "");
        assert!(
            !text.contains("http://") && !text.contains("https://") && !text.contains("innerHTML"),
            "{path}"
        );
        assert!(
            !text.contains("<script>") && !text.contains("style=\"") && !text.contains("onclick"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_newest_event_bounds_at_and_not_the_time_of_receipt() {
    // History is received long after it happened; questions about the time between are answered.
    let house = House::new().await;
    let ada = known("ada");
    let mut state = buyer(&ada, &[300, 200]);
    state.last_received = now();
    house.put(&shop(), vec![(ada, state)]).await;
    let at = now().plus_ms(-100 * DAY_MS);
    assert_eq!(
        house.get(&format!("/v1/customers/ada?at={at}")).await.json()["as_of"],
        at.to_string()
    );
}

#[tokio::test]
async fn a_company_is_its_contacts_as_they_are_now() {
    let house = House::new().await;
    let of = |company: &str, mut state: CustomerState| {
        let id = AccountId::new(company).unwrap();
        state.note_account(Account { at: now(), id });
        state
    };
    let calm: Vec<i64> = (0..20).map(|week| 1 + 7 * week).rev().collect();
    let gone: Vec<i64> = (0..12).map(|week| 300 + 7 * week).rev().collect();
    let people: Vec<(PersonId, CustomerState)> = vec![
        (known("ada"), of("acme", buyer(&known("ada"), &calm))),
        (known("bob"), of("acme", buyer(&known("bob"), &gone))),
        (known("cid"), of("acme", buyer(&known("cid"), &[2]))),
        (known("dan"), of("bolt", buyer(&known("dan"), &[3]))),
        (known("eve"), buyer(&known("eve"), &[3])),
    ];
    // Before anybody was counted there is no answer, rather than a wrong one.
    let early = house.get("/v1/accounts/acme").await;
    assert_eq!(
        (early.status, early.code()),
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable".to_owned())
    );
    let mut census = Census::default();
    let model = Model::shipped().unwrap();
    for (person, state) in &people {
        census.note(&CustomerKey::new(shop(), person.clone()), state, &model, now());
    }
    house.put(&shop(), people).await;
    house.surveyed.store(Arc::new(Surveyed {
        at: Some(now()),
        accounts: census.accounts,
    }));
    let acme = house.get("/v1/accounts/acme").await;
    assert_eq!(acme.status, StatusCode::OK);
    let acme = acme.json();
    let members: Vec<_> = acme["members"].as_array().unwrap().iter().collect();
    let names: Vec<_> = members
        .iter()
        .map(|member| member["customer"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["ada", "bob", "cid"], "the most active first");
    let keys: Vec<_> = members.iter().map(|member| member["key"].as_bool().unwrap()).collect();
    assert_eq!(keys, [true, true, false], "33 days in all, of which two bring 32");
    // The weighted mean, recomputed from what the members' own pages say.
    let (mut weights, mut sum) = (0.0, 0.0);
    for member in &members {
        let own = house
            .get(&format!("/v1/customers/{}", member["customer"].as_str().unwrap()))
            .await
            .json();
        let (days, attrition) = (
            own["evidence"]["active_days"].as_f64().unwrap(),
            own["attrition"]["score"].as_f64().unwrap(),
        );
        assert_eq!(member["attrition"].as_f64(), Some(attrition));
        weights += days;
        sum += days * attrition;
    }
    assert!((acme["attrition"].as_f64().unwrap() - sum / weights).abs() < 1e-12);
    assert_eq!(
        (&acme["most_drifting"], &acme["at_risk"]),
        (&json!("bob"), &json!(true))
    );
    assert_eq!(acme["value"][0]["currency"], "EUR");
    // Who has left the company is not among its members any more, even before the next count.
    house
        .put(&shop(), vec![(known("bob"), of("bolt", buyer(&known("bob"), &gone)))])
        .await;
    let acme = house.get("/v1/accounts/acme").await.json();
    assert_eq!(
        (acme["members"].as_array().unwrap().len(), &acme["at_risk"]),
        (2, &json!(false))
    );
    // The list, in pages.
    let first = house.get("/v1/accounts?limit=1").await.json();
    assert_eq!(
        (&first["accounts"][0]["id"], first["accounts"].as_array().unwrap().len()),
        (&json!("acme"), 1)
    );
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = house.get(&format!("/v1/accounts?limit=1&cursor={cursor}")).await.json();
    assert_eq!(
        (&second["accounts"][0]["id"], &second["next_cursor"]),
        (&json!("bolt"), &Value::Null)
    );
    assert_eq!(house.get("/v1/accounts/nobody").await.code(), "unknown_account");
    assert_eq!(
        house.get(&format!("/v1/customers?cursor={cursor}")).await.code(),
        "bad_cursor"
    );
}
