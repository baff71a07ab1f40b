//! Fitting, backtesting and calibrating the models of [`vigie_scoring`].
//!
//! Owns everything that looks at many customers at once: maximum likelihood ([`btyd`], [`money`]), point-in-time rows,
//! metrics and rolling-origin backtests. Pure functions of a transaction history: no I/O, no clock, no randomness that is
//! not seeded by the caller. It never scores a live customer (that is the scoring crate) and no fit ever sees an event at
//! or after its cut-off.

pub mod backtest;
pub mod boost;
pub mod btyd;
pub mod churn;
pub mod file;
pub mod history;
pub mod metrics;
pub mod money;
pub mod optimize;
pub mod report;
pub mod special;
pub mod table;

pub use history::History;
