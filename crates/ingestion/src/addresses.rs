//! E-mail addresses where nobody means to give one: in the query of a page's address, and as the id of an anonymous visitor.
//! They are replaced by what stands for them everywhere else (`email-sha256:…`, see [`email_id`]), before the event is stored,
//! in the text as received too. An address that somebody gives on purpose, as `user_id` or as a property, is theirs to give.
//!
//! It never refuses an event and never changes which content a retry has: the fingerprint is that of what was sent.

use crate::protocol::email_id;
use smol_str::SmolStr;
use vigie_event::{Event, PersonId};

/// The event without such addresses.
pub(crate) fn conceal(mut event: Event) -> Event {
    if let Some(PersonId::Anonymous(id)) = &event.person.anonymous
        && is_address(id)
        && event
            .person
            .user
            .as_ref()
            .is_none_or(|user| user.as_str() != id.as_str())
    {
        let (quoted, concealed) = (format!("\"{id}\""), email_id(id));
        if let Ok(person) = PersonId::anonymous(&concealed) {
            event.payload = event.payload.replace(&quoted, &format!("\"{concealed}\"")).into();
            event.person.anonymous = Some(person);
        }
    }
    let client = &mut event.client;
    for url in [&mut client.page_url, &mut client.referrer] {
        for (given, concealed) in url.as_deref().map(in_query).unwrap_or_default() {
            *url = url.take().map(|url| SmolStr::new(url.replace(&given, &concealed)));
            event.payload = event.payload.replace(&given, &concealed).into();
        }
    }
    event
}

/// Addresses that are the value of a parameter: `=` and the value as it stands there, and what to put in its place.
fn in_query(url: &str) -> Vec<(String, String)> {
    let Some((_, query)) = url
        .split_once('?')
        .filter(|(_, query)| query.contains('@') || query.contains("%40"))
    else {
        return Vec::new();
    };
    let query = query.split('#').next().unwrap_or(query);
    let values = query.split('&').filter_map(|pair| Some(pair.split_once('=')?.1));
    let address = |value: &str| -> Option<String> {
        // A plus sign is one in most addresses that stand here, whatever forms make of it.
        let plain = value.replace('+', "%2B");
        let (decoded, _) = form_urlencoded::parse(plain.as_bytes()).next()?;
        is_address(&decoded).then(|| decoded.into_owned())
    };
    let mut found: Vec<_> = values
        .filter_map(|value| Some((format!("={value}"), format!("={}", email_id(&address(value)?)))))
        .collect();
    // The longest first: one may be the beginning of another.
    found.sort_by_key(|(given, _)| std::cmp::Reverse(given.len()));
    found
}

/// Whether a text is an e-mail address and nothing else; not every address that a standard allows, but those that people have.
fn is_address(text: &str) -> bool {
    let local = |c: char| c.is_alphanumeric() || ".!#$%&'*+/=?^_`{|}~-".contains(c);
    let host = |c: char| c.is_alphanumeric() || c == '-' || c == '.';
    let Some((name, domain)) = text.trim().split_once('@') else {
        return false;
    };
    let labels = domain.split('.').all(|label| !label.is_empty());
    text.len() <= 254
        && !name.is_empty()
        && name.chars().all(local)
        && domain.contains('.')
        && domain.chars().all(host)
        && labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigie_event::json::{Receipt, read};
    use vigie_event::{Timestamp, Workspace};

    const BOB: &str = "email-sha256:5ff860bf1190596c7188ab851db691f0f3169c453936e9e1eba2f9a47f7a0018";

    fn concealed(event: &serde_json::Value) -> Event {
        let receipt = Receipt {
            workspace: Workspace::new("w").unwrap(),
            received_at: Timestamp(1_795_000_000_000),
            sent_at: None,
            user_agent: None,
            oldest: None,
        };
        conceal(read(&event.to_string(), &receipt).unwrap())
    }

    #[test]
    fn addresses_in_queries_are_replaced_wherever_they_stand() {
        for (url, expected) in [
            (
                "https://s.example/?email=bob@example.com&a=1",
                format!("https://s.example/?email={BOB}&a=1"),
            ),
            (
                "https://s.example/?a=1&e=Bob%40Example.com#x",
                format!("https://s.example/?a=1&e={BOB}#x"),
            ),
            (
                "https://s.example/bob@example.com?a=b",
                "https://s.example/bob@example.com?a=b".to_owned(),
            ),
            (
                "https://s.example/?at=@&b=x@y",
                "https://s.example/?at=@&b=x@y".to_owned(),
            ),
        ] {
            let event = serde_json::json!({"user_id": "u", "signal": "page.view", "context": {"page_url": url, "referrer": url}});
            let event = concealed(&event);
            assert_eq!(event.client.page_url.as_deref(), Some(&*expected));
            assert_eq!(event.client.referrer.as_deref(), Some(&*expected));
            assert_eq!(event.payload.matches(&expected).count(), 2, "{}", event.payload);
        }
    }

    #[test]
    fn a_visitor_is_not_called_by_an_address_and_a_user_may_be() {
        let event = concealed(&serde_json::json!({"anonymous_id": "bob@example.com", "signal": "page.view"}));
        assert_eq!(event.person.key().unwrap().as_str(), BOB);
        assert!(!event.payload.contains("bob@"), "{}", event.payload);
        let event = concealed(&serde_json::json!({"user_id": "bob@example.com", "signal": "page.view"}));
        assert_eq!(event.person.key().unwrap().as_str(), "bob@example.com");
    }
}
