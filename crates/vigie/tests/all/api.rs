//! The API as one document and one voice: collector and read API are described together, every reference in the document
//! leads somewhere, and a request has one id.

use serde_json::Value;
use std::collections::BTreeSet;

use crate::support::Server;

/// Every `$ref` below a value.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(target)) = fields.get("$ref") {
                let _ = found.insert(target.clone());
            }
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn the_document_covers_sending_and_reading_and_every_reference_leads_somewhere() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    let document = server.get_json("/openapi.json");
    for path in [
        "/v1/events",
        "/v1/batch",
        "/v1/dead-letters/{id}/retry",
        "/v1/customers/{id}",
        "/v1/relances",
        "/v1/books",
    ] {
        assert!(document["paths"][path].is_object(), "{path} is not documented");
    }
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.contains("#/components/schemas/Event"));
    for target in found {
        assert!(
            document.pointer(target.trim_start_matches('#')).is_some(),
            "{target} leads nowhere"
        );
    }
    for operation in document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|path| path.as_object().unwrap().values())
    {
        for name in operation["security"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|any| any.as_object().unwrap().keys())
        {
            assert!(
                document["components"]["securitySchemes"][name].is_object(),
                "{name} is no documented key"
            );
        }
    }
}

#[test]
fn a_request_has_one_id_which_is_ours() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    let config = ureq::Agent::config_builder().http_status_as_error(false).build();
    let agent: ureq::Agent = config.into();
    for path in ["/v1/customers/nobody", "/v1/events"] {
        let mut answer = agent
            .get(format!("{}{path}", server.url))
            .header("X-Request-Id", "theirs")
            .call()
            .unwrap();
        let header = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        let body: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
        assert_eq!(body["request_id"].as_str(), Some(header.as_str()), "{path}");
        assert_ne!(header, "theirs");
    }
}
