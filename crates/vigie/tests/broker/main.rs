//! The product on Kafka and Redis, in several processes: a broker, a Redis and every role, all started here. What a broker
//! may do to a log is proved in crates/kafka; here the roles must add up to one system.
//!
//! Where each fault of the failure model is shown (here and `long`: real processes; `all` elsewhere: the worker itself):
//!
//! | fault | what happens | shown by |
//! |---|---|---|
//! | F20 | Redis emptied or exchanged | `emptied` here; `redis::emptied_is_lost_and_not_new` (audit); `backends` (vigie, `all`) |
//! | F21 | fail-over that takes commits back | `faults::f21` here, 50 times in `long`; `redis::fail_over_…` (audit) |
//! | F22, F23 | one shard fails over, slots move | `redis::cluster_fails_over_and_moves_slots` (audit) |
//! | F24, F25 | OOM, read-only, MISCONF, NOREPLICAS, BUSY; evicting policies refused | `redis::refused_for_a_while` (audit), `redis::start` (store) |
//! | F26 | hangs, answers cut at any byte | `redis::hung_servers_and_cut_answers` (audit) |
//! | F27 | a commit that meets damage changes nothing | `redis::start::a_commit_that_meets_damage_…` (store) |
//! | F28 | values changed by hand | `blindness` (audit): every kind of difference is found; FLUSHALL is F20 |
//! | F30 | brokers killed, moved, refusing | `faults::f30` here, 100 times in `long`; `faults::f30_…` (kafka) |
//! | F31 | confirmations lost on the way | `pipeline::f31_…` (kafka) |
//! | F32 | rebalances in the midst of work | `faults::f32` here, 300 times in `long`; `pipeline::members_…` (kafka) |
//! | F33 | zombies, one and two at a time | `faults::f33` here, 100 times in `long`; `redis::zombies_write_nothing` (audit) |
//! | F34 | wrong offsets committed to the group | `faults::f34_…` (kafka) |
//! | F35 | retention passed, topic too small or too short | `faults::f35_…`, `topics`, the log's contract suite (kafka) |
//! | F36 | nobody folds for a while | `faults::f36` here, 200,000 events in `long` |
//! | F48 | one customer has half of all traffic | `faults::f48` here |
//! | F70 | started in any order | `starts` here |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, in the functions that it calls too"
)]

#[path = "../../../kafka/tests/all/broker.rs"]
#[allow(dead_code, reason = "shared with crates/kafka, which uses all of it")]
mod broker;
mod emptied;
mod faults;
mod ordeals;
#[path = "../../../store/tests/all/redis/server.rs"]
mod redis;
mod roles;
mod shop;
mod site;
mod starts;
#[path = "../all/support.rs"]
#[allow(dead_code, reason = "shared with the other tests, which use all of it")]
mod support;
mod topics;
