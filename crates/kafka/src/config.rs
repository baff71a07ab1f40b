//! How brokers are reached. Secrets are named (a file, an environment variable) and read when a client is made; no value
//! of this module ever holds one, so none can be printed.

use rdkafka::ClientConfig;
use serde::Deserialize;
use std::path::PathBuf;

/// Where a secret lies, or a name that is none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Secret {
    /// The content of a file, without the line end at its end.
    File(PathBuf),
    /// The value of an environment variable.
    Env(String),
    /// Itself: for names, never for passwords.
    Plain(String),
}

/// A SASL mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Mechanism {
    /// User name and password in clear: only with TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// RFC 7677.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// The same with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl Mechanism {
    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// TLS to the brokers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Tls {
    /// Certificates to trust, PEM; those of the system when absent.
    pub ca_file: Option<PathBuf>,
    /// Our certificate, PEM, for brokers that ask for one.
    pub certificate_file: Option<PathBuf>,
    /// Its key, PEM.
    pub key_file: Option<PathBuf>,
}

/// User name and password.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sasl {
    /// How they are proved.
    pub mechanism: Mechanism,
    /// Who we are.
    pub username: Secret,
    /// The password.
    pub password: Secret,
}

/// What protects the connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Security {
    /// TLS; clear text when absent.
    pub tls: Option<Tls>,
    /// SASL; no authentication when absent.
    pub sasl: Option<Sasl>,
}

/// How brokers are reached.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Connection {
    /// `host:port` of some brokers; the rest is learnt from them.
    pub brokers: Vec<String>,
    /// The name that brokers see in their logs and quotas.
    #[serde(default = "client_id")]
    pub client_id: String,
    /// What protects the connection.
    #[serde(default)]
    pub security: Security,
}

fn client_id() -> String {
    "vigie".to_owned()
}

/// Why no client can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// No broker is named.
    #[error("no broker is named: set `brokers` to host:port of at least one")]
    NoBroker,
    /// A broker's address has no port, or another fault.
    #[error("broker {address:?} is not host:port")]
    Broker {
        /// As it was given.
        address: String,
    },
    /// This build cannot do that.
    #[error("this build has no {what} to Kafka: build vigie with --features {feature}")]
    NotBuilt {
        /// What is missing.
        what: &'static str,
        /// The cargo feature that brings it.
        feature: &'static str,
    },
    /// A password would travel in clear.
    #[error("SASL PLAIN without TLS would send the password in clear: configure TLS, or a SCRAM mechanism")]
    ClearPassword,
    /// A secret cannot be read.
    #[error("secret {from}: {reason}")]
    Secret {
        /// Where it should be.
        from: String,
        /// Why it cannot be had.
        reason: String,
    },
    /// The client library refuses a setting.
    #[error("kafka client cannot be made: {0}")]
    Client(String),
}

impl Secret {
    fn read(&self) -> Result<String, ConnectionError> {
        let failed = |from: String, reason: String| ConnectionError::Secret { from, reason };
        let value = match self {
            Self::File(path) => std::fs::read_to_string(path)
                .map_err(|error| failed(format!("file {}", path.display()), error.to_string()))?
                .trim_end_matches(['\r', '\n'])
                .to_owned(),
            Self::Env(name) => std::env::var(name)
                .map_err(|error| failed(format!("environment variable {name}"), error.to_string()))?,
            Self::Plain(name) => name.clone(),
        };
        if value.is_empty() {
            return Err(failed(format!("{self:?}"), "is empty".to_owned()));
        }
        Ok(value)
    }
}

impl Connection {
    /// Clear text to these brokers.
    #[must_use]
    pub fn to(brokers: &str) -> Self {
        Self {
            brokers: brokers.split(',').map(|broker| broker.trim().to_owned()).collect(),
            client_id: client_id(),
            security: Security::default(),
        }
    }

    /// Whether a client could be made: addresses, and secrets that can be read.
    ///
    /// # Errors
    /// The first fault found.
    pub fn check(&self) -> Result<(), ConnectionError> {
        self.client().map(drop)
    }

    /// The settings that all clients share, secrets included. The type does not print passwords.
    pub(crate) fn client(&self) -> Result<ClientConfig, ConnectionError> {
        if self.brokers.is_empty() {
            return Err(ConnectionError::NoBroker);
        }
        for address in &self.brokers {
            let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
            if host.is_empty() || port.parse::<u16>().is_err() {
                return Err(ConnectionError::Broker {
                    address: address.clone(),
                });
            }
        }
        let mut config = ClientConfig::new();
        for (key, value) in [
            ("bootstrap.servers", self.brokers.join(",").as_str()),
            ("client.id", &self.client_id),
            // A broker that is gone for a moment is found again soon; a connection that hangs is given up.
            ("reconnect.backoff.ms", "50"),
            ("reconnect.backoff.max.ms", "1000"),
            ("socket.keepalive.enable", "true"),
            ("socket.timeout.ms", "10000"),
            ("socket.connection.setup.timeout.ms", "5000"),
            ("allow.auto.create.topics", "false"),
            ("log.connection.close", "false"),
        ] {
            let _ = config.set(key, value);
        }
        self.secure(&mut config)?;
        Ok(config)
    }

    fn secure(&self, config: &mut ClientConfig) -> Result<(), ConnectionError> {
        let Security { tls, sasl } = &self.security;
        if tls.is_some() && !cfg!(feature = "tls") {
            return Err(ConnectionError::NotBuilt {
                what: "TLS",
                feature: "kafka-tls",
            });
        }
        if sasl.is_some() && !cfg!(feature = "sasl") {
            return Err(ConnectionError::NotBuilt {
                what: "SASL",
                feature: "kafka-sasl",
            });
        }
        let protocol = match (tls, sasl) {
            (None, None) => return Ok(()),
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        let _ = config.set("security.protocol", protocol);
        if let Some(tls) = tls {
            for (key, path) in [
                ("ssl.ca.location", &tls.ca_file),
                ("ssl.certificate.location", &tls.certificate_file),
                ("ssl.key.location", &tls.key_file),
            ] {
                if let Some(path) = path {
                    let _ = config.set(key, path.to_string_lossy());
                }
            }
        }
        if let Some(sasl) = sasl {
            if sasl.mechanism == Mechanism::Plain && tls.is_none() {
                return Err(ConnectionError::ClearPassword);
            }
            let _ = config.set("sasl.mechanism", sasl.mechanism.name());
            let _ = config.set("sasl.username", sasl.username.read()?);
            let _ = config.set("sasl.password", sasl.password.read()?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sasl(password: Secret) -> Connection {
        Connection {
            security: Security {
                tls: Some(Tls::default()),
                sasl: Some(Sasl {
                    mechanism: Mechanism::Plain,
                    username: Secret::Env("PATH".to_owned()),
                    password,
                }),
            },
            ..Connection::to("localhost:9092")
        }
    }

    #[test]
    fn addresses_need_a_port() {
        assert_eq!(Connection::to("a:1,[::1]:9092").check(), Ok(()));
        for bad in ["localhost", "", ":9092", "a:b", "a:70000"] {
            let refused = Connection::to(bad).check();
            assert_eq!(
                refused,
                Err(ConnectionError::Broker {
                    address: bad.to_owned()
                })
            );
        }
        let nobody = Connection {
            brokers: vec![],
            ..Connection::to("")
        };
        assert_eq!(nobody.check(), Err(ConnectionError::NoBroker));
    }

    #[test]
    fn security_that_is_not_built_in_is_refused_by_name() {
        let refused = sasl(Secret::Env("PATH".to_owned())).check();
        if cfg!(feature = "sasl") {
            assert_eq!(refused, Ok(()));
        } else {
            assert!(refused.unwrap_err().to_string().contains("--features kafka-tls"));
        }
    }

    #[cfg(feature = "sasl")]
    #[test]
    fn a_password_is_never_printed_and_never_sent_in_clear() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "s3cr3t-word\n").unwrap();
        let mut connection = sasl(Secret::File(path.clone()));
        assert_eq!(connection.client().unwrap().get("sasl.password"), Some("s3cr3t-word"));
        let printed = format!("{connection:?} {:?}", connection.client().unwrap());
        assert!(!printed.contains("s3cr3t-word"), "{printed}");
        connection.security.tls = None;
        assert_eq!(connection.check(), Err(ConnectionError::ClearPassword));
        std::fs::write(&path, "\n").unwrap();
        let empty = sasl(Secret::File(path)).check().unwrap_err().to_string();
        assert!(empty.contains("empty"), "{empty}");
        let missing = sasl(Secret::Env("VIGIE_NO_SUCH_VARIABLE".to_owned())).check();
        assert!(missing.unwrap_err().to_string().contains("VIGIE_NO_SUCH_VARIABLE"));
    }
}
