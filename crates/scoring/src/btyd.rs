//! "Buy till you die": the closed forms of BG/NBD and MBG/NBD.
//!
//! Owns the two models' arithmetic: P(alive), P(no purchase in the next H), the log-likelihood of one customer and the
//! age at which P(alive) falls to a level. It knows nothing of customers, clocks or units: time is whatever the
//! parameters were fitted in (weeks everywhere in this crate). It never calls a transcendental function of the standard
//! library: those differ between platforms, `libm` does not, so that a replay gives the same bits anywhere.
//!
//! Sources: Fader, Hardie, Lee, "Counting your customers the easy way", Marketing Science 24(2), 2005 (BG/NBD);
//! Batislam, Denizel, Filiztekin, "Empirical validation and comparison of models for customer base analysis",
//! IJRM 24(3), 2007 (MBG/NBD). Everything is evaluated in logits and with `log1p`/`expm1`, which keeps full precision
//! for 100,000 purchases, a century of silence and probabilities that saturate.

use crate::quadrature;
use libm::{exp, expm1, lgamma, log, log1p};

/// When a customer may leave for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// BG/NBD: after each *repeat* purchase. Somebody who bought once is alive for ever.
    Bg,
    /// MBG/NBD: after each purchase, the first included.
    Mbg,
}

/// One fitted model: the family and its four positive parameters.
///
/// Purchases while alive are Poisson with a rate drawn from Gamma(`r`, `alpha`); after a purchase the customer leaves
/// with a probability drawn from Beta(`a`, `b`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Btyd {
    /// When a customer may leave.
    pub family: Family,
    /// Shape of the purchase rate, > 0, without unit.
    pub r: f64,
    /// Scale of the purchase rate, > 0, in units of time (weeks in this crate).
    pub alpha: f64,
    /// First shape of the probability to leave, > 0.
    pub a: f64,
    /// Second shape of the probability to leave, > 0.
    pub b: f64,
}

/// What the models need to know about one customer, in the parameters' unit of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recency {
    /// Repeat purchases: purchases − 1.
    pub x: u32,
    /// Time from the first purchase to the last, ≥ 0.
    pub t_x: f64,
    /// Time from the first purchase to now (T in the papers), ≥ `t_x`.
    pub age: f64,
}

impl Recency {
    /// The time since the last purchase, never negative.
    #[must_use]
    pub fn silence(self) -> f64 {
        (self.age - self.t_x).max(0.0)
    }
}

/// ln(p / (1 − p)) of P(alive) as its two additive terms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Logit {
    /// What the purchase history says, constant under silence. `+∞` for BG/NBD without repeat purchase.
    pub history: f64,
    /// What the silence since the last purchase says: ≤ 0, falling.
    pub silence: f64,
}

impl Logit {
    /// The logit itself.
    #[must_use]
    pub fn total(self) -> f64 {
        self.history + self.silence
    }
}

/// P(no purchase in the next H) as two disjoint ways for it to happen; both are probabilities and add up to the score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NoPurchase {
    /// 1 − P(alive): the customer has already left.
    pub already_gone: f64,
    /// The customer is alive and does not buy within H.
    pub still_customer: f64,
}

impl NoPurchase {
    /// The probability itself, in [0, 1].
    #[must_use]
    pub fn total(self) -> f64 {
        (self.already_gone + self.still_customer).min(1.0)
    }
}

impl Btyd {
    /// P(alive) in log-odds, split into history and silence:
    /// `ln((b + x') / a) − (r + x)·ln((α + T) / (α + t_x))`, `x' = x` for MBG/NBD and `x − 1` for BG/NBD.
    #[must_use]
    pub fn logit_alive(&self, recency: Recency) -> Logit {
        self.curve(recency.x, recency.t_x).at(recency.silence())
    }

    /// P(alive), in [0, 1].
    #[must_use]
    pub fn p_alive(&self, recency: Recency) -> f64 {
        sigmoid(self.logit_alive(recency).total())
    }

    /// P(no purchase within `horizon` from now). Only positive terms are added, so nothing cancels.
    ///
    /// Given that the customer is alive, the rate is Gamma(r + x, α + T) and leaving happens only at purchases; hence
    /// `(1 − P) + P·((α + T) / (α + T + H))^(r + x)`.
    #[must_use]
    pub fn no_purchase(&self, recency: Recency, horizon: f64) -> NoPurchase {
        self.curve(recency.x, recency.t_x)
            .no_purchase(recency.silence(), horizon)
    }

    /// [`Self::no_purchase`] as one number.
    #[must_use]
    pub fn p_no_purchase(&self, recency: Recency, horizon: f64) -> f64 {
        self.no_purchase(recency, horizon).total()
    }

    /// ln of the likelihood of this customer's purchases (x, t_x, T).
    #[must_use]
    pub fn ln_likelihood(&self, recency: Recency) -> f64 {
        let Self { r, alpha, a, b, .. } = *self;
        let x = f64::from(recency.x);
        let age = recency.t_x + recency.silence();
        if recency.x == 0 {
            // lgamma differences would be rounding noise here, and the result may be as small as −T·r/α.
            let none = -r * log1p(age / alpha);
            return match self.family {
                Family::Bg => none,
                Family::Mbg => log1p(b / (a + b) * expm1(none)),
            };
        }
        let survived = match self.family {
            Family::Bg => x,
            Family::Mbg => x + 1.0,
        };
        let alive = lgamma(r + x) - lgamma(r) - r * log1p(age / alpha) - x * log(alpha + age)
            + ln_beta(a, b + survived)
            - ln_beta(a, b);
        // L = alive·(1 + (1 − P) / P), and ln((1 − P) / P) is the logit with its sign turned.
        alive + softplus(-self.logit_alive(recency).total())
    }

    /// Purchases to be expected within `horizon` from now:
    /// P(alive) · ∫ Beta(p; a, b + x') (1 − (1 + p·w)^−(r + x)) / p dp, w = horizon / (α + T).
    ///
    /// The integrand is positive, so nothing cancels, and there is no singularity at a = 1, where the textbook form with a
    /// hypergeometric function is 0/0 (the two are equal by Pfaff's transformation).
    #[must_use]
    pub fn expected_purchases(&self, recency: Recency, horizon: f64) -> f64 {
        let x = f64::from(recency.x);
        let age = recency.t_x + recency.silence();
        let survived = match self.family {
            Family::Bg => x,
            Family::Mbg => x + 1.0,
        };
        let w = horizon / (self.alpha + age);
        self.p_alive(recency) * mean_purchases(self.a, self.b + survived, self.r + x, w)
    }

    /// The age T (from the first purchase) at which P(alive) has fallen to `level`, `0 < level < 1`, when nothing more is
    /// bought: `(α + t_x)·(odds·(1 − level) / level)^(1 / (r + x)) − α`.
    ///
    /// The raw formula: a value at or below `t_x` means that P(alive) was never above `level`; `+∞` that it never falls
    /// to it (always so for BG/NBD without repeat purchase).
    #[must_use]
    pub fn crossing_age(&self, x: u32, t_x: f64, level: f64) -> f64 {
        t_x + self.curve(x, t_x).silence_to(logit(level))
    }

    /// P(alive) of one customer as a function of the silence.
    pub(crate) fn curve(&self, x: u32, t_x: f64) -> Curve {
        Curve {
            history: self.logit_at_last_purchase(x),
            shape: self.r + f64::from(x),
            scale: self.alpha + t_x,
        }
    }

    /// ln(P / (1 − P)) right after the last purchase; `+∞` when the customer cannot have left.
    fn logit_at_last_purchase(&self, x: u32) -> f64 {
        let chances_survived = match (self.family, x.checked_sub(1)) {
            (Family::Mbg, _) => x,
            (Family::Bg, Some(repeats)) => repeats,
            (Family::Bg, None) => return f64::INFINITY,
        };
        log((self.b + f64::from(chances_survived)) / self.a)
    }
}

/// The log-odds of P(alive) of one customer under silence s: `history − shape·ln(1 + s / scale)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Curve {
    /// `+∞` when P(alive) is 1 for ever.
    history: f64,
    /// r + x.
    shape: f64,
    /// α + t_x.
    scale: f64,
}

impl Curve {
    pub(crate) fn at(self, silence: f64) -> Logit {
        Logit {
            history: self.history,
            silence: -self.shape * log1p(silence / self.scale),
        }
    }

    /// P(no purchase within `horizon`) after a silence, see [`Btyd::no_purchase`].
    pub(crate) fn no_purchase(self, silence: f64, horizon: f64) -> NoPurchase {
        let logit = self.at(silence).total();
        let none_if_alive = exp(-self.shape * log1p(horizon / (self.scale + silence)));
        NoPurchase {
            already_gone: sigmoid(-logit),
            still_customer: sigmoid(logit) * none_if_alive,
        }
    }

    /// The silence that brings the log-odds to `logit`; negative when they are never above it. `expm1` keeps the digits of
    /// a short silence after a long life.
    pub(crate) fn silence_to(self, logit: f64) -> f64 {
        self.scale * expm1((self.history - logit) / self.shape)
    }
}

/// The mean over p ~ Beta(a, b) of (1 − (1 + p·w)^−shape) / p.
fn mean_purchases(a: f64, b: f64, shape: f64, w: f64) -> f64 {
    if w <= 0.0 {
        return 0.0;
    }
    if w <= 0.5 && shape * w <= 1.0 {
        return series(a, b, shape, w);
    }
    closed_form(a, b, shape, w).unwrap_or_else(|| integral(a, b, shape, w))
}

/// The textbook form, where it keeps at least ten digits, which it does for all but extreme customers:
/// c / (a − 1) · (1 − (1 + w)^−shape · ₂F₁(shape, b; c; z)), c = a + b − 1, z = w / (1 + w). All terms of the series are
/// positive. Source: Fader, Hardie, Lee, "Counting your customers the easy way", Marketing Science 24(2), 2005, eq. (10).
fn closed_form(a: f64, b: f64, shape: f64, w: f64) -> Option<f64> {
    let c = a + b - 1.0;
    let z = w / (1.0 + w);
    // What the difference from 1 may lose: it is about (a − 1)·w / (1 + w), and the power carries shape roundings.
    let is_safe = c > 0.01 && (a - 1.0).abs() * z > 1e-3 && shape < 100.0 && z < 0.98;
    if !is_safe {
        return None;
    }
    let (mut term, mut sum) = (1.0, 1.0);
    for k in 0..4_000u32 {
        let k = f64::from(k);
        term *= (shape + k) * (b + k) / ((c + k) * (k + 1.0)) * z;
        sum += term;
        // Once the terms fall they fall at least as fast as this ratio, which bounds what is left of them.
        let ratio = (shape + k + 1.0) * (b + k + 1.0) / ((c + k + 1.0) * (k + 2.0)) * z;
        if ratio < 1.0 && term * ratio.max(z) <= sum * 1e-16 * (1.0 - ratio.max(z)) {
            let lost = -expm1(log(sum) - shape * log1p(w));
            return Some(c / (a - 1.0) * lost);
        }
    }
    None
}

/// The integral itself.
fn integral(a: f64, b: f64, shape: f64, w: f64) -> f64 {
    // Over the log-odds u of p: the density e^(a·ln p + b·ln(1 − p)) has one peak, at ln(a / b), and is summed for its own
    // normalisation with the same nodes, so that no lgamma is needed.
    let ln_density = |u: f64| -a * softplus(-u) - b * softplus(u);
    let peak_at = log(a / b);
    let peak = ln_density(peak_at);
    let (mut mass, mut sum) = (0.0, 0.0);
    let mut add = |left: f64, right: f64| {
        let mut panel_mass = 0.0;
        quadrature::visit(left, right, |u, weight| {
            // The softplus of u and of -u, and p, come from one exponential.
            let e = exp(-u.abs());
            let bend = log1p(e);
            let ln_density = -a * ((-u).max(0.0) + bend) - b * (u.max(0.0) + bend);
            let density = weight * exp(ln_density - peak);
            let p = if u >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) };
            panel_mass += density;
            // Far to the left p underflows; the limit is shape·w.
            let purchases = if p * w < 1e-200 {
                shape * w
            } else {
                -expm1(-shape * log1p(p * w)) / p
            };
            sum += density * purchases;
        });
        mass += panel_mass;
        ln_density(left).max(ln_density(right)) - peak > -45.0
    };
    // Steps no wider than the peak or than the logistic curve's own bend; longer only where nothing bends any more.
    let step = (1.0 / a + 1.0 / b).sqrt().min(1.0) * 1.5;
    for direction in [-1.0, 1.0] {
        let (mut at, mut width) = (peak_at, step);
        loop {
            let next = at + direction * width;
            let more = if direction < 0.0 { add(next, at) } else { add(at, next) };
            // The density at the nearer end decides: it falls monotonically away from the peak.
            if !more {
                break;
            }
            at = next;
            if at.abs() > 60.0 {
                width *= 1.5;
            } else if width < 1.5 && (at - peak_at).abs() > 8.0 * width {
                width *= 2.0;
            }
        }
    }
    sum / mass
}

/// The same as an alternating series, for small shape·w: C Σ (−1)^(k−1) (A)_k (a)_(k−1) / ((C)_k k!) w^k, C = a + b − 1.
fn series(a: f64, b: f64, shape: f64, w: f64) -> f64 {
    let c = a + b - 1.0;
    let (mut term, mut sum) = (shape * w, 0.0);
    for k in 1..200u32 {
        sum += term;
        let k = f64::from(k);
        term *= -(shape + k) / (c + k) * (a + k - 1.0) / (k + 1.0) * w;
        if term.abs() <= sum.abs() * 1e-17 {
            break;
        }
    }
    sum
}

/// 1 / (1 + e^−z) without overflow; exact at ±∞.
#[must_use]
pub fn sigmoid(z: f64) -> f64 {
    if z >= 0.0 {
        1.0 / (1.0 + exp(-z))
    } else {
        let e = exp(z);
        e / (1.0 + e)
    }
}

/// ln(p / (1 − p)).
#[must_use]
pub fn logit(p: f64) -> f64 {
    log(p) - log1p(-p)
}

/// ln(1 + e^z) without overflow.
fn softplus(z: f64) -> f64 {
    z.max(0.0) + log1p(exp(-z.abs()))
}

fn ln_beta(a: f64, b: f64) -> f64 {
    lgamma(a) + lgamma(b) - lgamma(a + b)
}
