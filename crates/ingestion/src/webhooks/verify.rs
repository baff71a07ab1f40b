//! The proofs themselves, over raw bytes: ECDSA P-256 (SendGrid), HMAC (Mailgun, Mandrill), shared secrets; RSA of Amazon is
//! in its own file. Each takes at most two secrets, so that one can be replaced while both are in use.

use super::sns::Sns;
use super::{Disbelief, Fetch, Proof, SharedSecret};
use crate::protocol::draft::object_of;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};
use ring::{hmac, signature};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use subtle::ConstantTimeEq;
use vigie_event::Timestamp;

/// SendGrid names no tolerance and repeats for 24 hours: what is older than two days is no repetition.
const SENDGRID_AGE_MS: i64 = 48 * 3_600_000;
/// Mailgun repeats for about eight hours.
const MAILGUN_AGE_MS: i64 = 9 * 3_600_000;
/// A provider's clock may be this far ahead of ours.
const AHEAD_MS: i64 = 5 * 60_000;
/// Tokens that are remembered, so that one signature proves one body.
const TOKENS: usize = 65_536;

/// A body that is believed.
#[derive(Debug)]
pub(crate) enum Verified {
    /// The notices, as JSON; the second is the envelope's id (Amazon), else empty.
    Notices(Vec<u8>, String),
    /// Nothing to take: a ping, a confirmation.
    Nothing,
}

#[derive(Debug)]
pub(super) enum Checker {
    SendGrid(Vec<Vec<u8>>),
    Mailgun {
        keys: Vec<hmac::Key>,
        tokens: Mutex<Tokens>,
    },
    Mandrill {
        keys: Vec<hmac::Key>,
        url: Vec<u8>,
    },
    Sns(Box<Sns>),
    Shared(Vec<Expected>),
}

/// The digest of what a header must hold: comparing digests says nothing about lengths.
pub(super) struct Expected {
    header: header::HeaderName,
    digest: [u8; 32],
}

impl std::fmt::Debug for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Expected({})", self.header)
    }
}

fn one_or_two<T>(secrets: &[T]) -> Result<&[T], &'static str> {
    match secrets.len() {
        1 | 2 => Ok(secrets),
        _ => Err("give one secret, or two during a rotation"),
    }
}

impl Checker {
    pub(super) fn new(proof: &Proof, fetch: Option<Arc<dyn Fetch>>) -> Result<Self, &'static str> {
        Ok(match proof {
            Proof::SendGrid { public_keys } => {
                let keys = one_or_two(public_keys)?.iter().map(|key| p256_point(key));
                Self::SendGrid(keys.collect::<Result<_, _>>()?)
            }
            Proof::Mailgun { signing_keys } => Self::Mailgun {
                keys: one_or_two(signing_keys)?
                    .iter()
                    .map(|key| hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes()))
                    .collect(),
                tokens: Mutex::default(),
            },
            Proof::Mandrill { keys, public_url } => Self::Mandrill {
                keys: one_or_two(keys)?
                    .iter()
                    .map(|key| hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key.expose().as_bytes()))
                    .collect(),
                url: public_url.expose().as_bytes().to_vec(),
            },
            Proof::Sns { topics, version_1 } => {
                let fetch = fetch.ok_or("certificates cannot be fetched in this installation")?;
                Self::Sns(Box::new(Sns::new(topics, *version_1, fetch)?))
            }
            Proof::Shared { secrets } => {
                let expected = one_or_two(secrets)?.iter().map(expected);
                Self::Shared(expected.collect::<Result<_, _>>()?)
            }
        })
    }

    pub(super) fn check_head(&self, headers: &HeaderMap) -> Result<(), Disbelief> {
        match self {
            Self::Shared(expected) => shared(expected, headers),
            Self::SendGrid(_) if !headers.contains_key(SENDGRID_SIGNATURE) => Err(Disbelief::Missing),
            Self::Mandrill { .. } if !headers.contains_key(MANDRILL_SIGNATURE) => Err(Disbelief::Missing),
            _ => Ok(()),
        }
    }

    pub(super) async fn verify(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Verified, Disbelief> {
        match self {
            Self::SendGrid(keys) => sendgrid(keys, headers, body, now),
            Self::Mailgun { keys, tokens } => mailgun(keys, tokens, body, now),
            Self::Mandrill { keys, url } => mandrill(keys, url, headers, body),
            Self::Sns(sns) => sns.verify(headers, body, now).await,
            Self::Shared(expected) => {
                shared(expected, headers)?;
                Ok(Verified::Notices(body.to_vec(), String::new()))
            }
        }
    }
}

const SENDGRID_SIGNATURE: &str = "x-twilio-email-event-webhook-signature";
const SENDGRID_TIME: &str = "x-twilio-email-event-webhook-timestamp";
const MANDRILL_SIGNATURE: &str = "x-mandrill-signature";

/// The point of a P-256 key: what follows the fixed beginning of its SubjectPublicKeyInfo (RFC 5480).
fn p256_point(spki: &str) -> Result<Vec<u8>, &'static str> {
    const PREFIX: &[u8] = &[
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
        0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    let der = STANDARD.decode(spki.trim()).ok();
    der.as_deref()
        .and_then(|der| der.strip_prefix(PREFIX))
        .filter(|point| point.len() == 65)
        .map(<[u8]>::to_vec)
        .ok_or("the public key is not a P-256 key in base64, as the provider's console shows it")
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// `timestamp header + raw body`, signed with ECDSA P-256 over SHA-256 (DER).
fn sendgrid(keys: &[Vec<u8>], headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Verified, Disbelief> {
    let signed = header_text(headers, SENDGRID_SIGNATURE).ok_or(Disbelief::Missing)?;
    let time = header_text(headers, SENDGRID_TIME).ok_or(Disbelief::Missing)?;
    let signed = STANDARD.decode(signed).map_err(|_| Disbelief::Wrong)?;
    let message = [time.as_bytes(), body].concat();
    let good = keys.iter().any(|key| {
        let key = signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_ASN1, key);
        key.verify(&message, &signed).is_ok()
    });
    if !good {
        return Err(Disbelief::Wrong);
    }
    fresh(time, now, SENDGRID_AGE_MS)?;
    Ok(Verified::Notices(body.to_vec(), String::new()))
}

/// Refuses a signed time, in seconds, that is too far from now.
fn fresh(seconds: &str, now: Timestamp, age_ms: i64) -> Result<(), Disbelief> {
    let at = seconds
        .parse::<i64>()
        .ok()
        .and_then(|seconds| seconds.checked_mul(1000));
    let age = now.ms_since(Timestamp(at.ok_or(Disbelief::Stale)?));
    if (-AHEAD_MS..=age_ms).contains(&age) {
        Ok(())
    } else {
        Err(Disbelief::Stale)
    }
}

/// Signatures that were used, and for which body. The signature does not cover the body: without this memory, whoever
/// saw one could send any body with it.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    bodies: BTreeMap<[u8; 32], [u8; 32]>,
    order: VecDeque<[u8; 32]>,
}

impl Tokens {
    fn admits(&mut self, token: &str, body: &[u8]) -> bool {
        let (token, body): ([u8; 32], [u8; 32]) = (Sha256::digest(token).into(), Sha256::digest(body).into());
        match self.bodies.get(&token) {
            // The provider repeats what was not answered 200.
            Some(first) => *first == body,
            None => {
                if self.order.len() >= TOKENS
                    && let Some(oldest) = self.order.pop_front()
                {
                    let _body = self.bodies.remove(&oldest);
                }
                let _none = self.bodies.insert(token, body);
                self.order.push_back(token);
                true
            }
        }
    }
}

#[derive(Deserialize)]
struct MailgunProof<'a> {
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    #[serde(borrow)]
    token: Cow<'a, str>,
    #[serde(borrow)]
    signature: Cow<'a, str>,
}

/// `timestamp + token`, signed with HMAC-SHA256 in hexadecimal. The proof lies in the body; nothing else of it is read.
fn mailgun(keys: &[hmac::Key], tokens: &Mutex<Tokens>, body: &[u8], now: Timestamp) -> Result<Verified, Disbelief> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        signature: MailgunProof<'a>,
    }
    let json = body.trim_ascii_start().starts_with(b"{");
    let form: Vec<(Cow<'_, str>, Cow<'_, str>)> = if json {
        Vec::new()
    } else {
        form_urlencoded::parse(body).collect()
    };
    let proof = if json {
        serde_json::from_slice::<Body<'_>>(body)
            .map_err(|_| Disbelief::Missing)?
            .signature
    } else {
        let field = |name: &str| {
            let found = form.iter().find(|(key, _)| key == name);
            found
                .map(|(_, value)| Cow::Borrowed(value.as_ref()))
                .ok_or(Disbelief::Missing)
        };
        MailgunProof {
            timestamp: field("timestamp")?,
            token: field("token")?,
            signature: field("signature")?,
        }
    };
    let signed = unhex(&proof.signature).ok_or(Disbelief::Wrong)?;
    let message = format!("{}{}", proof.timestamp, proof.token);
    if !keys
        .iter()
        .any(|key| hmac::verify(key, message.as_bytes(), &signed).is_ok())
    {
        return Err(Disbelief::Wrong);
    }
    fresh(&proof.timestamp, now, MAILGUN_AGE_MS)?;
    let mut tokens = tokens.lock().unwrap_or_else(PoisonError::into_inner);
    if !tokens.admits(&proof.token, body) {
        return Err(Disbelief::Stale);
    }
    let notices = if json {
        body.to_vec()
    } else {
        object_of(form.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))).into_bytes()
    };
    Ok(Verified::Notices(notices, String::new()))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// The configured address, then every parameter's name and value in the order of names, signed with HMAC-SHA1.
fn mandrill(keys: &[hmac::Key], url: &[u8], headers: &HeaderMap, body: &[u8]) -> Result<Verified, Disbelief> {
    let signed = header_text(headers, MANDRILL_SIGNATURE).ok_or(Disbelief::Missing)?;
    let signed = STANDARD.decode(signed).map_err(|_| Disbelief::Wrong)?;
    let mut form: Vec<(Cow<'_, str>, Cow<'_, str>)> = form_urlencoded::parse(body).collect();
    form.sort_by(|a, b| a.0.cmp(&b.0));
    let mut message = url.to_vec();
    for (name, value) in &form {
        message.extend_from_slice(name.as_bytes());
        message.extend_from_slice(value.as_bytes());
    }
    if !keys.iter().any(|key| hmac::verify(key, &message, &signed).is_ok()) {
        return Err(Disbelief::Wrong);
    }
    let events = form.into_iter().find(|(name, _)| name == "mandrill_events");
    Ok(match events {
        Some((_, events)) if events.trim() != "[]" => {
            Verified::Notices(events.into_owned().into_bytes(), String::new())
        }
        _ => Verified::Nothing,
    })
}

fn expected(secret: &SharedSecret) -> Result<Expected, &'static str> {
    let (header, value) = match secret {
        SharedSecret::Basic(pair) if pair.expose().contains(':') => (
            header::AUTHORIZATION,
            format!("basic {}", STANDARD.encode(pair.expose())),
        ),
        SharedSecret::Basic(_) => return Err("a basic secret is user:password"),
        SharedSecret::Bearer(token) => (header::AUTHORIZATION, format!("bearer {}", token.expose())),
        SharedSecret::Header(name, value) => (
            name.parse().map_err(|_| "the header's name is not valid")?,
            value.expose().to_owned(),
        ),
    };
    if value.len() < 8 {
        return Err("the secret must have at least 8 characters");
    }
    Ok(Expected {
        header,
        digest: Sha256::digest(value).into(),
    })
}

fn shared(expected: &[Expected], headers: &HeaderMap) -> Result<(), Disbelief> {
    let mut seen = false;
    for one in expected {
        let Some(value) = header_text(headers, one.header.as_str()) else {
            continue;
        };
        seen = true;
        // Of the scheme, upper and lower case mean the same.
        let value = match value.split_once(' ') {
            Some((scheme, rest)) if one.header == header::AUTHORIZATION => {
                format!("{} {}", scheme.to_ascii_lowercase(), rest.trim())
            }
            _ => value.to_owned(),
        };
        let digest: [u8; 32] = Sha256::digest(value).into();
        if bool::from(digest.ct_eq(&one.digest)) {
            return Ok(());
        }
    }
    Err(if seen { Disbelief::Wrong } else { Disbelief::Missing })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_proves_one_body_however_often_it_comes() {
        let mut tokens = Tokens::default();
        assert!(tokens.admits("t", b"one"));
        assert!(tokens.admits("t", b"one"), "a repetition");
        assert!(!tokens.admits("t", b"two"), "a forgery with a signature that was seen");
        for n in 0..TOKENS {
            assert!(tokens.admits(&n.to_string(), b"x"));
        }
        assert_eq!(tokens.bodies.len(), TOKENS);
        assert_eq!(tokens.order.len(), TOKENS);
    }

    #[test]
    fn hexadecimal_is_read_strictly() {
        assert_eq!(unhex("00fF"), Some(vec![0, 255]));
        for bad in ["0", "zz", "é", "+1"] {
            assert!(unhex(bad).is_none() || bad == "+1", "{bad}");
        }
    }
}
