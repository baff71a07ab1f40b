//! Where a customer stands in the life cycle (R9), in nine stages: the six that purchases and attrition tell
//! ([`vigie_scoring::Stage`]), and the three that only the course of relances and the person's own word tell.

use vigie_event::{ConsentState, DAY_MS, Purpose, Timestamp};
use vigie_scoring::state::Phase;
use vigie_scoring::{CustomerState, Stage};

/// Days for which somebody who came back after a flag counts as won back.
const WON_BACK_DAYS: i64 = 90;

macro_rules! stages {
    ($($(#[$doc:meta])* $variant:ident = $label:literal;)*) => {
        /// A stage of the life cycle.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum LifeStage { $($(#[$doc])* $variant,)* }

        impl LifeStage {
            /// Every stage.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name.
            #[must_use]
            pub const fn label(self) -> &'static str { match self { $(Self::$variant => $label,)* } }
        }
    };
}

stages! {
    /// Has never bought.
    Prospect = "prospect";
    /// Bought for the first time a few days ago.
    New = "new";
    /// Attrition is low.
    Active = "active";
    /// Attrition is rising.
    Slowing = "slowing";
    /// Attrition is high.
    AtRisk = "at_risk";
    /// All but gone.
    Lapsed = "lapsed";
    /// Came back after a flag, a short while ago.
    WonBack = "won_back";
    /// All but gone, and a flag has come to its end without a return.
    Lost = "lost";
    /// Refuses profiling or marketing: not to be contacted, whatever else holds.
    DoNotContact = "do_not_contact";
}

impl LifeStage {
    /// The stage of a record at an instant, `by_activity` being what purchases and attrition say.
    #[must_use]
    pub fn of(state: &CustomerState, by_activity: Stage, now: Timestamp) -> Self {
        let refuses = |purpose: Purpose| {
            let said = state.consent.get(&purpose);
            said.is_some_and(|said| said.state == ConsentState::Refused)
        };
        if refuses(Purpose::Profiling) || refuses(Purpose::Marketing) {
            return Self::DoNotContact;
        }
        let courses = state.ledger.policies.values().filter_map(|entry| entry.course);
        let ended = |phase: Phase| {
            let of = courses.clone().filter(|course| course.phase == phase);
            of.map(|course| course.since).max()
        };
        let won = ended(Phase::Returned).is_some_and(|at| now.ms_since(at) < WON_BACK_DAYS * DAY_MS);
        match by_activity {
            Stage::Prospect => Self::Prospect,
            Stage::Lapsed if ended(Phase::Lost) > ended(Phase::Returned) => Self::Lost,
            Stage::Lapsed => Self::Lapsed,
            Stage::AtRisk => Self::AtRisk,
            _ if won => Self::WonBack,
            Stage::New => Self::New,
            Stage::Active => Self::Active,
            Stage::Slowing => Self::Slowing,
        }
    }
}
