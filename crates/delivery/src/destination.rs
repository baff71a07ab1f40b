//! Destinations from their file: TOML, checked as a whole, every fault reported at once with the destination's name. Secrets
//! stand elsewhere (`file:…` or `env:…`), are read through a function that is handed in, and are never shown.

use crate::flag::Told;
use crate::guard::Range;
use crate::signature;
use crate::template::Template;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;
use url::Url;
use vigie_event::Workspace;

/// Most destinations in one file.
const MAX_DESTINATIONS: usize = 100;
/// Longest address.
const MAX_URL_BYTES: usize = 2_048;
/// Most secrets of one webhook.
const MAX_SECRETS: usize = 4;
/// Ports that need no permission.
const PORTS: [u16; 2] = [443, 8443];
/// Bodies for products, as documented examples: a destination may name one instead of a body.
pub const PRESETS: [(&str, &str); 4] = [
    ("brevo", include_str!("presets/brevo.json")),
    ("dittofeed", include_str!("presets/dittofeed.json")),
    ("hubspot", include_str!("presets/hubspot.json")),
    ("mautic", include_str!("presets/mautic.json")),
];

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(String);

impl Hidden {
    /// The text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(…)")
    }
}

/// How a destination is spoken to.
#[derive(Debug)]
pub enum Kind {
    /// Standard Webhooks.
    Webhook {
        /// Active secrets; more than one while receivers change theirs.
        secrets: Vec<signature::Secret>,
    },
    /// Segment's HTTP tracking API: `track` calls.
    Segment {
        /// The source's write key.
        write_key: Hidden,
    },
    /// A body of one's own.
    Template {
        /// The body.
        template: Template,
    },
    /// A topic of the house's own broker: no entry of the file, and not spoken to over HTTP.
    Topic,
}

impl Kind {
    /// As written in the file.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Segment { .. } => "segment",
            Self::Template { .. } => "template",
            Self::Topic => "topic",
        }
    }
}

/// Where flags go.
#[derive(Debug)]
pub struct Destination {
    /// Its name: lower-case letters, digits and `-`, at most 40 characters. The name of its journals; a destination that is
    /// renamed begins anew.
    pub name: String,
    /// How it is spoken to.
    pub kind: Kind,
    /// Where it is.
    pub url: Url,
    /// Headers besides those of the kind; values may be secret.
    pub headers: Vec<(String, Hidden)>,
    /// The workspaces whose flags go there; empty means all.
    pub workspaces: BTreeSet<Workspace>,
    /// What it is told of.
    pub events: BTreeSet<Told>,
    /// The policies and bands whose flags and changes go there; empty means all.
    pub policies: BTreeSet<String>,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// Requests under way at the same time.
    pub concurrency: usize,
    /// Most requests a second.
    pub rate: u32,
    /// Most that arrives there on one day (UTC) from one workspace; what is beyond it waits for the next day.
    pub daily_capacity: Option<u32>,
    /// Older flags are not sent.
    pub max_age: Duration,
    /// Private addresses that may be connected to.
    pub allow_private: Vec<Range>,
    /// Certificates to trust instead of the public ones, PEM.
    pub ca: Option<String>,
}

/// All destinations.
#[derive(Debug, Default)]
pub struct Destinations(pub Vec<Destination>);

/// Why a text is not a list of destinations. The operator's to correct.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// Not the documented TOML; the text says where.
    #[error("destinations cannot be read: {0}")]
    Syntax(String),
    /// Values that cannot be; all of them.
    #[error("destinations are not valid: {}", .0.join("; "))]
    Values(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    destination: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    name: String,
    kind: String,
    url: String,
    #[serde(default)]
    secrets: Vec<String>,
    write_key: Option<String>,
    body: Option<String>,
    preset: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    secret_headers: BTreeMap<String, String>,
    #[serde(default)]
    workspaces: Vec<String>,
    #[serde(default)]
    policies: BTreeSet<String>,
    events: Option<Vec<String>>,
    timeout: Option<String>,
    concurrency: Option<usize>,
    rate: Option<u32>,
    daily_capacity: Option<u32>,
    max_age: Option<String>,
    #[serde(default)]
    allow_private: Vec<String>,
    #[serde(default)]
    allow_http: bool,
    #[serde(default)]
    allow_ports: BTreeSet<u16>,
    ca_file: Option<String>,
}

/// Reads a secret that is named `file:PATH` or `env:NAME`.
pub type ReadSecret<'a> = &'a dyn Fn(&str) -> Result<String, String>;

impl Destinations {
    /// Reads and checks a file of destinations.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn parse(text: &str, read: ReadSecret<'_>) -> Result<Self, DestinationError> {
        let raw: Raw =
            toml::from_str(text).map_err(|error| DestinationError::Syntax(error.to_string().trim_end().to_owned()))?;
        let mut faults = Vec::new();
        if raw.destination.len() > MAX_DESTINATIONS {
            faults.push(format!(
                "{} destinations are more than {MAX_DESTINATIONS}",
                raw.destination.len()
            ));
        }
        let mut names = BTreeSet::new();
        let mut found = Vec::new();
        for entry in raw.destination {
            let name = entry.name.clone();
            if !names.insert(name.clone()) {
                faults.push(format!("destination {name:?} stands twice"));
            }
            let mut own = Vec::new();
            let checked = entry.checked(read, &mut own);
            faults.extend(own.into_iter().map(|fault| format!("destination {name:?}: {fault}")));
            found.extend(checked);
        }
        if faults.is_empty() {
            Ok(Self(found))
        } else {
            Err(DestinationError::Values(faults))
        }
    }
}

impl Entry {
    fn checked(self, read: ReadSecret<'_>, faults: &mut Vec<String>) -> Option<Destination> {
        let named = (1..=40).contains(&self.name.len())
            && self
                .name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !named {
            faults.push("name: 1 to 40 lower-case letters, digits and -".to_owned());
        }
        let url = self.url(faults);
        let kind = self.kind(read, faults);
        let headers = self.headers(read, faults);
        let mut each = |texts: &[String], what: &str| {
            for text in texts {
                if let Err(error) = Workspace::new(text).map(drop) {
                    faults.push(format!("{what}: {text:?}: {error}"));
                }
            }
            texts.iter().filter_map(|text| Workspace::new(text).ok()).collect()
        };
        let workspaces = each(&self.workspaces, "workspaces");
        let timeout = duration("timeout", self.timeout.as_deref(), ["20s", "1s", "60s"], faults);
        let max_age = duration("max-age", self.max_age.as_deref(), ["14d", "1m", "365d"], faults);
        let mut within = |what: &str, value: usize, range: std::ops::RangeInclusive<usize>| {
            if !range.contains(&value) {
                faults.push(format!(
                    "{what}: {value} is not within {} to {}",
                    range.start(),
                    range.end()
                ));
            }
            value
        };
        let concurrency = within("concurrency", self.concurrency.unwrap_or(4), 1..=32);
        let rate = self.rate.unwrap_or(50);
        let _ = within("rate", usize::try_from(rate).unwrap_or(usize::MAX), 1..=10_000);
        if self.daily_capacity == Some(0) {
            faults.push("daily-capacity: 0 lets nothing arrive; leave the destination out".to_owned());
        }
        let events = self.events(faults);
        let allow_private = self.allow_private.iter().filter_map(|text| match text.parse() {
            Ok(range) => Some(range),
            Err(error) => {
                faults.push(format!("allow-private: {text:?}: {error}"));
                None
            }
        });
        let allow_private = allow_private.collect();
        let ca = self.ca_file.as_deref().and_then(|path| {
            read(&format!("file:{path}"))
                .map_err(|error| faults.push(format!("ca-file: {error}")))
                .ok()
        });
        Some(Destination {
            name: self.name,
            kind: kind?,
            url: url?,
            headers,
            workspaces,
            events,
            policies: self.policies,
            timeout: timeout?,
            concurrency,
            rate,
            daily_capacity: self.daily_capacity,
            max_age: max_age?,
            allow_private,
            ca,
        })
    }

    /// Flags alone, unless it says otherwise: whoever takes everything for a contact must not be told anything else.
    fn events(&self, faults: &mut Vec<String>) -> BTreeSet<Told> {
        let Some(patterns) = &self.events else {
            return BTreeSet::from([Told::Flagged]);
        };
        let known = Told::ALL.map(Told::name).join(", ");
        if patterns.is_empty() {
            faults.push(format!("events: an empty list tells nothing; there are {known}"));
        }
        let mut events = BTreeSet::new();
        for pattern in patterns {
            if Told::subscribed(pattern).next().is_none() {
                faults.push(format!(
                    "events: {pattern:?} is none of {known}, relance.*, score.* and *"
                ));
            }
            events.extend(Told::subscribed(pattern));
        }
        events
    }

    fn url(&self, faults: &mut Vec<String>) -> Option<Url> {
        let mut fault = |what: &str| faults.push(format!("url: {what}"));
        if self.url.len() > MAX_URL_BYTES {
            fault("longer than 2048 bytes");
            return None;
        }
        let Ok(url) = Url::parse(&self.url) else {
            fault("not an address such as https://example.com/hooks");
            return None;
        };
        let before = usize::from(url.scheme() == "http" && self.allow_http);
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http => {}
            "http" => fault("http sends customers' data in the clear; take https, or say allow-http = true"),
            _ => fault("neither https nor http"),
        }
        if !url.username().is_empty() || url.password().is_some() {
            fault("no user and password in the address; use secret-headers");
        }
        if url.host_str().is_none_or(str::is_empty) {
            fault("no host");
        }
        if url.fragment().is_some() {
            fault("no fragment (#…)");
        }
        let port = url.port_or_known_default().unwrap_or_default();
        let http = before == 1 && port == 80;
        if !(http || PORTS.contains(&port) || self.allow_ports.contains(&port)) {
            fault(&format!(
                "port {port} is neither 443 nor 8443; say allow-ports = [{port}]"
            ));
        }
        Some(url)
    }

    fn kind(&self, read: ReadSecret<'_>, faults: &mut Vec<String>) -> Option<Kind> {
        let template = matches!(self.kind.as_str(), "template");
        if !template && (self.body.is_some() || self.preset.is_some()) {
            faults.push("body and preset belong to the kind \"template\"".to_owned());
        }
        if self.kind != "webhook" && !self.secrets.is_empty() {
            faults.push("secrets belong to the kind \"webhook\"".to_owned());
        }
        if self.kind != "segment" && self.write_key.is_some() {
            faults.push("write-key belongs to the kind \"segment\"".to_owned());
        }
        match self.kind.as_str() {
            "webhook" => {
                if self.secrets.is_empty() || self.secrets.len() > MAX_SECRETS {
                    faults.push(format!(
                        "secrets: name 1 to {MAX_SECRETS}, each as file:PATH or env:NAME"
                    ));
                    return None;
                }
                let before = faults.len();
                let secrets = self.secrets.iter().filter_map(|place| {
                    let secret =
                        read(place).and_then(|text| signature::Secret::parse(&text).map_err(|error| error.to_string()));
                    secret
                        .map_err(|error| faults.push(format!("secrets: {place:?}: {error}")))
                        .ok()
                });
                let secrets: Vec<_> = secrets.collect();
                (faults.len() == before).then_some(Kind::Webhook { secrets })
            }
            "segment" => {
                let Some(place) = &self.write_key else {
                    faults.push("write-key is missing: file:PATH or env:NAME".to_owned());
                    return None;
                };
                let key = read(place).map_err(|error| faults.push(format!("write-key: {error}")));
                Some(Kind::Segment {
                    write_key: Hidden(key.ok()?),
                })
            }
            "template" => {
                let text = match (&self.body, &self.preset) {
                    (Some(body), None) => body.as_str(),
                    (None, Some(name)) => match PRESETS.iter().find(|(preset, _)| preset == name) {
                        Some((_, text)) => text,
                        None => {
                            let names: Vec<_> = PRESETS.iter().map(|(name, _)| *name).collect();
                            faults.push(format!("preset: {name:?} is none of {}", names.join(", ")));
                            return None;
                        }
                    },
                    _ => {
                        faults.push("give either body or preset".to_owned());
                        return None;
                    }
                };
                let template = Template::parse(text).map_err(|error| faults.push(format!("body: {error}")));
                Some(Kind::Template {
                    template: template.ok()?,
                })
            }
            other => {
                faults.push(format!("kind: {other:?} is none of webhook, segment, template"));
                None
            }
        }
    }

    fn headers(&self, read: ReadSecret<'_>, faults: &mut Vec<String>) -> Vec<(String, Hidden)> {
        let mut headers = Vec::new();
        for (name, value) in &self.headers {
            headers.push((name.to_ascii_lowercase(), value.clone()));
        }
        for (name, place) in &self.secret_headers {
            match read(place) {
                Ok(value) => headers.push((name.to_ascii_lowercase(), value)),
                Err(error) => faults.push(format!("secret-headers.{name}: {error}")),
            }
        }
        let mut seen = BTreeSet::new();
        for (name, value) in &headers {
            let token = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            let ours = [
                "host",
                "content-length",
                "transfer-encoding",
                "connection",
                "content-type",
            ]
            .contains(&name.as_str())
                || name.starts_with("webhook-");
            if !token || ours || !seen.insert(name.clone()) {
                faults.push(format!("header {name:?} is no name, is ours to set, or stands twice"));
            }
            if !value.bytes().all(|b| (b' '..=b'~').contains(&b)) {
                faults.push(format!("the value of header {name:?} is not printable ASCII"));
            }
        }
        headers.into_iter().map(|(name, value)| (name, Hidden(value))).collect()
    }
}

/// A duration with its default, smallest and largest value.
fn duration(
    what: &str,
    given: Option<&str>,
    [default, min, max]: [&str; 3],
    faults: &mut Vec<String>,
) -> Option<Duration> {
    let text = given.unwrap_or(default);
    let found = read_duration(text).filter(|found| {
        read_duration(min).is_none_or(|min| *found >= min) && read_duration(max).is_none_or(|max| *found <= max)
    });
    if found.is_none() {
        faults.push(format!("{what}: {text:?} is not a duration from {min} to {max}"));
    }
    found
}

fn read_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text.get(..digits)?.parse().ok()?;
    let seconds = match text.get(digits..)? {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(place: &str) -> Result<String, String> {
        match place {
            "env:HOOK" => Ok("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()),
            "env:KEY" => Ok("k1".to_owned()),
            _ => Err("is not there".to_owned()),
        }
    }

    fn faults(entry: &str) -> String {
        let text = format!("[[destination]]\nname = \"crm\"\n{entry}");
        match Destinations::parse(&text, &read) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    const HOOK: &str = "kind = \"webhook\"\nsecrets = [\"env:HOOK\"]\n";

    #[test]
    fn a_webhook_needs_little_and_has_defaults() {
        let text = format!("[[destination]]\nname = \"crm\"\nurl = \"https://example.com/hooks?a=b\"\n{HOOK}");
        let Destinations(found) = Destinations::parse(&text, &read).unwrap();
        let [crm] = found.as_slice() else { panic!("one") };
        assert_eq!(
            (crm.timeout, crm.concurrency, crm.rate),
            (Duration::from_secs(20), 4, 50)
        );
        assert_eq!(crm.max_age, Duration::from_hours(14 * 24));
        assert!(!format!("{crm:?}").contains("MfKQ"), "secrets are never shown");
    }

    /// Registration by address (security checklist 30).
    #[test]
    fn addresses_are_checked_when_they_are_registered() {
        let table = [
            ("https://example.com/hooks", "", ""),
            ("https://example.com:8443/", "", ""),
            ("http://example.com/", "", "http sends customers' data in the clear"),
            ("http://example.com/", "allow-http = true", ""),
            ("https://example.com:9000/", "", "port 9000 is neither"),
            ("https://example.com:9000/", "allow-ports = [9000]", ""),
            ("http://example.com:8080/", "allow-http = true", "port 8080"),
            ("https://u:p@example.com/", "", "no user and password"),
            ("https://example.com/#x", "", "no fragment"),
            ("ftp://example.com/", "", "neither https nor http"),
            ("gopher:example", "", "neither https nor http"),
            ("/hooks", "", "not an address"),
        ];
        for (url, more, expected) in table {
            let found = faults(&format!("url = {url:?}\n{HOOK}{more}"));
            assert!(
                found.contains(expected) && found.is_empty() == expected.is_empty(),
                "{url} {more}: {found}"
            );
        }
        let long = format!("https://example.com/{}", "x".repeat(2_048));
        assert!(faults(&format!("url = {long:?}\n{HOOK}")).contains("longer than 2048"));
    }

    #[test]
    fn destinations_are_told_of_flags_alone_unless_they_ask_for_more() {
        let events = |more: &str| {
            let text = format!("[[destination]]\nname = \"a\"\nurl = \"https://a.example/\"\n{HOOK}{more}");
            Destinations::parse(&text, &read).map(|all| all.0[0].events.clone())
        };
        assert_eq!(events("").unwrap(), BTreeSet::from([Told::Flagged]));
        let all = events("events = [\"relance.*\", \"score.band\"]").unwrap();
        assert_eq!(all, BTreeSet::from(Told::ALL));
        let fault = events("events = [\"score.bands\"]").unwrap_err().to_string();
        assert!(fault.contains("\"score.bands\" is none of relance.flagged"), "{fault}");
        assert!(events("events = []").unwrap_err().to_string().contains("tells nothing"));
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let found = faults(
            "url = \"https://example.com/\"\nkind = \"webhook\"\nsecrets = [\"env:GONE\"]\ntimeout = \"5\"\nrate = 0\n\
             concurrency = 99\nallow-private = [\"ten\"]\nheaders = { host = \"x\" }\nmax-age = \"1y\"\nwrite-key = \"env:KEY\"",
        );
        for part in [
            "\"env:GONE\": is not there",
            "timeout: \"5\"",
            "rate: 0",
            "concurrency: 99",
            "allow-private: \"ten\"",
            "header \"host\"",
            "max-age: \"1y\"",
            "write-key belongs",
        ] {
            assert!(found.contains(part), "{part} is missing in {found}");
        }
        let twice = format!("[[destination]]\nname = \"a\"\nurl = \"https://a.example/\"\n{HOOK}").repeat(2);
        assert!(
            Destinations::parse(&twice, &read)
                .unwrap_err()
                .to_string()
                .contains("stands twice")
        );
        let typo = Destinations::parse("[[destination]]\nnmae = \"a\"", &read)
            .unwrap_err()
            .to_string();
        assert!(typo.contains("line 2") && typo.contains("nmae"), "{typo}");
    }

    #[test]
    fn presets_are_templates_of_the_flag() {
        let flag = crate::flag::tests::flag(7, "C1");
        for (name, text) in PRESETS {
            let body = Template::parse(text).unwrap().fill(&flag).to_string();
            assert!(body.contains("C1") && body.contains("win-back"), "{name}: {body}");
            assert!(
                !body.contains("null"),
                "{name} names a field that a flag has not: {body}"
            );
            let entry = format!("url = \"https://example.com/\"\nkind = \"template\"\npreset = {name:?}");
            assert_eq!(faults(&entry), "");
        }
        assert!(faults("url = \"https://e.com/\"\nkind = \"template\"").contains("either body or preset"));
        let other = "url = \"https://e.com/\"\nkind = \"template\"\npreset = \"x\"";
        assert!(faults(other).contains("none of brevo, dittofeed, hubspot, mautic"));
    }
}
