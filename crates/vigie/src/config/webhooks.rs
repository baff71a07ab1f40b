//! The `[[webhooks]]` of e-mail providers and the `[[link-keys]]` that sign links. Each endpoint and key is checked by the part
//! that uses it, when the configuration is read, so that a wrong one is an error with a place and no surprise later.

use std::collections::BTreeSet;
use std::sync::Arc;

use vigie_ingestion::keys::Secret;
use vigie_ingestion::links::{LinkKey, LinkSpec, LinkSpecError, Links};
use vigie_ingestion::webhooks::{Fetch, FetchError, Fetched, Proof, Provider, SharedSecret, WebhookSpec, Webhooks};

use super::entries::Entry;
use super::layers::{Layers, Origin};
use super::settings::Settings;

/// One endpoint for a provider.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// As the collector takes it.
    pub spec: WebhookSpec,
    /// Where it stands.
    pub origin: Origin,
}

const FIELDS: [&str; 11] = [
    "name",
    "workspace",
    "provider",
    "secrets",
    "secret-files",
    "carried-in",
    "public-keys",
    "topics",
    "signature-versions",
    "public-url",
    "public-url-file",
];

/// Checks the endpoints; what is wrong goes to the errors of `layers`.
pub(super) fn read(layers: &mut Layers) -> Vec<Webhook> {
    let mut webhooks: Vec<Webhook> = Vec::new();
    for (_, mut entry) in Entry::all("webhooks", layers) {
        let Some(spec) = read_one(&mut entry, layers) else {
            continue;
        };
        let name = &spec.name;
        if webhooks.iter().any(|other| other.spec.name == *name) {
            let message = "another webhook has this name; choose another for one of them";
            layers.error(entry.origin, entry.name, message);
            continue;
        }
        match Webhooks::new([spec.clone()], Some(Arc::new(Nothing))) {
            Ok(_checked) => webhooks.push(Webhook {
                spec,
                origin: entry.origin,
            }),
            Err(error) => layers.error(entry.origin, entry.name, error.reason),
        }
    }
    webhooks
}

fn read_one(entry: &mut Entry, layers: &mut Layers) -> Option<WebhookSpec> {
    entry.check_fields(&FIELDS, layers);
    let name = entry.text("name", layers).map(|(name, _)| name);
    let workspace = entry.workspace(layers);
    let provider = entry.text("provider", layers).and_then(|(text, at)| {
        let provider = Provider::parse(&text);
        if provider.is_none() {
            let known: Vec<&str> = Provider::ALL.iter().map(|provider| provider.name()).collect();
            let message = format!("expected one of {}, found {text:?}", known.join(", "));
            layers.error(at, entry.field("provider"), message);
        }
        provider
    });
    let provider = provider?;
    let proof = proof(entry, provider, layers)?;
    let leftover = FIELDS.iter().find(|field| entry.has(field));
    if let Some(field) = leftover {
        let message = format!("{} has no use for it", provider.name());
        layers.error(entry.origin.clone(), entry.field(field), message);
        return None;
    }
    Some(WebhookSpec {
        name: name?,
        workspace: workspace?,
        provider,
        proof,
    })
}

/// Takes the fields that prove this provider's requests; the others stay where they are.
fn proof(entry: &mut Entry, provider: Provider, layers: &mut Layers) -> Option<Proof> {
    let secrets = |entry: &mut Entry, layers: &mut Layers| -> Option<Vec<Secret>> {
        let (texts, origin) = entry.secrets(layers)?;
        if texts.is_empty() || texts.iter().any(|text| text.trim().is_empty()) {
            let message = "secrets or secret-files is missing or empty: give one secret, or two during a rotation";
            layers.error(origin, entry.name.clone(), message);
            return None;
        }
        Some(texts.into_iter().map(Secret::new).collect())
    };
    Some(match provider {
        Provider::SendGrid => Proof::SendGrid {
            public_keys: entry.list("public-keys", layers)?.0,
        },
        Provider::Mailgun => Proof::Mailgun {
            signing_keys: secrets(entry, layers)?,
        },
        Provider::Mandrill => Proof::Mandrill {
            keys: secrets(entry, layers)?,
            public_url: Secret::new(entry.text_or_file("public-url", layers)?.0),
        },
        Provider::Ses => {
            let topics = entry.list("topics", layers)?.0;
            let (versions, at) = entry.list("signature-versions", layers)?;
            if let Some(bad) = versions.iter().find(|version| !["1", "2"].contains(&version.as_str())) {
                let message = format!("expected \"2\" (SHA-256) or \"1\" (SHA-1), found {bad:?}");
                layers.error(at, entry.field("signature-versions"), message);
                return None;
            }
            Proof::Sns {
                topics,
                version_1: versions.iter().any(|version| version == "1"),
            }
        }
        Provider::Postmark | Provider::Brevo | Provider::Mailjet | Provider::SparkPost => {
            let carrier = if entry.has("carried-in") {
                entry.text("carried-in", layers)?
            } else {
                ("basic".to_owned(), entry.origin.clone())
            };
            let carry: Box<dyn Fn(Secret) -> SharedSecret> = match carrier.0.as_str() {
                "basic" => Box::new(SharedSecret::Basic),
                "bearer" => Box::new(SharedSecret::Bearer),
                other => match other.strip_prefix("header:").map(str::to_owned) {
                    Some(name) => Box::new(move |secret| SharedSecret::Header(name.to_lowercase(), secret)),
                    None => {
                        let message = format!(
                            "expected \"basic\" (the secret is user:password), \"bearer\" or \"header:<name>\", found {other:?}"
                        );
                        layers.error(carrier.1, entry.field("carried-in"), message);
                        return None;
                    }
                },
            };
            Proof::Shared {
                secrets: secrets(entry, layers)?.into_iter().map(carry).collect(),
            }
        }
    })
}

/// Fetches nothing: while endpoints are only checked, nothing is asked for.
#[derive(Debug)]
struct Nothing;

impl Fetch for Nothing {
    fn get(&self, _url: &str) -> Fetched<'_> {
        Box::pin(std::future::ready(Err(FetchError)))
    }
}

/// What signs the links of e-mails, when there is a key; what is wrong goes to the errors of `layers`.
pub(super) fn read_links(settings: Option<&Settings>, layers: &mut Layers) -> Option<LinkSpec> {
    let mut keys = Vec::new();
    let mut first = None;
    for (_, mut entry) in Entry::all("link-keys", layers) {
        entry.check_fields(&["id", "secret", "secret-file"], layers);
        let id = entry.text("id", layers);
        let secret = entry.text_or_file("secret", layers);
        let (id, secret) = (id?.0, Secret::new(secret?.0));
        keys.push(LinkKey { id, secret });
        let _ = first.get_or_insert(entry.origin);
    }
    let first = first?;
    let links = &settings?.links;
    let Some(public_url) = links.public_url.clone() else {
        let message = "give the address at which mails reach this collector, such as \"https://track.shop.example\"";
        layers.error(first, "links.public-url", message);
        return None;
    };
    let spec = LinkSpec {
        keys,
        public_url: public_url.as_str().to_owned(),
        hosts: BTreeSet::from_iter(links.hosts.0.iter().cloned()),
        days: u32::try_from(links.lifetime.as_secs() / 86_400).unwrap_or(u32::MAX),
    };
    match Links::new(spec.clone()) {
        Ok(_checked) => Some(spec),
        Err(error) => {
            let (origin, setting) = match error {
                LinkSpecError::Keys => (first, "link-keys"),
                LinkSpecError::PublicUrl => (layers.origin_of("links", "public-url"), "links.public-url"),
                LinkSpecError::Days => (layers.origin_of("links", "lifetime"), "links.lifetime"),
            };
            layers.error(origin, setting, error.to_string());
            None
        }
    }
}
