//! The API as its clients see it: real requests against the router over a store in memory, every answer checked against
//! the document that the API publishes.

mod answers;
#[cfg(test)]
mod house;
mod refusals;
