//! The pipeline as a whole, over memory: scenarios in text, order and repetition, crashes, silence, activations. Everything
//! runs the worker that production runs; only the log, the store and the clock are in memory.

mod activation;
mod crash;
mod order;
mod scenarios;
mod silence;
mod support;
