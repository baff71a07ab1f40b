//! How keys are written: injective, and ordered as the typed values are, so that both stores list in the same
//! order and no id can imitate another key or reach into another workspace (WS-1).
//!
//! A key is a tag byte (which table), then its parts. A text that is followed by something is escaped: each byte
//! 0 becomes `00 FF`, and `00 01` ends it. So no escaped text is a prefix of another, and comparing the escaped
//! bytes gives the order of the texts. The last text of a key stands as it is. Numbers are big-endian, instants
//! with the sign bit flipped. This file never touches a value.
//!
//! | tag | key | value |
//! |---|---|---|
//! | `c` | partition, workspace, person | customer record |
//! | `t` | partition, due, workspace, person | empty |
//! | `r` | workspace, 65535 − rank, person | empty |
//! | `f` | workspace, sequence | flag id, body |
//! | `i` | workspace, flag id | sequence |
//! | `p` | partition | meta bytes |
//! | `e` | partition | owner epoch |
//! | `j` | partition, offset | judgements of the records from there on |
//! | `m` | name | layout version, number of partitions, last epoch |

use crate::StoreError;
use vigie_event::{CustomerKey, FlagId, Offset, Partition, PersonId, Timestamp, Workspace};

const KNOWN: u8 = 0;
const ANONYMOUS: u8 = 1;

/// The key under which the layout version and the number of partitions are recorded.
pub(crate) const LAYOUT: &[u8] = b"mlayout";
/// The key of the last epoch that was given out.
pub(crate) const LAST_EPOCH: &[u8] = b"mepoch";

pub(crate) fn customer(partition: Partition, key: &CustomerKey) -> Vec<u8> {
    let mut bytes = customers_of(partition, &key.workspace);
    push_person(&mut bytes, &key.person);
    bytes
}

/// The prefix of all customers of a partition.
pub(crate) fn customers_in(partition: Partition) -> Vec<u8> {
    tagged(b'c', &partition.0.to_be_bytes())
}

/// The prefix of all customers of a workspace within a partition.
pub(crate) fn customers_of(partition: Partition, workspace: &Workspace) -> Vec<u8> {
    let mut bytes = customers_in(partition);
    push_text(&mut bytes, workspace.as_str());
    bytes
}

pub(crate) fn read_customer(bytes: &[u8]) -> Result<CustomerKey, StoreError> {
    bytes
        .get(3..)
        .and_then(read_key)
        .ok_or_else(|| unreadable("customer key", bytes))
}

pub(crate) fn timer(partition: Partition, due: Timestamp, key: &CustomerKey) -> Vec<u8> {
    let mut bytes = timers_from(partition, due);
    push_text(&mut bytes, key.workspace.as_str());
    push_person(&mut bytes, &key.person);
    bytes
}

/// The prefix of all timers of a partition.
pub(crate) fn timers_in(partition: Partition) -> Vec<u8> {
    tagged(b't', &partition.0.to_be_bytes())
}

/// A key below all timers of a partition that are due at or after an instant, above all earlier ones.
pub(crate) fn timers_from(partition: Partition, due: Timestamp) -> Vec<u8> {
    let mut bytes = timers_in(partition);
    bytes.extend_from_slice(&(due.0 ^ i64::MIN).to_be_bytes());
    bytes
}

pub(crate) fn read_timer(bytes: &[u8]) -> Result<(Timestamp, CustomerKey), StoreError> {
    let read = || {
        let (due, key) = bytes.get(3..)?.split_first_chunk::<8>()?;
        Some((Timestamp(i64::from_be_bytes(*due) ^ i64::MIN), read_key(key)?))
    };
    read().ok_or_else(|| unreadable("timer", bytes))
}

pub(crate) fn rank(rank: u16, key: &CustomerKey) -> Vec<u8> {
    let mut bytes = ranks_of(&key.workspace);
    bytes.extend_from_slice(&(u16::MAX - rank).to_be_bytes());
    push_person(&mut bytes, &key.person);
    bytes
}

/// The prefix of all ranks of a workspace.
pub(crate) fn ranks_of(workspace: &Workspace) -> Vec<u8> {
    let mut bytes = vec![b'r'];
    push_text(&mut bytes, workspace.as_str());
    bytes
}

pub(crate) fn read_rank(bytes: &[u8], workspace: &Workspace) -> Result<(u16, CustomerKey), StoreError> {
    let read = || {
        let (inverse, person) = bytes
            .strip_prefix(ranks_of(workspace).as_slice())?
            .split_first_chunk::<2>()?;
        let key = CustomerKey::new(workspace.clone(), read_person(person)?);
        Some((u16::MAX - u16::from_be_bytes(*inverse), key))
    };
    read().ok_or_else(|| unreadable("rank", bytes))
}

pub(crate) fn flag(workspace: &Workspace, sequence: u64) -> Vec<u8> {
    let mut bytes = flags_of(workspace);
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes
}

/// The prefix of all flags of a workspace.
pub(crate) fn flags_of(workspace: &Workspace) -> Vec<u8> {
    let mut bytes = vec![b'f'];
    push_text(&mut bytes, workspace.as_str());
    bytes
}

pub(crate) fn read_flag(bytes: &[u8]) -> Result<u64, StoreError> {
    bytes
        .last_chunk::<8>()
        .map(|last| u64::from_be_bytes(*last))
        .ok_or_else(|| unreadable("flag", bytes))
}

pub(crate) fn flag_id(workspace: &Workspace, id: &FlagId) -> Vec<u8> {
    let mut bytes = vec![b'i'];
    push_text(&mut bytes, workspace.as_str());
    bytes.extend_from_slice(&id.0);
    bytes
}

/// The run of judgements that begins at an offset.
pub(crate) fn judged(partition: Partition, from: Offset) -> Vec<u8> {
    let mut bytes = judged_in(partition);
    bytes.extend_from_slice(&from.0.to_be_bytes());
    bytes
}

/// The prefix of all runs of judgements of a partition.
pub(crate) fn judged_in(partition: Partition) -> Vec<u8> {
    tagged(b'j', &partition.0.to_be_bytes())
}

pub(crate) fn read_judged(bytes: &[u8]) -> Result<Offset, StoreError> {
    bytes
        .last_chunk::<8>()
        .map(|last| Offset(u64::from_be_bytes(*last)))
        .ok_or_else(|| unreadable("judgement key", bytes))
}

/// The prefix of all flags of all workspaces.
pub(crate) const ALL_FLAGS: &[u8] = b"f";

/// The workspace and the number of a flag's key.
pub(crate) fn read_flag_of(bytes: &[u8]) -> Result<(Workspace, u64), StoreError> {
    let read = || {
        let (workspace, number) = read_text(bytes.get(1..)?)?;
        let number = u64::from_be_bytes(number.try_into().ok()?);
        Some((Workspace::new(&workspace).ok()?, number))
    };
    read().ok_or_else(|| unreadable("flag", bytes))
}

pub(crate) fn meta(partition: Partition) -> Vec<u8> {
    tagged(b'p', &partition.0.to_be_bytes())
}

pub(crate) fn owner(partition: Partition) -> Vec<u8> {
    tagged(b'e', &partition.0.to_be_bytes())
}

/// A number as a value.
pub(crate) fn read_number(bytes: &[u8]) -> Result<u64, StoreError> {
    <[u8; 8]>::try_from(bytes)
        .map(u64::from_be_bytes)
        .map_err(|_| unreadable("number", bytes))
}

/// The smallest key above every key that starts with `prefix`.
pub(crate) fn above(prefix: &[u8]) -> Vec<u8> {
    let mut bytes = prefix.to_vec();
    while let Some(last) = bytes.pop() {
        if let Some(next) = last.checked_add(1) {
            bytes.push(next);
            break;
        }
    }
    bytes
}

/// The smallest key above `key`.
pub(crate) fn after(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

fn tagged(tag: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    bytes.push(tag);
    bytes.extend_from_slice(rest);
    bytes
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    for &byte in text.as_bytes() {
        bytes.push(byte);
        if byte == 0 {
            bytes.push(0xff);
        }
    }
    bytes.extend_from_slice(&[0, 1]);
}

fn push_person(bytes: &mut Vec<u8>, person: &PersonId) {
    bytes.push(if person.is_known() { KNOWN } else { ANONYMOUS });
    bytes.extend_from_slice(person.as_str().as_bytes());
}

fn read_text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let mut text = Vec::new();
    let mut rest = bytes;
    loop {
        let (&byte, tail) = rest.split_first()?;
        rest = tail;
        if byte != 0 {
            text.push(byte);
            continue;
        }
        let (&mark, tail) = rest.split_first()?;
        rest = tail;
        match mark {
            0xff => text.push(0),
            1 => return Some((String::from_utf8(text).ok()?, rest)),
            _ => return None,
        }
    }
}

fn read_person(bytes: &[u8]) -> Option<PersonId> {
    let (kind, id) = bytes.split_first()?;
    let id = std::str::from_utf8(id).ok()?;
    match *kind {
        KNOWN => PersonId::known(id).ok(),
        ANONYMOUS => PersonId::anonymous(id).ok(),
        _ => None,
    }
}

fn read_key(bytes: &[u8]) -> Option<CustomerKey> {
    let (workspace, person) = read_text(bytes)?;
    Some(CustomerKey::new(Workspace::new(&workspace).ok()?, read_person(person)?))
}

pub(crate) fn unreadable(what: &str, bytes: &[u8]) -> StoreError {
    StoreError::Corrupt {
        reason: format!("{what} cannot be read: {}", bytes.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Ids that try to look like separators, prefixes and other ids. PersonId can hold what its checked
    /// constructors refuse, so NUL is tried for order and injectivity as well.
    fn text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("\0".to_owned()),
            Just("\u{1}".to_owned()),
            Just("ÿ".to_owned()),
            Just("}".to_owned()),
            Just("a".to_owned()),
            Just("\u{10ffff}".to_owned()),
            any::<char>().prop_map(String::from),
        ];
        proptest::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat())
    }

    fn key() -> impl Strategy<Value = CustomerKey> {
        let workspace = text().prop_filter_map("not a workspace", |text| Workspace::new(&text).ok());
        (workspace, text(), any::<bool>()).prop_map(|(workspace, id, known)| {
            let id = id.into();
            CustomerKey::new(
                workspace,
                if known {
                    PersonId::Known(id)
                } else {
                    PersonId::Anonymous(id)
                },
            )
        })
    }

    proptest! {
        #[test]
        fn customer_keys_are_ordered_as_customers_are(a in key(), b in key()) {
            let order = customer(Partition(7), &a).cmp(&customer(Partition(7), &b));
            prop_assert_eq!(order, a.cmp(&b));
        }

        #[test]
        fn timers_are_ordered_by_due_time_then_key(a in (any::<i64>(), key()), b in (any::<i64>(), key())) {
            let bytes = |(due, key): &(i64, CustomerKey)| timer(Partition(3), Timestamp(*due), key);
            prop_assert_eq!(bytes(&a).cmp(&bytes(&b)), a.cmp(&b));
        }

        #[test]
        fn ranks_are_ordered_by_falling_rank_then_key(w in key(), a in (any::<u16>(), key()), b in (any::<u16>(), key())) {
            let within = |(number, key): &(u16, CustomerKey)| (*number, CustomerKey::new(w.workspace.clone(), key.person.clone()));
            let (a, b) = (within(&a), within(&b));
            let order = rank(a.0, &a.1).cmp(&rank(b.0, &b.1));
            prop_assert_eq!(order, (u16::MAX - a.0, &a.1).cmp(&(u16::MAX - b.0, &b.1)));
        }

        #[test]
        fn a_workspace_never_contains_another_ones_keys(a in key(), b in key(), partition in any::<u16>()) {
            let partition = Partition(partition);
            let inside = customer(partition, &b).starts_with(&customers_of(partition, &a.workspace));
            prop_assert_eq!(inside, a.workspace == b.workspace);
            prop_assert_eq!(rank(1, &b).starts_with(&ranks_of(&a.workspace)), a.workspace == b.workspace);
            prop_assert_eq!(flag(&b.workspace, 1).starts_with(&flags_of(&a.workspace)), a.workspace == b.workspace);
        }

        #[test]
        fn keys_read_back(key in key(), due in any::<i64>(), number in any::<u16>()) {
            prop_assume!(PersonId::known(key.person.as_str()).is_ok());
            let partition = Partition(number);
            prop_assert_eq!(read_customer(&customer(partition, &key)), Ok(key.clone()));
            prop_assert_eq!(read_timer(&timer(partition, Timestamp(due), &key)), Ok((Timestamp(due), key.clone())));
            prop_assert_eq!(read_rank(&rank(number, &key), &key.workspace), Ok((number, key)));
        }

        #[test]
        fn whatever_starts_with_a_prefix_is_below_its_upper_bound(prefix in proptest::collection::vec(any::<u8>(), 1..5), rest in proptest::collection::vec(any::<u8>(), 0..5)) {
            let bound = above(&prefix);
            let key = [prefix.clone(), rest].concat();
            prop_assert!(bound.is_empty() || (key < bound && prefix < bound));
        }
    }
}
