//! Deliveries as their contract states them: outages of days by a clock that the tests hold, receivers that flap, die and lie,
//! crashes at every point, real receivers on loopback, and the reference libraries of Standard Webhooks.

#[cfg(test)]
mod faults;
#[cfg(test)]
mod interop;
#[cfg(test)]
mod lanes;
#[cfg(test)]
mod outage;
#[cfg(test)]
mod queue;
#[cfg(test)]
mod routes;
#[cfg(test)]
mod support;
#[cfg(test)]
mod wire;
