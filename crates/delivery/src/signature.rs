//! Signatures of Standard Webhooks 1.0.0: `v1` (HMAC-SHA256) and `v1a` (ed25519) over `id.timestamp.body`, made with every active
//! secret, so that a receiver can change its own while two are active.
//!
//! Secrets have no `Debug` that shows them and are compared in constant time, by ring.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::KeyPair;
use ring::{hmac, signature};
use std::fmt;
use std::time::Duration;
use vigie_event::Timestamp;

/// Bytes of a symmetric secret, by the specification.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// How far a timestamp may lie from now on either side, as the reference libraries have it.
pub const TOLERANCE: Duration = Duration::from_mins(5);

/// Why a text is not a secret. It never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Neither prefix.
    #[error("a secret starts with whsec_ (HMAC-SHA256) or whsk_ (ed25519)")]
    Prefix,
    /// Not base64 behind the prefix.
    #[error("a secret is base64 behind its prefix")]
    Base64,
    /// Too short or too long.
    #[error("a whsec_ secret has 24 to 64 bytes before base64")]
    Length,
    /// Not an ed25519 key.
    #[error("a whsk_ secret is the base64 of an ed25519 seed of 32 bytes, or of seed and public key")]
    Key,
}

/// A secret that signs.
pub struct Secret(Inner);

enum Inner {
    Symmetric(hmac::Key),
    Asymmetric(Box<signature::Ed25519KeyPair>),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// Reads `whsec_…` or `whsk_…`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        let bytes = |encoded: &str| STANDARD.decode(encoded).map_err(|_| SecretError::Base64);
        if let Some(encoded) = text.strip_prefix("whsec_") {
            let bytes = bytes(encoded)?;
            if !SECRET_BYTES.contains(&bytes.len()) {
                return Err(SecretError::Length);
            }
            return Ok(Self(Inner::Symmetric(hmac::Key::new(hmac::HMAC_SHA256, &bytes))));
        }
        let bytes = bytes(text.strip_prefix("whsk_").ok_or(SecretError::Prefix)?)?;
        let pair = match (bytes.get(..32), bytes.get(32..)) {
            (Some(seed), Some([])) => signature::Ed25519KeyPair::from_seed_unchecked(seed),
            (Some(seed), Some(public)) => signature::Ed25519KeyPair::from_seed_and_public_key(seed, public),
            _ => return Err(SecretError::Key),
        };
        let pair = pair.map_err(|_| SecretError::Key)?;
        Ok(Self(Inner::Asymmetric(Box::new(pair))))
    }

    /// `whpk_…`, which a receiver of `v1a` needs; `None` for symmetric secrets.
    #[must_use]
    pub fn public_key(&self) -> Option<String> {
        match &self.0 {
            Inner::Symmetric(_) => None,
            Inner::Asymmetric(pair) => Some(format!("whpk_{}", STANDARD.encode(pair.public_key().as_ref()))),
        }
    }

    fn sign(&self, content: &[u8]) -> String {
        match &self.0 {
            Inner::Symmetric(key) => format!("v1,{}", STANDARD.encode(hmac::sign(key, content).as_ref())),
            Inner::Asymmetric(pair) => format!("v1a,{}", STANDARD.encode(pair.sign(content).as_ref())),
        }
    }

    fn verifies(&self, version: &str, signed: &[u8], content: &[u8]) -> bool {
        match &self.0 {
            Inner::Symmetric(key) => version == "v1" && hmac::verify(key, content, signed).is_ok(),
            Inner::Asymmetric(pair) => {
                let key = signature::UnparsedPublicKey::new(&signature::ED25519, pair.public_key().as_ref());
                version == "v1a" && key.verify(content, signed).is_ok()
            }
        }
    }
}

fn content(id: &str, seconds: i64, body: &[u8]) -> Vec<u8> {
    let mut content = format!("{id}.{seconds}.").into_bytes();
    content.extend_from_slice(body);
    content
}

/// The three headers of a message: id, timestamp in seconds, and one signature for each secret.
#[must_use]
pub fn headers(secrets: &[Secret], id: &str, at: Timestamp, body: &[u8]) -> [(&'static str, String); 3] {
    let seconds = at.0.div_euclid(1_000);
    let content = content(id, seconds, body);
    let signatures: Vec<String> = secrets.iter().map(|secret| secret.sign(&content)).collect();
    [
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", seconds.to_string()),
        ("webhook-signature", signatures.join(" ")),
    ]
}

/// Why a message is not to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Forged {
    /// The timestamp is no number of seconds.
    #[error("webhook-timestamp is not a number of seconds")]
    Timestamp,
    /// Too old or too new.
    #[error("webhook-timestamp is too far from now")]
    Expired,
    /// No signature of any secret fits.
    #[error("no signature fits")]
    Signature,
}

/// Verifies a message as a receiver does: any signature by any secret, within [`TOLERANCE`] of `now`.
///
/// # Errors
/// Why not.
pub fn verify(
    secrets: &[Secret],
    id: &str,
    timestamp: &str,
    signatures: &str,
    body: &[u8],
    now: Timestamp,
) -> Result<(), Forged> {
    let seconds: i64 = timestamp.parse().map_err(|_| Forged::Timestamp)?;
    let apart = now.0.div_euclid(1_000).abs_diff(seconds);
    if apart > TOLERANCE.as_secs() {
        return Err(Forged::Expired);
    }
    let content = content(id, seconds, body);
    let fits = |part: &str| {
        let (version, encoded) = part.split_once(',')?;
        let signed = STANDARD.decode(encoded).ok()?;
        secrets
            .iter()
            .any(|secret| secret.verifies(version, &signed, &content))
            .then_some(())
    };
    signatures.split(' ').find_map(fits).ok_or(Forged::Signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const AT: Timestamp = Timestamp(1_614_265_330_000);
    const BODY: &[u8] = br#"{"test": 2432232314}"#;

    #[test]
    fn the_vector_of_the_specification() {
        let secret = Secret::parse(SECRET).unwrap();
        let [_, timestamp, signature] = headers(&[secret], ID, AT, BODY);
        assert_eq!(timestamp.1, "1614265330");
        assert_eq!(signature.1, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn any_active_secret_is_enough_and_any_changed_byte_too_much() {
        let old = Secret::parse(SECRET).unwrap();
        let seed = STANDARD.encode([9u8; 32]);
        let new = Secret::parse(&format!("whsk_{seed}")).unwrap();
        let [id, timestamp, signature] = headers(&[old, new], ID, AT, BODY).map(|(_, value)| value);
        assert!(signature.contains("v1,") && signature.contains(" v1a,"));
        for secret in [SECRET.to_owned(), format!("whsk_{seed}")] {
            let only = [Secret::parse(&secret).unwrap()];
            assert_eq!(verify(&only, &id, &timestamp, &signature, BODY, AT), Ok(()));
            for place in 0..BODY.len() {
                let mut changed = BODY.to_vec();
                changed[place] ^= 1;
                let forged = verify(&only, &id, &timestamp, &signature, &changed, AT);
                assert_eq!(forged, Err(Forged::Signature));
            }
            assert_eq!(
                verify(&only, "other", &timestamp, &signature, BODY, AT),
                Err(Forged::Signature)
            );
            let late = AT.plus_ms(301_000);
            assert_eq!(
                verify(&only, &id, &timestamp, &signature, BODY, late),
                Err(Forged::Expired)
            );
        }
        let other = [Secret::parse("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap()];
        assert_eq!(
            verify(&other, &id, &timestamp, &signature, BODY, AT),
            Err(Forged::Signature)
        );
    }

    #[test]
    fn bad_secrets_say_why_without_showing_themselves() {
        let cases = [
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", SecretError::Prefix),
            ("whsec_&", SecretError::Base64),
            ("whsec_AAAA", SecretError::Length),
            ("whsk_AAAA", SecretError::Key),
        ];
        for (text, expected) in cases {
            assert_eq!(Secret::parse(text).err(), Some(expected), "{text}");
        }
        assert_eq!(format!("{:?}", Secret::parse(SECRET).unwrap()), "Secret(…)");
    }
}
