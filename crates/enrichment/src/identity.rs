//! Which identities does an event declare to be one person? Only the two messages made for it are believed: identify
//! (a visitor signs in: the anonymous id belongs to the known one) and alias (the previous id belongs to the new one).
//! This step declares; whether a declaration takes effect is decided where the identity's record lives.

use vigie_event::{PersonId, PersonIds, Signal};

/// Ids that careless clients send for "nobody"; linking them would make one person of many.
const NOBODY: &[&str] = &[
    "null",
    "undefined",
    "none",
    "nil",
    "anonymous",
    "guest",
    "unknown",
    "0",
    "-1",
    "false",
    "true",
    "nan",
    "[object object]",
];

/// Pairs of (identity that gives up its record, identity that takes it in).
///
/// Of two known ids the smaller takes in the larger, so that the outcome does not depend on the direction or order
/// of declarations; a known id always takes in an anonymous one.
pub(crate) fn links(signal: Signal, person: &PersonIds) -> Vec<(PersonId, PersonId)> {
    let mut links = Vec::new();
    match (signal, &person.user, &person.anonymous, &person.previous) {
        (Signal::Identify, Some(user), Some(anonymous), _) => links.extend(pair(anonymous, user)),
        (Signal::Alias, user, anonymous, Some(previous)) => {
            let Some(now) = user.as_ref().or(anonymous.as_ref()) else {
                return links;
            };
            links.extend(anonymous.iter().filter_map(|anonymous| pair(anonymous, now)));
            // An alias does not say of which kind the previous id is, so both are declared; the one that never
            // existed becomes an empty signpost.
            for before in [PersonId::known(previous), PersonId::anonymous(previous)]
                .into_iter()
                .flatten()
            {
                links.extend(pair(&before, now));
            }
        }
        _ => {}
    }
    links
}

fn pair(a: &PersonId, b: &PersonId) -> Option<(PersonId, PersonId)> {
    if a == b || nobody(a) || nobody(b) {
        return None;
    }
    let (into, from) = if a < b { (a, b) } else { (b, a) };
    Some((from.clone(), into.clone()))
}

fn nobody(id: &PersonId) -> bool {
    NOBODY.iter().any(|word| word.eq_ignore_ascii_case(id.as_str().trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(user: Option<&str>, anonymous: Option<&str>, previous: Option<&str>) -> PersonIds {
        PersonIds {
            user: user.map(|id| PersonId::known(id).unwrap()),
            anonymous: anonymous.map(|id| PersonId::anonymous(id).unwrap()),
            previous: previous.map(Into::into),
        }
    }

    fn shown(signal: Signal, person: &PersonIds) -> Vec<String> {
        links(signal, person)
            .iter()
            .map(|(from, into)| format!("{from} -> {into}"))
            .collect()
    }

    #[test]
    fn only_identify_and_alias_link() {
        let both = ids(Some("u"), Some("a"), None);
        assert_eq!(shown(Signal::Identify, &both), ["anonymous:a -> u"]);
        assert!(shown(Signal::PageView, &both).is_empty());
        assert!(shown(Signal::Identify, &ids(Some("u"), None, None)).is_empty());
        assert_eq!(
            shown(Signal::Alias, &ids(Some("new"), None, Some("old"))),
            ["old -> new", "anonymous:old -> new"]
        );
        assert_eq!(
            shown(Signal::Alias, &ids(Some("new"), Some("a"), Some("old"))),
            ["anonymous:a -> new", "old -> new", "anonymous:old -> new"]
        );
        assert_eq!(
            shown(Signal::Alias, &ids(Some("z"), None, Some("b"))),
            ["z -> b", "anonymous:b -> z"]
        );
    }

    #[test]
    fn nobody_is_not_a_person() {
        for nobody in ["null", "Undefined", "[object Object]", " anonymous "] {
            assert!(
                shown(Signal::Identify, &ids(Some("u"), Some(nobody), None)).is_empty(),
                "{nobody}"
            );
            assert!(
                shown(Signal::Identify, &ids(Some(nobody), Some("a"), None)).is_empty(),
                "{nobody}"
            );
        }
    }
}
