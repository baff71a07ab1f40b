//! Bands: parts of the range of a score whose borders are worth telling others about, as soon as a customer crosses one.
//!
//! A band is entered upwards at its edge and left downwards only a little below it (hysteresis), so that a score that wavers
//! around an edge is told once. The place that was told last is kept in the customer's record: what is decided depends on
//! nothing else, and a replay tells the same changes under the same ids. The first place of a customer, or under a new
//! definition, is noted and not told: it is no change.
//!
//! Like a policy's threshold, every instant at which silence brings a change is known beforehand ([`Band::due`]). Somebody who
//! refuses profiling is not followed, and neither is anybody without a known id, for whom no receiver has a record.

use crate::decide::{Decision, Look};
use crate::flag::{BandMove, Flag, FlagKind, FlagReason, FlagScore, move_id};
use crate::plan::Plan;
use std::borrow::Cow;
use vigie_event::{ConsentState, Currency, CustomerKey, Day, PolicyId, Purpose, Timestamp};
use vigie_scoring::state::InBand;
use vigie_scoring::{CustomerState, ScoreKind, Scorer, assess};

/// Where prospects and new customers stand on the scale whose rest is attrition.
const PROSPECT: f64 = -2.0;
const NEW: f64 = -1.0;

/// What a band is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BandMeasure {
    /// A score of the model.
    Score(ScoreKind),
    /// The stage of the life cycle, by purchases and attrition ([`vigie_scoring::Stage`]); its edges are the model's.
    Stage,
    /// What the customer has brought, net of refunds, in major units of the currency in which they have spent most: tiers.
    Revenue,
}

impl BandMeasure {
    /// Reads a [`BandMeasure::name`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "stage" => Some(Self::Stage),
            "revenue" => Some(Self::Revenue),
            score => crate::Measure::parse(score)?.score().map(Self::Score),
        }
    }

    /// The name that policy files use.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Score(kind) => crate::Measure::Score(kind).name(),
            Self::Stage => "stage".to_owned(),
            Self::Revenue => "revenue".to_owned(),
        }
    }
}

/// A scale that is followed.
#[derive(Debug, Clone, PartialEq)]
pub struct Band {
    /// Its name, unique among bands and policies.
    pub id: PolicyId,
    /// First 8 bytes of a hash of everything that decides.
    pub version: u64,
    /// Of what.
    pub measure: BandMeasure,
    /// Ascending; empty for stages.
    pub edges: Vec<f64>,
    /// How far below its edge a band is left: points of a score, a share of an amount of money. Never more than half of the
    /// band below.
    pub hysteresis: f64,
    /// What the places are called, one more than there are edges, from the lowest.
    pub names: Vec<String>,
    /// For revenue: only of customers who pay in it.
    pub currency: Option<Currency>,
}

/// Where a customer is on a scale, and the scale's edges.
struct Scale<'a> {
    value: f64,
    edges: Cow<'a, [f64]>,
}

impl Band {
    /// What a record keeps of the version.
    fn short(&self) -> u32 {
        u32::try_from(self.version >> 32).unwrap_or_default()
    }

    fn known(&self, state: &CustomerState) -> Option<u8> {
        let known = state.bands.get(&self.id)?;
        (known.version == self.short()).then_some(known.place)
    }

    fn scale(&self, state: &CustomerState, scorer: &Scorer<'_>, now: Timestamp) -> Option<Scale<'_>> {
        let edges = Cow::Borrowed(self.edges.as_slice());
        match self.measure {
            BandMeasure::Score(kind) => Some(Scale {
                value: scorer.score(kind, now).ok()?,
                edges,
            }),
            BandMeasure::Revenue => {
                let whole = state.combined();
                let (currency, totals) = whole.purchases().totals().max_by_key(|(_, totals)| totals.gross)?;
                let wanted = self.currency.is_none_or(|wanted| wanted == currency);
                let unit = 10_i64.pow(currency.exponent());
                wanted.then(|| Scale {
                    value: totals.net() as f64 / unit as f64,
                    edges,
                })
            }
            BandMeasure::Stage => {
                let value = match new_until(scorer) {
                    None => PROSPECT,
                    Some(end) if now < end => NEW,
                    Some(_) => scorer.score(ScoreKind::Attrition, now).unwrap_or(0.0),
                };
                let stages = &scorer.model().stages;
                let edges = [NEW, 0.0, stages.slowing, stages.at_risk, stages.lapsed];
                Some(Scale {
                    value,
                    edges: Cow::Owned(edges.to_vec()),
                })
            }
        }
    }

    /// Below this the band above an edge is left.
    fn lower(&self, edges: &[f64], nth: usize) -> f64 {
        let at = |nth: usize| edges.get(nth).copied().unwrap_or(f64::INFINITY);
        let edge = at(nth);
        let slack = match self.measure {
            _ if edge <= 0.0 => return edge,
            BandMeasure::Revenue => edge * self.hysteresis,
            BandMeasure::Score(_) | BandMeasure::Stage => self.hysteresis,
        };
        let below = nth.checked_sub(1).map_or(0.0, at).max(0.0);
        edge - slack.min((edge - below) / 2.0)
    }

    /// The place that is due: up as soon as an edge is reached, down only when it is left by more than the slack.
    fn place(&self, scale: &Scale<'_>, from: Option<u8>) -> u8 {
        let edges = scale.edges.as_ref();
        let reached = edges.iter().filter(|edge| scale.value >= **edge).count();
        let held = (0..edges.len())
            .filter(|nth| scale.value >= self.lower(edges, *nth))
            .count();
        let place = from.map_or(reached, |from| usize::from(from).clamp(reached, held));
        u8::try_from(place).unwrap_or(u8::MAX)
    }

    fn called(&self, place: u8) -> String {
        let name = self.names.get(usize::from(place));
        name.cloned().unwrap_or_else(|| place.to_string())
    }

    /// Notes where a customer is at an instant; the change, if it is one.
    pub(crate) fn look(&self, look: &mut Look<'_>) -> Option<Decision> {
        let refuses = look.state.consent.get(&Purpose::Profiling);
        if !look.key.person.is_known() || refuses.is_some_and(|said| said.state == ConsentState::Refused) {
            return None;
        }
        let scale = self.scale(look.state, look.scorer, look.now)?;
        let before = self.known(look.state);
        let place = self.place(&scale, before);
        if before == Some(place) {
            return None;
        }
        let in_band = InBand {
            version: self.short(),
            place,
        };
        let _ = look.state.bands.insert(self.id.clone(), in_band);
        let from = before?;
        let edge = if place > from {
            scale.edges.get(usize::from(place).saturating_sub(1)).copied()
        } else {
            Some(self.lower(&scale.edges, usize::from(place)))
        };
        let (value, threshold) = (scale.value, edge.unwrap_or_default());
        let id = move_id(look.key, self.id.as_str(), self.version, look.now, (from, place));
        let assessment = assess(look.state, look.model, look.now);
        let reasons = assessment.reasons.iter().map(|reason| FlagReason {
            code: reason.code.label().to_owned(),
            text: reason.text.clone(),
            events: reason.events.clone(),
        });
        let flag = Flag {
            id: id.to_string(),
            workspace: look.key.workspace.to_string(),
            customer: look.key.person.to_string(),
            policy: self.id.to_string(),
            policy_version: format!("{:016x}", self.version),
            kind: FlagKind::BandChanged,
            score: FlagScore {
                kind: self.measure.name(),
                value,
                threshold,
            },
            raised_at: look.now.to_string(),
            stage: assessment.stage.label().to_owned(),
            reasons: reasons.collect(),
            model: assessment.model,
            play: String::new(),
            customer_benefit: String::new(),
            segment: None,
            recalls: None,
            band: Some(BandMove {
                from: self.called(from),
                to: self.called(place),
                up: place > from,
            }),
            plan: Plan::default(),
        };
        Some(Decision::Moved {
            id,
            flag: Box::new(flag),
        })
    }

    /// The first instant after `now`, under continued silence, at which [`Band::look`] would find a change; at most `until`.
    pub(crate) fn due(
        &self,
        key: &CustomerKey,
        state: &CustomerState,
        scorer: &Scorer<'_>,
        now: Timestamp,
        until: Timestamp,
    ) -> Option<Timestamp> {
        let place = self.known(state).filter(|_| key.person.is_known())?;
        let scale = self.scale(state, scorer, now)?;
        // A change that the last look has held back waits for what made it do so.
        if self.place(&scale, Some(place)) != place {
            return None;
        }
        let edges = scale.edges.as_ref();
        let nth = usize::from(place);
        let high = edges.get(nth).copied().unwrap_or(f64::INFINITY);
        let low = nth
            .checked_sub(1)
            .map_or(f64::NEG_INFINITY, |nth| self.lower(edges, nth));
        match self.measure {
            BandMeasure::Score(kind) => scorer.first_outside(kind, (low, high), now, until),
            BandMeasure::Stage if scale.value >= 0.0 => scorer.first_crossing(ScoreKind::Attrition, high, now, until),
            BandMeasure::Stage => new_until(scorer).filter(|end| now < *end && *end <= until),
            BandMeasure::Revenue => None,
        }
    }
}

/// Until when a customer is new; `None` for prospects.
fn new_until(scorer: &Scorer<'_>) -> Option<Timestamp> {
    let first = scorer.features().purchases?.first;
    let days = i32::from(scorer.model().stages.new_days);
    Some(Day(first.0.saturating_add(days)).start())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn band(measure: BandMeasure, edges: &[f64], hysteresis: f64) -> Band {
        Band {
            id: PolicyId::new("risk").unwrap(),
            version: 1,
            measure,
            edges: edges.to_vec(),
            hysteresis,
            names: Vec::new(),
            currency: None,
        }
    }

    #[test]
    fn a_band_is_entered_at_its_edge_and_left_below_it() {
        let of = band(BandMeasure::Score(ScoreKind::Attrition), &[0.3, 0.5, 0.7], 0.05);
        let place = |value: f64, from: Option<u8>| {
            let scale = Scale {
                value,
                edges: Cow::Borrowed(&of.edges),
            };
            of.place(&scale, from)
        };
        assert_eq!(
            [0.0, 0.3, 0.49, 0.5, 1.0].map(|value| place(value, None)),
            [0, 1, 1, 2, 3]
        );
        // Upwards at once, several at a time.
        assert_eq!(
            (place(0.299, Some(0)), place(0.3, Some(0)), place(0.9, Some(0))),
            (0, 1, 3)
        );
        // Downwards only from below the slack.
        assert_eq!(
            (place(0.66, Some(3)), place(0.64, Some(3)), place(0.1, Some(3))),
            (3, 2, 0)
        );
        // Between two edges that are nearer than the slack there is a way down nevertheless.
        let near = band(BandMeasure::Score(ScoreKind::Attrition), &[0.5, 0.52], 0.05);
        assert!((near.lower(&near.edges, 1) - 0.51).abs() < 1e-12);
    }

    #[test]
    fn tiers_are_left_by_a_share() {
        let of = band(BandMeasure::Revenue, &[100.0, 1_000.0], 0.1);
        let scale = |value: f64| Scale {
            value,
            edges: Cow::Borrowed(&of.edges),
        };
        assert_eq!(
            (of.place(&scale(950.0), Some(2)), of.place(&scale(899.0), Some(2))),
            (2, 1)
        );
        assert_eq!((of.place(&scale(-5.0), None), of.place(&scale(-5.0), Some(1))), (0, 0));
    }
}
