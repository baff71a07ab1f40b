//! Who makes up the value, and how much of it is at stake (R21, R22, R24, R32, R35, R38): the customers of a workspace by value,
//! by attrition and by stage of the life cycle.
//!
//! Exact, not sketched: every customer's value is kept while the report is made (about a hundred bytes each). Currencies are
//! never added up; each has a portfolio of its own.

use super::Money;
use crate::stage::LifeStage;
use serde::Serialize;
use std::collections::BTreeMap;
use vigie_event::{CustomerKey, Timestamp};
use vigie_scoring::{CustomerState, Model, assess};

/// Levels of attrition that part the columns of the portfolio.
pub const BANDS: [f64; 3] = [0.3, 0.5, 0.7];
/// Customers that are named.
const NAMED: usize = 25;
/// Points of the curve of concentration.
const POINTS: usize = 50;

/// One customer, as the report names them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Named {
    /// The id.
    pub customer: String,
    /// Stage of the life cycle.
    pub stage: &'static str,
    /// Attrition now.
    pub attrition: f64,
    /// Historical value: what they brought, net of refunds.
    pub historical: f64,
    /// Current value: margin to be expected in the coming year.
    pub current: f64,
    /// Lifetime value.
    pub lifetime: f64,
    /// Value at stake.
    pub at_stake: f64,
    /// The strongest reason, in a sentence.
    pub reason: String,
}

/// Sums over some customers, in major units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Sums {
    /// How many.
    pub customers: u64,
    /// What they brought, net of refunds.
    pub historical: f64,
    /// Margin to be expected of them in the coming year.
    pub current: f64,
    /// Their lifetime value: customer equity.
    pub lifetime: f64,
    /// What is at stake.
    pub at_stake: f64,
    /// Mean probability of a purchase within a year: retention.
    pub retention: f64,
    /// Share with more than one purchase day.
    pub repeat: f64,
}

impl Sums {
    fn add(&mut self, one: &One) {
        self.customers += 1;
        self.historical += one.named.historical;
        self.current += one.named.current;
        self.lifetime += one.named.lifetime;
        self.at_stake += one.named.at_stake;
        self.retention += one.retention;
        self.repeat += f64::from(u8::from(one.repeat));
    }

    fn finish(mut self) -> Self {
        let count = self.customers.max(1) as f64;
        self.retention /= count;
        self.repeat /= count;
        self
    }
}

/// A tier of customers by current value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TierSums {
    /// `A`: the first 80 % of the value, `B`: the next 15 %, `C`: the rest.
    pub tier: &'static str,
    /// The least current value in it.
    pub from: f64,
    /// All of it.
    pub all: Sums,
    /// By attrition: below the first of [`BANDS`], between two of them, from the last on.
    pub bands: [Sums; 4],
}

/// The customers who pay in one currency.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CurrencyPortfolio {
    /// ISO 4217 code.
    pub currency: String,
    /// Everybody.
    pub all: Sums,
    /// Share of the current value that a fifth of the customers hold, the most valuable ones (R22).
    pub top_fifth: f64,
    /// Of that fifth, those with attrition from the last of [`BANDS`] on.
    pub top_fifth_at_risk: u64,
    /// Share of customers, most valuable first, and the share of the value that they hold.
    pub curve: Vec<(f64, f64)>,
    /// Tiers from A to C.
    pub tiers: Vec<TierSums>,
    /// By stage of the life cycle.
    pub stages: BTreeMap<&'static str, Sums>,
    /// Those with most at stake who may be contacted.
    pub most_at_stake: Vec<Named>,
    /// What money loses in a year, in the lifetime value (R36).
    pub discount_rate: f64,
}

/// The portfolio.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Portfolio {
    /// The instant that it holds for.
    pub as_of: String,
    /// The model.
    pub model: String,
    /// Customers, those without a purchase included.
    pub customers: u64,
    /// All customers by stage.
    pub stages: BTreeMap<&'static str, u64>,
    /// By currency, the one of most customers first.
    pub currencies: Vec<CurrencyPortfolio>,
    /// What was brought, by currency, in minor units.
    pub historical_minor: Money,
}

#[derive(Debug)]
struct One {
    named: Named,
    retention: f64,
    repeat: bool,
    stage: LifeStage,
}

/// Looks at customers one by one.
#[derive(Debug)]
pub struct Builder<'a> {
    model: &'a Model,
    now: Timestamp,
    customers: u64,
    stages: BTreeMap<&'static str, u64>,
    ones: BTreeMap<String, Vec<One>>,
    rates: BTreeMap<String, f64>,
    historical: Money,
}

impl<'a> Builder<'a> {
    /// Nobody looked at yet.
    #[must_use]
    pub fn new(model: &'a Model, now: Timestamp) -> Self {
        Self {
            model,
            now,
            customers: 0,
            stages: BTreeMap::new(),
            ones: BTreeMap::new(),
            rates: BTreeMap::new(),
            historical: Money::new(),
        }
    }

    /// Looks at a customer; signposts to others are left out.
    pub fn add(&mut self, key: &CustomerKey, state: &CustomerState) {
        if state.linked_to.is_some() {
            return;
        }
        let assessment = assess(state, self.model, self.now);
        let stage = LifeStage::of(state, assessment.stage, self.now);
        self.customers += 1;
        *self.stages.entry(stage.label()).or_default() += 1;
        for (currency, totals) in state.combined().purchases().totals() {
            super::add(&mut self.historical, currency, totals.net());
        }
        let Some(value) = assessment.value else { return };
        let named = Named {
            customer: key.person.to_string(),
            stage: stage.label(),
            attrition: assessment.attrition.as_ref().map_or(0.0, |attrition| attrition.score),
            historical: value.historical,
            current: value.current,
            lifetime: value.lifetime,
            at_stake: value.at_stake,
            reason: assessment
                .reasons
                .first()
                .map(|reason| reason.text.clone())
                .unwrap_or_default(),
        };
        let currency = value.currency.to_string();
        let _ = self.rates.insert(currency.clone(), value.discount_rate);
        self.ones.entry(currency).or_default().push(One {
            named,
            retention: value.retention,
            repeat: assessment.evidence.purchases.is_some_and(|bought| bought.x > 0),
            stage,
        });
    }

    /// The portfolio.
    #[must_use]
    pub fn finish(self) -> Portfolio {
        let rates = self.rates;
        let mut currencies: Vec<CurrencyPortfolio> = self
            .ones
            .into_iter()
            .map(|(currency, ones)| {
                let rate = rates.get(&currency).copied().unwrap_or_default();
                of_currency(currency, ones, rate)
            })
            .collect();
        currencies.sort_by_key(|portfolio| std::cmp::Reverse(portfolio.all.customers));
        Portfolio {
            as_of: self.now.to_string(),
            model: self.model.version.clone(),
            customers: self.customers,
            stages: self.stages,
            currencies,
            historical_minor: self.historical,
        }
    }
}

fn of_currency(currency: String, mut ones: Vec<One>, discount_rate: f64) -> CurrencyPortfolio {
    // Most valuable first; of equals by name, so that the report is the same every time.
    ones.sort_by(|a, b| {
        let by_value = b.named.current.total_cmp(&a.named.current);
        by_value.then_with(|| a.named.customer.cmp(&b.named.customer))
    });
    let total: f64 = ones.iter().map(|one| one.named.current.max(0.0)).sum();
    let part = |sum: f64| if total > 0.0 { sum / total } else { 0.0 };
    let fifth = ones.len().div_ceil(5);
    let (mut held, mut curve) = (0.0, vec![(0.0, 0.0)]);
    let (mut all, mut stages) = (Sums::default(), BTreeMap::<&'static str, Sums>::new());
    let mut tiers = ["A", "B", "C"].map(|tier| TierSums {
        tier,
        from: 0.0,
        all: Sums::default(),
        bands: [Sums::default(); 4],
    });
    let (mut top_fifth, mut top_fifth_at_risk) = (0.0, 0);
    for (place, one) in ones.iter().enumerate() {
        all.add(one);
        stages.entry(one.stage.label()).or_default().add(one);
        // The customer on a border belongs to the tier that they complete.
        let tier = match part(held) {
            before if before < 0.8 && one.named.current > 0.0 => 0,
            before if before < 0.95 && one.named.current > 0.0 => 1,
            _ => 2,
        };
        let band = BANDS.iter().filter(|from| one.named.attrition >= **from).count();
        if let Some(tier) = tiers.get_mut(tier) {
            tier.all.add(one);
            tier.from = one.named.current;
            if let Some(sums) = tier.bands.get_mut(band) {
                sums.add(one);
            }
        }
        held += one.named.current.max(0.0);
        if place < fifth {
            top_fifth = part(held);
            top_fifth_at_risk += u64::from(band == BANDS.len());
        }
        let step = (place + 1) * POINTS / ones.len();
        if step > place * POINTS / ones.len() {
            curve.push(((place + 1) as f64 / ones.len() as f64, part(held)));
        }
    }
    let mut most_at_stake: Vec<Named> = ones
        .iter()
        .filter(|one| one.stage != LifeStage::DoNotContact && one.named.at_stake > 0.0)
        .map(|one| one.named.clone())
        .collect();
    most_at_stake.sort_by(|a, b| {
        let by_stake = b.at_stake.total_cmp(&a.at_stake);
        by_stake.then_with(|| a.customer.cmp(&b.customer))
    });
    most_at_stake.truncate(NAMED);
    CurrencyPortfolio {
        currency,
        all: all.finish(),
        top_fifth,
        top_fifth_at_risk,
        curve,
        tiers: tiers
            .into_iter()
            .map(|tier| TierSums {
                all: tier.all.finish(),
                bands: tier.bands.map(Sums::finish),
                ..tier
            })
            .collect(),
        stages: stages.into_iter().map(|(stage, sums)| (stage, sums.finish())).collect(),
        most_at_stake,
        discount_rate,
    }
}
