//! What differs between two runs over the same events: flags, and the scores of everybody. Pure: results in, differences
//! out; it reads nothing and prints nothing.
//!
//! A flag of one run is the same as one of the other when customer, policy and number agree: the first flag of a policy
//! for a customer in the period is compared with the first one of the other run, the second with the second.

use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{CustomerKey, Money, Timestamp};

/// Bins of a histogram of scores.
pub(super) const BINS: usize = 20;
/// A score has moved when it differs by more than this.
pub(super) const MOVED: f64 = 0.05;
/// Shares that are reported of a distribution.
const QUANTILES: [f64; 5] = [0.1, 0.25, 0.5, 0.75, 0.9];
/// The smallest share of a bin in the population stability index, whose logarithms need one.
const LEAST_SHARE: f64 = 0.0001;

/// An instant, written as RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At(pub(super) Timestamp);

impl Serialize for At {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Whose a flag or a score is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Customer {
    pub(super) workspace: String,
    pub(super) id: String,
}

impl Customer {
    pub(super) fn of(key: &CustomerKey) -> Self {
        Self {
            workspace: key.workspace.to_string(),
            id: key.person.to_string(),
        }
    }
}

/// A flag that a run raised.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Raised {
    pub(super) customer: Customer,
    pub(super) policy: String,
    pub(super) raised_at: At,
    /// `flagged` or `held_out`.
    pub(super) kind: String,
    /// `attrition` or `churn-N`.
    pub(super) score: String,
    pub(super) value: f64,
    pub(super) threshold: f64,
    pub(super) reasons: Vec<String>,
}

/// A customer's scores at the end of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Scores {
    /// By name: `attrition`, `churn-30`…; a score that could not be computed is absent.
    pub(super) by_name: BTreeMap<String, f64>,
}

/// What a run came to.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    /// In order of time.
    pub(super) flags: Vec<Raised>,
    /// Names of the run's policies, in their order.
    pub(super) policies: Vec<String>,
    /// Names of the run's scores, in their order.
    pub(super) scores: Vec<String>,
    pub(super) customers: BTreeMap<Customer, Scores>,
}

/// How a flag differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Change {
    /// The candidate does not raise it.
    OnlyBaseline,
    /// The baseline does not raise it.
    OnlyCandidate,
    /// Both raise it, at different times.
    OtherTime,
    /// Both raise it at one time, but only one of them holds it out.
    OtherKind,
}

impl Change {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::OnlyBaseline => "only baseline",
            Self::OnlyCandidate => "only candidate",
            Self::OtherTime => "other time",
            Self::OtherKind => "other kind",
        }
    }
}

/// One flag that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Difference {
    pub(super) customer: Customer,
    pub(super) policy: String,
    /// The how-manieth flag of the policy for the customer in the period, from 1.
    pub(super) nth: usize,
    pub(super) change: Change,
    pub(super) baseline: Option<Raised>,
    pub(super) candidate: Option<Raised>,
    /// What the customer did after the (earlier) flag; filled in from the archive.
    pub(super) afterwards: Option<Afterwards>,
}

impl Difference {
    /// The earlier of its times.
    pub(super) fn since(&self) -> At {
        let times = [&self.baseline, &self.candidate]
            .into_iter()
            .flatten()
            .map(|flag| flag.raised_at);
        times.min().unwrap_or(At(Timestamp(0)))
    }
}

/// What a customer did between a flag and the end of the period, as far as the replayed events tell.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Afterwards {
    /// Events that took effect.
    pub(super) events: u64,
    /// The next purchase.
    pub(super) purchase: Option<Purchase>,
}

/// A purchase after a flag.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Purchase {
    pub(super) at: At,
    /// Days since the flag.
    pub(super) after_days: f64,
    /// Major units, as decimal text.
    pub(super) amount: Option<String>,
    pub(super) currency: Option<String>,
}

impl Afterwards {
    /// Takes in an event of the customer.
    pub(super) fn see(&mut self, since: Timestamp, at: Timestamp, purchase: Option<Option<Money>>) {
        if at <= since {
            return;
        }
        self.events += 1;
        let Some(money) = purchase else { return };
        if self.purchase.as_ref().is_none_or(|known| at < known.at.0) {
            self.purchase = Some(Purchase {
                at: At(at),
                after_days: days(at.ms_since(since)),
                amount: money.map(|money| decimal(money.minor, money.currency.exponent())),
                currency: money.map(|money| money.currency.as_str().to_owned()),
            });
        }
    }
}

/// Days with two decimal places.
fn days(ms: i64) -> f64 {
    (ms as f64 / vigie_event::DAY_MS as f64 * 100.0).round() / 100.0
}

fn decimal(minor: i64, places: u32) -> String {
    let unit = 10u64.pow(places);
    let (sign, all) = (if minor < 0 { "-" } else { "" }, minor.unsigned_abs());
    match places {
        0 => format!("{sign}{all}"),
        _ => format!("{sign}{}.{:0width$}", all / unit, all % unit, width = places as usize),
    }
}

/// How many flags a policy raised in the period.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Count {
    pub(super) flagged: u64,
    pub(super) held_out: u64,
}

/// One policy in both runs; `None` where a run does not have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct PolicyCounts {
    pub(super) policy: String,
    pub(super) baseline: Option<Count>,
    pub(super) candidate: Option<Count>,
}

/// How one score is distributed over the customers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Distribution {
    pub(super) customers: u64,
    pub(super) mean: f64,
    /// Share and value: 0.1, 0.25, 0.5, 0.75, 0.9.
    pub(super) quantiles: Vec<(f64, f64)>,
    /// Customers in 20 bins of equal width from 0 to 1.
    pub(super) histogram: Vec<u64>,
}

/// How one score shifts from the baseline to the candidate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Shift {
    pub(super) score: String,
    pub(super) baseline: Distribution,
    pub(super) candidate: Distribution,
    /// Population stability index over the bins: below 0.1 little, above 0.25 a lot has changed.
    pub(super) psi: f64,
    /// Customers with the score in both runs.
    pub(super) compared: u64,
    /// Of those, customers whose score rose or fell by more than 0.05.
    pub(super) rose: u64,
    pub(super) fell: u64,
    /// Customers by bin of the baseline (outer) and of the candidate (inner).
    pub(super) grid: Vec<Vec<u64>>,
}

/// A customer whose score moved by more than 0.05.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Moved {
    pub(super) customer: Customer,
    pub(super) score: String,
    pub(super) baseline: f64,
    pub(super) candidate: f64,
}

/// Everything that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Diff {
    /// In order of time.
    pub(super) flags: Vec<Difference>,
    /// Flags that both runs raise at the same time and of the same kind.
    pub(super) same_flags: u64,
    pub(super) policies: Vec<PolicyCounts>,
    pub(super) scores: Vec<Shift>,
    /// The largest moves first.
    pub(super) moved: Vec<Moved>,
}

impl Diff {
    pub(super) fn count(&self, change: Change) -> usize {
        self.flags
            .iter()
            .filter(|difference| difference.change == change)
            .count()
    }
}

/// Compares two runs over the same events.
pub(super) fn compare(baseline: &Outcome, candidate: &Outcome) -> Diff {
    let (flags, same_flags) = flags(baseline, candidate);
    let names = baseline.scores.iter().filter(|name| candidate.scores.contains(name));
    let scores = names.map(|name| shift(name, baseline, candidate)).collect();
    Diff {
        flags,
        same_flags,
        policies: policies(baseline, Some(candidate)),
        scores,
        moved: moved(baseline, candidate),
    }
}

type Numbered<'a> = BTreeMap<(&'a Customer, &'a str, usize), &'a Raised>;

fn numbered(outcome: &Outcome) -> Numbered<'_> {
    let mut counts: BTreeMap<(&Customer, &str), usize> = BTreeMap::new();
    let mut sorted: Vec<&Raised> = outcome.flags.iter().collect();
    sorted.sort_by_key(|flag| flag.raised_at);
    let mut flags = BTreeMap::new();
    for flag in sorted {
        let nth = counts.entry((&flag.customer, &flag.policy)).or_default();
        *nth += 1;
        let _ = flags.insert((&flag.customer, flag.policy.as_str(), *nth), flag);
    }
    flags
}

fn flags(baseline: &Outcome, candidate: &Outcome) -> (Vec<Difference>, u64) {
    let (before, after) = (numbered(baseline), numbered(candidate));
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let (mut differences, mut same) = (Vec::new(), 0);
    for key in keys {
        let (ours, theirs) = (before.get(key).copied(), after.get(key).copied());
        let change = match (ours, theirs) {
            (Some(a), Some(b)) if a.raised_at != b.raised_at => Change::OtherTime,
            (Some(a), Some(b)) if a.kind != b.kind => Change::OtherKind,
            (Some(_), None) => Change::OnlyBaseline,
            (None, Some(_)) => Change::OnlyCandidate,
            _ => {
                same += 1;
                continue;
            }
        };
        let (customer, policy, nth) = *key;
        differences.push(Difference {
            customer: customer.clone(),
            policy: policy.to_owned(),
            nth,
            change,
            baseline: ours.cloned(),
            candidate: theirs.cloned(),
            afterwards: None,
        });
    }
    differences.sort_by(|a, b| (a.since(), &a.customer, &a.policy).cmp(&(b.since(), &b.customer, &b.policy)));
    (differences, same)
}

/// Counts by policy; a policy that only one run has is listed too.
pub(super) fn policies(baseline: &Outcome, candidate: Option<&Outcome>) -> Vec<PolicyCounts> {
    let count = |outcome: &Outcome, policy: &String| {
        let listed = outcome.policies.contains(policy) || outcome.flags.iter().any(|flag| flag.policy == *policy);
        listed.then(|| {
            let of_policy = outcome.flags.iter().filter(|flag| flag.policy == *policy);
            let (held_out, flagged): (Vec<_>, Vec<_>) = of_policy.partition(|flag| flag.kind == "held_out");
            Count {
                flagged: flagged.len() as u64,
                held_out: held_out.len() as u64,
            }
        })
    };
    let mut names: Vec<&String> = Vec::new();
    for outcome in [Some(baseline), candidate].into_iter().flatten() {
        for name in outcome
            .policies
            .iter()
            .chain(outcome.flags.iter().map(|flag| &flag.policy))
        {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let names = names.into_iter();
    names
        .map(|policy| PolicyCounts {
            policy: policy.clone(),
            baseline: count(baseline, policy),
            candidate: candidate.and_then(|candidate| count(candidate, policy)),
        })
        .collect()
}

/// How a score is distributed in one run.
pub(super) fn distribution(outcome: &Outcome, score: &str) -> Distribution {
    let values = outcome
        .customers
        .values()
        .filter_map(|scores| scores.by_name.get(score).copied());
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let mut histogram = vec![0; BINS];
    for value in &values {
        if let Some(count) = histogram.get_mut(bin(*value)) {
            *count += 1;
        }
    }
    let mean = if values.is_empty() {
        0.0
    } else {
        values.iter().sum::<f64>() / values.len() as f64
    };
    let quantile = |share: f64| (share, quantile(&values, share));
    Distribution {
        customers: values.len() as u64,
        mean,
        quantiles: if values.is_empty() {
            Vec::new()
        } else {
            QUANTILES.map(quantile).to_vec()
        },
        histogram,
    }
}

/// The bin of a score: 0 to 19, the last one with its upper end.
fn bin(score: f64) -> usize {
    let bin = (score.clamp(0.0, 1.0) * BINS as f64) as usize;
    bin.min(BINS - 1)
}

/// Between neighbours by distance, as spreadsheets and NumPy do (type 7 of Hyndman and Fan, 1996).
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * sorted.len().saturating_sub(1) as f64;
    let (low, part) = (place.floor(), place.fract());
    let value = |at: f64| sorted.get(at as usize).copied();
    let below = value(low).unwrap_or_default();
    let above = value(low + 1.0).unwrap_or(below);
    below + (above - below) * part
}

fn shift(name: &str, baseline: &Outcome, candidate: &Outcome) -> Shift {
    let (before, after) = (distribution(baseline, name), distribution(candidate, name));
    let mut shift = Shift {
        score: name.to_owned(),
        psi: psi(&before.histogram, &after.histogram),
        baseline: before,
        candidate: after,
        compared: 0,
        rose: 0,
        fell: 0,
        grid: vec![vec![0; BINS]; BINS],
    };
    for (_, a, b) in pairs(name, baseline, candidate) {
        shift.compared += 1;
        shift.rose += u64::from(b - a > MOVED);
        shift.fell += u64::from(a - b > MOVED);
        if let Some(count) = shift.grid.get_mut(bin(a)).and_then(|row| row.get_mut(bin(b))) {
            *count += 1;
        }
    }
    shift
}

fn pairs<'a>(
    name: &'a str,
    baseline: &'a Outcome,
    candidate: &'a Outcome,
) -> impl Iterator<Item = (&'a Customer, f64, f64)> {
    baseline.customers.iter().filter_map(move |(customer, scores)| {
        let before = scores.by_name.get(name)?;
        let after = candidate.customers.get(customer)?.by_name.get(name)?;
        Some((customer, *before, *after))
    })
}

/// Σ (b − a) · ln(b / a) over the shares of the bins.
fn psi(before: &[u64], after: &[u64]) -> f64 {
    let total = |counts: &[u64]| counts.iter().sum::<u64>() as f64;
    let (all_before, all_after) = (total(before), total(after));
    if all_before == 0.0 || all_after == 0.0 {
        return 0.0;
    }
    let terms = before.iter().zip(after).map(|(a, b)| {
        let (a, b) = (*a as f64 / all_before, *b as f64 / all_after);
        let (a, b) = (a.max(LEAST_SHARE), b.max(LEAST_SHARE));
        (b - a) * (b / a).ln()
    });
    terms.sum()
}

fn moved(baseline: &Outcome, candidate: &Outcome) -> Vec<Moved> {
    let mut moved = Vec::new();
    for name in &baseline.scores {
        for (customer, before, after) in pairs(name, baseline, candidate) {
            if (after - before).abs() > MOVED {
                moved.push(Moved {
                    customer: customer.clone(),
                    score: name.clone(),
                    baseline: before,
                    candidate: after,
                });
            }
        }
    }
    let size = |moved: &Moved| (moved.candidate - moved.baseline).abs();
    moved.sort_by(|a, b| size(b).total_cmp(&size(a)).then_with(|| a.customer.cmp(&b.customer)));
    moved
}

#[cfg(test)]
mod tests {
    use super::super::sample::two;
    use super::*;
    use vigie_event::{Currency, DAY_MS};

    #[test]
    fn flags_are_matched_by_customer_policy_and_number() {
        let (baseline, candidate) = two();
        let diff = compare(&baseline, &candidate);
        let found: Vec<_> = diff
            .flags
            .iter()
            .map(|found| {
                (
                    found.customer.id.as_str(),
                    found.nth,
                    found.change,
                    found.since().0.0 / DAY_MS,
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("bob", 1, Change::OnlyBaseline, 12),
                ("cid", 1, Change::OtherKind, 13),
                ("<script>", 1, Change::OnlyCandidate, 20),
                ("ann", 2, Change::OtherTime, 40),
            ]
        );
        assert_eq!(diff.same_flags, 2);
        let counts: Vec<_> = diff
            .policies
            .iter()
            .map(|of| {
                (
                    of.policy.as_str(),
                    of.baseline.as_ref().map(|c| c.flagged),
                    of.candidate.clone(),
                )
            })
            .collect();
        let count = |flagged, held_out| Some(Count { flagged, held_out });
        assert_eq!(
            counts,
            [("regulars", Some(5), count(3, 1)), ("new & shiny", None, count(1, 0))]
        );
    }

    #[test]
    fn a_run_does_not_differ_from_itself() {
        let (baseline, _) = two();
        let diff = compare(&baseline, &baseline);
        assert_eq!((diff.flags.len(), diff.same_flags, diff.moved.len()), (0, 5, 0));
        assert!(
            diff.scores
                .iter()
                .all(|shift| shift.psi == 0.0 && shift.rose + shift.fell == 0)
        );
    }

    #[test]
    fn scores_shift_as_counted_by_hand() {
        let (baseline, candidate) = two();
        let diff = compare(&baseline, &candidate);
        let shift = &diff.scores[0];
        assert_eq!((shift.compared, shift.rose, shift.fell), (4, 1, 1));
        assert_eq!(shift.grid[10][4], 1, "bob");
        assert_eq!(shift.grid[18][19], 1, "1.0 belongs to the last bin");
        assert_eq!(shift.baseline.histogram.iter().sum::<u64>(), 4);
        let median = shift.baseline.quantiles[2];
        assert!((median.1 - 0.51).abs() < 1e-12, "{median:?}");
        assert!((shift.baseline.mean - 0.505).abs() < 1e-12);
        let names: Vec<_> = diff.moved.iter().map(|moved| moved.customer.id.as_str()).collect();
        assert_eq!(names, ["bob", "<script>"], "largest first; 0.04 is no move");
        // Bins 10 (two) and 18 lose theirs to 4, 11 and 19; each share is a quarter.
        let term = |a: f64, b: f64| (b - a) * (b / a).ln();
        let expected = term(0.5, 0.0001) + term(0.25, 0.0001) + 3.0 * term(0.0001, 0.25);
        assert!((shift.psi - expected).abs() < 1e-9, "{} {expected}", shift.psi);
    }

    #[test]
    fn nothing_compares_with_nothing() {
        let empty = Outcome {
            scores: vec!["attrition".to_owned()],
            ..Outcome::default()
        };
        let diff = compare(&empty, &empty);
        assert_eq!(diff.scores[0].psi, 0.0);
        assert!(diff.scores[0].baseline.quantiles.is_empty());
        assert!(serde_json::to_string(&diff).unwrap().contains("\"same_flags\":0"));
    }

    #[test]
    fn what_follows_a_flag_is_the_next_purchase_and_a_count() {
        let since = Timestamp(DAY_MS);
        let money = |minor| {
            let currency = Currency::parse("EUR").unwrap();
            Some(Some(Money { minor, currency }))
        };
        let mut after = Afterwards::default();
        after.see(since, Timestamp(DAY_MS), money(1));
        after.see(since, Timestamp(4 * DAY_MS), money(700));
        after.see(since, Timestamp(2 * DAY_MS), None);
        after.see(since, Timestamp(3 * DAY_MS + DAY_MS / 4), money(1_205));
        assert_eq!(after.events, 3);
        let purchase = after.purchase.unwrap();
        assert_eq!((purchase.after_days, purchase.amount.as_deref()), (2.25, Some("12.05")));
        assert_eq!(decimal(-5, 2), "-0.05");
        assert_eq!(decimal(7, 0), "7");
        assert_eq!(decimal(7, 3), "0.007");
    }
}
