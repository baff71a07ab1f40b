//! Links of e-mails: signed tokens for the open pixel, the click redirect and the one-click unsubscription (RFC 8058).
//!
//! A token is `<key id>.<payload>.<mac>`: the payload in postcard and a 128-bit HMAC-SHA256 over key id and payload, both in
//! base64url. It carries everything that the link does (whose act, about which mail, and where a click leads), so nothing
//! is looked up, and nothing outside the token can change where it leads. It never carries an e-mail address.

use crate::keys::Secret;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::collections::BTreeSet;
use subtle::ConstantTimeEq;
use url::Url;
use vigie_event::{DAY_MS, Day, PersonId, Timestamp, Workspace};

/// Bytes of the authentication code.
const MAC_BYTES: usize = 16;
/// Longest destination.
const MAX_URL: usize = 2048;
/// Longest message or campaign id.
const MAX_NAME: usize = 200;

/// What a link does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// Reports that the mail was opened.
    Open,
    /// Reports a click and leads to this address.
    Click(String),
    /// Unsubscribes.
    Unsubscribe,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Whose customer.
    pub workspace: Workspace,
    /// Whose act.
    pub person: PersonId,
    /// The mail, by the sender's id of it.
    pub message: SmolStr,
    /// The campaign; may be empty.
    pub campaign: SmolStr,
    /// What happens.
    pub target: Target,
    /// The first day on which it no longer holds.
    pub expires: Day,
}

/// Why a link cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// An address that may not be a destination.
    #[error(
        "the destination must be an absolute http or https address without user, password or control characters, of at most {MAX_URL} bytes"
    )]
    Url,
    /// A host that is not on the list.
    #[error("the destination's host is not among those that links may lead to")]
    Host,
    /// A person named by an e-mail address.
    #[error("a link never carries an e-mail address: name the person by your own id, or give the address as email")]
    Address,
    /// A message or campaign that is empty or too long.
    #[error("the message needs an id, and neither it nor the campaign may be longer than {MAX_NAME} bytes")]
    Name,
}

/// Why a token is not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Not ours, or changed.
    #[error("the link is not valid")]
    Forged,
    /// Ours, and too old.
    #[error("the link has expired")]
    Expired(Box<Link>),
}

/// A key that signs links.
#[derive(Debug, Clone)]
pub struct LinkKey {
    /// Names the key in tokens: lower-case letters and digits, at most 16.
    pub id: String,
    /// At least 32 characters.
    pub secret: Secret,
}

/// How links are made.
#[derive(Debug, Clone)]
pub struct LinkSpec {
    /// The first signs; all of them verify, so that a key can be replaced without breaking mails that were sent.
    pub keys: Vec<LinkKey>,
    /// Where this collector is reached from outside: `https://track.shop.example`, without a slash at the end.
    pub public_url: String,
    /// Hosts that clicks may lead to; empty for any. A host with non-ASCII letters must be on the list.
    pub hosts: BTreeSet<String>,
    /// Days for which a link holds.
    pub days: u32,
}

/// Why a [`LinkSpec`] is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkSpecError {
    /// No key, or one that is named or made badly.
    #[error(
        "give at least one key with an id of 1 to 16 lower-case letters and digits, all different, and a secret of at least 32 characters"
    )]
    Keys,
    /// Not an address.
    #[error("public_url must be an http or https address without path, such as https://track.shop.example")]
    PublicUrl,
    /// No time at all.
    #[error("links must hold for 1 to 3650 days")]
    Days,
}

/// Makes and reads links.
#[derive(Debug)]
pub struct Links {
    keys: Vec<(String, hmac::Key)>,
    public_url: String,
    hosts: BTreeSet<String>,
    days: u32,
}

impl Links {
    /// Checks the specification.
    pub fn new(spec: LinkSpec) -> Result<Self, LinkSpecError> {
        let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let good = |key: &LinkKey| {
            (1..=16).contains(&key.id.len()) && key.id.bytes().all(letters) && key.secret.expose().len() >= 32
        };
        let ids: BTreeSet<&str> = spec.keys.iter().map(|key| key.id.as_str()).collect();
        if spec.keys.is_empty() || ids.len() != spec.keys.len() || !spec.keys.iter().all(good) {
            return Err(LinkSpecError::Keys);
        }
        let root = Url::parse(&spec.public_url).map_err(|_| LinkSpecError::PublicUrl)?;
        let plain = root.path() == "/" && root.query().is_none() && root.fragment().is_none();
        if !matches!(root.scheme(), "http" | "https") || !plain || spec.public_url.ends_with('/') {
            return Err(LinkSpecError::PublicUrl);
        }
        if !(1..=3650).contains(&spec.days) {
            return Err(LinkSpecError::Days);
        }
        let keys = spec.keys.iter().map(|key| {
            (
                key.id.clone(),
                hmac::Key::new(hmac::HMAC_SHA256, key.secret.expose().as_bytes()),
            )
        });
        Ok(Self {
            keys: keys.collect(),
            public_url: spec.public_url,
            hosts: spec.hosts.iter().map(|host| as_in_urls(host)).collect(),
            days: spec.days,
        })
    }

    /// The address of a link, made at `now`.
    pub fn mint(
        &self,
        workspace: &Workspace,
        person: &PersonId,
        message: &str,
        campaign: &str,
        target: Target,
        now: Timestamp,
    ) -> Result<String, MintError> {
        if person.as_str().contains('@') {
            return Err(MintError::Address);
        }
        let good = |name: &str| name.len() <= MAX_NAME && !name.chars().any(char::is_control);
        if message.trim().is_empty() || !good(message) || !good(campaign) {
            return Err(MintError::Name);
        }
        if let Target::Click(to) = &target {
            self.check_destination(to)?;
        }
        let place = match target {
            Target::Open => "o",
            Target::Click(_) => "c",
            Target::Unsubscribe => "u",
        };
        let expires = now.plus_ms(i64::from(self.days) * DAY_MS).day();
        let link = Link {
            workspace: workspace.clone(),
            person: person.clone(),
            message: message.into(),
            campaign: campaign.into(),
            target,
            expires: Day(expires.0.saturating_add(1)),
        };
        let end = if place == "o" { ".gif" } else { "" };
        Ok(format!("{}/{place}/{}{end}", self.public_url, self.sign(&link)))
    }

    /// An absolute address that a browser reads as we do: of http or https, without user, password, control characters or
    /// backslashes, and of an allowed host.
    fn check_destination(&self, to: &str) -> Result<(), MintError> {
        let odd = |c: char| c.is_control() || c == '\\' || c.is_whitespace();
        let scheme = ["http://", "https://"]
            .iter()
            .any(|scheme| to.to_ascii_lowercase().starts_with(scheme));
        if to.len() > MAX_URL || to.chars().any(odd) || !scheme {
            return Err(MintError::Url);
        }
        let url = Url::parse(to).map_err(|_| MintError::Url)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(MintError::Url);
        }
        let host = url.host_str().ok_or(MintError::Url)?;
        let listed = self.hosts.contains(host);
        // A name in other letters may look like another name: it must be wanted.
        let foreign = host.split('.').any(|label| label.starts_with("xn--"));
        if (foreign || !self.hosts.is_empty()) && !listed {
            return Err(MintError::Host);
        }
        Ok(())
    }

    fn sign(&self, link: &Link) -> String {
        let payload = URL_SAFE_NO_PAD.encode(postcard::to_allocvec(link).unwrap_or_default());
        let Some((id, key)) = self.keys.first() else {
            return String::new();
        };
        format!("{id}.{payload}.{}", URL_SAFE_NO_PAD.encode(mac(key, id, &payload)))
    }

    /// What a token says, if it is ours and holds at `now`.
    pub fn read(&self, token: &str, now: Timestamp) -> Result<Link, LinkError> {
        let forged = LinkError::Forged;
        let mut parts = token.split('.');
        let (Some(id), Some(payload), Some(given), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(forged);
        };
        let (_, key) = self
            .keys
            .iter()
            .find(|(known, _)| known == id)
            .ok_or(LinkError::Forged)?;
        let given = URL_SAFE_NO_PAD.decode(given).map_err(|_| LinkError::Forged)?;
        if !bool::from(given.ct_eq(&mac(key, id, payload))) {
            return Err(forged);
        }
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| LinkError::Forged)?;
        let link: Link = postcard::from_bytes(&payload).map_err(|_| LinkError::Forged)?;
        if now.day() >= link.expires {
            return Err(LinkError::Expired(Box::new(link)));
        }
        Ok(link)
    }
}

/// A host as [`Url`] writes it: in lower case, other letters in their ASCII form.
fn as_in_urls(host: &str) -> String {
    url::Host::parse(host).map_or_else(|_| host.to_lowercase(), |host| host.to_string())
}

fn mac(key: &hmac::Key, id: &str, payload: &str) -> [u8; MAC_BYTES] {
    let tag = hmac::sign(key, format!("vigie link 1.{id}.{payload}").as_bytes());
    tag.as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_000_000_000);

    fn links(keys: &[(&str, &str)], hosts: &[&str]) -> Links {
        Links::new(LinkSpec {
            keys: keys
                .iter()
                .map(|(id, secret)| LinkKey {
                    id: (*id).to_owned(),
                    secret: Secret::new((*secret).repeat(8)),
                })
                .collect(),
            public_url: "https://t.example".to_owned(),
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            days: 400,
        })
        .unwrap()
    }

    fn mint(links: &Links, target: Target) -> Result<String, MintError> {
        let (workspace, person) = (Workspace::new("shop").unwrap(), PersonId::known("42").unwrap());
        links.mint(&workspace, &person, "m-1", "autumn", target, NOW)
    }

    fn click(links: &Links, to: &str) -> Result<String, MintError> {
        mint(links, Target::Click(to.to_owned()))
    }

    fn token(url: &str) -> &str {
        url.rsplit('/').next().unwrap().trim_end_matches(".gif")
    }

    #[test]
    fn a_link_says_what_it_was_made_for_until_it_expires() {
        let links = links(&[("k1", "sixteen-")], &[]);
        let url = click(&links, "https://shop.example/a?b=c#d").unwrap();
        let link = links.read(token(&url), NOW).unwrap();
        assert_eq!(link.target, Target::Click("https://shop.example/a?b=c#d".into()));
        assert_eq!(
            (link.person.as_str(), link.message.as_str(), link.campaign.as_str()),
            ("42", "m-1", "autumn")
        );
        assert!(links.read(token(&url), NOW.plus_ms(400 * DAY_MS)).is_ok());
        let expired = links.read(token(&url), NOW.plus_ms(402 * DAY_MS)).unwrap_err();
        assert!(matches!(expired, LinkError::Expired(_)));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let links = links(&[("k1", "sixteen-")], &[]);
        for n in 0..100 {
            let url = click(&links, &format!("https://shop.example/{n}")).unwrap();
            let token = token(&url);
            for bit in 0..token.len() * 8 {
                let mut bytes = token.as_bytes().to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let Ok(changed) = String::from_utf8(bytes) else {
                    continue;
                };
                assert_eq!(
                    links.read(&changed, NOW),
                    Err(LinkError::Forged),
                    "bit {bit} of {token}"
                );
            }
            assert_eq!(links.read(&token[..token.len() - 1], NOW), Err(LinkError::Forged));
        }
    }

    #[test]
    fn keys_can_be_replaced_and_withdrawn() {
        let old = links(&[("k1", "sixteen-")], &[]);
        let url = mint(&old, Target::Unsubscribe).unwrap();
        let both = links(&[("k2", "eighteen"), ("k1", "sixteen-")], &[]);
        assert!(both.read(token(&url), NOW).is_ok());
        assert!(token(&mint(&both, Target::Open).unwrap()).starts_with("k2."));
        let new = links(&[("k2", "eighteen")], &[]);
        assert_eq!(new.read(token(&url), NOW), Err(LinkError::Forged));
        let renamed = links(&[("k1", "another-")], &[]);
        assert_eq!(renamed.read(token(&url), NOW), Err(LinkError::Forged));
    }

    #[test]
    fn row_89_destinations_are_checked_when_links_are_made() {
        let any = links(&[("k1", "sixteen-")], &[]);
        for bad in [
            "",
            "/path",
            "//evil.example",
            "https:evil.example",
            "https:/evil.example",
            "javascript:alert(1)",
            "data:text/html,x",
            "ftp://shop.example/x",
            "http://user:pw@shop.example",
            "http://user@shop.example",
            "https://shop.example\\@evil.example",
            "https://shop.example/\r\nSet-Cookie: a=b",
            "https://shop.example/a b",
            "https://",
            " https://shop.example",
        ] {
            assert_eq!(click(&any, bad), Err(MintError::Url), "{bad:?}");
        }
        let long = format!("https://shop.example/{}", "x".repeat(MAX_URL));
        assert_eq!(click(&any, &long), Err(MintError::Url));
        assert_eq!(
            click(&any, "https://ѕhop.example/"),
            Err(MintError::Host),
            "a Cyrillic letter"
        );
        assert!(
            click(&any, "HTTPS://shop.example/%0d%0a").is_ok(),
            "escaped it is harmless"
        );
        let some = links(&[("k1", "sixteen-")], &["shop.example", "Bücher.example"]);
        assert!(click(&some, "https://Shop.example/x").is_ok());
        assert!(click(&some, "https://bücher.example/x").is_ok());
        for host in ["evil.example", "shop.example.evil.example", "sub.shop.example"] {
            assert_eq!(
                click(&some, &format!("https://{host}/")),
                Err(MintError::Host),
                "{host}"
            );
        }
    }

    #[test]
    fn no_link_carries_an_address() {
        let links = links(&[("k1", "sixteen-")], &[]);
        let (workspace, person) = (
            Workspace::new("shop").unwrap(),
            PersonId::known("ada@example.com").unwrap(),
        );
        let minted = links.mint(&workspace, &person, "m", "", Target::Open, NOW);
        assert_eq!(minted, Err(MintError::Address));
        let (hash, message) = (crate::protocol::email_id("ada@example.com"), "x".repeat(201));
        let person = PersonId::Anonymous(hash);
        assert!(links.mint(&workspace, &person, "m", "", Target::Open, NOW).is_ok());
        for message in ["", " ", message.as_str(), "a\nb"] {
            assert_eq!(
                links.mint(&workspace, &person, message, "", Target::Open, NOW),
                Err(MintError::Name)
            );
        }
    }
}
