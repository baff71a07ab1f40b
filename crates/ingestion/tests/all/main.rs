//! The one integration-test binary of ingestion.

#[cfg(test)]
mod bad_inputs;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod dead_letters;
#[cfg(test)]
mod intake;
#[cfg(test)]
mod links;
#[cfg(test)]
#[macro_use]
mod log_suite;
#[cfg(test)]
mod log_contract;
#[cfg(test)]
mod log_embedded;
#[cfg(test)]
mod rates;
#[cfg(test)]
mod relation;
#[cfg(test)]
mod segment;
#[cfg(test)]
#[path = "../../fuzz/src/targets.rs"]
mod targets;
#[cfg(test)]
mod tracker;
#[cfg(test)]
mod tracking;
#[cfg(test)]
mod transport;
#[cfg(test)]
mod webhooks;
