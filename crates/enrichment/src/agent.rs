//! Did a person act, or a machine? A likelihood with its indicators, from the user agent and from what happened.
//!
//! The lists of crawlers are written for web pages. When an *e-mail* is opened, two of their entries are people: the
//! image proxies of Gmail and Yahoo fetch a picture because somebody reads the mail. And one program that no list
//! knows is a machine: Apple's mail privacy proxy loads every picture, read or not, and calls itself just
//! `Mozilla/5.0`. So opens and clicks of e-mails are judged by rules of their own.

use crate::browsers::Browsers;
use regex::bytes::{RegexSet, RegexSetBuilder};
use smol_str::SmolStr;
use std::collections::HashMap;
use std::sync::LazyLock;
use vigie_event::{Agent, Signal};

const CRAWLERS: &str = include_str!("../data/crawlers.txt");
/// Image proxies behind which a person reads.
const MAIL_PROXIES: &[&str] = &["GoogleImageProxy", "YahooMailProxy"];
/// What Apple's mail privacy proxy sends, and nothing else.
const APPLE_MAIL_PRIVACY: &str = "Mozilla/5.0";
/// Distinct user agents whose judgement is remembered; beyond that the memory starts afresh.
const REMEMBERED: usize = 10_000;
/// Longest part of a user agent that is looked at.
const LOOKED_AT: usize = 1024;

/// The compiled-in reference data could not be read: a fault of the build, found by its tests.
#[derive(Debug, thiserror::Error)]
#[error("reference data of user agents cannot be read: {0}")]
pub struct AgentError(pub(crate) String);

#[derive(Debug, Clone)]
struct Known {
    crawler: bool,
    family: Option<String>,
}

/// The compiled lists: immutable, made once per process, since compiling them takes longer than judging a million events.
#[derive(Debug)]
struct Lists {
    crawlers: RegexSet,
    browsers: Browsers,
}

static LISTS: LazyLock<Result<Lists, String>> = LazyLock::new(|| {
    let patterns = CRAWLERS.lines().filter(|line| !line.is_empty());
    let crawlers = RegexSetBuilder::new(patterns)
        .unicode(false)
        .size_limit(64 << 20)
        .build()
        .map_err(|error| error.to_string())?;
    Ok(Lists {
        crawlers,
        browsers: Browsers::compiled_in()?,
    })
});

#[derive(Debug)]
pub(crate) struct Agents {
    lists: &'static Lists,
    remembered: HashMap<SmolStr, Known>,
}

impl Agents {
    pub(crate) fn compiled_in() -> Result<Self, AgentError> {
        let lists = LISTS.as_ref().map_err(|reason| AgentError(reason.clone()))?;
        Ok(Self {
            lists,
            remembered: HashMap::new(),
        })
    }

    pub(crate) fn judge(&mut self, signal: Signal, user_agent: Option<&str>) -> Agent {
        let Some(text) = user_agent.map(str::trim).filter(|text| !text.is_empty()) else {
            // Tills, call centres and servers name no user agent; absence is no evidence.
            return Agent {
                human_permille: 1000,
                indicators: Vec::new(),
                family: None,
            };
        };
        let known = self.look_up(text);
        let mail = matches!(signal, Signal::EmailOpen | Signal::EmailClick);
        let (human_permille, indicators) = if mail && MAIL_PROXIES.iter().any(|proxy| text.contains(proxy)) {
            (800, vec!["mail_image_proxy"])
        } else if mail && text == APPLE_MAIL_PRIVACY {
            (100, vec!["apple_mail_privacy"])
        } else if known.crawler {
            (0, vec!["crawler_user_agent"])
        } else {
            (1000, Vec::new())
        };
        Agent {
            human_permille,
            indicators,
            family: known.family,
        }
    }

    fn look_up(&mut self, text: &str) -> Known {
        if let Some(known) = self.remembered.get(text) {
            return known.clone();
        }
        let looked_at = text.get(..text.floor_char_boundary(LOOKED_AT)).unwrap_or(text);
        let known = Known {
            crawler: self.lists.crawlers.is_match(looked_at.as_bytes()),
            family: self.lists.browsers.family(looked_at),
        };
        if self.remembered.len() >= REMEMBERED {
            self.remembered.clear();
        }
        let _ = self.remembered.insert(SmolStr::new(text), known.clone());
        known
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use vigie_event::json::{Receipt, read};
    use vigie_event::{Event, Timestamp, Workspace};

    pub(crate) fn event(signal: &str, user_agent: Option<&str>) -> Event {
        let receipt = Receipt {
            workspace: Workspace::new("w").unwrap(),
            received_at: Timestamp(1_795_000_000_000),
            sent_at: None,
            user_agent: None,
            oldest: None,
        };
        let text =
            serde_json::json!({"user_id": "u", "signal": signal, "context": {"user_agent": user_agent.unwrap_or("")}});
        read(&text.to_string(), &receipt).unwrap()
    }

    const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
    const GOOGLEBOT: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
    const GMAIL: &str = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)";

    #[test]
    fn people_and_machines_are_told_apart() {
        let mut agents = Agents::compiled_in().unwrap();
        for (signal, user_agent, human, indicator) in [
            (Signal::PageView, None, true, None),
            (Signal::PageView, Some(FIREFOX), true, None),
            (Signal::PageView, Some(GOOGLEBOT), false, Some("crawler_user_agent")),
            (
                Signal::PageView,
                Some("Mozilla/5.0 (X11; Linux x86_64) HeadlessChrome/156.0"),
                false,
                Some("crawler_user_agent"),
            ),
            (Signal::EmailOpen, Some(GMAIL), true, Some("mail_image_proxy")),
            (
                Signal::EmailOpen,
                Some("Mozilla/5.0"),
                false,
                Some("apple_mail_privacy"),
            ),
            (Signal::PageView, Some("Mozilla/5.0"), true, None),
        ] {
            let agent = agents.judge(signal, user_agent);
            assert_eq!(agent.is_human(), human, "{user_agent:?}");
            assert_eq!(agent.indicators.first().copied(), indicator, "{user_agent:?}");
        }
        assert_eq!(
            agents.judge(Signal::PageView, Some(FIREFOX)).family.as_deref(),
            Some("Firefox")
        );
    }

    #[test]
    fn very_long_user_agents_are_judged_by_their_beginning() {
        let mut agents = Agents::compiled_in().unwrap();
        let long = format!("{FIREFOX} {}", "é".repeat(5000));
        assert!(agents.judge(Signal::PageView, Some(&long)).is_human());
    }
}
