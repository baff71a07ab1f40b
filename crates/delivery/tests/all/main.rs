//! Deliveries as their contract states them: outages of days by a clock that the tests hold, receivers that flap, die and lie,
//! crashes at every point, real receivers on loopback, and the reference libraries of Standard Webhooks.

mod interop;
mod lanes;
mod outage;
mod queue;
mod routes;
mod support;
mod wire;
