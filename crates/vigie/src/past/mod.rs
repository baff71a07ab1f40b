//! What vigie can say about the past: the archive as the pipeline and the API see it, audits, histories of one customer,
//! and rebuilding a store. It wires the archive, the store and the oracle together; what an event means is decided in the
//! crates below, and replays with other configurations live in `replay`.

pub(crate) mod audit;
pub(crate) mod commands;
mod history;
mod house;
mod rebuild;
mod service;
mod shelf;
pub(crate) mod stock;
mod tables;

pub(crate) use house::{House, place};
pub(crate) use rebuild::rebuild;
pub(crate) use service::Service;
pub(crate) use shelf::Kept;
