//! The binary's own library: what `main` wires together and tests can reach.
//!
//! It is the only place with clocks, randomness and the environment of the process, and it never holds a business rule:
//! what an event means, how a score is computed and whom to contact is decided in the crates below.

mod auditor;
mod backends;
pub mod cli;
mod client;
mod clocks;
pub mod config;
mod demo;
mod fitting;
mod keyfile;
mod past;
mod policy;
mod replay;
mod server;
