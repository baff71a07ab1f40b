//! The events of a run: canonical JSON of a fixed length, customers by Zipf-Mandelbrot's law, the same for the same seed.
//!
//! Making events must not cost what sending them costs, so a few hundred batches are written once, with room for the
//! number of the batch and the time; [`Batches::body`] copies one and fills these in.

use crate::generator::Requests;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Method;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

/// Batches written beforehand; they come round again with other ids and times.
const TEMPLATES: usize = 256;
const NUMBER: &str = "########";
const TIME: &str = "1111111111111";
const SIGNALS: [(&str, u32); 6] = [
    ("page.view", 55),
    ("product.view", 18),
    ("email.open", 12),
    ("cart.add", 8),
    ("call.inbound", 3),
    ("purchase", 4),
];

/// What the events of a run are like.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) seed: u64,
    pub(crate) customers: u32,
    pub(crate) batch_events: u32,
    /// Bytes of one event's JSON, padded.
    pub(crate) event_bytes: usize,
    /// The share of all events that one customer has beyond their due, from 0 to 1.
    pub(crate) hot_share: f64,
}

struct Template {
    text: Vec<u8>,
    numbers: Vec<Range<usize>>,
    times: Vec<Range<usize>>,
}

/// All batches of a run.
pub(crate) struct Batches {
    templates: Vec<Template>,
    start_ms: u128,
    events: u64,
}

impl Batches {
    /// Writes the templates. Different runs get different ids.
    pub(crate) fn new(shape: &Shape, run: usize) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(shape.seed);
        rng.set_stream(run as u64);
        let zipf = Zipf::new(shape.customers, SHIFT);
        let templates = (0..TEMPLATES)
            .map(|_| template(shape, run, &zipf, &mut rng))
            .collect::<Result<_>>()?;
        Ok(Self {
            templates,
            start_ms: now_ms()?,
            events: u64::from(shape.batch_events),
        })
    }

    /// Batch `number`: the same bytes whenever it is asked for. Its events happened a millisecond after those of the one
    /// before, beginning an hour before the run, so that none lies in the future.
    fn body(&self, number: u64) -> Bytes {
        let index = (number % TEMPLATES as u64) as usize;
        let Some(template) = self.templates.get(index) else {
            return Bytes::new();
        };
        let mut text = template.text.clone();
        let digits = format!("{:08}", number % 100_000_000);
        let time = (self.start_ms - 3_600_000 + u128::from(number)).to_string();
        for (places, with) in [(&template.numbers, &digits), (&template.times, &time)] {
            for place in places {
                if let Some(room) = text.get_mut(place.clone())
                    && room.len() == with.len()
                {
                    room.copy_from_slice(with.as_bytes());
                }
            }
        }
        text.into()
    }
}

impl Requests for Batches {
    fn request(&self, number: u64) -> (Method, String, Bytes) {
        (Method::POST, "/v1/events".to_owned(), self.body(number))
    }

    fn events(&self) -> u64 {
        self.events
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> Result<u128> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(since.context("the clock is before 1970")?.as_millis())
}

fn template(shape: &Shape, run: usize, zipf: &Zipf, rng: &mut ChaCha8Rng) -> Result<Template> {
    let mut text = Vec::with_capacity(shape.batch_events as usize * (shape.event_bytes + 1) + 2);
    let (mut numbers, mut times) = (Vec::new(), Vec::new());
    // One event is sent as itself, as a browser would.
    let single = shape.batch_events == 1;
    if !single {
        text.push(b'[');
    }
    for index in 0..shape.batch_events {
        if index > 0 {
            text.push(b',');
        }
        let event = event(shape, run, index, zipf, rng);
        ensure!(
            event.len() == shape.event_bytes,
            "an event of {} bytes does not fit",
            event.len()
        );
        let number = event.find(NUMBER).context("an event without number")? + text.len();
        let time = event.find(TIME).context("an event without time")? + text.len();
        numbers.push(number..number + NUMBER.len());
        times.push(time..time + TIME.len());
        text.extend_from_slice(event.as_bytes());
    }
    if !single {
        text.push(b']');
    }
    Ok(Template { text, numbers, times })
}

fn event(shape: &Shape, run: usize, index: u32, zipf: &Zipf, rng: &mut ChaCha8Rng) -> String {
    let drawn = zipf.draw(rng);
    let hot = unit(rng) < shape.hot_share;
    let customer = if hot { 0 } else { drawn };
    let signal = signal(rng);
    let money = match signal {
        "purchase" => format!(
            r#""money":{{"amount":"{}.90","currency":"EUR"}},"#,
            10 + rng.next_u32() % 200
        ),
        _ => String::new(),
    };
    let product = rng.next_u32() % 500_000;
    let head = format!(
        r#"{{"id":"l{run}-{NUMBER}-{index:04}","user_id":"c{customer:07}","signal":"{signal}","timestamp":{TIME},{money}"context":{{"user_agent":"Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0","page_url":"https://shop.example/p/{product:06}"}},"properties":{{"session":"{:016x}","filler":""#,
        rng.next_u64()
    );
    let tail = r#""}}"#;
    let filler = "x".repeat(shape.event_bytes.saturating_sub(head.len() + tail.len()));
    format!("{head}{filler}{tail}")
}

fn signal(rng: &mut ChaCha8Rng) -> &'static str {
    let mut draw = rng.next_u32() % 100;
    for (signal, share) in SIGNALS {
        if draw < share {
            return signal;
        }
        draw -= share;
    }
    "page.view"
}

/// Zipf-Mandelbrot's law with exponent 1: customer n is drawn in proportion to 1/(n + shift).
///
/// Without the shift, the first of 100,000 customers would have 8 % of the traffic. Spread over months, real traffic looks like
/// that; squeezed into seconds it would be one person who acts thousands of times a second, and a test of nothing that exists.
pub(crate) struct Zipf {
    cumulative: Vec<f64>,
}

/// With it, the first of 100,000 customers has 1 % of the traffic.
const SHIFT: f64 = 10.0;

impl Zipf {
    pub(crate) fn new(customers: u32, shift: f64) -> Self {
        let mut sum = 0.0;
        let cumulative = (1..=customers)
            .map(|n| {
                sum += 1.0 / (f64::from(n) + shift);
                sum
            })
            .collect();
        Self { cumulative }
    }

    pub(crate) fn draw(&self, rng: &mut ChaCha8Rng) -> usize {
        let total = self.cumulative.last().copied().unwrap_or(1.0);
        let at = unit(rng) * total;
        self.cumulative.partition_point(|sum| *sum <= at)
    }
}

/// A number from 0 to 1, exclusive.
pub(crate) fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    const SHAPE: Shape = Shape {
        seed: 1,
        customers: 1_000,
        batch_events: 100,
        event_bytes: 500,
        hot_share: 0.0,
    };

    #[test]
    fn batches_are_json_with_unique_ids_and_repeat_exactly() {
        let batches = Batches::new(&SHAPE, 0).unwrap();
        let mut ids = BTreeSet::new();
        for number in [0, 1, 255, 256, 70_000] {
            let body = batches.body(number);
            assert_eq!(body, batches.body(number));
            let events: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
            assert_eq!(events.len(), 100);
            for event in events {
                assert_eq!(event["signal"] == "purchase", event["money"].is_object());
                assert!(event["timestamp"].as_u64().unwrap() > 1_700_000_000_000);
                assert!(ids.insert(event["id"].as_str().unwrap().to_owned()), "{event}");
            }
        }
    }

    #[test]
    fn one_event_is_sent_as_itself_and_one_customer_can_have_most_of_them() {
        let shape = Shape {
            batch_events: 1,
            hot_share: 0.5,
            ..SHAPE
        };
        let batches = Batches::new(&shape, 0).unwrap();
        let hot = (0..256).filter(|number| {
            let event: serde_json::Value = serde_json::from_slice(&batches.body(*number)).unwrap();
            event["user_id"] == "c0000000"
        });
        assert!((100..156).contains(&hot.count()));
    }

    #[test]
    fn customers_follow_zipf() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let zipf = Zipf::new(1_000, SHIFT);
        let mut counts = BTreeMap::new();
        for _ in 0..100_000 {
            *counts.entry(zipf.draw(&mut rng)).or_insert(0u32) += 1;
        }
        assert!(counts.keys().all(|customer| *customer < 1_000));
        // (100 + shift) / (1 + shift)
        let ratio = f64::from(counts[&0]) / f64::from(counts[&99]);
        assert!(
            (8.5..11.5).contains(&ratio),
            "the first is met {ratio} times as often as the hundredth"
        );
    }
}
