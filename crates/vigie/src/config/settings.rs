//! The table of settings: type, default, range and documentation of each, and the checks that involve several.
//!
//! The types of the configuration, `config/default.toml`, `config/reference.toml` and every error message come from
//! this table. It never reads anything.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use vigie_telemetry::logging::LogFormat;

use super::layers::{Layers, kebab};
use super::types::{
    ConsentProof, Durability, Hosts, Learning, LogBackend, LogFilter, SaslMechanism, SettingType, Size, StoreBackend,
    Switch, literal,
};

/// One section, as documentation and error messages need it.
pub(super) struct SectionInfo {
    ident: &'static str,
    pub(super) doc: &'static [&'static str],
    pub(super) settings: &'static [SettingInfo],
}

impl SectionInfo {
    pub(super) fn name(&self) -> String {
        kebab(self.ident)
    }
}

/// One setting, as documentation and error messages need it.
pub(super) struct SettingInfo {
    ident: &'static str,
    pub(super) doc: &'static [&'static str],
    /// As text, in the syntax of variables of the environment.
    pub(super) default: &'static str,
    /// Smallest and largest value, as text.
    pub(super) range: Option<(&'static str, &'static str)>,
    /// What a value looks like.
    pub(super) expected: &'static str,
    /// Turns a text into TOML.
    pub(super) literal: fn(&str) -> Option<String>,
}

impl SettingInfo {
    pub(super) fn name(&self) -> String {
        kebab(self.ident)
    }
}

fn literal_of<T: SettingType>(text: &str) -> Option<String> {
    T::read(text).ok().map(|value| literal(&value))
}

macro_rules! range {
    () => {
        None
    };
    ($min:literal, $max:literal) => {
        Some(($min, $max))
    };
}

macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])*
        $section:ident: $Section:ident {
            $( $(#[doc = $doc:literal])* $key:ident: $type:ty = $default:literal $(in $min:literal, $max:literal)?; )*
        }
    )*) => {
        /// Every setting, by section.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Settings {
            $( $(#[doc = $section_doc])* pub $section: $Section, )*
        }

        $(
            $(#[doc = $section_doc])*
            #[derive(Clone, Debug, PartialEq)]
            pub struct $Section {
                $( $(#[doc = $doc])* pub $key: $type, )*
            }
        )*

        pub(super) static TABLE: &[SectionInfo] = &[$(
            SectionInfo {
                ident: stringify!($section),
                doc: &[$($section_doc),*],
                settings: &[$(
                    SettingInfo {
                        ident: stringify!($key),
                        doc: &[$($doc),*],
                        default: $default,
                        range: range!($($min, $max)?),
                        expected: <$type as SettingType>::EXPECTED,
                        literal: literal_of::<$type>,
                    },
                )*],
            },
        )*];

        impl Settings {
            /// Reads every setting before giving up, so that all errors are found.
            pub(super) fn read(layers: &mut Layers) -> Option<Settings> {
                $(
                    $( let $key = layers.value::<$type>(stringify!($section), stringify!($key)); )*
                    let $section = (|| Some($Section { $($key: $key?),* }))();
                )*
                Some(Settings { $($section: $section?),* })
            }
        }
    };
}

settings! {
    /// Listeners and the time that connections get.
    server: Server {
        /// Address of the collector and the API.
        listen: SocketAddr = "127.0.0.1:8080";
        /// Address of /metrics and the administration API; "" puts them on `listen`.
        admin_listen: Option<SocketAddr> = "";
        /// Connections open at the same time; further clients wait in the queue of the system.
        max_connections: usize = "4096" in "1", "1000000";
        /// Time for the head of a request to arrive.
        header_timeout: Duration = "5s" in "100ms", "5m";
        /// Time for the body of a request to arrive.
        body_timeout: Duration = "15s" in "100ms", "10m";
        /// Time after which a connection without a request is closed.
        idle_timeout: Duration = "30s" in "1s", "1h";
        /// Time for a client to take its answer.
        write_timeout: Duration = "10s" in "100ms", "10m";
        /// Time between not being ready and closing the listeners at the end, for load balancers to notice.
        drain_delay: Duration = "0s" in "0s", "5m";
        /// Time for open requests to finish at the end.
        drain_timeout: Duration = "10s" in "0s", "10m";
        /// Wrong keys at the API and the administration after which their address is answered 429 for a minute; 0: never
        /// (where a proxy in front makes one address of all).
        wrong_keys: usize = "20" in "0", "1000";
    }
    /// Largest inputs. Whatever is larger is refused before it is kept in memory.
    limits: Limits {
        /// Request line.
        request_line: Size = "8 KiB" in "256 B", "64 KiB";
        /// All header fields together.
        headers: Size = "16 KiB" in "1 KiB", "256 KiB";
        /// Number of header fields.
        header_fields: usize = "64" in "8", "1000";
        /// Body as sent.
        body: Size = "1 MiB" in "1 KiB", "64 MiB";
        /// Body after decompression.
        inflated: Size = "4 MiB" in "1 KiB", "256 MiB";
        /// Times that a body may grow by decompression.
        inflate_ratio: usize = "100" in "1", "1000";
        /// One event.
        event: Size = "32 KiB" in "1 KiB", "1 MiB";
        /// Events in one batch of our own API.
        batch_events: usize = "1000" in "1", "10000";
        /// Body of a batch on the routes for Segment clients, which count on 500 KB.
        segment_body: Size = "512 KiB" in "1 KiB", "64 MiB";
        /// Events in one batch on the routes for Segment clients.
        segment_batch_events: usize = "2500" in "1", "10000";
        /// Depth of nested objects and arrays.
        json_depth: usize = "32" in "4", "128";
        /// Keys of one object.
        json_keys: usize = "256" in "16", "10000";
        /// Bytes of a key.
        key_length: usize = "128" in "16", "4096";
        /// One string.
        string_length: Size = "8 KiB" in "256 B", "1 MiB";
        /// Age beyond which an event becomes a dead letter.
        event_age: Duration = "400d" in "1d", "3650d";
        /// Whether an event that grants consent becomes a dead letter without its proof: a timestamp, and the properties
        /// `wording`, `wording_sha256` and `source`. A refusal never needs one.
        consent_proof: ConsentProof = "optional";
    }
    /// The log of everything that was accepted.
    log: Log {
        /// Files in the data directory, or a topic of Kafka (section `kafka`).
        backend: LogBackend = "embedded";
        /// Number of partitions. Fixed at the first start; another value later is refused.
        partitions: u16 = "64" in "1", "4096";
        /// Bytes after which a new segment file is begun.
        segment_size: Size = "64 MiB" in "1 MiB", "4 GiB";
        /// Bytes waiting to be written; beyond it the collector answers 429.
        queue_bytes: Size = "32 MiB" in "1 MiB", "4 GiB";
        /// Bytes written and synced in one go.
        group_commit_max: Size = "1 MiB" in "64 KiB", "64 MiB";
    }
    /// The store of customer states and scores.
    store: Store {
        /// A database in the data directory, or a Redis (section `redis`).
        backend: StoreBackend = "embedded";
        /// Memory for cached blocks.
        cache_size: Size = "64 MiB" in "1 MiB", "64 GiB";
    }
    /// Kafka, when it is the log, or when there are sources or topics for others.
    kafka: Kafka {
        /// Some of the brokers.
        brokers: Vec<String> = "127.0.0.1:9092";
        /// Topic of everything that was accepted; it must have `log.partitions` partitions.
        topic: String = "vigie.log";
        /// Topic of what was set aside; one partition.
        dead_letters_topic: String = "vigie.journal";
        /// Consumer group that spreads the partitions over the workers.
        group: String = "vigie";
        /// Time after which the brokers miss a worker and give its partitions to others.
        session_timeout: Duration = "10s" in "6s", "5m";
        /// Copies of each partition that a topic must have.
        replication: u16 = "3" in "1", "9";
        /// Copies that must have a record before it counts as kept.
        min_insync: u16 = "2" in "1", "9";
        /// Time for which the topic of the log must keep its records, at least; the archive keeps them for good.
        retention: Duration = "30d" in "1h", "3650d";
        /// Longest wait for the brokers before an append is answered 503; what was handed over stays queued.
        append_timeout: Duration = "5s" in "100ms", "60s";
        /// Time that a broker may hold a fetch that finds nothing. Brokers that hold it even when records come (tansu) want less.
        fetch_wait: Duration = "100ms" in "1ms", "500ms";
        /// Topic that every score is told to, compacted, with the customer as its key; "" tells none.
        scores_topic: Option<String> = "";
        /// Topic that relances are sent to, as to a destination; "" sends none.
        relances_topic: Option<String> = "";
        /// TLS to the brokers (in builds with the feature `kafka-tls`).
        tls: Switch = "off";
        /// Certificates to trust, PEM; "" trusts those of the system.
        ca_file: Option<PathBuf> = "";
        /// Our own certificate, PEM, for brokers that ask for one; "" shows none.
        certificate_file: Option<PathBuf> = "";
        /// The key of our own certificate, PEM.
        key_file: Option<PathBuf> = "";
        /// User of the login; "" takes the variable VIGIE_KAFKA_USERNAME. It counts only with a password file.
        username: Option<String> = "";
        /// Password file for SASL (in builds with the feature `kafka-sasl`); "" logs nobody in.
        password_file: Option<PathBuf> = "";
        /// How the password is proved. PLAIN needs TLS.
        sasl_mechanism: SaslMechanism = "SCRAM-SHA-512";
    }
    /// Redis 7.0 or later, when it is the store: one server with its replicas, or a cluster.
    redis: Redis {
        /// Some nodes of a cluster, or a master and its replicas.
        nodes: Vec<String> = "127.0.0.1:6379";
        /// First part of all keys; letters, digits and `-`.
        namespace: String = "vigie";
        /// User of the login; it counts only with a password file.
        username: String = "default";
        /// Password file; "" logs nobody in.
        password_file: Option<PathBuf> = "";
        /// Longest wait for a connection.
        connect_timeout: Duration = "1s" in "100ms", "10s";
        /// Longest wait for an answer.
        response_timeout: Duration = "2s" in "100ms", "30s";
        /// Replicas of each master that must have everything that counts as persisted.
        replicas: u16 = "0" in "0", "5";
        /// What the Redis must keep on its disk.
        durability: Durability = "file";
    }
    /// How fast events may come. 0 sets no limit. A limit answers 429 with the time to wait.
    rates: Rates {
        /// Events a second by each key.
        key_per_second: usize = "0" in "0", "10000000";
        /// Events that a key may send at once.
        key_burst: usize = "10000" in "1", "10000000";
        /// Events a second to each workspace.
        workspace_per_second: usize = "0" in "0", "10000000";
        /// Events that a workspace may send at once.
        workspace_burst: usize = "100000" in "1", "10000000";
        /// Events of a workspace in one day (UTC).
        daily: usize = "0" in "0", "1000000000000";
    }
    /// Signed links of e-mails. There are some once there is a `[[link-keys]]`.
    links: Links {
        /// Address at which mails reach the collector, such as "https://track.shop.example"; needed with `[[link-keys]]`.
        public_url: Option<String> = "";
        /// Hosts that clicks may lead to, separated by commas; "" for any. Names with letters beyond ASCII must be listed.
        hosts: Hosts = "";
        /// Time for which a link holds. Whoever wants no more mails is heard by older ones too.
        lifetime: Duration = "400d" in "1d", "3650d";
    }
    /// The archive: the log as Parquet, for SQL, replays and audits.
    archive: Archive {
        /// Directory or address (s3://…, gs://…, az://… in builds with the feature `cloud`); "" takes `archive` in the data
        /// directory.
        url: Option<PathBuf> = "";
        /// Records that wait at most before they are written. Fewer, larger files are quicker to read.
        flush_rows: usize = "250000" in "1000", "5000000";
        /// Bytes that wait at most before they are written.
        flush_bytes: Size = "64 MiB" in "1 MiB", "4 GiB";
        /// Time that a record waits at most before it is written.
        flush_after: Duration = "60s" in "1s", "1d";
    }
    /// Questions in SQL.
    query: Query {
        /// Rows of an answer; more are cut off, and the answer says so.
        max_rows: usize = "10000" in "1", "10000000";
        /// Time for an answer.
        max_time: Duration = "30s" in "100ms", "1h";
        /// Memory for an answer.
        max_memory: Size = "512 MiB" in "16 MiB", "64 GiB";
        /// Questions answered at the same time; further ones wait.
        concurrent: usize = "2" in "1", "64";
    }
    /// The audit that recomputes a part of the store from the archive.
    audit: Audit {
        /// Time between two audits; 0s switches them off.
        every: Duration = "1h" in "0s", "7d";
        /// Partitions that each one looks at, in turn: 1 of 64 sees everything within 64 audits.
        partitions: u16 = "1" in "1", "4096";
    }
    /// Canaries: made-up customers in a workspace of their own, whose events measure the way to the score all the time.
    canary: Canary {
        /// Time between two of them; 0s switches them off.
        every: Duration = "0s" in "0s", "1h";
    }
    /// The worker.
    pipeline: Pipeline {
        /// Most records in one step. How many there are is found out: as many as the store writes in half a second to a second.
        batch_records: usize = "65536" in "1", "100000";
        /// Most bytes in one step.
        batch_bytes: Size = "32 MiB" in "64 KiB", "256 MiB";
    }
    /// Where files are kept.
    data: Data {
        /// Directory of the log, the store and the generated keys. A relative path is relative to the working directory.
        dir: PathBuf = "data";
    }
    /// Models.
    scoring: Scoring {
        /// File of the model; "" takes the one compiled in.
        model: Option<PathBuf> = "";
        /// What becomes of a model that is clearly better on labels as they close: "propose" makes it the candidate, which
        /// scores beside the one in force until `vigie model promote`; "promote" puts it in its place; "off" learns nothing.
        learning: Learning = "propose";
    }
    /// Relance policies.
    relance: Relance {
        /// File of the policies; "" takes the ones compiled in (`config/policies.toml`).
        policies: Option<PathBuf> = "";
    }
    /// Relances on their way out. Without destinations they are pulled: listed, claimed, or read as CSV.
    delivery: Delivery {
        /// File of the destinations: `[[destination]]` entries; README.md has an example. "" delivers nowhere.
        destinations: Option<PathBuf> = "";
        /// Age at which a relance that nobody claimed leaves the queue.
        queue_age: Duration = "14d" in "1h", "365d";
    }
    /// The log of the process, on standard error.
    log_output: LogOutput {
        /// Lines for people, or JSON for machines.
        format: LogFormat = "text";
        /// What is logged.
        level: LogFilter = "info,fjall=warn,lsm_tree=warn";
    }
}

/// Checks that involve several settings.
pub(super) fn check_together(settings: &Settings, layers: &mut Layers) {
    let Settings {
        server,
        limits,
        log,
        pipeline,
        kafka,
        ..
    } = settings;
    let mut check = |ok: bool, section: &str, key: &str, message: &str| {
        if !ok {
            let origin = layers.origin_of(section, key);
            layers.error(origin, format!("{section}.{key}"), message);
        }
    };
    check(
        server.admin_listen != Some(server.listen),
        "server",
        "admin-listen",
        "the same address as server.listen",
    );
    check(
        kafka.min_insync <= kafka.replication,
        "kafka",
        "min-insync",
        "more than kafka.replication, so that nothing could ever be written",
    );
    let plain = kafka.password_file.is_some() && kafka.sasl_mechanism == SaslMechanism::Plain;
    check(
        !plain || kafka.tls == Switch::On,
        "kafka",
        "sasl-mechanism",
        "PLAIN sends the password as it is: set kafka.tls to \"on\", or take a SCRAM mechanism",
    );
    check(
        kafka.certificate_file.is_some() == kafka.key_file.is_some(),
        "kafka",
        "certificate-file",
        "a certificate and its key belong together: set certificate-file and key-file, or neither",
    );
    for (key, file) in [
        ("ca-file", &kafka.ca_file),
        ("certificate-file", &kafka.certificate_file),
    ] {
        check(
            file.is_none() || kafka.tls == Switch::On,
            "kafka",
            key,
            "it has a use with kafka.tls = \"on\" only",
        );
    }
    check(
        limits.inflated >= limits.body,
        "limits",
        "inflated",
        "smaller than limits.body",
    );
    check(
        limits.inflated >= limits.segment_body,
        "limits",
        "inflated",
        "smaller than limits.segment-body",
    );
    check(
        limits.event <= limits.inflated,
        "limits",
        "event",
        "larger than limits.inflated",
    );
    check(
        limits.string_length <= limits.event,
        "limits",
        "string-length",
        "larger than limits.event",
    );
    check(
        limits.inflated <= log.queue_bytes,
        "log",
        "queue-bytes",
        "smaller than limits.inflated: a batch would never fit",
    );
    check(
        log.group_commit_max <= log.segment_size,
        "log",
        "group-commit-max",
        "larger than log.segment-size",
    );
    check(
        limits.event <= log.group_commit_max,
        "log",
        "group-commit-max",
        "smaller than limits.event",
    );
    check(
        limits.event <= pipeline.batch_bytes,
        "pipeline",
        "batch-bytes",
        "smaller than limits.event",
    );
}
