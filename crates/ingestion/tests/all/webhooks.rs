//! Webhooks of e-mail providers: signed fixtures verify and changed ones do not, every notice becomes the right signal of
//! the right person once, and each provider gets the status that makes it do the right thing.

use crate::bench::{Answer, Bench, shop};
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Request, StatusCode, header};
use ring::{hmac, rand, signature};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vigie_event::{ConsentState, Event, PersonId, Purpose, Signal, Timestamp};
use vigie_ingestion::http::Doors;
use vigie_ingestion::keys::Secret;
use vigie_ingestion::log::{Fault, LogError};
use vigie_ingestion::protocol::email_id;
use vigie_ingestion::webhooks::{Fetch, FetchError, Fetched, Proof, Provider, SharedSecret, WebhookSpec, Webhooks};

/// 2027-01-15T08:00:00Z
const NOW: Timestamp = Timestamp(1_800_000_000_000);
const ADDRESS: &str = "ada@example.com";

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn spec(provider: Provider, proof: Proof) -> WebhookSpec {
    WebhookSpec {
        name: "mail".to_owned(),
        workspace: shop(),
        provider,
        proof,
    }
}

async fn bench(provider: Provider, proof: Proof, now: Timestamp) -> Bench {
    with_fetch(provider, proof, now, None).await
}

async fn with_fetch(provider: Provider, proof: Proof, now: Timestamp, fetch: Option<Arc<dyn Fetch>>) -> Bench {
    let webhooks = Webhooks::new([spec(provider, proof)], fetch).unwrap();
    Bench::behind(
        Doors {
            webhooks,
            ..Doors::default()
        },
        now,
    )
    .await
}

fn request(headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let mut builder = Request::post("/v1/webhooks/mail");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body.into()).unwrap()
}

/// Providers that sign nothing, with their secret.
async fn shared(provider: Provider) -> Bench {
    let proof = Proof::Shared {
        secrets: vec![SharedSecret::Basic(secret("vigie:pass-word"))],
    };
    bench(provider, proof, NOW).await
}

fn basic() -> (&'static str, String) {
    ("authorization", format!("Basic {}", STANDARD.encode("vigie:pass-word")))
}

async fn post_shared(bench: &Bench, body: &Value) -> Answer {
    let (name, value) = basic();
    bench.send(request(&[(name, &value)], body.to_string())).await
}

/// What a provider that signs nothing says, as (signal, time, person, user agent known).
async fn said(provider: Provider, body: &Value) -> Vec<Event> {
    let bench = shared(provider).await;
    let answer = post_shared(&bench, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let letters = bench.letters().await;
    assert!(letters.is_empty(), "{:?} of {body}", letters[0].letter);
    // The provider repeats: the same ids and content.
    let again = post_shared(&bench, body).await;
    assert_eq!(again.status, StatusCode::OK);
    let mut events = bench.logged().await;
    let mut prints: Vec<_> = events
        .iter()
        .map(|event| (event.id.clone(), event.fingerprint))
        .collect();
    prints.sort();
    prints.dedup();
    assert_eq!(
        prints.len() * 2,
        events.len(),
        "a repetition has the same id and fingerprint: {body}"
    );
    let mut seen = Vec::new();
    events.retain(|event| {
        let new = !seen.contains(&event.id);
        seen.push(event.id.clone());
        new
    });
    events
}

// SendGrid.

const SENDGRID_KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==";
const SENDGRID_SIGNATURE: &str =
    "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtEZtM=";
const SENDGRID_TIME: &str = "1600112502";
/// As published with the signature; the line end is signed too.
const SENDGRID_BODY: &str = "[{\"email\":\"hello@world.com\",\"event\":\"dropped\",\"reason\":\"Bounced Address\",\"sg_event_id\":\"ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA\",\"sg_message_id\":\"LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0\",\"smtp-id\":\"<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>\",\"timestamp\":1600112492}]\r\n";

fn sendgrid_request(signature: &str, time: &str, body: impl Into<Body>) -> Request<Body> {
    let headers = [
        ("X-Twilio-Email-Event-Webhook-Signature", signature),
        ("X-Twilio-Email-Event-Webhook-Timestamp", time),
        ("content-type", "application/json"),
    ];
    request(&headers, body)
}

async fn sendgrid(now: Timestamp) -> Bench {
    bench(
        Provider::SendGrid,
        Proof::SendGrid {
            public_keys: vec![SENDGRID_KEY.to_owned()],
        },
        now,
    )
    .await
}

#[tokio::test]
async fn sendgrids_published_signature_verifies_and_every_change_is_noticed() {
    let at = Timestamp(1_600_112_502_000);
    let bench = sendgrid(at.plus_ms(20 * 3_600_000)).await;
    let good = || sendgrid_request(SENDGRID_SIGNATURE, SENDGRID_TIME, SENDGRID_BODY);
    let answer = bench.send(good()).await;
    assert_eq!(
        (answer.status, answer.json()["accepted"].as_u64()),
        (StatusCode::OK, Some(1)),
        "row 101: 20 hours old"
    );
    let dropped = bench.logged().await.remove(0);
    assert_eq!(
        (dropped.signal, dropped.name.as_deref(), dropped.id.as_str()),
        (
            Signal::Custom,
            Some("email.sendgrid.dropped"),
            "sendgrid:ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA"
        )
    );
    assert_eq!(
        dropped.person.key(),
        Some(&PersonId::Anonymous(email_id("hello@world.com")))
    );
    assert_eq!(dropped.occurred_at, Some(Timestamp(1_600_112_492_000)));

    let refused = async |row: &str, request: Request<Body>, code: &str| {
        let answer = bench.send(request).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (401, code), "{row}");
    };
    let reserialised = SENDGRID_BODY.trim_end().to_owned();
    refused(
        "99: without its line end",
        sendgrid_request(SENDGRID_SIGNATURE, SENDGRID_TIME, reserialised),
        "sig",
    )
    .await;
    refused(
        "99: another time",
        sendgrid_request(SENDGRID_SIGNATURE, "1600112503", SENDGRID_BODY),
        "sig",
    )
    .await;
    refused("98", request(&[], SENDGRID_BODY), "sig_missing").await;
    let half = request(
        &[("X-Twilio-Email-Event-Webhook-Signature", SENDGRID_SIGNATURE)],
        SENDGRID_BODY,
    );
    refused("98: no time", half, "sig_missing").await;
    refused(
        "99: no base64",
        sendgrid_request("!", SENDGRID_TIME, SENDGRID_BODY),
        "sig",
    )
    .await;
    for bit in (0..SENDGRID_BODY.len() * 8).step_by(7) {
        let mut body = SENDGRID_BODY.as_bytes().to_vec();
        body[bit / 8] ^= 1 << (bit % 8);
        refused(
            "99: body",
            sendgrid_request(SENDGRID_SIGNATURE, SENDGRID_TIME, body),
            "sig",
        )
        .await;
    }
    let der = STANDARD.decode(SENDGRID_SIGNATURE).unwrap();
    for bit in 0..der.len() * 8 {
        let mut der = der.clone();
        der[bit / 8] ^= 1 << (bit % 8);
        refused(
            "99: signature",
            sendgrid_request(&STANDARD.encode(der), SENDGRID_TIME, SENDGRID_BODY),
            "sig",
        )
        .await;
    }
    assert_eq!(bench.logged().await.len(), 1, "what is not believed is not taken");
    assert!(bench.letters().await.is_empty(), "and not kept");
    for age in [49 * 3_600_000, -6 * 60_000] {
        let answer = sendgrid(at.plus_ms(age)).await.send(good()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (401, "sig_stale"),
            "{age}"
        );
    }
}

#[tokio::test]
async fn sendgrids_second_published_signature_verifies() {
    let key = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEDr2LjtURuePQzplybdC+u4CwrqDqBaWjcMMsTbhdbcwHBcepxo7yAQGhHPTnlvFYPAZFceEu/1FwCM/QmGUhA==";
    let signature = "MEUCIQCtIHJeH93Y+qpYeWrySphQgpNGNr/U+UyUlBkU6n7RAwIgJTz2C+8a8xonZGi6BpSzoQsbVRamr2nlxFDWYNH2j/0=";
    let body = r#"{"category":"example_payload","event":"test_event","message_id":"message_id"}"#;
    let proof = Proof::SendGrid {
        public_keys: vec![SENDGRID_KEY.to_owned(), key.to_owned()],
    };
    let bench = bench(Provider::SendGrid, proof, Timestamp(1_588_788_400_000)).await;
    let answer = bench.send(sendgrid_request(signature, "1588788367", body)).await;
    assert_eq!(answer.status, StatusCode::OK, "row 103: the newer of two keys");
    assert_eq!(answer.code(), "unknown_type", "row 110");
    assert_eq!(bench.letters().await.len(), 1, "row 110: kept");
}

fn sendgrid_signed(events: &Value) -> (Proof, Request<Body>) {
    let random = rand::SystemRandom::new();
    let algorithm = &signature::ECDSA_P256_SHA256_ASN1_SIGNING;
    let pkcs8 = signature::EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let pair = signature::EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
    let prefix = &STANDARD.decode(SENDGRID_KEY).unwrap()[..26];
    let point = signature::KeyPair::public_key(&pair).as_ref();
    let key = STANDARD.encode([prefix, point].concat());
    let (time, body) = ((NOW.0 / 1000).to_string(), events.to_string());
    let signed = pair.sign(&random, format!("{time}{body}").as_bytes()).unwrap();
    let request = sendgrid_request(&STANDARD.encode(signed.as_ref()), &time, body);
    (Proof::SendGrid { public_keys: vec![key] }, request)
}

#[tokio::test]
async fn sendgrids_words() {
    let words = [
        ("processed", json!({}), Signal::EmailSent),
        ("delivered", json!({}), Signal::EmailDelivered),
        ("deferred", json!({}), Signal::Custom),
        ("bounce", json!({"type": "bounce"}), Signal::EmailBounce),
        ("bounce", json!({"type": "blocked"}), Signal::Custom),
        (
            "open",
            json!({"sg_machine_open": false, "useragent": "UA"}),
            Signal::EmailOpen,
        ),
        ("open", json!({"sg_machine_open": true}), Signal::EmailMachineOpen),
        ("click", json!({"url": "https://shop.example/a"}), Signal::EmailClick),
        ("spamreport", json!({}), Signal::EmailComplaint),
        ("unsubscribe", json!({}), Signal::EmailUnsubscribe),
        (
            "group_unsubscribe",
            json!({"sg_machine_open": true}),
            Signal::EmailUnsubscribe,
        ),
        ("group_resubscribe", json!({}), Signal::NewsletterSubscribe),
    ];
    let events: Vec<Value> = words
        .iter()
        .enumerate()
        .map(|(index, (word, more, _))| {
            let mut event = json!({
                "email": ADDRESS, "event": word, "sg_event_id": format!("e{index}"), "sg_message_id": "m",
                "timestamp": NOW.0 / 1000 - 60, "vigie_user_id": "42",
            });
            event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            event
        })
        .collect();
    let (proof, request) = sendgrid_signed(&json!(events));
    let bench = bench(Provider::SendGrid, proof, NOW).await;
    assert_eq!(bench.send(request).await.json()["accepted"], words.len());
    let logged = bench.logged().await;
    for (index, (word, _, signal)) in words.iter().enumerate() {
        let event = logged
            .iter()
            .find(|event| event.id.as_str() == format!("sendgrid:e{index}"))
            .unwrap();
        assert_eq!(event.signal, *signal, "{word}");
        assert_eq!(event.person.key(), Some(&PersonId::known("42").unwrap()));
        let withdrawn = matches!(signal, Signal::EmailComplaint | Signal::EmailUnsubscribe);
        let word = event.consent.get(&Purpose::Marketing);
        assert_eq!(word, withdrawn.then_some(&ConsentState::Refused), "a withdrawal is one");
    }
}

// Mailgun.

const MAILGUN_KEY: &str = "TEST_WEBHOOK_SIGNING_KEY";
const MAILGUN_TOKEN: &str = "651869375b9df3c98fc15c4889b102119add1235c38fc92824";
const MAILGUN_SIGNATURE: &str = "2a75affe24846ead9e37e614a5e7643a04abf4d5b49b34d224ede9af23a00ccc";
const MAILGUN_TIME: &str = "1534108637";

fn mailgun_body(signature: &str, token: &str, data: &Value) -> String {
    json!({"signature": {"timestamp": MAILGUN_TIME, "token": token, "signature": signature}, "event-data": data})
        .to_string()
}

async fn mailgun() -> Bench {
    let proof = Proof::Mailgun {
        signing_keys: vec![secret("another-key"), secret(MAILGUN_KEY)],
    };
    bench(Provider::Mailgun, proof, Timestamp(1_534_112_000_000)).await
}

fn mailgun_event(event: &str, more: Value) -> Value {
    let mut data = json!({
        "event": event, "id": "Ase7i2zsRYeDXztHGENqRA", "timestamp": 1_534_108_600.25, "recipient": ADDRESS,
        "message": {"headers": {"message-id": "m@mg.example"}}, "user-variables": {},
    });
    data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    data
}

#[tokio::test]
async fn mailguns_signature_verifies_and_every_change_is_noticed() {
    let bench = mailgun().await;
    let opened = mailgun_event("opened", json!({"client-info": {"bot": ""}}));
    let good = mailgun_body(MAILGUN_SIGNATURE, MAILGUN_TOKEN, &opened);
    for _repetition in 0..2 {
        assert_eq!(bench.send(request(&[], good.clone())).await.status, StatusCode::OK);
    }
    let events = bench.logged().await;
    assert_eq!(events[0].id.as_str(), "mailgun:Ase7i2zsRYeDXztHGENqRA@1534108600.25");
    assert_eq!(
        (&events[0].id, events[0].fingerprint),
        (&events[1].id, events[1].fingerprint)
    );
    assert_eq!(events[0].occurred_at, Some(Timestamp(1_534_108_600_250)));
    let forged = mailgun_body(
        MAILGUN_SIGNATURE,
        MAILGUN_TOKEN,
        &mailgun_event("unsubscribed", json!({})),
    );
    let answer = bench.send(request(&[], forged)).await;
    assert_eq!(
        answer.code(),
        "sig_stale",
        "a signature that was seen proves no other body"
    );
    for (row, body, code) in [
        ("98", "{}".to_owned(), "sig_missing"),
        ("98", String::new(), "sig_missing"),
        (
            "99",
            mailgun_body(MAILGUN_SIGNATURE, &MAILGUN_TOKEN.replace('6', "7"), &opened),
            "sig",
        ),
        ("99", mailgun_body("", MAILGUN_TOKEN, &opened), "sig"),
        ("99", mailgun_body("zz", MAILGUN_TOKEN, &opened), "sig"),
    ] {
        let answer = bench.send(request(&[], body)).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (401, code), "{row}");
    }
    for at in 0..MAILGUN_SIGNATURE.len() {
        let mut signature = MAILGUN_SIGNATURE.as_bytes().to_vec();
        signature[at] = if signature[at] == b'0' { b'1' } else { b'0' };
        let body = mailgun_body(std::str::from_utf8(&signature).unwrap(), MAILGUN_TOKEN, &opened);
        assert_eq!(bench.send(request(&[], body)).await.code(), "sig", "hex digit {at}");
    }
    let late = Timestamp(1_534_108_637_000).plus_ms(10 * 3_600_000);
    let proof = Proof::Mailgun {
        signing_keys: vec![secret(MAILGUN_KEY)],
    };
    let bench = self::bench(Provider::Mailgun, proof, late).await;
    assert_eq!(bench.send(request(&[], good)).await.code(), "sig_stale", "row 100");
}

#[tokio::test]
async fn mailguns_words() {
    for (event, more, signal) in [
        ("accepted", json!({}), Signal::EmailSent),
        ("delivered", json!({}), Signal::EmailDelivered),
        ("failed", json!({"severity": "permanent"}), Signal::EmailBounce),
        ("failed", json!({"severity": "temporary"}), Signal::Custom),
        ("opened", json!({"client-info": {"bot": ""}}), Signal::EmailOpen),
        (
            "opened",
            json!({"client-info": {"bot": "apple"}}),
            Signal::EmailMachineOpen,
        ),
        ("opened", json!({"client-info": {"bot": "gmail"}}), Signal::EmailOpen),
        (
            "opened",
            json!({"client-info": {"bot": "generic"}}),
            Signal::EmailMachineOpen,
        ),
        (
            "clicked",
            json!({"url": "https://shop.example/", "client-info": {"bot": "generic"}}),
            Signal::EmailMachineClick,
        ),
        ("clicked", json!({"url": "https://shop.example/"}), Signal::EmailClick),
        (
            "unsubscribed",
            json!({"client-info": {"bot": "generic"}}),
            Signal::EmailUnsubscribe,
        ),
        (
            "complained",
            json!({"client-info": {"bot": "generic"}}),
            Signal::EmailComplaint,
        ),
    ] {
        let bench = mailgun().await;
        let data = mailgun_event(event, more);
        let answer = bench
            .send(request(&[], mailgun_body(MAILGUN_SIGNATURE, MAILGUN_TOKEN, &data)))
            .await;
        assert_eq!(answer.json()["accepted"], 1, "{event}: {}", answer.body);
        assert_eq!(bench.logged().await[0].signal, signal, "{data}");
    }
    let bench = mailgun().await;
    let form = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("event", "unsubscribed"),
            ("recipient", ADDRESS),
            ("timestamp", MAILGUN_TIME),
            ("token", MAILGUN_TOKEN),
            ("signature", MAILGUN_SIGNATURE),
            ("vigie_user_id", "7"),
        ])
        .finish();
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(
        bench.send(request(&headers, form)).await.json()["accepted"],
        1,
        "the older form"
    );
    let event = bench.logged().await.remove(0);
    assert_eq!(
        (event.signal, event.person.key()),
        (Signal::EmailUnsubscribe, Some(&PersonId::known("7").unwrap()))
    );
    assert_eq!(event.id.as_str(), format!("mailgun:{MAILGUN_TOKEN}"));
}

// Mandrill.

const MANDRILL_URL: &str = "https://example.com/webhooks/mandrill";

async fn mandrill() -> Bench {
    let proof = Proof::Mandrill {
        keys: vec![secret("TEST_WEBHOOK_KEY")],
        public_url: secret(MANDRILL_URL),
    };
    bench(Provider::Mandrill, proof, NOW).await
}

fn mandrill_request(signature: &str, events: &str) -> Request<Body> {
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("mandrill_events", events)
        .finish();
    let headers = [
        ("x-mandrill-signature", signature),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    request(&headers, form)
}

fn mandrill_signed(events: &str) -> Request<Body> {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"TEST_WEBHOOK_KEY");
    let tag = hmac::sign(&key, format!("{MANDRILL_URL}mandrill_events{events}").as_bytes());
    mandrill_request(&STANDARD.encode(tag.as_ref()), events)
}

#[tokio::test]
async fn mandrills_signature_verifies_and_its_probe_is_answered() {
    let bench = mandrill().await;
    let head = Request::head("/v1/webhooks/mail").body(Body::empty()).unwrap();
    assert_eq!(bench.send(head).await.status, StatusCode::OK, "unsigned, at set-up");
    let signature = "vtfOmRx03WBGILytvmxich1a+XU=";
    assert_eq!(
        bench.send(mandrill_request(signature, "[]")).await.status,
        StatusCode::OK
    );
    let tag = STANDARD.decode(signature).unwrap();
    for bit in 0..tag.len() * 8 {
        let mut tag = tag.clone();
        tag[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            bench.send(mandrill_request(&STANDARD.encode(tag), "[]")).await.code(),
            "sig",
            "bit {bit}"
        );
    }
    assert_eq!(bench.send(mandrill_request(signature, "[{}]")).await.code(), "sig");
    assert_eq!(
        bench.send(request(&[], "mandrill_events=[]")).await.code(),
        "sig_missing"
    );
}

#[tokio::test]
async fn mandrills_words() {
    let words = [
        ("send", Signal::EmailSent),
        ("hard_bounce", Signal::EmailBounce),
        ("soft_bounce", Signal::Custom),
        ("deferral", Signal::Custom),
        ("open", Signal::EmailOpen),
        ("click", Signal::EmailClick),
        ("spam", Signal::EmailComplaint),
        ("unsub", Signal::EmailUnsubscribe),
        ("reject", Signal::Custom),
    ];
    let events: Vec<Value> = words
        .iter()
        .map(|(word, _)| {
            json!({"event": word, "_id": "m1", "ts": NOW.0 / 1000, "url": "https://shop.example/",
                "msg": {"email": ADDRESS, "metadata": {"user_id": 42}}})
        })
        .collect();
    let bench = mandrill().await;
    let answer = bench.send(mandrill_signed(&json!(events).to_string())).await;
    assert_eq!(answer.json()["accepted"], words.len());
    let mut signals: Vec<_> = bench.logged().await.iter().map(|event| event.signal).collect();
    let mut expected: Vec<_> = words.iter().map(|(_, signal)| *signal).collect();
    signals.sort();
    expected.sort();
    assert_eq!(signals, expected);
    assert!(
        bench
            .logged()
            .await
            .iter()
            .all(|event| event.person.key() == Some(&PersonId::known("42").unwrap()))
    );
}

// Amazon.

const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:mail";
const CERTIFICATE: &str = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem";

/// Answers certificates and notes what was asked for.
#[derive(Debug, Default)]
struct Amazon {
    asked: Mutex<Vec<String>>,
    down: bool,
}

impl Fetch for Amazon {
    fn get(&self, url: &str) -> Fetched<'_> {
        self.asked.lock().unwrap().push(url.to_owned());
        let answer = if self.down {
            Err(FetchError)
        } else {
            Ok(include_bytes!("fixtures/sns/signer.pem").to_vec())
        };
        Box::pin(async move { answer })
    }
}

fn sns_sign(version: &str, signed: &str) -> String {
    let der = include_str!("fixtures/sns/signer-key.b64").replace('\n', "");
    let pair = signature::RsaKeyPair::from_pkcs8(&STANDARD.decode(der).unwrap()).unwrap();
    let mut signature = vec![0; pair.public().modulus_len()];
    let padding = &signature::RSA_PKCS1_SHA256;
    assert_eq!(version, "2", "ring signs no SHA-1");
    pair.sign(padding, &rand::SystemRandom::new(), signed.as_bytes(), &mut signature)
        .unwrap();
    STANDARD.encode(signature)
}

fn notification(id: &str, message: &str) -> Value {
    let time = NOW.to_string();
    let signed = format!(
        "Message\n{message}\nMessageId\n{id}\nSubject\nMail\nTimestamp\n{time}\nTopicArn\n{TOPIC}\nType\nNotification\n"
    );
    json!({
        "Type": "Notification", "MessageId": id, "TopicArn": TOPIC, "Subject": "Mail", "Message": message,
        "Timestamp": time, "SignatureVersion": "2", "Signature": sns_sign("2", &signed), "SigningCertURL": CERTIFICATE,
        "UnsubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Action=Unsubscribe",
    })
}

async fn sns(amazon: Arc<Amazon>) -> Bench {
    let proof = Proof::Sns {
        topics: vec![TOPIC.to_owned()],
        version_1: false,
    };
    with_fetch(Provider::Ses, proof, NOW, Some(amazon)).await
}

fn sns_request(envelope: &Value) -> Request<Body> {
    let headers = [
        ("content-type", "text/plain; charset=UTF-8"),
        ("x-amz-sns-message-type", envelope["Type"].as_str().unwrap_or("?")),
        ("x-amz-sns-message-id", envelope["MessageId"].as_str().unwrap_or("?")),
    ];
    request(&headers, envelope.to_string())
}

#[tokio::test]
async fn amazons_envelopes_verify_and_every_change_is_noticed() {
    let amazon = Arc::new(Amazon::default());
    let bench = sns(Arc::clone(&amazon)).await;
    let message = json!({"eventType": "Send", "mail": {"messageId": "m", "timestamp": NOW.to_string(), "destination": [ADDRESS]}, "send": {}});
    let good = notification("n1", &message.to_string());
    for _repetition in 0..2 {
        let answer = bench.send(sns_request(&good)).await;
        assert_eq!(answer.json()["accepted"], 1, "{}", answer.body);
    }
    assert_eq!(
        *amazon.asked.lock().unwrap(),
        [CERTIFICATE],
        "the certificate is fetched once"
    );
    let logged = bench.logged().await;
    assert_eq!(
        (&logged[0].id, logged[0].fingerprint),
        (&logged[1].id, logged[1].fingerprint)
    );
    let ready = notification(
        "n2",
        "Successfully validated SNS topic for Amazon SES event publishing.",
    );
    let answer = bench.send(sns_request(&ready)).await;
    assert_eq!(
        (answer.status, answer.json()["accepted"].as_u64()),
        (StatusCode::OK, Some(0))
    );

    let asked = amazon.asked.lock().unwrap().len();
    for (row, field, value, code) in [
        ("99", "Message", "{}", "sig"),
        ("99", "MessageId", "n9", "sig"),
        ("99", "Subject", "Other", "sig"),
        ("99", "Timestamp", "2027-01-15T08:00:01.000Z", "sig"),
        ("99", "Type", "SubscriptionConfirmation", "sig"),
        ("99", "Signature", "AAAA", "sig"),
        ("103", "SignatureVersion", "3", "sig"),
        ("106", "SignatureVersion", "1", "sig"),
        ("106", "TopicArn", "arn:aws:sns:eu-west-1:666666666666:mail", "topic"),
        ("104", "SigningCertURL", "https://sns.evil.com/x.pem", "cert_url"),
        (
            "104",
            "SigningCertURL",
            "https://sns.us-east-1.amazonaws.com.evil.io/x.pem",
            "cert_url",
        ),
        (
            "104",
            "SigningCertURL",
            "http://sns.eu-west-1.amazonaws.com/x.pem",
            "cert_url",
        ),
    ] {
        let mut envelope = good.clone();
        envelope[field] = json!(value);
        let answer = bench.send(sns_request(&envelope)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (401, code),
            "{row} {field}"
        );
    }
    let mut other = sns_request(&good);
    let _old = other
        .headers_mut()
        .insert("x-amz-sns-message-id", "n9".parse().unwrap());
    assert_eq!(
        bench.send(other).await.code(),
        "sig",
        "the header must say what the body says"
    );
    assert_eq!(bench.send(request(&[], "not an envelope")).await.code(), "sig_missing");
    assert_eq!(
        amazon.asked.lock().unwrap().len(),
        asked,
        "nothing is fetched for what is not believed"
    );

    let down = sns(Arc::new(Amazon {
        down: true,
        ..Amazon::default()
    }))
    .await;
    let answer = down.send(sns_request(&good)).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "Amazon shall come back");
}

#[tokio::test]
async fn row_105_a_subscription_is_confirmed_at_amazon_and_nowhere_else() {
    let amazon = Arc::new(Amazon::default());
    let bench = sns(Arc::clone(&amazon)).await;
    let (message, time) = ("You have chosen to subscribe", NOW.to_string());
    let evil = "http://169.254.169.254/latest/meta-data/";
    let signed = format!(
        "Message\n{message}\nMessageId\ns1\nSubscribeURL\n{evil}\nTimestamp\n{time}\nToken\nt0ken\nTopicArn\n{TOPIC}\nType\nSubscriptionConfirmation\n"
    );
    let envelope = json!({
        "Type": "SubscriptionConfirmation", "MessageId": "s1", "Token": "t0ken", "TopicArn": TOPIC, "Message": message,
        "SubscribeURL": evil, "Timestamp": time, "SignatureVersion": "2", "Signature": sns_sign("2", &signed),
        "SigningCertURL": CERTIFICATE,
    });
    assert_eq!(bench.send(sns_request(&envelope)).await.status, StatusCode::OK);
    let asked = amazon.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2);
    assert!(
        asked[1].starts_with("https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&"),
        "{}",
        asked[1]
    );
    assert!(bench.logged().await.is_empty());
}

#[tokio::test]
async fn amazons_words() {
    let at = NOW.to_string();
    let mail = json!({"messageId": "m", "timestamp": at, "destination": [ADDRESS], "tags": {"vigie_user_id": ["42"]}});
    for (message, signal) in [
        (
            json!({"eventType": "Send", "mail": mail, "send": {}}),
            Signal::EmailSent,
        ),
        (
            json!({"eventType": "Delivery", "mail": mail, "delivery": {"timestamp": at, "recipients": [ADDRESS]}}),
            Signal::EmailDelivered,
        ),
        (
            json!({"eventType": "Open", "mail": mail, "open": {"timestamp": at, "userAgent": "Mozilla/5.0"}}),
            Signal::EmailOpen,
        ),
        (
            json!({"eventType": "Click", "mail": mail, "click": {"timestamp": at, "link": "https://shop.example/"}}),
            Signal::EmailClick,
        ),
        (
            json!({"eventType": "Bounce", "mail": mail, "bounce": {"bounceType": "Permanent", "timestamp": at, "feedbackId": "f", "bouncedRecipients": [{"emailAddress": ADDRESS}]}}),
            Signal::EmailBounce,
        ),
        (
            json!({"notificationType": "Bounce", "mail": mail, "bounce": {"bounceType": "Transient", "timestamp": at, "feedbackId": "f", "bouncedRecipients": [{"emailAddress": ADDRESS}]}}),
            Signal::Custom,
        ),
        (
            json!({"notificationType": "Complaint", "mail": mail, "complaint": {"timestamp": at, "feedbackId": "f", "complainedRecipients": [{"emailAddress": ADDRESS}]}}),
            Signal::EmailComplaint,
        ),
        (
            json!({"eventType": "DeliveryDelay", "mail": mail, "deliveryDelay": {"timestamp": at, "delayedRecipients": [{"emailAddress": ADDRESS}]}}),
            Signal::Custom,
        ),
        (
            json!({"eventType": "Subscription", "mail": mail, "subscription": {"timestamp": at, "newTopicPreferences": {"unsubscribeAll": true}}}),
            Signal::EmailUnsubscribe,
        ),
    ] {
        let bench = sns(Arc::default()).await;
        let answer = bench.send(sns_request(&notification("n", &message.to_string()))).await;
        assert_eq!(answer.json()["accepted"], 1, "{message}: {}", answer.body);
        let event = bench.logged().await.remove(0);
        assert_eq!((event.signal, event.occurred_at), (signal, Some(NOW)), "{message}");
        assert_eq!(event.person.key(), Some(&PersonId::known("42").unwrap()));
    }
    let several = json!({"eventType": "Complaint", "mail": {"messageId": "m"}, "complaint": {"timestamp": at, "feedbackId": "f",
        "complainedRecipients": [{"emailAddress": "a@example.com"}, {"emailAddress": "b@example.com"}]}});
    let bench = sns(Arc::default()).await;
    assert_eq!(
        bench
            .send(sns_request(&notification("n", &several.to_string())))
            .await
            .json()["accepted"],
        2
    );
    let mut people: Vec<_> = bench
        .logged()
        .await
        .iter()
        .map(|event| event.person.key().unwrap().clone())
        .collect();
    people.sort();
    let mut expected = ["a@example.com", "b@example.com"].map(|address| PersonId::Anonymous(email_id(address)));
    expected.sort();
    assert_eq!(people, expected);
    let whose = json!({"eventType": "Open", "mail": {"messageId": "m", "destination": ["a@example.com", "b@example.com"]}, "open": {"timestamp": at}});
    let bench = sns(Arc::default()).await;
    let answer = bench.send(sns_request(&notification("n", &whose.to_string()))).await;
    assert_eq!(
        answer.code(),
        "no_identity",
        "whose open it was is not known, and not guessed"
    );
    assert_eq!(bench.letters().await.len(), 1);
}

// Providers that sign nothing.

#[tokio::test]
async fn row_108_a_shared_secret_is_asked_for() {
    for (good, wrong) in [
        (basic().1, "Basic dmlnaWU6cGFzcy13b3Jm"),
        (
            format!("basic {}", STANDARD.encode("vigie:pass-word")),
            "Bearer vigie:pass-word",
        ),
    ] {
        let bench = shared(Provider::Postmark).await;
        let body = json!({"RecordType": "Delivery", "MessageID": "m", "Recipient": ADDRESS, "DeliveredAt": "2027-01-15T07:00:00Z"});
        for (headers, status, code) in [
            (vec![], 401, "auth_missing"),
            (vec![("authorization", wrong)], 401, "auth"),
            (vec![("authorization", good.as_str())], 200, ""),
        ] {
            let answer = bench.send(request(&headers, body.to_string())).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code));
        }
        assert_eq!(bench.logged().await.len(), 1);
    }
    let secrets = vec![
        SharedSecret::Header("x-secret".to_owned(), secret("old-secret")),
        SharedSecret::Bearer(secret("new-secret")),
    ];
    let bench = bench(Provider::Brevo, Proof::Shared { secrets }, NOW).await;
    for (name, value, status) in [
        ("x-secret", "old-secret", 200),
        ("authorization", "Bearer new-secret", 200),
        ("x-secret", "new-secret", 401),
        ("authorization", "Bearer old-secret", 401),
    ] {
        let answer = bench.send(request(&[(name, value)], "[]")).await;
        assert_eq!(answer.status.as_u16(), status, "{name} {value}");
    }
}

#[tokio::test]
async fn postmarks_words() {
    for (body, signal) in [
        (
            json!({"RecordType": "Delivery", "DeliveredAt": "2027-01-15T07:00:00.1234567Z"}),
            Signal::EmailDelivered,
        ),
        (
            json!({"RecordType": "Bounce", "ID": 42, "Type": "HardBounce", "Email": ADDRESS, "BouncedAt": "2027-01-15T07:00:00Z"}),
            Signal::EmailBounce,
        ),
        (
            json!({"RecordType": "Bounce", "ID": 43, "Type": "Transient", "Email": ADDRESS, "BouncedAt": "2027-01-15T07:00:00Z"}),
            Signal::Custom,
        ),
        (
            json!({"RecordType": "SpamComplaint", "ID": 44, "Type": "SpamComplaint", "Email": ADDRESS, "BouncedAt": "2027-01-15T07:00:00Z"}),
            Signal::EmailComplaint,
        ),
        (
            json!({"RecordType": "Open", "FirstOpen": true, "UserAgent": "UA", "ReceivedAt": "2027-01-15T07:00:00Z"}),
            Signal::EmailOpen,
        ),
        (
            json!({"RecordType": "Click", "OriginalLink": "https://shop.example/", "ReceivedAt": "2027-01-15T07:00:00Z"}),
            Signal::EmailClick,
        ),
        (
            json!({"RecordType": "SubscriptionChange", "SuppressSending": true, "SuppressionReason": "ManualSuppression", "ChangedAt": "2027-01-15T07:00:00Z"}),
            Signal::EmailUnsubscribe,
        ),
        (
            json!({"RecordType": "SubscriptionChange", "SuppressSending": true, "SuppressionReason": "HardBounce", "ChangedAt": "2027-01-15T07:00:00Z"}),
            Signal::Custom,
        ),
        (
            json!({"RecordType": "SubscriptionChange", "SuppressSending": false, "ChangedAt": "2027-01-15T07:00:00Z"}),
            Signal::NewsletterSubscribe,
        ),
    ] {
        let mut body = body;
        body["MessageID"] = json!("883953f4-6105-42a2-a16a-77a8eac79483");
        if body["Email"].is_null() {
            body["Recipient"] = json!(ADDRESS);
        }
        let event = said(Provider::Postmark, &body).await.remove(0);
        assert_eq!(event.signal, signal, "{body}");
        assert_eq!(event.person.key(), Some(&PersonId::Anonymous(email_id(ADDRESS))));
    }
}

#[tokio::test]
async fn brevos_words() {
    for (word, signal) in [
        ("request", Signal::EmailSent),
        ("delivered", Signal::EmailDelivered),
        ("hard_bounce", Signal::EmailBounce),
        ("soft_bounce", Signal::Custom),
        ("blocked", Signal::Custom),
        ("spam", Signal::EmailComplaint),
        ("invalid_email", Signal::EmailBounce),
        ("deferred", Signal::Custom),
        ("click", Signal::EmailClick),
        ("opened", Signal::EmailOpen),
        ("proxy_open", Signal::EmailMachineOpen),
        ("unique_proxy_open", Signal::EmailMachineOpen),
        ("unsubscribe", Signal::EmailUnsubscribe),
        ("error", Signal::Custom),
        ("list_addition", Signal::NewsletterSubscribe),
    ] {
        let body = json!({"event": word, "email": ADDRESS, "id": 1, "message-id": "<m@smtp.example>", "ts_epoch": NOW.0 - 5000, "ts_event": NOW.0 / 1000});
        let event = said(Provider::Brevo, &body).await.remove(0);
        assert_eq!(
            (event.signal, event.occurred_at),
            (signal, Some(NOW.plus_ms(-5000))),
            "{word}"
        );
    }
    let open = |word: &str| json!({"event": word, "email": ADDRESS, "message-id": "<m>", "ts_epoch": NOW.0});
    let bench = shared(Provider::Brevo).await;
    let both = json!([open("unique_opened"), open("opened")]);
    assert_eq!(post_shared(&bench, &both).await.json()["accepted"], 2);
    let events = bench.logged().await;
    assert_eq!(
        (&events[0].id, events[0].fingerprint),
        (&events[1].id, events[1].fingerprint),
        "a first open under two words is one open, told twice"
    );
}

#[tokio::test]
async fn mailjets_words() {
    for (body, signal) in [
        (json!({"event": "sent"}), Signal::EmailDelivered),
        (
            json!({"event": "open", "agent": "Mozilla/5.0 (via ggpht.com GoogleImageProxy)"}),
            Signal::EmailOpen,
        ),
        (
            json!({"event": "click", "url": "https://shop.example/"}),
            Signal::EmailClick,
        ),
        (json!({"event": "bounce", "hard_bounce": true}), Signal::EmailBounce),
        (json!({"event": "bounce", "hard_bounce": false}), Signal::Custom),
        (json!({"event": "blocked"}), Signal::Custom),
        (json!({"event": "spam"}), Signal::EmailComplaint),
        (json!({"event": "unsub"}), Signal::EmailUnsubscribe),
    ] {
        let mut body = body;
        body.as_object_mut().unwrap().extend(
            json!({"email": ADDRESS, "time": NOW.0 / 1000, "MessageID": 19_421_777_835_146_490_u64, "Payload": "{\"user_id\":\"42\"}"})
                .as_object()
                .unwrap()
                .clone(),
        );
        let event = said(Provider::Mailjet, &json!([body])).await.remove(0);
        assert_eq!((event.signal, event.occurred_at), (signal, Some(NOW)), "{body}");
        assert_eq!(event.person.key(), Some(&PersonId::known("42").unwrap()));
    }
}

#[tokio::test]
async fn sparkposts_words() {
    let event = |family: &str, kind: &str, more: Value| {
        let mut event = json!({"type": kind, "event_id": format!("{kind}-1"), "rcpt_to": ADDRESS, "message_id": "m", "timestamp": (NOW.0 / 1000).to_string(), "rcpt_meta": {"user_id": "42"}});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"msys": {family: event}})
    };
    for (family, kind, more, signal) in [
        ("message_event", "injection", json!({}), Signal::EmailSent),
        ("message_event", "delivery", json!({}), Signal::EmailDelivered),
        (
            "message_event",
            "bounce",
            json!({"bounce_class": "10"}),
            Signal::EmailBounce,
        ),
        ("message_event", "bounce", json!({"bounce_class": "20"}), Signal::Custom),
        ("message_event", "spam_complaint", json!({}), Signal::EmailComplaint),
        (
            "track_event",
            "open",
            json!({"user_agent_parsed": {"is_prefetched": true}}),
            Signal::EmailMachineOpen,
        ),
        (
            "track_event",
            "open",
            json!({"user_agent_parsed": {"is_proxy": true}}),
            Signal::EmailOpen,
        ),
        ("track_event", "initial_open", json!({}), Signal::Custom),
        (
            "track_event",
            "click",
            json!({"target_link_url": "https://shop.example/"}),
            Signal::EmailClick,
        ),
        (
            "unsubscribe_event",
            "list_unsubscribe",
            json!({}),
            Signal::EmailUnsubscribe,
        ),
        (
            "unsubscribe_event",
            "link_unsubscribe",
            json!({}),
            Signal::EmailUnsubscribe,
        ),
    ] {
        let events = said(Provider::SparkPost, &json!([event(family, kind, more)])).await;
        assert_eq!(events[0].signal, signal, "{kind}");
        assert_eq!(events[0].person.key(), Some(&PersonId::known("42").unwrap()));
    }
    let bench = shared(Provider::SparkPost).await;
    let answer = post_shared(&bench, &json!([{"msys": {}}])).await;
    assert_eq!(
        (answer.status, answer.json()["accepted"].as_u64()),
        (StatusCode::OK, Some(0)),
        "the ping"
    );
}

// What holds for all.

const SHARING: [Provider; 4] = [
    Provider::Postmark,
    Provider::Brevo,
    Provider::Mailjet,
    Provider::SparkPost,
];

#[tokio::test]
async fn row_114_while_nothing_can_be_stored_each_provider_is_told_to_come_back() {
    let unavailable = LogError::Unavailable {
        reason: "disk full".into(),
    };
    let overloaded = LogError::Overloaded {
        retry_after: Duration::from_secs(1),
    };
    let words = |provider| match provider {
        Provider::Postmark => {
            json!({"RecordType": "SpamComplaint", "ID": 1, "Email": ADDRESS, "BouncedAt": "2027-01-15T07:00:00Z"})
        }
        Provider::SparkPost => {
            json!([{"msys": {"unsubscribe_event": {"type": "list_unsubscribe", "event_id": "1", "rcpt_to": ADDRESS}}}])
        }
        Provider::Mailjet => json!({"event": "unsub", "email": ADDRESS, "time": NOW.0 / 1000}),
        _ => json!({"event": "unsubscribe", "email": ADDRESS, "ts_epoch": NOW.0}),
    };
    for provider in SHARING {
        for (error, usual) in [(&unavailable, 503), (&overloaded, 429)] {
            let bench = shared(provider).await;
            bench.log.inject(0, Fault::Refuse(error.clone()));
            let answer = post_shared(&bench, &words(provider)).await;
            let expected = if provider == Provider::Brevo { 429 } else { usual };
            assert_eq!(answer.status.as_u16(), expected, "{}", provider.name());
            assert!(bench.logged().await.is_empty());
            let answer = post_shared(&bench, &words(provider)).await;
            assert_eq!(
                (answer.status.as_u16(), bench.logged().await.len()),
                (200, 1),
                "row 113: it comes again"
            );
        }
    }
    let bench = mailgun().await;
    bench.log.inject(0, Fault::Refuse(unavailable));
    let body = mailgun_body(
        MAILGUN_SIGNATURE,
        MAILGUN_TOKEN,
        &mailgun_event("complained", json!({})),
    );
    assert_eq!(
        bench.send(request(&[], body.clone())).await.status.as_u16(),
        503,
        "never 406, which means stop"
    );
    let answer = bench.send(request(&[], body)).await;
    assert_eq!(
        (answer.status.as_u16(), bench.logged().await.len()),
        (200, 1),
        "its repetition is no replay"
    );
}

#[tokio::test]
async fn what_is_believed_and_cannot_be_read_is_kept_and_not_asked_for_again() {
    for provider in SHARING {
        let bench = shared(provider).await;
        let (name, value) = basic();
        for (body, kept) in [
            ("nonsense", 1),
            ("42", 2),
            (
                r#"{"event":"telepathy","RecordType":"Telepathy","msys":{"x":{"type":"y"}}}"#,
                3,
            ),
        ] {
            let answer = bench.send(request(&[(name, &value)], body)).await;
            assert_eq!(
                (answer.status.as_u16(), answer.json()["accepted"].as_u64()),
                (200, Some(0)),
                "{body}"
            );
            assert_eq!(bench.letters().await.len(), kept, "{} {body}", provider.name());
        }
        let answer = bench.send(request(&[(name, &value)], "")).await;
        assert_eq!(answer.code(), "empty");
    }
}

#[tokio::test]
async fn row_109_many_notices_are_taken_and_too_many_refused_as_a_whole() {
    let bench = shared(Provider::Mailjet).await;
    let notice = json!({"event": "open", "email": "a@b.c", "time": 1_799_999_999, "MessageID": 1});
    let answer = post_shared(&bench, &Value::Array(vec![notice; 5000])).await;
    assert_eq!(answer.json()["accepted"], 5000, "{}", answer.code());
    let answer = post_shared(&bench, &Value::Array(vec![json!({}); 10_001])).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "batch_size"));
}

#[tokio::test]
async fn the_workspace_is_the_endpoints() {
    let bench = shared(Provider::Brevo).await;
    let body = json!({"event": "unsubscribe", "email": ADDRESS, "ts_epoch": NOW.0, "workspace": "other"});
    assert_eq!(post_shared(&bench, &body).await.status, StatusCode::OK);
    let orphan = bench.logged().await.remove(0);
    assert_eq!(orphan.workspace, shop(), "row 112");
    let nobody = PersonId::anonymous(&email_id(ADDRESS)).unwrap();
    assert_eq!(orphan.person.key(), Some(&nobody), "row 112: no customer's");
    let (name, value) = basic();
    let elsewhere = Request::post("/v1/webhooks/other")
        .header(name, value)
        .body(Body::from(body.to_string()))
        .unwrap();
    assert_eq!(bench.send(elsewhere).await.status, StatusCode::NOT_FOUND);
    let get = Request::get("/v1/webhooks/mail").body(Body::empty()).unwrap();
    assert_eq!(bench.send(get).await.headers[header::ALLOW], "POST,HEAD");
}

#[test]
fn bad_configurations_are_refused_with_a_reason() {
    let shared = || Proof::Shared {
        secrets: vec![SharedSecret::Bearer(secret("long-enough"))],
    };
    let named = |name: &str| WebhookSpec {
        name: name.to_owned(),
        ..spec(Provider::Brevo, shared())
    };
    let refused = |specs: Vec<WebhookSpec>| Webhooks::new(specs, None).unwrap_err().to_string();
    for (specs, reason) in [
        (vec![named("")], "1 to 64"),
        (vec![named("Mail")], "lower-case"),
        (vec![named("a"), named("a")], "two endpoints"),
        (vec![spec(Provider::SendGrid, shared())], "another way"),
        (
            vec![spec(
                Provider::Brevo,
                Proof::Mailgun {
                    signing_keys: vec![secret("k")],
                },
            )],
            "another way",
        ),
        (
            vec![spec(Provider::Mailgun, Proof::Mailgun { signing_keys: vec![] })],
            "one secret",
        ),
        (
            vec![spec(
                Provider::Mailgun,
                Proof::Mailgun {
                    signing_keys: vec![secret("a"), secret("b"), secret("c")],
                },
            )],
            "or two",
        ),
        (
            vec![spec(
                Provider::SendGrid,
                Proof::SendGrid {
                    public_keys: vec!["AAAA".to_owned()],
                },
            )],
            "P-256",
        ),
        (
            vec![spec(
                Provider::Ses,
                Proof::Sns {
                    topics: vec![TOPIC.to_owned()],
                    version_1: false,
                },
            )],
            "certificates",
        ),
        (
            vec![spec(
                Provider::Brevo,
                Proof::Shared {
                    secrets: vec![SharedSecret::Basic(secret("no-colon-here"))],
                },
            )],
            "user:password",
        ),
        (
            vec![spec(
                Provider::Brevo,
                Proof::Shared {
                    secrets: vec![SharedSecret::Header("bad name".to_owned(), secret("long-enough"))],
                },
            )],
            "header",
        ),
    ] {
        let said = refused(specs);
        assert!(said.contains(reason), "{said}");
    }
    let amazon: Arc<dyn Fetch> = Arc::new(Amazon::default());
    let topics = Proof::Sns {
        topics: vec!["arn:nonsense".to_owned()],
        version_1: true,
    };
    assert!(
        Webhooks::new([spec(Provider::Ses, topics)], Some(amazon))
            .unwrap_err()
            .to_string()
            .contains("topics")
    );
}

#[test]
fn no_secret_is_printed() {
    let canary = "canary-7f3a";
    let url = format!("https://u:{canary}@t.example/");
    let specs = [
        spec(
            Provider::Mailgun,
            Proof::Mailgun {
                signing_keys: vec![secret(canary)],
            },
        ),
        spec(
            Provider::Mandrill,
            Proof::Mandrill {
                keys: vec![secret(canary)],
                public_url: secret(&url),
            },
        ),
        spec(
            Provider::Brevo,
            Proof::Shared {
                secrets: vec![SharedSecret::Basic(secret(&format!("u:{canary}")))],
            },
        ),
    ];
    for spec in specs {
        assert!(!format!("{spec:?}").contains(canary), "{spec:?}");
        let webhooks = Webhooks::new([spec], None).unwrap();
        assert!(!format!("{webhooks:?}").contains(canary), "{webhooks:?}");
    }
}
