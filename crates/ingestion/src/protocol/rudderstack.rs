//! RudderStack: Segment's messages under the same paths, a beacon, a pixel, and the settings that its browser client loads.
//! How its clients are told from Segment's, and what they expect to be answered. The messages are read by
//! [`super::segment`].

use super::draft::object_of;
use http::HeaderMap;
use serde_json::{Value, json};
use std::borrow::Cow;

/// How much of a body is looked at for the name of the library that sent it.
const LOOKED_AT: usize = 4 << 10;
/// Names of its libraries, as they stand in `context.library.name` or beside it.
const LIBRARIES: &[&str] = &["RudderLabs", "rudder-", "rudderstack"];
/// How the names begin that its libraries for servers share with Segment's.
const SHARED: &str = "\"analytics-";

/// Whether a request to one of the shared paths comes from one of its clients.
#[must_use]
pub fn is_client(headers: &HeaderMap, body: &[u8]) -> bool {
    if headers.contains_key("anonymousid") {
        return true;
    }
    let beginning = body.get(..LOOKED_AT.min(body.len())).unwrap_or_default();
    let text = String::from_utf8_lossy(beginning);
    let Some(library) = text.find("\"library\"") else {
        return false;
    };
    let named = text
        .get(library..)
        .unwrap_or_default()
        .split('}')
        .next()
        .unwrap_or_default();
    LIBRARIES.iter().any(|name| named.contains(name)) || (named.contains(SHARED) && comes_from_a_server(&text))
}

/// Its libraries for servers say of each message that it comes from one.
fn comes_from_a_server(text: &str) -> bool {
    text.split("\"channel\"").skip(1).any(|rest| {
        let value = rest.trim_start().strip_prefix(':').unwrap_or_default();
        value.trim_start().starts_with("\"server\"")
    })
}

/// What its browser client loads before it sends: a source without destinations, so that it sends here and nowhere else.
#[must_use]
pub fn source_config(write_key: &str, workspace: &str) -> Value {
    json!({
        "source": {
            "id": "vigie", "name": "vigie", "writeKey": write_key, "enabled": true, "workspaceId": workspace,
            "config": {"statsCollection": {"errors": {"enabled": false}, "metrics": {"enabled": false}}},
            "destinations": [], "dataplanes": {},
        },
        "updatedAt": "2026-01-01T00:00:00.000Z",
    })
}

/// The message of a pixel's query: names that begin with `properties.`, `traits.` or `context.` are put below them.
#[must_use]
pub fn pixel_message<'a>(query: impl IntoIterator<Item = (Cow<'a, str>, Cow<'a, str>)>) -> String {
    let mut below: [(&str, Vec<(String, String)>); 3] =
        [("properties", vec![]), ("traits", vec![]), ("context", vec![])];
    let mut own = Vec::new();
    for (name, value) in query {
        let inner = below.iter_mut().find_map(|(parent, pairs)| {
            let rest = name.strip_prefix(*parent)?.strip_prefix(['.', '['])?;
            Some((rest.trim_end_matches(']').to_owned(), pairs))
        });
        match inner {
            Some((inner, pairs)) => pairs.push((inner, value.into_owned())),
            None if name == "writeKey" => {}
            None => own.push((name.into_owned(), value.into_owned())),
        }
    }
    let pairs = |pairs: &[(String, String)]| -> Value {
        serde_json::from_str(&object_of(
            pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())),
        ))
        .unwrap_or_default()
    };
    let mut message = pairs(&own);
    for (parent, inner) in &below {
        if !inner.is_empty()
            && let Some(message) = message.as_object_mut()
        {
            let _old = message.insert((*parent).to_owned(), pairs(inner));
        }
    }
    message.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_clients_are_told_from_segments() {
        let none = HeaderMap::new();
        for (body, expected) in [
            (
                r#"{"batch":[{"context":{"library":{"name":"@rudderstack/rudder-sdk-node","version":"3"}}}]}"#,
                true,
            ),
            (r#"{"context":{"library":{"name":"RudderLabs JavaScript SDK"}}}"#, true),
            (
                r#"{"batch":[{"context":{"library":{"name":"rudder-analytics-python"}}}]}"#,
                true,
            ),
            (
                r#"{"context":{"library":{"name":"analytics-python"}},"event":"rudder-"}"#,
                false,
            ),
            (r#"{"event":"rudderstack"}"#, false),
        ] {
            assert_eq!(is_client(&none, body.as_bytes()), expected, "{body}");
        }
        let mut headers = HeaderMap::new();
        let _none = headers.insert("anonymousid", "YQ==".parse().unwrap());
        assert!(is_client(&headers, b"{}"));
    }

    #[test]
    fn a_pixel_is_a_message() {
        let query = form_urlencoded::parse(
            b"writeKey=k&userId=u&event=Order+Completed&properties.revenue=12.5&context[page]=x",
        );
        let message: Value = serde_json::from_str(&pixel_message(query)).unwrap();
        assert_eq!(
            message,
            json!({"userId": "u", "event": "Order Completed", "properties": {"revenue": "12.5"}, "context": {"page": "x"}})
        );
    }
}
