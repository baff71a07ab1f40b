//! Amazon SNS: envelopes signed with RSA by a certificate that the envelope points to.
//!
//! The certificate's address must be Amazon's, and the topic one of those configured: a signature only proves that *some*
//! customer of Amazon published. A subscription is confirmed at an address that is built from the topic, never at the
//! one that the message names. Nothing here opens a connection: [`Fetch`] is handed in, and what it gets is remembered.

use super::Disbelief;
use super::verify::Verified;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use ring::signature::{self, UnparsedPublicKey};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use vigie_event::Timestamp;
use x509_cert::Certificate;
use x509_cert::der::DecodePem;

/// A certificate is never larger.
const FETCHED_MAX: usize = 64 << 10;
/// Certificates that are remembered.
const CERTIFICATES: usize = 16;
/// Amazon repeats for an hour; what is older than two days is no repetition.
const AGE_MS: i64 = 48 * 3_600_000;
/// Amazon's clock may be this far ahead of ours.
const AHEAD_MS: i64 = 5 * 60_000;

/// What a [`Fetch`] answers.
pub type Fetched<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, FetchError>> + Send + 'a>>;

/// The address did not answer 200 in time, or with too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the address did not answer")]
pub struct FetchError;

/// `GET` of an https address, without following redirects, with a limit of 64 KiB and a timeout of a few seconds.
pub trait Fetch: Send + Sync + fmt::Debug {
    /// The body of a 200.
    fn get(&self, url: &str) -> Fetched<'_>;
}

#[derive(Debug)]
pub(super) struct Sns {
    topics: Vec<Topic>,
    version_1: bool,
    fetch: Arc<dyn Fetch>,
    keys: Mutex<BTreeMap<String, Arc<SigningKey>>>,
}

/// `arn:<partition>:sns:<region>:<account>:<name>`
#[derive(Debug)]
struct Topic {
    arn: String,
    host: String,
}

/// The RSA key of a certificate, and while it is valid.
#[derive(Debug)]
struct SigningKey {
    /// PKCS #1, as `ring` wants it.
    key: Vec<u8>,
    from: Timestamp,
    until: Timestamp,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope {
    #[serde(rename = "Type")]
    kind: String,
    message_id: String,
    topic_arn: String,
    message: String,
    timestamp: String,
    signature_version: String,
    signature: String,
    #[serde(rename = "SigningCertURL", alias = "SigningCertUrl")]
    signing_cert_url: String,
    subject: Option<String>,
    #[serde(rename = "SubscribeURL", alias = "SubscribeUrl")]
    subscribe_url: Option<String>,
    token: Option<String>,
}

impl Envelope {
    /// The fields that are signed, in the order of their names, each as `name\nvalue\n`.
    fn signed(&self) -> String {
        let notification = self.kind == "Notification";
        let fields = [
            ("Message", Some(&self.message)),
            ("MessageId", Some(&self.message_id)),
            ("Subject", self.subject.as_ref().filter(|_| notification)),
            ("SubscribeURL", self.subscribe_url.as_ref().filter(|_| !notification)),
            ("Timestamp", Some(&self.timestamp)),
            ("Token", self.token.as_ref().filter(|_| !notification)),
            ("TopicArn", Some(&self.topic_arn)),
            ("Type", Some(&self.kind)),
        ];
        let present = fields.iter().filter_map(|(name, value)| Some((name, (*value)?)));
        present.map(|(name, value)| format!("{name}\n{value}\n")).collect()
    }
}

impl Sns {
    pub(super) fn new(topics: &[String], version_1: bool, fetch: Arc<dyn Fetch>) -> Result<Self, &'static str> {
        let topics: Option<Vec<_>> = topics.iter().map(|arn| Topic::parse(arn)).collect();
        let topics = topics
            .filter(|topics| !topics.is_empty())
            .ok_or("give the topics that publish here, as arn:aws:sns:<region>:<account>:<topic>")?;
        Ok(Self {
            topics,
            version_1,
            fetch,
            keys: Mutex::default(),
        })
    }

    pub(super) async fn verify(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Verified, Disbelief> {
        let envelope: Envelope = serde_json::from_slice(body).map_err(|_| Disbelief::Missing)?;
        for (name, value) in [
            ("x-amz-sns-message-type", &envelope.kind),
            ("x-amz-sns-message-id", &envelope.message_id),
            ("x-amz-sns-topic-arn", &envelope.topic_arn),
        ] {
            if headers
                .get(name)
                .is_some_and(|header| header.as_bytes() != value.as_bytes())
            {
                return Err(Disbelief::Wrong);
            }
        }
        // Before anything is fetched for somebody else's topic.
        let topic = self
            .topics
            .iter()
            .find(|topic| topic.arn == envelope.topic_arn)
            .ok_or(Disbelief::Topic)?;
        let algorithm: &'static signature::RsaParameters = match envelope.signature_version.as_str() {
            "2" => &signature::RSA_PKCS1_2048_8192_SHA256,
            "1" if self.version_1 => &signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            _ => return Err(Disbelief::Wrong),
        };
        let signed = STANDARD.decode(&envelope.signature).map_err(|_| Disbelief::Wrong)?;
        let key = self.key(&envelope.signing_cert_url).await?;
        if !(key.from..=key.until).contains(&now) {
            return Err(Disbelief::Wrong);
        }
        UnparsedPublicKey::new(algorithm, &key.key)
            .verify(envelope.signed().as_bytes(), &signed)
            .map_err(|_| Disbelief::Wrong)?;
        let at = Timestamp::parse(&envelope.timestamp).map_err(|_| Disbelief::Wrong)?;
        if !(-AHEAD_MS..=AGE_MS).contains(&now.ms_since(at)) {
            return Err(Disbelief::Stale);
        }
        match envelope.kind.as_str() {
            "Notification" => Ok(Verified::Notices(envelope.message.into_bytes(), envelope.message_id)),
            "SubscriptionConfirmation" => {
                let token = envelope
                    .token
                    .filter(|token| token.bytes().all(|byte| byte.is_ascii_alphanumeric()));
                let token = token.ok_or(Disbelief::Wrong)?;
                let url = topic.confirmation(&token);
                let _answer = self.fetch.get(&url).await.map_err(|_| Disbelief::Unavailable)?;
                tracing::info!("the subscription of an SNS topic was confirmed");
                Ok(Verified::Nothing)
            }
            "UnsubscribeConfirmation" => {
                tracing::warn!("an SNS topic no longer publishes here: its subscription was ended");
                Ok(Verified::Nothing)
            }
            _ => Err(Disbelief::Wrong),
        }
    }

    async fn key(&self, url: &str) -> Result<Arc<SigningKey>, Disbelief> {
        if !is_certificate_url(url) {
            return Err(Disbelief::CertificateUrl);
        }
        let known = |keys: &BTreeMap<String, Arc<SigningKey>>| keys.get(url).cloned();
        if let Some(key) = known(&self.keys.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(key);
        }
        let pem = self.fetch.get(url).await.map_err(|_| Disbelief::Unavailable)?;
        let key = Arc::new(SigningKey::parse(&pem).ok_or(Disbelief::Wrong)?);
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= CERTIFICATES {
            keys.clear();
        }
        let _other = keys.insert(url.to_owned(), Arc::clone(&key));
        Ok(key)
    }
}

impl SigningKey {
    fn parse(pem: &[u8]) -> Option<Self> {
        let pem = pem.get(..FETCHED_MAX.min(pem.len()))?;
        let certificate = Certificate::from_pem(pem).ok()?.tbs_certificate;
        let ms = |time: x509_cert::time::Time| i64::try_from(time.to_unix_duration().as_millis()).ok();
        // A key that is not RSA fails to verify anything.
        let key = certificate
            .subject_public_key_info
            .subject_public_key
            .as_bytes()?
            .to_vec();
        Some(Self {
            key,
            from: Timestamp(ms(certificate.validity.not_before)?),
            until: Timestamp(ms(certificate.validity.not_after)?),
        })
    }
}

impl Topic {
    fn parse(arn: &str) -> Option<Self> {
        let mut parts = arn.split(':');
        let (Some("arn"), Some(partition), Some("sns"), Some(region), Some(account), Some(name), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return None;
        };
        let end = match partition {
            "aws" | "aws-us-gov" => "amazonaws.com",
            "aws-cn" => "amazonaws.com.cn",
            _ => return None,
        };
        let word = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        if !is_region(region) || !account.bytes().all(|byte| byte.is_ascii_digit()) || !word(name) {
            return None;
        }
        Some(Self {
            arn: arn.to_owned(),
            host: format!("sns.{region}.{end}"),
        })
    }

    /// Where a subscription is confirmed.
    fn confirmation(&self, token: &str) -> String {
        let query: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("Action", "ConfirmSubscription")
            .append_pair("TopicArn", &self.arn)
            .append_pair("Token", token)
            .finish();
        format!("https://{}/?{query}", self.host)
    }
}

fn is_region(text: &str) -> bool {
    text.len() >= 3 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// `https://sns.<region>.amazonaws.com[.cn]/….pem`, and nothing that only looks like it.
fn is_certificate_url(url: &str) -> bool {
    let Some((host, path)) = url.strip_prefix("https://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let region = host.strip_prefix("sns.").and_then(|rest| {
        rest.strip_suffix(".amazonaws.com")
            .or_else(|| rest.strip_suffix(".amazonaws.com.cn"))
    });
    let file = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    region.is_some_and(is_region) && path.ends_with(".pem") && path.bytes().all(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_amazons_certificates_are_fetched() {
        for good in [
            "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0123abc.pem",
            "https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-0123abc.pem",
        ] {
            assert!(is_certificate_url(good), "{good}");
        }
        for bad in [
            "http://sns.us-east-1.amazonaws.com/x.pem",
            "https://sns.evil.com/x.pem",
            "https://sns.us-east-1.amazonaws.com.evil.io/x.pem",
            "https://sns.us-east-1.amazonaws.com@evil.io/x.pem",
            "https://evil@sns.us-east-1.amazonaws.com/x.pem",
            "https://sns.us-east-1.amazonaws.com:8443/x.pem",
            "https://sns.us-east-1.amazonaws.com/x.pem?y",
            "https://sns.us-east-1.amazonaws.com/x.pem#y",
            "https://sns.us-east-1.amazonaws.com/../x.pem",
            "https://sns.us-east-1.amazonaws.com/x.txt",
            "https://sns.a.amazonaws.com/x.pem",
            "https://sns.us.east.amazonaws.com/x.pem",
            "https://snsXus-east-1.amazonaws.com/x.pem",
            "https://sns..amazonaws.com/x.pem",
        ] {
            assert!(!is_certificate_url(bad), "{bad}");
        }
    }

    #[test]
    fn a_subscription_is_confirmed_at_an_address_built_from_its_topic() {
        let topic = Topic::parse("arn:aws:sns:eu-west-1:123456789012:mail").unwrap();
        assert_eq!(
            topic.confirmation("t0ken"),
            "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=arn%3Aaws%3Asns%3Aeu-west-1%3A123456789012%3Amail&Token=t0ken"
        );
        for bad in [
            "",
            "arn:aws:sqs:eu-west-1:1:q",
            "arn:aws:sns:eu/west:1:q",
            "arn:aws:sns:eu-west-1:x:q",
            "arn:aws:sns:eu-west-1:1:q:r",
        ] {
            assert!(Topic::parse(bad).is_none(), "{bad}");
        }
    }
}
