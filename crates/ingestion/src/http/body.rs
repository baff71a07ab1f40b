//! Reading a request body: never more than the limit, never longer than the timeout, never more slowly than the rate.
//! Decompression is bounded as well. This file never parses what it reads.

use super::Problem;
use crate::inflate::{InflateError, gunzip, is_gzip};
use crate::limits::{Limits, TransportLimits};
use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// How a protocol treats encodings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// What `Content-Encoding` says, and nothing else.
    Declared,
    /// Whatever the bytes are: some clients send gzip without saying so.
    Sniffed,
}

/// Reads and inflates a body.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    encoding: Encoding,
    limits: &Limits,
    transport: &TransportLimits,
) -> Result<Bytes, Problem> {
    let declared = declared(headers)?;
    // Before the first byte is read, hence before `100 Continue` invites the client to send.
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limits.wire_bytes as u64) {
        return Err(Problem::BODY_TOO_LARGE.closing());
    }
    let raw = collect(body, limits.wire_bytes, transport).await?;
    match (encoding, declared, is_gzip(&raw)) {
        (_, true, true) | (Encoding::Sniffed, false, true) => {
            gunzip(&raw, limits).map(Bytes::from).map_err(|error| match error {
                InflateError::Limit => Problem::INFLATE_LIMIT,
                InflateError::Corrupt => Problem::ENCODING_MISMATCH,
            })
        }
        (_, false, false) => Ok(raw),
        // An empty body is empty in any encoding.
        (_, true, false) if raw.is_empty() => Ok(raw),
        (_, true, false) | (Encoding::Declared, false, true) => Err(Problem::ENCODING_MISMATCH),
    }
}

/// `true` for gzip, `false` for none.
fn declared(headers: &HeaderMap) -> Result<bool, Problem> {
    let mut gzip = false;
    for value in headers.get_all(header::CONTENT_ENCODING) {
        match value.to_str().unwrap_or("?").trim().to_ascii_lowercase().as_str() {
            "" | "identity" => {}
            "gzip" | "x-gzip" if !gzip => gzip = true,
            _ => return Err(Problem::encoding().closing()),
        }
    }
    Ok(gzip)
}

/// Reads and forgets the body of a request that is refused for its head, if it is small: a connection that is closed on
/// unread bytes is reset, and the client would never see the answer. Of a larger one the connection is given up.
pub(super) async fn discard(headers: &HeaderMap, body: Body, transport: &TransportLimits, problem: Problem) -> Problem {
    const SMALL: u64 = 64 << 10;
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let invited = headers.contains_key(header::EXPECT);
    if invited || announced.is_none_or(|length| length > SMALL) {
        return problem.closing();
    }
    match collect(body, SMALL as usize, transport).await {
        Ok(_) => problem,
        Err(_) => problem.closing(),
    }
}

async fn next_frame(body: &mut Body) -> Option<Result<hyper::body::Frame<Bytes>, axum::Error>> {
    poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

/// Collects a body. Time is counted in ticks of a second: nothing here reads a clock.
async fn collect(mut body: Body, max: usize, transport: &TransportLimits) -> Result<Bytes, Problem> {
    let mut collected = BytesMut::new();
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is immediate.
    let _instant = ticks.tick().await;
    let mut seconds = 0u64;
    loop {
        tokio::select! {
            biased;
            frame = next_frame(&mut body) => match frame {
                None => return Ok(collected.freeze()),
                Some(Err(_)) => return Err(Problem::BODY_TRUNCATED.closing()),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if collected.len() + data.len() > max {
                        return Err(Problem::BODY_TOO_LARGE.closing());
                    }
                    collected.extend_from_slice(&data);
                }
            },
            _instant = ticks.tick() => {
                seconds += 1;
                let due = usize::try_from(seconds).unwrap_or(usize::MAX).saturating_mul(transport.body_bytes_per_second);
                let slow = seconds >= transport.body_grace.as_secs() && collected.len() < due;
                if slow || seconds >= transport.body_timeout.as_secs() {
                    return Err(Problem::BODY_TIMEOUT.closing());
                }
            }
        }
    }
}
