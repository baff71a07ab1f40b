//! The binary's own library: what `main` wires together and tests can reach.
//!
//! It is the only place with clocks, randomness and the environment of the process, and it never holds a business rule:
//! what an event means, how a score is computed and whom to contact is decided in the crates below.

mod activation;
mod answers;
mod auditor;
mod backends;
mod backup;
mod books;
mod bounds;
mod canary;
pub mod cli;
mod client;
mod clocks;
pub mod config;
mod crew;
mod deliveries;
mod demo;
mod disk;
mod doctor;
mod doors;
mod fitting;
mod gauges;
mod html;
mod importing;
mod inspect;
mod keyfile;
mod links;
mod lockout;
mod models;
mod outputs;
mod past;
mod policy;
mod privacy;
mod replay;
mod report;
mod reserve;
mod roles;
mod server;
mod sources;
mod status;
mod survey;
mod topics;
mod waiting;
mod watch;
