//! Tests of the configuration: bad files against the exact messages, precedence of the layers, generated files.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::commands::{ShowOptions, check, show};
use super::*;
use vigie_ingestion::webhooks::Proof;

/// A file that is deleted at the end of the test, named `vigie.toml` in messages.
struct File(tempfile::TempDir);

impl File {
    fn new(text: &str) -> File {
        let dir = tempfile::tempdir().unwrap();
        std::fs::File::create(dir.path().join("vigie.toml"))
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        File(dir)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("vigie.toml")
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

/// Loads; errors come as lines, with the directory of the file cut off.
fn load_lines(file: Option<&str>, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let file = file.map(File::new);
    let path = file.as_ref().map(File::path);
    let dir = path
        .as_deref()
        .and_then(Path::parent)
        .map(|dir| format!("{}/", dir.display()))
        .unwrap_or_default();
    let sources = ConfigSources {
        file: path,
        environment: pairs(env),
        flags: pairs(flags),
    };
    load(sources).map_err(|errors| {
        errors
            .all()
            .iter()
            .map(|error| error.to_string().replace(&dir, ""))
            .collect()
    })
}

#[track_caller]
fn refuses(file: &str, expected: &[&str]) {
    assert_eq!(load_lines(Some(file), &[], &[]).unwrap_err(), expected, "{file}");
}

#[test]
fn bad_files_are_refused_with_place_and_reason() {
    refuses(
        "[server]\nlsiten = \"x\"",
        &["vigie.toml:2: server.lsiten: no such setting; did you mean listen?"],
    );
    refuses(
        "\n\n[sever]\n",
        &["vigie.toml:3: sever: no such section; did you mean server?"],
    );
    refuses(
        "[server]\nbody = \"1 MiB\"",
        &["vigie.toml:2: server.body: no such setting; it belongs into [limits]"],
    );
    refuses(
        "[server]\ncolour = 1",
        &["vigie.toml:2: server.colour: no such setting"],
    );
    refuses(
        "listen = \"1\"",
        &["vigie.toml:1: listen: a setting outside of any section; it belongs into [server]"],
    );
    refuses(
        "server = 1",
        &["vigie.toml:1: server: a setting outside of any section"],
    );
    refuses(
        "[server]\nheader-timeout = 10",
        &["vigie.toml:2: server.header-timeout: expected a duration such as \"10s\", found integer 10"],
    );
    refuses(
        "[server]\nheader_timeout = \"10s\"",
        &["vigie.toml:2: server.header_timeout: no such setting; did you mean header-timeout?"],
    );
    refuses(
        "[server]\n# a comment\nheader-timeout = \"10\"",
        &[
            "vigie.toml:3: server.header-timeout: expected a duration such as \"10s\", found \"10\" (a unit is missing: ms, s, m, h, d)",
        ],
    );
    refuses(
        "[server]\nheader-timeout = \"1h\"",
        &["vigie.toml:2: server.header-timeout: 1h is not between 100ms and 5m"],
    );
    refuses(
        "[limits]\nbody = \"5 MB\"",
        &[
            "vigie.toml:2: limits.body: expected a size such as \"5 MiB\", found \"5 MB\" (unit \"MB\" is none of B, KiB, MiB, GiB, TiB)",
        ],
    );
    refuses(
        "[log]\npartitions = 0",
        &["vigie.toml:2: log.partitions: 0 is not between 1 and 4096"],
    );
    refuses(
        "[log]\npartitions = 4097",
        &["vigie.toml:2: log.partitions: 4097 is not between 1 and 4096"],
    );
    refuses(
        "[log]\npartitions = 65536",
        &[
            "vigie.toml:2: log.partitions: expected a whole number such as 64, found \"65536\" (the number is too large)",
        ],
    );
    refuses(
        "[log]\npartitions = \"64\"",
        &["vigie.toml:2: log.partitions: expected a whole number such as 64, found string \"64\""],
    );
    refuses(
        "[log]\npartitions = 64.0",
        &["vigie.toml:2: log.partitions: expected a whole number such as 64, found float"],
    );
    refuses(
        "[server]\nlisten = \"localhost:8080\"",
        &[
            "vigie.toml:2: server.listen: expected an IP address and port such as \"127.0.0.1:8080\" or \"[::]:8080\", found \"localhost:8080\"",
        ],
    );
    refuses(
        "[log-output]\nformat = \"xml\"",
        &["vigie.toml:2: log-output.format: expected \"text\" or \"json\", found \"xml\""],
    );
    refuses(
        "[data]\ndir = \"\"",
        &["vigie.toml:2: data.dir: expected a path, found \"\" (it is empty)"],
    );
    refuses(
        "[keys]\nx = 1",
        &["vigie.toml:1: keys: expected [[keys]], with two pairs of brackets"],
    );
}

#[test]
fn syntax_errors_have_a_line_and_hide_no_other_file_error() {
    let errors = load_lines(Some("[server]\nlisten = \n\n[log\npartitions = 1"), &[], &[]).unwrap_err();
    assert!(
        errors.iter().any(|error| error.starts_with("vigie.toml:2: ")),
        "{errors:?}"
    );
    assert!(
        errors.iter().any(|error| error.starts_with("vigie.toml:4: ")),
        "{errors:?}"
    );
    let errors = load_lines(Some("[log]\npartitions = 1\npartitions = 2"), &[], &[]).unwrap_err();
    assert!(
        errors.iter().any(|error| error.starts_with("vigie.toml:3: ")),
        "{errors:?}"
    );
}

#[test]
fn settings_are_checked_together() {
    refuses(
        "[limits]\ninflated = \"512 KiB\"",
        &["vigie.toml:2: limits.inflated: smaller than limits.body"],
    );
    refuses(
        "[server]\n\nadmin-listen = \"127.0.0.1:8080\"",
        &["vigie.toml:3: server.admin-listen: the same address as server.listen"],
    );
}

#[test]
fn bad_keys_are_refused_without_showing_them() {
    let good = "workspace = \"shop\"\nkind = \"write\"\nkey = \"0123456789abcdef\"\n";
    refuses(
        "[[keys]]\n",
        &[
            "vigie.toml:1: keys[0]: workspace is missing",
            "vigie.toml:1: keys[0]: kind is missing",
            "vigie.toml:1: keys[0]: key or key-file is missing",
        ],
    );
    refuses(
        "[[keys]]\nworkspace = \" \"\nkind = \"writer\"\nkey = \"too short\"\nscope = []\nscopes = [\"all\"]\norigins = [\"https://a/\"]\n",
        &[
            "vigie.toml:2: keys[0].workspace: identifier is empty",
            "vigie.toml:3: keys[0].kind: expected \"write\", \"read\" or \"admin\", found \"writer\"",
            "vigie.toml:4: keys[0].key: a key has 16 to 256 printable ASCII characters and no spaces; this one has not",
            "vigie.toml:5: keys[0].scope: no such field; did you mean scopes?",
            "vigie.toml:6: keys[0].scopes: the only scope is \"history\"",
            "vigie.toml:7: keys[0].origins: expected a web origin such as \"https://shop.example\" or \"*\", found \"https://a/\"",
        ],
    );
    refuses(
        &format!("[[keys]]\n{good}[[keys]]\n{good}"),
        &["vigie.toml:5: keys[1]: the same key as keys[0]"],
    );
    refuses(
        &format!("[[keys]]\n{good}key-file = \"x\"\n"),
        &["vigie.toml:1: keys[0]: both key and key-file are given"],
    );
    refuses(
        &format!("[[keys]]\n{}", good.replace("\"0123456789abcdef\"", "17")),
        &["vigie.toml:4: keys[0].key: expected a string, found integer"],
    );
}

#[test]
fn all_errors_are_reported_together_and_in_order() {
    let file = "[server]\nlisten = 1\nheader-timeout = \"never\"\n[log]\npartitions = -1\n";
    let env = [
        ("VIGIE__LOG__SEGMENT_SIZE", "1"),
        ("VIGIE__LGO__X", "1"),
        ("VIGIE__X", "1"),
        ("VIGIERE", "no setting"),
    ];
    let flags = [
        ("server.lisen", "x"),
        ("keys.0", "x"),
        ("x", "x"),
        ("pipeline.batch-records", "many"),
    ];
    let errors = load_lines(Some(file), &env, &flags).unwrap_err();
    assert_eq!(
        errors,
        [
            "vigie.toml:2: server.listen: expected an IP address and port such as \"127.0.0.1:8080\" or \"[::]:8080\", found integer 1",
            "vigie.toml:3: server.header-timeout: expected a duration such as \"10s\", found \"never\"",
            "vigie.toml:5: log.partitions: expected a whole number such as 64, found \"-1\"",
            "environment VIGIE__LGO__X: lgo: no such section; did you mean log?",
            "environment VIGIE__LOG__SEGMENT_SIZE: log.segment-size: expected a size such as \"5 MiB\", found \"1\" (a unit is missing: B, KiB, MiB, GiB, TiB)",
            "environment VIGIE__X: expected VIGIE__SECTION__KEY or VIGIE__KEYS__0__FIELD",
            "flag keys.0: keys cannot be given as flags, which everybody on the machine can read",
            "flag pipeline.batch-records: pipeline.batch-records: expected a whole number such as 64, found \"many\"",
            "flag server.lisen: server.lisen: no such setting; did you mean listen?",
            "flag x: expected SECTION.KEY",
        ]
    );
}

#[test]
fn later_layers_override_earlier_ones_and_origins_are_kept() {
    let file = "[server]\nlisten = \"127.0.0.1:1\"\nheader-timeout = \"1s\"\nidle-timeout = \"2s\"\n";
    let env = [
        ("VIGIE__SERVER__LISTEN", "127.0.0.1:2"),
        ("VIGIE__SERVER__HEADER_TIMEOUT", "3s"),
    ];
    let config = load_lines(Some(file), &env, &[("server.listen", "127.0.0.1:3")]).unwrap();
    assert_eq!(config.server.listen.port(), 3);
    assert_eq!(config.server.header_timeout, Duration::from_secs(3));
    assert_eq!(config.server.idle_timeout, Duration::from_secs(2));
    assert_eq!(config.server.body_timeout, Duration::from_secs(15));
    let origin = |key: &str| {
        config
            .effective()
            .iter()
            .find(|s| s.section == "server" && s.key == key)
            .unwrap()
            .origin
            .clone()
    };
    assert_eq!(origin("listen"), Origin::Flag("server.listen".to_owned()));
    assert_eq!(
        origin("header-timeout"),
        Origin::Environment("VIGIE__SERVER__HEADER_TIMEOUT".to_owned())
    );
    assert!(matches!(origin("idle-timeout"), Origin::File { line: 4, .. }));
    assert_eq!(origin("body-timeout"), Origin::Default);
}

#[test]
fn a_wrong_value_is_an_error_even_when_it_is_overridden() {
    let errors = load_lines(Some("[log]\npartitions = 0\n"), &[], &[("log.partitions", "8")]).unwrap_err();
    assert_eq!(errors, ["vigie.toml:2: log.partitions: 0 is not between 1 and 4096"]);
}

#[test]
fn keys_come_from_file_and_environment() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "from-a-file-0123456789\n").unwrap();
    let file = "[[keys]]\nworkspace = \"a\"\nkind = \"write\"\nkey = \"0123456789abcdef\"\nscopes = [\"history\"]\norigins = [\"https://shop.example\"]\n";
    let secret = secret.to_str().unwrap();
    let env = [
        ("VIGIE__KEYS__0__KEY_FILE", secret),
        ("VIGIE__KEYS__1__WORKSPACE", "b"),
        ("VIGIE__KEYS__1__KIND", "read"),
        ("VIGIE__KEYS__1__KEY", "fedcba9876543210"),
        ("VIGIE__KEYS__1__ORIGINS", "https://a.example, http://localhost:3000"),
    ];
    let config = load_lines(Some(file), &env, &[]).unwrap();
    assert_eq!(config.keys.len(), 2);
    assert_eq!(config.keys[0].secret.expose(), "from-a-file-0123456789");
    assert!(config.keys[0].has(Scope::History) && config.keys[0].kind == KeyKind::Write);
    assert_eq!(config.keys[1].workspace.as_str(), "b");
    assert_eq!(config.keys[1].origins, ["https://a.example", "http://localhost:3000"]);

    let gap = load_lines(None, &env[1..], &[]).unwrap_err();
    assert_eq!(
        gap,
        ["environment VIGIE__KEYS__0__…: keys[0]: no field of keys[0] is given, but one of a later entry"]
    );
    let missing = load_lines(None, &[("VIGIE__KEYS__0__KEY_FILE", "/nowhere/at/all")], &[]).unwrap_err();
    assert!(
        missing
            .iter()
            .any(|error| error.contains("\"/nowhere/at/all\" cannot be read: ")),
        "{missing:?}"
    );
}

#[test]
fn webhooks_and_links_are_checked_by_who_uses_them() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef\n").unwrap();
    let secret = secret.to_str().unwrap();
    let file = format!(
        "[links]\npublic-url = \"https://track.shop.example\"\nhosts = \"shop.example\"\nlifetime = \"30d\"\n\
         [[webhooks]]\nname = \"mail\"\nworkspace = \"a\"\nprovider = \"mailgun\"\nsecret-files = [{secret:?}]\n\
         [[webhooks]]\nname = \"news\"\nworkspace = \"b\"\nprovider = \"brevo\"\nsecrets = [\"old-token-1\", \"new-token-2\"]\ncarried-in = \"header:X-Token\"\n\
         [[webhooks]]\nname = \"ses\"\nworkspace = \"b\"\nprovider = \"ses\"\ntopics = [\"arn:aws:sns:eu-west-1:1:t\"]\n\
         [[link-keys]]\nid = \"k1\"\nsecret-file = {secret:?}\n"
    );
    let env = [("VIGIE__WEBHOOKS__0__SECRETS", "from, outside")];
    let config = load_lines(Some(&file), &env, &[]).unwrap();
    assert_eq!(config.webhooks.len(), 3);
    assert!(matches!(&config.webhooks[0].spec.proof, Proof::Mailgun { signing_keys } if signing_keys.len() == 2));
    assert!(matches!(&config.webhooks[1].spec.proof, Proof::Shared { secrets } if secrets.len() == 2));
    let links = config.links.as_ref().unwrap();
    assert_eq!((links.days, links.keys.len(), links.hosts.len()), (30, 1, 1));
    for json in [false, true] {
        let given = File::new(&file);
        let sources = ConfigSources {
            file: Some(given.path()),
            environment: pairs(&env),
            flags: Vec::new(),
        };
        let shown = show(sources, ShowOptions { origin: true, json }).unwrap();
        for told in ["mailgun", "news", "k1"] {
            assert!(shown.contains(told), "{shown}");
        }
        for hidden in ["0123456789abcdef", "outside", "old"] {
            assert!(!shown.contains(hidden), "{shown}");
        }
    }
    let without = load_lines(Some("[links]\npublic-url = \"https://track.shop.example\"\n"), &[], &[]).unwrap();
    assert!(
        without.links.is_none() && without.webhooks.is_empty(),
        "without keys there are no links"
    );
}

#[test]
fn wrong_webhooks_and_links_say_what_to_do() {
    let webhook = "[[webhooks]]\nname = \"mail\"\nworkspace = \"a\"\nprovider = ";
    let one = |rest: &str| {
        let errors = load_lines(Some(&format!("{webhook}{rest}")), &[], &[]).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        errors.into_iter().next().unwrap()
    };
    for (rest, expected) in [
        ("\"sendmail\"\n", "webhooks[0].provider: expected one of sendgrid, "),
        (
            "\"mailgun\"\n",
            "webhooks[0]: secrets or secret-files is missing or empty",
        ),
        (
            "\"mailgun\"\nsecrets = [\"a\", \"b\", \"c\"]\n",
            "webhooks[0]: give one secret, or two during a rotation",
        ),
        (
            "\"mailgun\"\nsecrets = [\"a\"]\ntopics = [\"t\"]\n",
            "webhooks[0].topics: mailgun has no use for it",
        ),
        (
            "\"sendgrid\"\npublic-keys = [\"AAAA\"]\n",
            "webhooks[0]: the public key is not a P-256 key in base64",
        ),
        (
            "\"ses\"\ntopics = [\"t\"]\n",
            "webhooks[0]: give the topics that publish here",
        ),
        (
            "\"ses\"\ntopics = [\"arn:aws:sns:eu-west-1:1:t\"]\nsignature-versions = [\"3\"]\n",
            "webhooks[0].signature-versions: expected \"2\" (SHA-256) or \"1\" (SHA-1), found \"3\"",
        ),
        (
            "\"mandrill\"\nsecrets = [\"a\"]\n",
            "webhooks[0]: public-url or public-url-file is missing",
        ),
        (
            "\"brevo\"\nsecrets = [\"a\"]\ncarried-in = \"cookie\"\n",
            "webhooks[0].carried-in: expected \"basic\" (the secret is user:password), \"bearer\" or \"header:<name>\"",
        ),
        (
            "\"brevo\"\nsecret = \"a\"\nsecrets = [\"a:b\"]\n",
            "webhooks[0].secret: no such field; did you mean secrets?",
        ),
    ] {
        let error = one(rest);
        assert!(error.contains(expected), "{rest}: {error}");
    }
    let key = "[[link-keys]]\nid = \"k1\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n";
    for (file, expected) in [
        (
            key.to_owned(),
            "vigie.toml:1: links.public-url: give the address at which mails reach this collector",
        ),
        (
            format!("[links]\npublic-url = \"track.shop.example\"\n{key}"),
            "vigie.toml:2: links.public-url: public_url must be an http or https address without path",
        ),
        (
            format!(
                "[links]\npublic-url = \"https://t.example\"\n{}",
                key.replace("0123", "")
            ),
            "vigie.toml:3: link-keys: give at least one key with an id",
        ),
    ] {
        let errors = load_lines(Some(&file), &[], &[]).unwrap_err();
        assert!(errors.len() == 1 && errors[0].contains(expected), "{errors:?}");
    }
}

#[test]
fn topics_of_others_are_read_and_wrong_ones_have_a_place() {
    let till = "[[kafka-sources]]\nname = \"till\"\nworkspace = \"shop\"\ntopics = [\"pos.sales\"]\n";
    let good = format!(
        "{till}format = \"fields\"\nfields = [\"user_id = $.customer.id\", \"name = key\", \"money.currency = =EUR\"]\n\
         signals = [\"sale = purchase\"]\nstart = \"latest\"\n"
    );
    let config = load_lines(Some(&good), &[], &[]).unwrap();
    let options = &config.kafka_sources[0].options;
    assert_eq!(
        (options.group.as_str(), options.format.label()),
        ("vigie-till", "fields")
    );
    assert_eq!(options.start, vigie_kafka::source::Start::Latest);
    for (rest, expected) in [
        ("", "vigie.toml:1: kafka-sources[0]: format is missing"),
        (
            "format = \"xml\"\n",
            "vigie.toml:5: kafka-sources[0].format: expected \"canonical\", \"segment\", \"cloud-events\" or \"fields\"",
        ),
        (
            "format = \"canonical\"\nsignals = [\"a = b\"]\n",
            "vigie.toml:1: kafka-sources[0].signals: it has a use with format = \"fields\" only",
        ),
        (
            "format = \"fields\"\nfields = [\"user_id = $.id\", \"signal = type\"]\n",
            "vigie.toml:6: kafka-sources[0].fields: \"type\" is none of `$.path.to.field`, `key`, `header:NAME`, `=constant`",
        ),
        (
            "format = \"fields\"\nfields = [\"who = $.id\"]\n",
            "vigie.toml:6: kafka-sources[0].fields: \"who\" is none of id, user_id, anonymous_id,",
        ),
        (
            "format = \"fields\"\nfields = [\"signal = $.type\"]\n",
            "vigie.toml:6: kafka-sources[0].fields: neither user_id nor anonymous_id is mapped",
        ),
        (
            "format = \"fields\"\nfields = [\"user_id = key\", \"signal = $.t\"]\nsignals = [\"sale = bought\"]\n",
            "vigie.toml:6: kafka-sources[0].fields: \"bought\" in \"sale = bought\" is no signal",
        ),
        (
            "format = \"segment\"\ndead-letters-topic = \"pos.sales\"\n",
            "the dead-letter topic cannot be a topic of the source",
        ),
        (
            "format = \"segment\"\nstart = \"now\"\n",
            "vigie.toml:6: kafka-sources[0].start: expected \"earliest\" or \"latest\", found \"now\"",
        ),
    ] {
        let errors = load_lines(Some(&format!("{till}{rest}")), &[], &[]).unwrap_err();
        assert!(errors.len() == 1 && errors[0].contains(expected), "{rest}: {errors:?}");
    }
    let twice = format!("{good}{good}");
    let errors = load_lines(Some(&twice), &[], &[]).unwrap_err();
    assert!(
        errors[0].contains("kafka-sources[1]: the source \"till\" has this name or group"),
        "{errors:?}"
    );
}

#[test]
fn security_of_kafka_that_cannot_be_is_refused_by_name() {
    let refused = |text: &str, expected: &str| {
        let errors = load_lines(Some(&format!("[kafka]\n{text}")), &[], &[]).unwrap_err();
        assert!(errors.len() == 1 && errors[0].contains(expected), "{text}: {errors:?}");
    };
    refused(
        "ca-file = \"ca.pem\"\n",
        "vigie.toml:2: kafka.ca-file: it has a use with kafka.tls = \"on\" only",
    );
    refused(
        "tls = \"on\"\ncertificate-file = \"me.pem\"\n",
        "vigie.toml:3: kafka.certificate-file: a certificate and its key belong together",
    );
    refused(
        "password-file = \"p\"\nsasl-mechanism = \"PLAIN\"\n",
        "vigie.toml:3: kafka.sasl-mechanism: PLAIN sends the password as it is",
    );
    refused(
        "sasl-mechanism = \"GSSAPI\"\n",
        "expected \"PLAIN\", \"SCRAM-SHA-256\" or \"SCRAM-SHA-512\"",
    );
    let text = "[kafka]\ntls = \"on\"\npassword-file = \"p\"\nsasl-mechanism = \"PLAIN\"\nusername = \"vigie\"\n";
    assert!(load_lines(Some(text), &[], &[]).is_ok());
}

#[test]
fn a_missing_file_is_one_error() {
    let sources = ConfigSources {
        file: Some("no-such-file.toml".into()),
        ..ConfigSources::default()
    };
    let error = load(sources).unwrap_err().to_string();
    assert!(
        error.starts_with("1 error in the configuration\n  no-such-file.toml: the file cannot be read: "),
        "{error}"
    );
}

#[test]
fn secrets_are_never_shown() {
    let file = "[[keys]]\nworkspace = \"a\"\nkind = \"admin\"\nkey = \"top-secret-0123456789\"\n";
    let file = File::new(file);
    let sources = ConfigSources {
        file: Some(file.path()),
        ..ConfigSources::default()
    };
    for (origin, json) in [(false, false), (true, false), (false, true), (true, true)] {
        let shown = show(sources.clone(), ShowOptions { origin, json }).unwrap();
        assert!(!shown.contains("top-secret") && shown.contains("admin"), "{shown}");
    }
    assert!(!format!("{:?}", load(sources.clone()).unwrap()).contains("top-secret"));
    assert!(!check(sources).unwrap().contains("top-secret"));
}

#[test]
fn shown_configurations_say_where_values_come_from() {
    let sources = ConfigSources {
        flags: pairs(&[("log.partitions", "8")]),
        ..ConfigSources::default()
    };
    let text = show(
        sources.clone(),
        ShowOptions {
            origin: true,
            json: false,
        },
    )
    .unwrap();
    assert!(text.contains("\npartitions = 8  # flag log.partitions\n"), "{text}");
    assert!(text.contains("\nsegment-size = \"64 MiB\"  # default\n"), "{text}");
    let json: serde_json::Value = serde_json::from_str(
        &show(
            sources,
            ShowOptions {
                origin: true,
                json: true,
            },
        )
        .unwrap(),
    )
    .unwrap();
    assert_eq!(
        json["log"]["partitions"],
        serde_json::json!({"value": 8, "origin": "flag log.partitions"})
    );
    assert_eq!(json["server"]["listen"]["value"], "127.0.0.1:8080");
}

fn settings_of(text: &str) -> Settings {
    load_lines(Some(text), &[], &[]).unwrap().settings
}

#[test]
fn what_is_shown_and_what_is_generated_reads_back_as_the_defaults() {
    let defaults = load(ConfigSources::default()).unwrap();
    assert!(defaults.keys.is_empty());
    assert_eq!(settings_of(&default_file()), defaults.settings);
    assert_eq!(settings_of(&reference_file()), defaults.settings);
    let shown = show(
        ConfigSources::default(),
        ShowOptions {
            origin: true,
            json: false,
        },
    )
    .unwrap();
    assert_eq!(settings_of(&shown), defaults.settings);
}

#[test]
fn committed_files_are_the_generated_ones() {
    for (name, generated) in [("default.toml", default_file()), ("reference.toml", reference_file())] {
        let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "..", "config", name]
            .iter()
            .collect();
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, &generated).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == generated,
            "config/{name} is out of date: run UPDATE_EXPECT=1 cargo test -p vigie config"
        );
    }
}

#[test]
fn the_environment_of_the_process_can_be_read() {
    let sources = ConfigSources::of_process(None, Vec::new());
    assert_eq!(sources.environment.is_empty(), std::env::vars_os().next().is_none());
}
