//! Tests of the vocabulary through its public face: JSON shape, schema, record bytes. No other crate takes part.

mod json;
mod records;
