//! The workload that other systems were measured with: one stream of events of about 290 bytes, 100,000 customers by Zipf's
//! law, sixty days with a few seconds of disorder, one event in fifty sent again. The same events for the same seed, but for
//! their times: the sixty days end now, since a pipeline that scores silence would take an older stream for one long silence.

use crate::events::{Zipf, unit};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::fmt::Write as _;

/// What happens, and how often. The names are vigie's.
const SIGNALS: [(&str, f64); 8] = [
    ("page.view", 0.55),
    ("product.view", 0.18),
    ("cart.add", 0.06),
    ("purchase", 0.035),
    ("email.open", 0.10),
    ("email.click", 0.04),
    ("email.unsubscribe", 0.01),
    ("ticket.opened", 0.025),
];
/// The share of events that are an earlier one of the same customer, sent again.
const REPEATED: f64 = 0.02;
const DAY_MS: u128 = 86_400_000;
/// Events are out of order by at most so much to either side.
const DISORDER_MS: f64 = 5_000.0;

const DEVICES: [&str; 3] = ["mobile", "desktop", "tablet"];
const REFERRERS: [&str; 5] = ["google", "newsletter", "direct", "instagram", "affiliate"];
const COUNTRIES: [&str; 7] = ["DE", "FR", "ES", "IT", "NL", "PL", "GB"];

/// The stream.
pub(crate) struct Stream {
    rng: ChaCha8Rng,
    zipf: Zipf,
    /// Which customer is the n-th most active one.
    who: Vec<u32>,
    /// The last event of each customer.
    last: Vec<String>,
    start_ms: u128,
    disorder_ms: f64,
    step_ms: f64,
    number: u64,
    /// Events that had been given before.
    pub(crate) repeated: u64,
}

impl Stream {
    /// `events` of them fill the days before `end_ms`.
    pub(crate) fn new(seed: u64, customers: u32, days: u32, events: u64, end_ms: u128) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut who: Vec<u32> = (0..customers).collect();
        // Fisher and Yates.
        for index in (1..who.len()).rev() {
            let other = (unit(&mut rng) * (index + 1) as f64) as usize;
            who.swap(index, other);
        }
        let span = u128::from(days) * DAY_MS;
        Self {
            zipf: Zipf::new(customers, 0.0),
            last: vec![String::new(); who.len()],
            who,
            rng,
            start_ms: end_ms - span,
            disorder_ms: DISORDER_MS,
            step_ms: (span as f64 - 2.0 * DISORDER_MS) / events as f64,
            number: 0,
            repeated: 0,
        }
    }

    /// From now on, what happens is sent at once: so many events a second, in order.
    pub(crate) fn live(&mut self, now_ms: u128, events_per_second: f64) {
        self.step_ms = 1_000.0 / events_per_second;
        self.disorder_ms = 0.0;
        self.start_ms = now_ms - (self.number as f64 * self.step_ms) as u128;
    }

    /// Adds the next event.
    pub(crate) fn push(&mut self, to: &mut String) {
        let customer = self.who.get(self.zipf.draw(&mut self.rng)).copied().unwrap_or(0);
        let repeat = unit(&mut self.rng) < REPEATED;
        let Some(last) = self.last.get_mut(customer as usize) else {
            return;
        };
        if repeat && !last.is_empty() {
            self.repeated += 1;
            to.push_str(last);
            return;
        }
        let signal = signal(unit(&mut self.rng));
        let r = self.rng.next_u32() >> 1;
        let disorder = unit(&mut self.rng) * 2.0 * self.disorder_ms;
        let at = self.start_ms + (self.number as f64 * self.step_ms + disorder) as u128;
        last.clear();
        write(last, self.number, customer, signal, at, r);
        self.number += 1;
        to.push_str(last);
    }
}

fn signal(mut draw: f64) -> &'static str {
    for (signal, share) in SIGNALS {
        if draw < share {
            return signal;
        }
        draw -= share;
    }
    "page.view"
}

fn write(to: &mut String, number: u64, customer: u32, signal: &str, at: u128, r: u32) {
    let of = |list: &'static [&'static str]| list.get(r as usize % list.len()).copied().unwrap_or_default();
    let (device, referrer, country) = (of(&DEVICES), of(&REFERRERS), of(&COUNTRIES));
    let source = if signal.starts_with('e') { "email" } else { "web" };
    // Writing to a string cannot fail.
    let _ = write!(
        to,
        r#"{{"id":"{number:08x}-{r:08x}","user_id":"c{customer:07}","signal":"{signal}","timestamp":{at},"#
    );
    if signal == "purchase" {
        let (whole, cents) = (r % 400, r % 100);
        let _ = write!(to, r#""money":{{"amount":"{whole}.{cents:02}","currency":"EUR"}},"#);
    }
    let _ = write!(
        to,
        r#""properties":{{"source":"{source}","session":"s{:08x}","country":"{country}","#,
        r / 7
    );
    let _ = match signal {
        "page.view" | "product.view" | "cart.add" => write!(
            to,
            r#""url":"https://shop.example/p/{:06}","referrer":"{referrer}","device":"{device}","viewport":"{}x{}","duration_ms":{}"#,
            r % 500_000,
            360 + r % 1000,
            640 + r % 700,
            r % 90_000
        ),
        "purchase" => write!(
            to,
            r#""order":"O{:09}","items":{},"coupon":null,"payment":"card","device":"{device}","first":false"#,
            r % 1_000_000_000,
            1 + r % 5
        ),
        "ticket.opened" => write!(
            to,
            r#""channel":"chat","topic":"delivery","sentiment":-0.{},"agent":"a{:04}","wait_s":{},"resolved":true,"lang":"de""#,
            r % 100,
            r % 3000,
            r % 900
        ),
        _ => write!(
            to,
            r#""campaign":"spring-sale-{:03}","template":"t{:04}","subject":"Neu für dich: {} % Rabatt","device":"{device}","mx":"gmail.com""#,
            r % 200,
            r % 3000,
            r % 70
        ),
    };
    to.push_str("}}");
}

/// A first event of a customer whom nobody has seen before, at a time.
pub(crate) fn newcomer(customer: &str, at: u128) -> String {
    format!(r#"{{"id":"{customer}-1","user_id":"{customer}","signal":"page.view","timestamp":{at}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn the_stream_has_the_shape_that_the_peers_were_measured_with() {
        let (events, end) = (100_000, 1_800_000_000_000);
        let mut stream = Stream::new(42, 100_000, 60, events, end);
        let mut again = Stream::new(42, 100_000, 60, events, end);
        let (mut bytes, mut ids, mut customers, mut purchases) = (0, BTreeSet::new(), BTreeMap::new(), 0);
        for number in 0..events {
            let (mut text, mut twin) = (String::new(), String::new());
            stream.push(&mut text);
            again.push(&mut twin);
            assert_eq!(text, twin, "the same seed, another event {number}");
            bytes += text.len();
            if number % 10 > 0 {
                continue;
            }
            let event: Value = serde_json::from_str(&text).unwrap();
            let at = u128::from(event["timestamp"].as_u64().unwrap());
            assert!(at <= end && at >= end - 61 * DAY_MS, "{text}");
            assert_eq!(event["signal"] == "purchase", event["money"].is_object());
            purchases += u32::from(event["signal"] == "purchase");
            let _ = ids.insert(event["id"].as_str().unwrap().to_owned());
            *customers
                .entry(event["user_id"].as_str().unwrap().to_owned())
                .or_insert(0) += 1;
        }
        let mean = bytes as f64 / events as f64;
        assert!((280.0..320.0).contains(&mean), "{mean} bytes an event");
        assert!(
            (1_500..2_200).contains(&stream.repeated),
            "{} repetitions",
            stream.repeated
        );
        assert!((250..450).contains(&purchases), "{purchases} purchases of 10,000");
        // 1 / H(100,000)
        let most = customers.values().max().unwrap();
        assert!(
            (700..950).contains(most),
            "the most active customer has {most} of 10,000"
        );
    }
}
