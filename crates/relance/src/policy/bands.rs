//! The sections `[[band]]` of a policy file: what is read, its range, its fault. It never looks at a customer.

use super::file::{Faults, first_eight};
use crate::band::{Band, BandMeasure};
use crate::nearest::did_you_mean;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use vigie_event::{Currency, PolicyId};
use vigie_scoring::Stage;

/// Most bands in one file: the record of a customer holds a place for each.
const MAX_BANDS: usize = 8;
/// Most edges of one.
const MAX_EDGES: usize = 15;
/// The edges of a score that names none: the columns of the portfolio.
const EDGES: [f64; 3] = crate::report::portfolio::BANDS;
/// How far below its edge a band is left, unless it says otherwise.
const HYSTERESIS: f64 = 0.05;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct BandEntry {
    name: String,
    score: String,
    edges: Option<Vec<f64>>,
    hysteresis: Option<f64>,
    names: Option<Vec<String>>,
}

/// The bands of a file; `taken` are the names of its policies.
pub(super) fn validated(
    entries: Vec<BandEntry>,
    taken: &mut BTreeSet<String>,
    currency: Option<Currency>,
    faults: &mut Faults<'_>,
) -> Vec<Band> {
    if entries.len() > MAX_BANDS {
        faults
            .found
            .push(format!("{} bands are more than {MAX_BANDS}", entries.len()));
    }
    let bands = entries.into_iter().enumerate().filter_map(|(nth, entry)| {
        let mut own: Vec<(&str, String)> = Vec::new();
        if !taken.insert(entry.name.clone()) {
            own.push(("name", "stands twice among policies and bands".to_owned()));
        }
        let name = entry.name.clone();
        let band = entry.validated(currency, &mut |key, what| own.push((key, what)));
        for (key, what) in &own {
            faults.section(("[[band]]", nth), key, &format!("{name:?}: {what}"));
        }
        band.filter(|_| own.is_empty())
    });
    bands.collect()
}

impl BandEntry {
    fn validated(self, currency: Option<Currency>, fault: &mut dyn FnMut(&'static str, String)) -> Option<Band> {
        let id = PolicyId::new(&self.name).map_err(|error| fault("name", format!("name: {error}")));
        let Some(measure) = BandMeasure::parse(&self.score) else {
            let hint = did_you_mean(&self.score, ["attrition", "churn-90", "stage", "revenue"]);
            let what = format!(
                "score {:?} is none of \"attrition\", \"churn-N\" with N from 1 to 3650 days, \"stage\" and \"revenue\"{hint}",
                self.score
            );
            fault("score", what);
            return None;
        };
        let edges = match (measure, self.edges) {
            (BandMeasure::Stage, None) => Vec::new(),
            (BandMeasure::Stage, Some(_)) => {
                fault("edges", "edges of stages are the model's: leave them out".to_owned());
                Vec::new()
            }
            (BandMeasure::Score(_), edges) => edges.unwrap_or_else(|| EDGES.to_vec()),
            (BandMeasure::Revenue, Some(edges)) => edges,
            (BandMeasure::Revenue, None) => {
                let what =
                    "edges are missing: the amounts at which a tier begins; `vigie report portfolio` shows yours";
                fault("edges", what.to_owned());
                Vec::new()
            }
        };
        let highest = match measure {
            BandMeasure::Revenue => f64::MAX,
            _ => 1.0,
        };
        let sound = edges.is_sorted_by(|a, b| a < b) && edges.iter().all(|edge| *edge > 0.0 && *edge < highest);
        if !sound || edges.len() > MAX_EDGES {
            let what = match measure {
                BandMeasure::Revenue => "amounts above 0",
                _ => "numbers between 0 and 1",
            };
            fault(
                "edges",
                format!("edges {edges:?} are not up to {MAX_EDGES} ascending {what}"),
            );
        }
        let hysteresis = self.hysteresis.unwrap_or(HYSTERESIS);
        if !(0.0..=0.5).contains(&hysteresis) {
            fault(
                "hysteresis",
                format!("hysteresis {hysteresis} is not between 0 and 0.5"),
            );
        }
        let places: Vec<String> = match measure {
            BandMeasure::Stage => Stage::ALL.iter().map(|stage| stage.label().to_owned()).collect(),
            _ => std::iter::once(&0.0).chain(&edges).map(f64::to_string).collect(),
        };
        let count = places.len();
        let names = self.names.unwrap_or(places);
        let distinct = names.iter().map(|name| name.trim()).filter(|name| !name.is_empty());
        if names.len() != count || distinct.collect::<BTreeSet<_>>().len() != count {
            fault(
                "names",
                format!("names: there are {count} bands, from the lowest; each needs a name of its own"),
            );
        }
        let currency = currency.filter(|_| measure == BandMeasure::Revenue);
        Some(Band {
            version: version(&self.name, measure, &edges, hysteresis, currency),
            id: id.ok()?,
            measure,
            edges,
            hysteresis,
            names,
            currency,
        })
    }
}

/// A hash of what decides; what the bands are called does not.
fn version(name: &str, measure: BandMeasure, edges: &[f64], hysteresis: f64, currency: Option<Currency>) -> u64 {
    let mut hasher = Sha256::new();
    let code = currency.map(|currency| currency.to_string()).unwrap_or_default();
    for text in [name, &measure.name(), &code] {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    for number in std::iter::once(&hysteresis).chain(edges) {
        hasher.update(number.to_bits().to_le_bytes());
    }
    first_eight(&hasher.finalize())
}

#[cfg(test)]
mod tests {
    use crate::PolicySet;

    fn faults(text: &str) -> String {
        PolicySet::parse(text)
            .err()
            .map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn bands_have_defaults_and_versions_of_what_decides() {
        let read = |text: &str| PolicySet::parse(text).unwrap().bands.remove(0);
        let band = read("[[band]]\nname = \"risk\"\nscore = \"attrition\"");
        assert_eq!((band.edges.as_slice(), band.hysteresis), (&[0.3, 0.5, 0.7][..], 0.05));
        assert_eq!(band.names, ["0", "0.3", "0.5", "0.7"]);
        let named = "[[band]]\nname = \"risk\"\nscore = \"attrition\"\nnames = [\"a\", \"b\", \"c\", \"d\"]";
        assert_eq!(read(named).version, band.version);
        let other = "[[band]]\nname = \"risk\"\nscore = \"attrition\"\nhysteresis = 0.1";
        assert_ne!(read(other).version, band.version);
        let stage = read("[[band]]\nname = \"life\"\nscore = \"stage\"");
        assert_eq!(
            stage.names,
            ["prospect", "new", "active", "slowing", "at_risk", "lapsed"]
        );
    }

    #[test]
    fn what_cannot_be_a_band_is_told_with_its_line() {
        let table = [
            ("score = \"attritoin\"", "line 3: band: \"x\": score \"attritoin\""),
            ("score = \"attritoin\"", "did you mean \"attrition\"?"),
            ("score = \"complaint-age\"", "is none of"),
            ("score = \"revenue\"", "edges are missing"),
            (
                "score = \"stage\"\nedges = [0.5]",
                "line 4: band: \"x\": edges of stages",
            ),
            (
                "score = \"attrition\"\nedges = [0.5, 0.4]",
                "ascending numbers between 0 and 1",
            ),
            ("score = \"revenue\"\nedges = [0]", "ascending amounts above 0"),
            (
                "score = \"attrition\"\nhysteresis = 0.6",
                "hysteresis 0.6 is not between",
            ),
            ("score = \"attrition\"\nnames = [\"low\"]", "there are 4 bands"),
            ("score = \"attrition\"\nedge = [0.1]", "unknown field `edge`"),
        ];
        for (lines, expected) in table {
            let found = faults(&format!("[[band]]\nname = \"x\"\n{lines}"));
            assert!(found.contains(expected), "{lines}: {found}");
        }
        let twice = "[[band]]\nname = \"x\"\nscore = \"stage\"\n".repeat(2);
        assert!(faults(&twice).contains("stands twice"));
    }
}
