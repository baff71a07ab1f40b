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
