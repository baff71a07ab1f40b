//! How keys are called in Redis. These names are a public contract (layout 1): other programs read them with no more
//! than `redis-cli`. Nothing here talks to Redis.
//!
//! Every key of a partition carries the partition as its hash tag, so that one script reaches all of them in a cluster.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `vigie:{12}:shop:customer:4711` | hash | one customer: the published fields, and `state` (binary, ours) |
//! | `vigie:{12}:shop:device:a1b2` | hash | the same for a device that no customer has claimed |
//! | `vigie:{12}:at-risk:shop` | sorted set | `customer:4711` by minus the rank: a plain `ZRANGE` starts with the most at risk |
//! | `vigie:{shop}:relances` | stream | flags, entry `7-0` is the workspace's seventh: `id`, `body` (JSON) |
//! | `vigie:{shop}:relances:ids` | hash | number by flag id; `last` is the last number |
//! | `vigie:{12}:partition` | hash | sentinel: `installation`, `layout`, `partitions`, `epoch`, `seq`, `meta` (binary) |
//! | `vigie:{12}:customers`, `:timers`, `:judged`, `:outbox`, `:workspaces` | | indexes, ours |
//! | `vigie:epoch` | string | the last epoch that was given out |
//! | `vigie:installation` | string | the number by which the store is told from every other, when it was made |
//!
//! The partition of a customer is that of Kafka's default partitioner: `murmur2(id) & 0x7fffffff mod partitions`.
//! In names of keys, bytes of ids other than `A-Z a-z 0-9 - _ . ~ @ +` are percent-encoded, so that no id reaches into
//! another's key or chooses a slot. Members of sorted sets hold ids as they are.

use crate::{StoreError, keys};
use std::fmt::Write;
use vigie_event::{CustomerKey, Partition, PersonId, Workspace, partition_for};

/// The names of one namespace.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    namespace: String,
}

/// The key of a customer's hash, for programs that read it themselves.
#[must_use]
pub fn redis_key(namespace: &str, partitions: u16, key: &CustomerKey) -> String {
    Names::new(namespace).customer(partition_for(key.person.as_str(), partitions), key)
}

impl Names {
    pub(crate) fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
        }
    }

    /// The sentinel, owner, position and meta bytes of a partition.
    pub(crate) fn partition(&self, partition: Partition) -> String {
        self.within(partition, "partition")
    }

    pub(crate) fn customers(&self, partition: Partition) -> String {
        self.within(partition, "customers")
    }

    pub(crate) fn timers(&self, partition: Partition) -> String {
        self.within(partition, "timers")
    }

    pub(crate) fn judged(&self, partition: Partition) -> String {
        self.within(partition, "judged")
    }

    /// Flags that the public streams may still lose.
    pub(crate) fn outbox(&self, partition: Partition) -> String {
        self.within(partition, "outbox")
    }

    /// The workspaces that have flags from this partition.
    pub(crate) fn workspaces(&self, partition: Partition) -> String {
        self.within(partition, "workspaces")
    }

    pub(crate) fn at_risk(&self, partition: Partition, workspace: &Workspace) -> String {
        let mut name = self.within(partition, "at-risk:");
        encode(&mut name, workspace.as_str());
        name
    }

    pub(crate) fn customer(&self, partition: Partition, key: &CustomerKey) -> String {
        let mut name = self.within(partition, "");
        encode(&mut name, key.workspace.as_str());
        name.push_str(if key.person.is_known() {
            ":customer:"
        } else {
            ":device:"
        });
        encode(&mut name, key.person.as_str());
        name
    }

    pub(crate) fn flags(&self, workspace: &Workspace) -> String {
        let mut name = format!("{}:{{", self.namespace);
        encode(&mut name, workspace.as_str());
        name.push_str("}:relances");
        name
    }

    pub(crate) fn flag_ids(&self, workspace: &Workspace) -> String {
        let mut name = self.flags(workspace);
        name.push_str(":ids");
        name
    }

    pub(crate) fn epoch(&self) -> String {
        format!("{}:epoch", self.namespace)
    }

    pub(crate) fn installation(&self) -> String {
        format!("{}:installation", self.namespace)
    }

    fn within(&self, partition: Partition, rest: &str) -> String {
        format!("{}:{{{partition}}}:{rest}", self.namespace)
    }
}

/// A member of an at-risk list. Members are ordered as persons are: `customer:` stands before `device:`.
pub(crate) fn ranked(person: &PersonId) -> String {
    let kind = if person.is_known() { "customer:" } else { "device:" };
    format!("{kind}{}", person.as_str())
}

pub(crate) fn read_ranked(member: &[u8], workspace: &Workspace) -> Result<CustomerKey, StoreError> {
    let read = || {
        let member = std::str::from_utf8(member).ok()?;
        let person = match member.split_once(':')? {
            ("customer", id) => PersonId::known(id).ok()?,
            ("device", id) => PersonId::anonymous(id).ok()?,
            _ => return None,
        };
        Some(CustomerKey::new(workspace.clone(), person))
    };
    read().ok_or_else(|| keys::unreadable("member of an at-risk list", member))
}

fn encode(name: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'@' | b'+' => {
                name.push(char::from(byte))
            }
            // Writing to a String cannot fail.
            _ => drop(write!(name, "%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn person() -> impl Strategy<Value = PersonId> {
        let piece = prop_oneof![
            Just("a"),
            Just("}"),
            Just("{"),
            Just(":"),
            Just("%7D"),
            Just("ÿ"),
            Just(" "),
            Just("customer")
        ];
        let text = proptest::collection::vec(piece, 1..5).prop_map(|pieces| pieces.concat());
        (text, any::<bool>()).prop_filter_map("not an id", |(text, known)| {
            if known {
                PersonId::known(&text).ok()
            } else {
                PersonId::anonymous(&text).ok()
            }
        })
    }

    fn space() -> impl Strategy<Value = Workspace> {
        prop_oneof![
            Just("shop"),
            Just("a"),
            Just("a}"),
            Just("a:customer"),
            Just("at-risk"),
            Just("%")
        ]
        .prop_map(|text| Workspace::new(text).unwrap())
    }

    proptest! {
        #[test]
        fn no_two_customers_share_a_key_and_none_leaves_its_slot(a in (space(), person()), b in (space(), person())) {
            let names = Names::new("vigie");
            let name = |(space, person): &(Workspace, PersonId)| {
                names.customer(Partition(7), &CustomerKey::new(space.clone(), person.clone()))
            };
            prop_assert_eq!(name(&a) == name(&b), a == b);
            let tag = "vigie:{7}:";
            prop_assert!(name(&a).starts_with(tag));
            prop_assert_eq!(name(&a).matches(['{', '}']).count(), 2);
            prop_assert_eq!(name(&a).matches(':').count(), 4, "no other table has so many parts");
        }

        #[test]
        fn members_are_ordered_as_persons_are_and_read_back(a in person(), b in person()) {
            prop_assert_eq!(ranked(&a).as_bytes().cmp(ranked(&b).as_bytes()), a.cmp(&b));
            let shop = Workspace::new("shop").unwrap();
            let key = CustomerKey::new(shop.clone(), a.clone());
            prop_assert_eq!(read_ranked(ranked(&a).as_bytes(), &shop), Ok(key));
        }
    }

    #[test]
    fn the_documented_names() {
        let names = Names::new("vigie");
        let shop = Workspace::new("shop").unwrap();
        let key = |person| CustomerKey::new(shop.clone(), person);
        let all = [
            names.customer(Partition(12), &key(PersonId::known("4711").unwrap())),
            names.customer(Partition(12), &key(PersonId::anonymous("a1b2").unwrap())),
            names.customer(Partition(12), &key(PersonId::known("d'Or {1}").unwrap())),
            names.at_risk(Partition(12), &shop),
            names.flags(&shop),
            names.flag_ids(&shop),
            names.partition(Partition(12)),
            names.epoch(),
        ];
        let documented = [
            "vigie:{12}:shop:customer:4711",
            "vigie:{12}:shop:device:a1b2",
            "vigie:{12}:shop:customer:d%27Or%20%7B1%7D",
            "vigie:{12}:at-risk:shop",
            "vigie:{shop}:relances",
            "vigie:{shop}:relances:ids",
            "vigie:{12}:partition",
            "vigie:epoch",
        ];
        assert_eq!(all, documented);
        assert_eq!(BTreeSet::from(all).len(), documented.len());
    }
}
