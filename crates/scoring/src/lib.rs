//! Customer state and scores.
//!
//! Owns the integer record of a customer ([`CustomerState`]), the probability models on it ([`Btyd`], [`Model`]), what
//! they say at an instant ([`assess`]) and when a silent customer will cross a threshold ([`first_crossing`]). Beside them,
//! what live scoring needs: imported [`trees`], [`online`] learning, [`calibration`] counts and value [`tiers`].
//!
//! Everything is a pure function of (state, model, now): no I/O, no clock, no randomness, no logging. It knows nothing of
//! topics, HTTP or policies. Floats exist only at read time, never in the record, and come from `libm`, so that every
//! platform computes the same bits.

mod adjust;
mod assess;
pub mod btyd;
pub mod calibration;
pub mod churn;
mod complaint;
mod correction;
mod crossing;
mod features;
mod model;
pub mod online;
pub mod pareto;
mod quadrature;
mod reasons;
pub mod state;
pub mod tiers;
pub mod trees;
mod uncertainty;
pub mod value;
pub mod watch;

pub use adjust::{Adjustments, Incidents};
pub use assess::{
    Assessment, Attrition, Churn, ChurnScore, Contribution, Evidence, Factor, Glance, PAlive, Reason, ReasonCode,
    Stage, assess, assess_in, glance, score_at,
};
pub use btyd::Btyd;
pub use churn::ChurnModel;
pub use complaint::{Complaint, ComplaintPhase};
pub use correction::Correction;
pub use crossing::{first_crossing, next_refresh};
pub use features::{
    AttritionTerms, ChurnTerms, EngagementFeatures, Features, NotScored, PurchaseFeatures, ScoreKind, Scorer,
};
pub use model::{MAX_CANDIDATE_BYTES, Model, ModelError, Pool, Stages};
pub use pareto::ParetoNbd;
pub use reasons::Lang;
pub use state::{Cited, CodecError, CustomerState, Observation, Part};
pub use trees::{Trees, TreesError};
pub use value::{GammaGamma, Value, ValueModel};
