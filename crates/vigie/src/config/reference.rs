//! The generated files: `config/default.toml` (every default) and `config/reference.toml` (every setting explained).
//! A test keeps the committed files equal to what is generated here (`UPDATE_EXPECT=1` rewrites them).

use std::fmt::Write as _;

use super::settings::{SettingInfo, TABLE};

/// `config/default.toml`.
#[must_use]
pub fn default_file() -> String {
    let mut out = String::from(
        "# The defaults, as compiled in. Generated: change crates/vigie/src/config/settings.rs instead.\n",
    );
    for section in TABLE {
        let _ = writeln!(out, "\n[{}]", section.name());
        for setting in section.settings {
            let _ = writeln!(out, "{} = {}", setting.name(), default_literal(setting));
        }
    }
    out
}

/// `config/reference.toml`.
#[must_use]
pub fn reference_file() -> String {
    let mut out = String::from(
        "# Every setting of vigie with its default. Generated: change crates/vigie/src/config/settings.rs instead.\n\
         #\n\
         # Layers, each over the one before: defaults < the file given with --config < environment < flags.\n\
         # The variable of server.header-timeout is VIGIE__SERVER__HEADER_TIMEOUT. An unknown setting is an error.\n\
         # Durations are written \"500ms\", \"10s\", \"5m\", \"2h\", \"7d\"; sizes \"512 B\", \"8 KiB\", \"5 MiB\", \"1 GiB\".\n\
         # `vigie config check FILE` checks a file, `vigie config show --origin` says where each value comes from.\n",
    );
    for section in TABLE {
        out.push('\n');
        comment(&mut out, section.doc);
        let _ = writeln!(out, "[{}]", section.name());
        for setting in section.settings {
            out.push('\n');
            comment(&mut out, setting.doc);
            let expected = match setting.range {
                Some((min, max)) => format!("{min} to {max}"),
                None => setting.expected.to_owned(),
            };
            let _ = writeln!(out, "# Value: {expected}");
            let _ = writeln!(out, "{} = {}", setting.name(), default_literal(setting));
        }
    }
    out.push_str(KEYS);
    out
}

const KEYS: &str = r#"
# Keys: who may write, read or administer which workspace. Without any key, `vigie up` makes one of each kind for the
# workspace "default" at the first start and keeps them in the data directory, readable by its own user only.
# In the environment: VIGIE__KEYS__0__WORKSPACE, VIGIE__KEYS__0__KIND, VIGIE__KEYS__0__KEY_FILE, …; lists with commas.
#
# [[keys]]
# workspace = "shop"
# kind = "write"                          # write: send events; read: scores and flags; admin: administration
# key-file = "/run/secrets/vigie-write"   # or key = "…": 16 to 256 printable ASCII characters without spaces
# scopes = ["history"]                    # send events with old times of their own: imports and backfills
# origins = ["https://shop.example"]      # web pages that may use the key from a browser; "*" for all

# Webhooks of e-mail providers, at /v1/webhooks/<name>. What proves a request depends on the provider; where secrets are
# given, one is enough, and two are valid during a rotation. secret-files names files that hold one each.
#
# [[webhooks]]
# name = "mail"                           # lower-case letters, digits and hyphens
# workspace = "shop"
# provider = "mailgun"                    # sendgrid, mailgun, postmark, ses, brevo, mailjet, sparkpost or mandrill
# secret-files = ["/run/secrets/mailgun"] # or secrets = ["…"]: mailgun's signing key, mandrill's webhook key, or what
#                                         # postmark, brevo, mailjet and sparkpost are told to send
# carried-in = "basic"                    # postmark, brevo, mailjet, sparkpost: "basic" (the secret is user:password),
#                                         # "bearer" or "header:<name>"
# public-keys = ["MFkw…"]                 # sendgrid: as its console shows it
# topics = ["arn:aws:sns:eu-west-1:123456789012:mail"]  # ses: the topics that publish here
# signature-versions = ["2"]              # ses: add "1" to accept SHA-1 too
# public-url-file = "/run/secrets/url"    # mandrill: the address exactly as configured there; or public-url = "…"

# Keys that sign links of e-mails: the first signs, all are valid.
#
# [[link-keys]]
# id = "k1"                               # 1 to 16 lower-case letters and digits; it is a part of each link
# secret-file = "/run/secrets/links"      # or secret = "…": at least 32 characters

# Topics of others that collectors read as events, from the brokers of the section kafka, whatever the log is. A record is
# read again after a crash or a rebalance and counts once: by its id, or by where it stands when it has none. What cannot be
# taken goes to the dead-letter topic with headers dlq.reason, dlq.field, dlq.hint, dlq.topic, dlq.partition, dlq.offset, ….
#
# [[kafka-sources]]
# name = "till"                           # part of the ids that vigie gives: it never changes
# workspace = "shop"
# topics = ["pos.sales"]
# format = "fields"                       # canonical: JSON as for POST /v1/events; segment: messages of the Segment API;
#                                         # cloud-events: structured or binary; fields: by the two lists below
# fields = ["user_id = $.customer.id", "signal = $.type", "timestamp = $.at", "money.amount = $.total",
#           "money.currency = =EUR"]      # ours = $.path, key, header:NAME or =text
# signals = ["sale = purchase"]           # their word = our signal
# start = "earliest"                      # or latest: where a partition begins that was never read
# group = "vigie-till"                    # consumer group
# dead-letters-topic = "vigie.dead-letters"
"#;

fn comment(out: &mut String, lines: &[&str]) {
    for line in lines {
        let _ = writeln!(out, "# {}", line.trim());
    }
}

fn default_literal(setting: &SettingInfo) -> String {
    // A default that its own type cannot read would show as a file that does not parse, and a test would fail.
    (setting.literal)(setting.default).unwrap_or_default()
}
