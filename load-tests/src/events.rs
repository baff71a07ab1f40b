//! The events of a run: canonical JSON of a fixed length, customers by Zipf-Mandelbrot's law, the same for the same seed.
//!
//! Making events must not cost what sending them costs, so a few hundred batches are written once, with room for the
//! number of the batch and the time; [`Batches::body`] copies one and fills these in.

use crate::experiment::Experiment;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
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

struct Template {
    text: Vec<u8>,
    numbers: Vec<Range<usize>>,
    times: Vec<Range<usize>>,
}

/// All batches of a run.
pub(crate) struct Batches {
    templates: Vec<Template>,
    start_ms: u128,
}

impl Batches {
    /// Writes the templates. Different runs get different ids.
    pub(crate) fn new(experiment: &Experiment, run: usize) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(experiment.seed);
        rng.set_stream(run as u64);
        let zipf = Zipf::new(experiment.customers);
        let templates = (0..TEMPLATES)
            .map(|_| template(experiment, run, &zipf, &mut rng))
            .collect::<Result<_>>()?;
        let start_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("the clock is before 1970")?
            .as_millis();
        Ok(Self { templates, start_ms })
    }

    /// Batch `number`: the same bytes whenever it is asked for. Its events happened a millisecond after those of the one
    /// before, beginning an hour before the run, so that none lies in the future.
    pub(crate) fn body(&self, number: u64) -> Bytes {
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

fn template(experiment: &Experiment, run: usize, zipf: &Zipf, rng: &mut ChaCha8Rng) -> Result<Template> {
    let mut text = Vec::with_capacity(experiment.batch_events as usize * (experiment.event_bytes + 1) + 2);
    let (mut numbers, mut times) = (Vec::new(), Vec::new());
    text.push(b'[');
    for index in 0..experiment.batch_events {
        if index > 0 {
            text.push(b',');
        }
        let event = event(experiment, run, index, zipf, rng);
        ensure!(
            event.len() == experiment.event_bytes,
            "an event of {} bytes does not fit",
            event.len()
        );
        let number = event.find(NUMBER).context("an event without number")? + text.len();
        let time = event.find(TIME).context("an event without time")? + text.len();
        numbers.push(number..number + NUMBER.len());
        times.push(time..time + TIME.len());
        text.extend_from_slice(event.as_bytes());
    }
    text.push(b']');
    Ok(Template { text, numbers, times })
}

fn event(experiment: &Experiment, run: usize, index: u32, zipf: &Zipf, rng: &mut ChaCha8Rng) -> String {
    let customer = zipf.draw(rng);
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
    let filler = "x".repeat(experiment.event_bytes.saturating_sub(head.len() + tail.len()));
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

/// Zipf-Mandelbrot's law with exponent 1: customer n is drawn in proportion to 1/(n + [`SHIFT`]).
///
/// Without the shift, the first of 100,000 customers would have 8 % of the traffic. Spread over months, real traffic looks like
/// that; squeezed into seconds it would be one person who acts thousands of times a second, and a test of nothing that exists.
struct Zipf {
    cumulative: Vec<f64>,
}

/// With it, the first of 100,000 customers has 1 % of the traffic.
const SHIFT: f64 = 10.0;

impl Zipf {
    fn new(customers: u32) -> Self {
        let mut sum = 0.0;
        let cumulative = (1..=customers)
            .map(|n| {
                sum += 1.0 / (f64::from(n) + SHIFT);
                sum
            })
            .collect();
        Self { cumulative }
    }

    fn draw(&self, rng: &mut ChaCha8Rng) -> usize {
        let total = self.cumulative.last().copied().unwrap_or(1.0);
        let at = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * total;
        self.cumulative.partition_point(|sum| *sum <= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::all;
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    #[test]
    fn batches_are_json_with_unique_ids_and_repeat_exactly() {
        let experiment = all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cases"))
            .unwrap()
            .remove(0);
        let batches = Batches::new(&experiment, 0).unwrap();
        let mut ids = BTreeSet::new();
        for number in [0, 1, 255, 256, 70_000] {
            let body = batches.body(number);
            assert_eq!(body, batches.body(number));
            let events: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
            assert_eq!(events.len(), experiment.batch_events as usize);
            for event in events {
                assert_eq!(event["signal"] == "purchase", event["money"].is_object());
                assert!(event["timestamp"].as_u64().unwrap() > 1_700_000_000_000);
                assert!(ids.insert(event["id"].as_str().unwrap().to_owned()), "{event}");
            }
        }
    }

    #[test]
    fn customers_follow_zipf() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let zipf = Zipf::new(1_000);
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
