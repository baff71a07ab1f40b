//! The browser or client family of a user agent, by the rules of the ua-parser project. Evidence for people to read;
//! no verdict rests on it.

use std::fmt;
use ua_parser::{Extractor, Regexes};

const RULES: &str = include_str!("../data/browsers.json");

pub(crate) struct Browsers {
    extractor: Extractor<'static>,
}

impl fmt::Debug for Browsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Browsers")
    }
}

impl Browsers {
    pub(crate) fn compiled_in() -> Result<Self, String> {
        let rules: Regexes<'static> = serde_json::from_str(RULES).map_err(|error| error.to_string())?;
        let extractor = Extractor::try_from(rules).map_err(|error| error.to_string())?;
        Ok(Self { extractor })
    }

    pub(crate) fn family(&self, user_agent: &str) -> Option<String> {
        self.extractor
            .ua
            .extract(user_agent)
            .map(|found| found.family.into_owned())
    }
}
