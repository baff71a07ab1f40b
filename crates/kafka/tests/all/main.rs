//! The one integration-test binary of the Kafka crate. It needs the tansu broker; see `broker`.

#[cfg(test)]
#[macro_use]
#[path = "../../../ingestion/tests/all/log_suite.rs"]
mod log_suite;

#[cfg(test)]
mod broker;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod pipeline;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod topics;
