//! The one integration-test binary of the Kafka crate. It needs the tansu broker; see `broker`.

#[cfg(test)]
#[macro_use]
#[path = "../../../ingestion/tests/all/log_suite.rs"]
mod log_suite;

#[cfg(test)]
mod broker;
#[cfg(test)]
mod contract;
