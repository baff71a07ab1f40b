//! `vigie doctor`: checks a configuration against reality (disk, clock, limits, ports, keys, model, Kafka, Redis) and says what
//! to do about what does not fit. It changes nothing: the one file that it makes, to measure the disk, it removes again.

use crate::backends;
use crate::cli::{Failure, Format, print, runtime};
use crate::clocks;
use crate::config::{self, Config, ConfigSources, Effective, LogBackend, Origin, StoreBackend};
use crate::disk;
use crate::past;
use crate::server;
use clap::Args;
use serde::Serialize;
use std::fmt::Write as _;
use std::future::Future;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vigie_archive::{Archive, Mode};
use vigie_kafka::topics::{self, Severity, TopicSpec};
use vigie_pipeline::Active;
use vigie_store::{RedisStore, StoreError};

/// Check a configuration against reality: exit 0 when vigie can run with it, 1 when not
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Configuration file (TOML); config/reference.toml documents every setting
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// Directory of the log, the store and the generated keys [setting: data.dir]
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Look at the Kafka and the Redis of the configuration even if it does not use them yet: what is missing to go there
    #[arg(long)]
    production: bool,
    /// Text for people, or JSON for machines
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// Works, and will hurt one day.
    Warning,
    /// vigie cannot run so.
    Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    /// What was looked at.
    about: &'static str,
    level: Level,
    /// What was found.
    found: String,
    /// What to do about it; empty when nothing.
    advice: String,
}

/// What was found, in the order in which it was looked for.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, about: &'static str, found: impl Into<String>) {
        self.add(about, Level::Ok, found, "");
    }

    fn warn(&mut self, about: &'static str, found: impl Into<String>, advice: impl Into<String>) {
        self.add(about, Level::Warning, found, advice);
    }

    fn problem(&mut self, about: &'static str, found: impl Into<String>, advice: impl Into<String>) {
        self.add(about, Level::Problem, found, advice);
    }

    fn add(&mut self, about: &'static str, level: Level, found: impl Into<String>, advice: impl Into<String>) {
        self.0.push(Finding {
            about,
            level,
            found: found.into(),
            advice: advice.into(),
        });
    }

    fn worst(&self) -> Level {
        self.0.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }
}

/// Longest wait for a broker, a Redis or an object store.
const PATIENCE: Duration = Duration::from_secs(20);
/// Durable writes that are measured.
const SYNCS: u64 = 32;
/// Descriptors beside those of connections: segments, tables of the store, the archive.
const OTHER_FILES: u64 = 1_000;

impl Doctor {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let dir = self.data_dir.as_ref().map(|dir| dir.display().to_string());
        let flags = dir.map(|dir| ("data.dir".to_owned(), dir)).into_iter().collect();
        let config = config::load(ConfigSources::of_process(self.config.clone(), flags))
            .map_err(|errors| Failure::Usage(errors.to_string()))?;
        let findings = runtime()?.block_on(examine(&config, self.production));
        let next = if self.production {
            Vec::new()
        } else {
            next_steps(&config)
        };
        print(&match self.output {
            Format::Json => format!(
                "{:#}\n",
                serde_json::json!({"verdict": findings.worst(), "findings": findings.0, "to_production": next})
            ),
            Format::Text => rendered(&findings, &next),
        })?;
        match findings.worst() {
            Level::Ok | Level::Warning => Ok(()),
            Level::Problem => Err(Failure::Verdict(1)),
        }
    }
}

async fn examine(config: &Config, production: bool) -> Findings {
    let mut findings = Findings::default();
    let changed = |setting: &&Effective| setting.origin != Origin::Default;
    let changed = config.effective().iter().filter(changed).count();
    findings.ok(
        "configuration",
        format!("readable; {changed} settings differ from the defaults"),
    );
    let running = data(config, &mut findings);
    room(config, &mut findings);
    clock(config, &mut findings);
    files(config, &mut findings);
    ports(config, running, &mut findings);
    keys(config, &mut findings);
    rules(config, &mut findings);
    archive(config, &mut findings).await;
    if production || config.log.backend == LogBackend::Kafka {
        kafka(config, &mut findings).await;
    }
    if production || config.store.backend == StoreBackend::Redis {
        redis(config, &mut findings).await;
    }
    findings
}

/// Waits, but not for ever.
async fn patiently<T>(work: impl Future<Output = T>) -> Result<T, String> {
    tokio::time::timeout(PATIENCE, work)
        .await
        .map_err(|_| format!("no answer within {PATIENCE:?}"))
}

/// The directory, who may read it, and whether a server has it open.
fn data(config: &Config, findings: &mut Findings) -> bool {
    let dir = &config.data.dir;
    let Ok(facts) = std::fs::metadata(dir) else {
        match existing(dir) {
            Some(parent) => findings.ok(
                "data",
                format!(
                    "{} does not exist; vigie makes it in {}",
                    dir.display(),
                    parent.display()
                ),
            ),
            None => findings.problem(
                "data",
                format!("{} cannot be made", dir.display()),
                "name another directory with data.dir",
            ),
        }
        return false;
    };
    if !facts.is_dir() {
        findings.problem(
            "data",
            format!("{} is not a directory", dir.display()),
            "name another one with data.dir",
        );
        return false;
    }
    let mode = facts.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        findings.ok("data", format!("{} is its owner's alone", dir.display()));
    } else {
        findings.warn(
            "data",
            format!("{} may be read by others (mode {mode:o})", dir.display()),
            format!("it holds keys and what customers did: chmod 700 {}", dir.display()),
        );
    }
    let open = std::fs::File::open(dir.join("LOCK")).is_ok_and(|lock| lock.try_lock().is_err());
    if open {
        findings.ok("server", "one is running on this directory");
    }
    open
}

/// The nearest directory above that exists.
fn existing(path: &Path) -> Option<&Path> {
    let here = Path::new(".");
    let above = path
        .ancestors()
        .map(|path| if path.as_os_str().is_empty() { here } else { path });
    above.into_iter().find(|path| path.is_dir())
}

fn room(config: &Config, findings: &mut Findings) {
    let Some(dir) = existing(&config.data.dir) else { return };
    match disk::room(dir) {
        Err(error) => findings.problem("disk", format!("{error:#}"), "name another directory with data.dir"),
        Ok(room) => {
            let said = format!("{} of {} free", size(room.free), size(room.size));
            let tenth = room.free < room.size / 10;
            match room.free {
                0..=0x0fff_ffff => findings.problem("disk", said, "free space: without it no event is accepted"),
                _ if tenth => findings.warn("disk", said, "enlarge it before it is full"),
                _ => findings.ok("disk", said),
            }
        }
    }
    match disk::sync_times(dir, SYNCS) {
        Err(error) => findings.problem("fsync", format!("{error:#}"), "vigie must be able to write there"),
        Ok(times) => {
            let median = times.get(times.len() / 2).copied().unwrap_or_default();
            let slowest = times.last().copied().unwrap_or_default();
            let said = format!("a durable write takes {median:.1?}, the slowest of {SYNCS} took {slowest:.1?}");
            if median > Duration::from_millis(50) {
                findings.warn(
                    "fsync",
                    said,
                    "every answer waits for one: use a local disk for data.dir",
                );
            } else if median < Duration::from_micros(20) {
                findings.warn(
                    "fsync",
                    said,
                    "so fast that it may not reach a disk (tmpfs, or a cache that lies): a loss of power would lose events",
                );
            } else {
                findings.ok("fsync", said);
            }
        }
    }
}

/// 1 January 2025, before which no clock was right.
const OLDEST_MS: i64 = 1_735_689_600_000;

fn clock(config: &Config, findings: &mut Findings) {
    let now = clocks::now();
    if now.0 < OLDEST_MS {
        findings.problem("clock", format!("it says {now}"), "set it, and keep it with NTP");
        return;
    }
    // Times of the log's own files tell whether the clock went back.
    let newest = newest_ms(&config.data.dir.join("log"));
    let ahead = newest.map_or(0, |newest| newest - now.0);
    if ahead > 60_000 {
        findings.problem(
            "clock",
            format!("it says {now}, but the log was written {} s later", ahead / 1_000),
            "the clock went back: set it right before starting, or new events are older than what is known",
        );
        return;
    }
    let timesyncd = Path::new("/run/systemd/timesync");
    if timesyncd.exists() && !timesyncd.join("synchronized").exists() {
        findings.warn(
            "clock",
            format!("{now}, but systemd-timesyncd has not synchronised it"),
            "look at timedatectl: the time of silence is counted by it",
        );
        return;
    }
    findings.ok("clock", format!("{now}"));
}

/// The latest modification of a file in a directory, in milliseconds since 1970.
fn newest_ms(directory: &Path) -> Option<i64> {
    let entries = std::fs::read_dir(directory).ok()?;
    let times = entries.filter_map(|entry| entry.ok()?.metadata().ok()?.modified().ok());
    let newest = times.max()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(newest.as_millis()).ok()
}

fn files(config: &Config, findings: &mut Findings) {
    let text = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let Some(limit) = open_files(&text) else { return };
    let needed = config.server.max_connections as u64 + OTHER_FILES;
    if limit < needed {
        findings.warn(
            "files",
            format!("at most {limit} may be open; server.max-connections needs {needed}"),
            format!("raise it (LimitNOFILE={needed}, ulimit -n {needed}) or lower server.max-connections"),
        );
    } else {
        findings.ok("files", format!("{limit} may be open"));
    }
}

/// The soft limit of open files in the words of `/proc/self/limits`.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn ports(config: &Config, running: bool, findings: &mut Findings) {
    let server = &config.server;
    for (setting, address) in [
        ("server.listen", Some(server.listen)),
        ("server.admin-listen", server.admin_listen),
    ] {
        let Some(address) = address else { continue };
        match TcpListener::bind(address) {
            Ok(_) => findings.ok("ports", format!("{setting}: {address} is free")),
            Err(_) if running => findings.ok(
                "ports",
                format!("{setting}: {address} is in use, by the running server"),
            ),
            Err(error) => findings.problem(
                "ports",
                format!("{setting}: {address}: {error}"),
                "end what listens there, or name another address",
            ),
        }
    }
    if !server.listen.ip().is_loopback() {
        if server.admin_listen.is_none() {
            findings.warn(
                "ports",
                "/metrics is answered where events are received",
                "give it an address of its own with server.admin-listen",
            );
        }
        findings.warn(
            "ports",
            format!(
                "{} can be reached from elsewhere and speaks HTTP without TLS",
                server.listen
            ),
            "put a proxy that speaks TLS in front of it",
        );
    }
}

fn keys(config: &Config, findings: &mut Findings) {
    use config::KeyKind::{Admin, Read, Write};
    if config.keys.is_empty() {
        let file = config.data.dir.join("keys.toml");
        match std::fs::metadata(&file) {
            Err(_) => findings.ok("keys", "none is configured; vigie makes its own at the first start"),
            Ok(facts) if facts.permissions().mode() & 0o077 != 0 => findings.problem(
                "keys",
                format!("{} may be read by others", file.display()),
                format!("chmod 600 {}", file.display()),
            ),
            Ok(_) => findings.ok("keys", format!("those that vigie made, in {}", file.display())),
        }
        return;
    }
    let count = |kind| config.keys.iter().filter(|key| key.kind == kind).count();
    let said = format!(
        "{} to write, {} to read, {} to administer",
        count(Write),
        count(Read),
        count(Admin)
    );
    match (count(Write), count(Read)) {
        (0, _) => findings.warn(
            "keys",
            said,
            "without a key to write, nobody can send events: add one to [[keys]]",
        ),
        (_, 0) => findings.warn(
            "keys",
            said,
            "without a key to read, nobody sees scores: add one to [[keys]]",
        ),
        _ => findings.ok("keys", said),
    }
    for key in &config.keys {
        let open = key.origins.iter().any(|origin| origin == "*");
        if open && key.has(config::Scope::History) {
            findings.warn(
                "keys",
                format!(
                    "a key of workspace {} may write history from every web page",
                    key.workspace
                ),
                "keys for browsers are public: take the scope history from it",
            );
        }
    }
}

fn rules(config: &Config, findings: &mut Findings) {
    let active = server::texts(config).and_then(|(model, policies)| Ok(Active::parse(&model, &policies)?));
    match active {
        Ok(active) => findings.ok(
            "rules",
            format!("model {}, policies {}", active.model.version, active.policies.version),
        ),
        Err(error) => findings.problem(
            "rules",
            format!("{error:#}"),
            "correct the file of scoring.model or relance.policies",
        ),
    }
}

async fn archive(config: &Config, findings: &mut Findings) {
    let place = match past::place(config) {
        Ok(place) => place,
        Err(error) => {
            findings.problem("archive", format!("{error:#}"), "correct archive.url");
            return;
        }
    };
    let directory = config.data.dir.join("archive");
    if config.archive.url.is_none() && !directory.exists() {
        findings.ok("archive", "begins with the first events");
        return;
    }
    match patiently(Archive::open(place, Mode::Read, config.log.partitions)).await {
        Ok(Ok(archive)) => {
            let totals = archive.totals();
            findings.ok(
                "archive",
                format!(
                    "{} records in {} files, {}",
                    totals.rows,
                    totals.files,
                    size(totals.bytes)
                ),
            );
        }
        Ok(Err(error)) => findings.problem(
            "archive",
            error.to_string(),
            "look at archive.url, and at log.partitions, which must not change",
        ),
        Err(silence) => findings.problem("archive", silence, "look at archive.url and its credentials"),
    }
}

async fn kafka(config: &Config, findings: &mut Findings) {
    let kafka = &config.kafka;
    let wanted = [
        TopicSpec::log(&kafka.topic, config.log.partitions),
        TopicSpec::log(&kafka.dead_letters_topic, 1),
    ];
    let connection = backends::connection(config);
    let plan = match patiently(topics::plan(&connection, &wanted)).await {
        Ok(Ok(plan)) => plan,
        Ok(Err(error)) => {
            findings.problem(
                "kafka",
                format!("{}: {error}", kafka.brokers.join(",")),
                "look at kafka.brokers, kafka.ca-file and kafka.password-file",
            );
            return;
        }
        Err(silence) => {
            findings.problem(
                "kafka",
                format!("{}: {silence}", kafka.brokers.join(",")),
                "look at kafka.brokers",
            );
            return;
        }
    };
    findings.ok("kafka", format!("{} answers", kafka.brokers.join(",")));
    for topic in &plan.create {
        findings.problem(
            "kafka",
            format!("there is no topic {}", topic.name),
            format!(
                "create it with {} partitions, {} replicas, min.insync.replicas={}",
                topic.partitions, topic.replication, topic.min_insync
            ),
        );
    }
    for finding in &plan.findings {
        let found = finding.found.as_deref().unwrap_or("not told");
        let level = match finding.severity {
            Severity::Warning => Level::Warning,
            Severity::Error => Level::Problem,
        };
        findings.add(
            "kafka",
            level,
            format!(
                "{}: {} is {found}, should be {}",
                finding.topic, finding.setting, finding.wanted
            ),
            finding.advice.clone(),
        );
    }
}

async fn redis(config: &Config, findings: &mut Findings) {
    let nodes = config.redis.nodes.join(",");
    let options = match backends::redis_options(config) {
        Ok(options) => options,
        Err(error) => {
            findings.problem("redis", format!("{error:#}"), "look at redis.password-file");
            return;
        }
    };
    // Opening asks for version, eviction, append-only file and whose store is there.
    match patiently(RedisStore::open(&options)).await {
        Ok(Ok(_)) => findings.ok("redis", format!("{nodes} holds the store `{}`", options.namespace)),
        Ok(Err(StoreError::Lost { reason })) => {
            let unused = reason.contains("holds no store");
            if unused {
                findings.ok("redis", format!("{nodes} is fit for a store and holds none yet"));
            } else {
                findings.problem(
                    "redis",
                    reason,
                    "vigie rebuild fills a store of its own from the archive",
                );
            }
        }
        Ok(Err(StoreError::Layout { reason })) => findings.problem("redis", reason, "then start vigie again"),
        Ok(Err(error)) => findings.problem("redis", format!("{nodes}: {error}"), "look at redis.nodes"),
        Err(silence) => findings.problem("redis", format!("{nodes}: {silence}"), "look at redis.nodes"),
    }
    if options.replicas == 0 && config.redis.nodes.len() > 1 {
        findings.warn(
            "redis",
            "redis.replicas = 0: what is persisted may be on one server only",
            "set it to the replicas that each master has; a lost second is folded again from the log",
        );
    }
}

/// What an installation on local files has to change to run on Kafka and Redis.
fn next_steps(config: &Config) -> Vec<String> {
    let mut steps = Vec::new();
    if config.log.backend == LogBackend::Embedded {
        steps.push(format!(
            "log.backend = \"kafka\", kafka.brokers, and the topics {} ({} partitions) and {} (1 partition)",
            config.kafka.topic, config.log.partitions, config.kafka.dead_letters_topic
        ));
    }
    if config.store.backend == StoreBackend::Embedded {
        steps.push("store.backend = \"redis\", redis.nodes: Redis 7.0 or later, noeviction, appendonly yes".to_owned());
    }
    if !steps.is_empty() {
        if config.archive.url.is_none() {
            steps.push("archive.url: a place that every process can reach".to_owned());
        }
        steps.push(
            "the log of these files does not move: send the events of the past again with a key for history (vigie sql writes them out)"
                .to_owned(),
        );
        steps.push("vigie doctor --production looks at the brokers and the Redis of this configuration".to_owned());
    }
    steps
}

fn rendered(findings: &Findings, next: &[String]) -> String {
    let mut out = String::new();
    for finding in &findings.0 {
        let level = match finding.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Problem => "PROBLEM",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{:<14}{level:<9}{}", finding.about, finding.found);
        if !finding.advice.is_empty() {
            let _ = writeln!(out, "{:<23}-> {}", "", finding.advice);
        }
    }
    let count = |level| findings.0.iter().filter(|finding| finding.level == level).count();
    let _ = writeln!(
        out,
        "\n{} problems, {} warnings{}",
        count(Level::Problem),
        count(Level::Warning),
        if findings.worst() == Level::Problem {
            ": vigie cannot run so"
        } else {
            ""
        }
    );
    if !next.is_empty() {
        let _ = writeln!(out, "\nTo run on Kafka and Redis:");
        for step in next {
            let _ = writeln!(out, "  - {step}");
        }
    }
    out
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut number, mut unit) = (bytes as f64, 0);
    while number >= 1024.0 && unit + 1 < UNITS.len() {
        number /= 1024.0;
        unit += 1;
    }
    let unit_name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 {
        format!("{bytes} {unit_name}")
    } else {
        format!("{number:.1} {unit_name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path, settings: &[(&str, &str)]) -> Config {
        let own = [("data.dir", dir.to_str().unwrap()), ("server.listen", "127.0.0.1:0")];
        let flags = own.iter().chain(settings);
        config::load(ConfigSources {
            flags: flags
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..ConfigSources::default()
        })
        .unwrap()
    }

    fn examined(config: &Config) -> Findings {
        runtime().unwrap().block_on(examine(config, false))
    }

    fn about<'a>(findings: &'a Findings, about: &str) -> Vec<&'a Finding> {
        findings.0.iter().filter(|finding| finding.about == about).collect()
    }

    #[test]
    fn a_fresh_directory_is_fit_and_stays_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let findings = examined(&config(&dir.path().join("data"), &[]));
        assert!(findings.worst() < Level::Problem, "{findings:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made");
    }

    #[test]
    fn what_does_not_fit_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let model = dir.path().join("model.toml");
        std::fs::write(&model, "nonsense").unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(dir.path().join("keys.toml"), "").unwrap();
        std::fs::set_permissions(dir.path().join("keys.toml"), std::fs::Permissions::from_mode(0o644)).unwrap();
        let settings = [
            ("server.admin-listen", address.as_str()),
            ("scoring.model", model.to_str().unwrap()),
            ("server.max-connections", "1000000"),
        ];
        let findings = examined(&config(dir.path(), &settings));
        let levels = |of: &str| {
            about(&findings, of)
                .iter()
                .map(|finding| finding.level)
                .collect::<Vec<_>>()
        };
        assert_eq!(levels("data"), [Level::Warning]);
        assert_eq!(levels("ports"), [Level::Ok, Level::Problem]);
        assert_eq!(levels("keys"), [Level::Problem]);
        assert_eq!(levels("rules"), [Level::Problem]);
        assert_eq!(levels("files"), [Level::Warning]);
        for finding in &findings.0 {
            assert_eq!(finding.level == Level::Ok, finding.advice.is_empty(), "{finding:?}");
        }
    }

    #[test]
    fn brokers_and_servers_that_do_not_answer_are_named() {
        let dir = tempfile::tempdir().unwrap();
        // A port that was free a moment ago.
        let nobody = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        let settings = [("store.backend", "redis"), ("redis.nodes", nobody.as_str())];
        let findings = examined(&config(dir.path(), &settings));
        let redis = about(&findings, "redis");
        assert!(
            redis
                .iter()
                .any(|finding| finding.level == Level::Problem && finding.found.contains(&nobody)),
            "{redis:?}"
        );
    }

    #[test]
    fn going_to_production_is_explained_only_where_it_is_still_to_do() {
        let dir = tempfile::tempdir().unwrap();
        assert!(next_steps(&config(dir.path(), &[])).len() > 3);
        let there = [("log.backend", "kafka"), ("store.backend", "redis")];
        assert!(next_steps(&config(dir.path(), &there)).is_empty());
    }

    #[test]
    fn limits_and_sizes_read_as_they_are_written() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \nMax open files            1024                 524288               files     \n";
        assert_eq!(open_files(limits), Some(1024));
        assert_eq!(open_files("Max open files  unlimited unlimited files"), Some(u64::MAX));
        assert_eq!(open_files(""), None);
        assert_eq!(
            [size(0), size(1023), size(1536), size(5 << 40)],
            ["0 B", "1023 B", "1.5 KiB", "5.0 TiB"]
        );
    }
}
