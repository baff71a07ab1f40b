//! Reading an exported page again: for `vigie status`, which asks a running server, and for tests. It understands what this
//! crate's exporter writes (the Prometheus text format 0.0.4) and never fails: a line that it cannot read is no sample.

use std::collections::BTreeMap;

/// One sample of a page.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name of the series, suffixes such as `_bucket` included.
    pub name: String,
    /// Labels with their values.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

impl Sample {
    /// The value of a label, empty when it is not there.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// A page as it was at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    samples: Vec<Sample>,
}

impl Page {
    /// Reads a page.
    #[must_use]
    pub fn parse(text: &str) -> Page {
        Page {
            samples: text.lines().filter_map(sample).collect(),
        }
    }

    /// The samples called `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.name == name)
    }

    /// The names on the page.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.samples.iter().map(|sample| sample.name.as_str())
    }

    /// The sum of the samples called `name`; `None` when there is none.
    #[must_use]
    pub fn sum(&self, name: &str) -> Option<f64> {
        self.all(name).map(|sample| sample.value).reduce(|a, b| a + b)
    }

    /// The largest of the samples called `name`.
    #[must_use]
    pub fn max(&self, name: &str) -> Option<f64> {
        self.all(name).map(|sample| sample.value).reduce(f64::max)
    }

    /// The samples called `name`, added up by the value of a label.
    #[must_use]
    pub fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.all(name) {
            *sums.entry(sample.label(label).to_owned()).or_insert(0.0) += sample.value;
        }
        sums
    }

    /// A quantile of the histogram `name` over all its labels, of what came after `before`, as Prometheus computes it: by
    /// straight lines between the bounds of the buckets. `None` when nothing came.
    #[must_use]
    pub fn quantile(&self, name: &str, q: f64, before: Option<&Page>) -> Option<f64> {
        let series = format!("{name}_bucket");
        let counts = |page: &Page| {
            let mut counts: Vec<(f64, f64)> = Vec::new();
            for sample in page.all(&series) {
                let Some(bound) = number(sample.label("le")) else {
                    continue;
                };
                match counts.iter_mut().find(|(known, _)| known.total_cmp(&bound).is_eq()) {
                    Some((_, count)) => *count += sample.value,
                    None => counts.push((bound, sample.value)),
                }
            }
            counts.sort_by(|a, b| a.0.total_cmp(&b.0));
            counts
        };
        let mut buckets = counts(self);
        for (bound, count) in before.map(counts).unwrap_or_default() {
            if let Some((_, now)) = buckets.iter_mut().find(|(known, _)| known.total_cmp(&bound).is_eq()) {
                *now -= count;
            }
        }
        let total = buckets.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
        let rank = q * total;
        let (mut low, mut below) = (0.0, 0.0);
        for (bound, count) in buckets {
            if count >= rank && count > below {
                // Beyond the last bound nothing is known but the bound.
                let share = (rank - below) / (count - below);
                return Some(if bound.is_finite() {
                    low + (bound - low) * share
                } else {
                    low
                });
            }
            (low, below) = (bound, count);
        }
        Some(low)
    }
}

fn sample(line: &str) -> Option<Sample> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (name, labels, value) = match line.split_once('{') {
        None => {
            let (name, value) = line.split_once(' ')?;
            (name, BTreeMap::new(), value)
        }
        Some((name, rest)) => {
            let (labels, value) = labels(rest)?;
            (name, labels, value)
        }
    };
    // A time may follow the value.
    let value = number(value.split_whitespace().next()?)?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// The labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, plain) => value.push(plain),
            }
        };
        let _ = labels.insert(name.to_owned(), value);
        rest = quoted.get(end + 1..)?;
    }
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        text => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BuildInfo, Exporter, Outcome, Stopwatch};
    use std::time::Duration;

    fn exporter() -> Exporter {
        Exporter::new(BuildInfo {
            version: "1",
            revision: "r",
        })
        .unwrap()
    }

    #[test]
    fn what_was_exported_reads_back() {
        let exporter = exporter();
        let metrics = exporter.metrics(Stopwatch::stopped());
        let hostile = "a\"b\\c\nd{},e=\"1";
        metrics.events.accepted(hostile, 7);
        metrics.events.accepted("plain", 2);
        metrics.events.outcome("plain", Outcome::Applied, 2);
        metrics.pipeline.progress(3, 10, 30);
        let page = Page::parse(&exporter.render());
        assert_eq!(page.sum("vigie_events_accepted_total"), Some(9.0));
        assert_eq!(
            page.by("vigie_events_accepted_total", "workspace").get(hostile),
            Some(&7.0)
        );
        assert_eq!(page.max("vigie_pipeline_lag_records"), Some(20.0));
        assert_eq!(page.sum("vigie_no_such_metric"), None);
    }

    #[test]
    fn quantiles_are_those_of_prometheus() {
        let exporter = exporter();
        let metrics = exporter.metrics(Stopwatch::stopped());
        for _ in 0..50 {
            metrics.pipeline.event_to_score(Duration::from_micros(900));
        }
        exporter.upkeep();
        let before = Page::parse(&exporter.render());
        for ms in [3, 7, 7, 7] {
            metrics.pipeline.event_to_score(Duration::from_millis(ms));
        }
        exporter.upkeep();
        let page = Page::parse(&exporter.render());
        let name = "vigie_pipeline_event_to_score_latency_seconds";
        // Four samples since: one up to 5 ms, three up to 10 ms; the third of four lies two thirds of the way from 5 to 10.
        let p75 = page.quantile(name, 0.75, Some(&before)).unwrap();
        assert!((p75 - (0.005 + 0.005 * 2.0 / 3.0)).abs() < 1e-12, "{p75}");
        let p50 = page.quantile(name, 0.5, None).unwrap();
        assert!(p50 < 0.001, "{p50}");
        assert_eq!(page.quantile(name, 0.5, Some(&page)), None, "nothing came since");
    }

    #[test]
    fn lines_that_are_no_samples_are_left_out() {
        let page = Page::parse("# HELP x y\nx\nx{a=\"1\nx{a=\"1\"} nonsense\nx{a=\"1\"} 3 1700000000000\n\n");
        assert_eq!(page.names().collect::<Vec<_>>(), ["x"]);
        assert_eq!(page.sum("x"), Some(3.0));
    }
}
