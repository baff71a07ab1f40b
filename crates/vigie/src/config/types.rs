//! The types that a setting can have: how each is written, read back, and compared with its bounds. It never knows
//! which settings exist.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use vigie_telemetry::logging::LogFormat;

/// A number of bytes, written `"5 MiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// This many bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Size {
        Size(bytes)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of bytes, for lengths in memory.
    #[must_use]
    pub fn len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Whether it is no byte at all.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A value as a layer gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Raw {
    /// A TOML string, or the text of a variable or flag.
    Text(String),
    /// A TOML integer, in decimal.
    Integer(String),
    /// A TOML value of another type, by the name of the type.
    Other(&'static str),
}

/// How a type is written in TOML.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    AsString,
    AsInteger,
}

/// A type that a setting can have.
pub(super) trait SettingType: Sized {
    /// What a value looks like, for messages.
    const EXPECTED: &'static str;
    const WRITTEN: Written = Written::AsString;

    /// Reads the text of a value. The error says why not, or is empty when [`SettingType::EXPECTED`] says it all.
    fn read(text: &str) -> Result<Self, String>;

    /// The value as text, such that reading it gives the value back.
    fn write(&self) -> String;

    /// The value as a number, for comparison with bounds.
    fn ordinal(&self) -> Option<u128> {
        None
    }
}

/// The value as TOML.
pub(super) fn literal<T: SettingType>(value: &T) -> String {
    match T::WRITTEN {
        Written::AsInteger => value.write(),
        Written::AsString => quoted(&value.write()),
    }
}

/// A string as TOML.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

const DURATION_UNITS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

fn with_unit(text: &str, units: &[(&str, u64)]) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start_matches(' ');
    let known: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
    if number.is_empty() {
        return Err(String::new());
    }
    if unit.is_empty() {
        return Err(format!("a unit is missing: {}", known.join(", ")));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("unit {unit:?} is none of {}", known.join(", ")));
    };
    let number: u64 = number.parse().map_err(|_| "the number is too large".to_owned())?;
    number
        .checked_mul(*factor)
        .ok_or_else(|| "the number is too large".to_owned())
}

/// The number with the largest unit that divides it.
fn in_largest_unit(number: u64, units: &[(&str, u64)], space: &str) -> String {
    let fitting = units
        .iter()
        .rev()
        .find(|(_, factor)| number.is_multiple_of(*factor) && number >= *factor);
    let (name, factor) = fitting.or(units.first()).copied().unwrap_or(("", 1));
    format!("{}{space}{name}", number / factor)
}

impl SettingType for Duration {
    const EXPECTED: &'static str = "a duration such as \"10s\"";

    fn read(text: &str) -> Result<Self, String> {
        with_unit(text, DURATION_UNITS).map(Duration::from_millis)
    }

    fn write(&self) -> String {
        match u64::try_from(self.as_millis()).unwrap_or(u64::MAX) {
            0 => "0s".to_owned(),
            ms => in_largest_unit(ms, DURATION_UNITS, ""),
        }
    }

    fn ordinal(&self) -> Option<u128> {
        Some(self.as_millis())
    }
}

impl SettingType for Size {
    const EXPECTED: &'static str = "a size such as \"5 MiB\"";

    fn read(text: &str) -> Result<Self, String> {
        with_unit(text, SIZE_UNITS).map(Size)
    }

    fn write(&self) -> String {
        in_largest_unit(self.0, SIZE_UNITS, " ")
    }

    fn ordinal(&self) -> Option<u128> {
        Some(u128::from(self.0))
    }
}

macro_rules! integer_setting {
    ($($integer:ty),*) => {$(
        impl SettingType for $integer {
            const EXPECTED: &'static str = "a whole number such as 64";
            const WRITTEN: Written = Written::AsInteger;

            fn read(text: &str) -> Result<Self, String> {
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                text.parse().map_err(|_| if digits { "the number is too large".to_owned() } else { String::new() })
            }

            fn write(&self) -> String {
                self.to_string()
            }

            fn ordinal(&self) -> Option<u128> {
                u128::try_from(*self).ok()
            }
        }
    )*};
}

integer_setting!(u16, usize);

impl SettingType for SocketAddr {
    const EXPECTED: &'static str = "an IP address and port such as \"127.0.0.1:8080\" or \"[::]:8080\"";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| String::new())
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl SettingType for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("it is empty".to_owned()),
            _ if text.contains('\0') => Err("it contains a NUL".to_owned()),
            _ => Ok(PathBuf::from(text)),
        }
    }

    fn write(&self) -> String {
        self.to_string_lossy().into_owned()
    }
}

/// The empty string is `None`.
impl<T: OptionalSetting> SettingType for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED_OR_EMPTY;

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            Ok(None)
        } else {
            T::read(text).map(Some)
        }
    }

    fn write(&self) -> String {
        self.as_ref().map(T::write).unwrap_or_default()
    }
}

/// A type whose empty string means "none".
pub(super) trait OptionalSetting: SettingType {
    const EXPECTED_OR_EMPTY: &'static str;
}

impl OptionalSetting for SocketAddr {
    const EXPECTED_OR_EMPTY: &'static str = "an IP address and port such as \"127.0.0.1:9090\", or \"\"";
}

impl OptionalSetting for PathBuf {
    const EXPECTED_OR_EMPTY: &'static str = "a path, or \"\"";
}

impl SettingType for LogFormat {
    const EXPECTED: &'static str = "\"text\" or \"json\"";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| String::new())
    }

    fn write(&self) -> String {
        match self {
            LogFormat::Text => "text".to_owned(),
            LogFormat::Json => "json".to_owned(),
        }
    }
}

/// A name: of a topic, of a user.
impl SettingType for String {
    const EXPECTED: &'static str = "a name without spaces";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("it is empty".to_owned()),
            _ if text.contains(|c: char| c.is_whitespace() || c.is_control()) => Err(String::new()),
            _ => Ok(text.to_owned()),
        }
    }

    fn write(&self) -> String {
        self.clone()
    }
}

/// Addresses, separated by commas.
impl SettingType for Vec<String> {
    const EXPECTED: &'static str = "addresses such as \"10.0.0.1:6379,10.0.0.2:6379\"";

    fn read(text: &str) -> Result<Self, String> {
        let names: Vec<String> = text.split(',').map(|part| part.trim().to_owned()).collect();
        let plain = |name: &String| {
            let (host, port) = name.rsplit_once(':').unwrap_or_default();
            !host.is_empty() && !host.contains(['/', '@', ' ']) && port.parse::<u16>().is_ok()
        };
        if names.iter().all(plain) {
            Ok(names)
        } else {
            Err(String::new())
        }
    }

    fn write(&self) -> String {
        self.join(",")
    }
}

impl OptionalSetting for String {
    const EXPECTED_OR_EMPTY: &'static str = "a name without spaces, or \"\"";
}

/// Names of hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts(pub Vec<String>);

impl SettingType for Hosts {
    const EXPECTED: &'static str = "names of hosts such as \"shop.example,blog.shop.example\", or \"\"";

    fn read(text: &str) -> Result<Self, String> {
        let hosts = text.split(',').map(|host| host.trim().to_owned());
        let hosts: Vec<String> = hosts.filter(|host| !host.is_empty()).collect();
        let odd = |c: char| c.is_whitespace() || c.is_control() || "/@:?#".contains(c);
        match hosts.iter().find(|host| host.contains(odd)) {
            None => Ok(Hosts(hosts)),
            Some(bad) => Err(format!("{bad:?} is not just a name")),
        }
    }

    fn write(&self) -> String {
        self.0.join(",")
    }
}

macro_rules! choice {
    ($(#[doc = $doc:literal])* $name:ident, $expected:literal { $($(#[doc = $of:literal])* $value:ident = $text:literal),* $(,)? }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[doc = $of])* $value,)*
        }

        impl SettingType for $name {
            const EXPECTED: &'static str = $expected;

            fn read(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$value),)*
                    _ => Err(String::new()),
                }
            }

            fn write(&self) -> String {
                match self {
                    $(Self::$value => $text.to_owned(),)*
                }
            }
        }
    };
}

choice! {
    /// Where the log is.
    LogBackend, "\"embedded\" or \"kafka\"" {
        /// Files in the data directory.
        Embedded = "embedded",
        /// A topic.
        Kafka = "kafka",
    }
}

choice! {
    /// Where the store is.
    StoreBackend, "\"embedded\" or \"redis\"" {
        /// A database in the data directory.
        Embedded = "embedded",
        /// A Redis or a Redis Cluster.
        Redis = "redis",
    }
}

choice! {
    /// Whether a granted consent needs its proof.
    ConsentProof, "\"optional\" or \"required\"" {
        /// It is kept where there is one.
        Optional = "optional",
        /// Without it an event that grants consent becomes a dead letter.
        Required = "required",
    }
}

choice! {
    /// What a Redis must keep on its disk.
    Durability, "\"file\" or \"none\"" {
        /// Its append-only file.
        File = "file",
        /// Nothing: a restart of it then loses the store, which is noticed.
        None = "none",
    }
}

choice! {
    /// Whether something is used.
    Switch, "\"off\" or \"on\"" {
        /// It is not.
        Off = "off",
        /// It is.
        On = "on",
    }
}

choice! {
    /// How a password is proved to Kafka.
    SaslMechanism, "\"PLAIN\", \"SCRAM-SHA-256\" or \"SCRAM-SHA-512\"" {
        /// As it is.
        Plain = "PLAIN",
        /// RFC 7677.
        ScramSha256 = "SCRAM-SHA-256",
        /// The same with SHA-512.
        ScramSha512 = "SCRAM-SHA-512",
    }
}

choice! {
    /// What becomes of a model that closed labels have led to.
    Learning, "\"off\", \"propose\" or \"promote\"" {
        /// Nothing is learned.
        Off = "off",
        /// It becomes the candidate, which an operator may promote.
        Propose = "propose",
        /// It takes the place of the model in force.
        Promote = "promote",
    }
}

/// What the log lets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The filter, in the syntax of `tracing-subscriber`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SettingType for LogFilter {
    const EXPECTED: &'static str =
        "a level (error, warn, info, debug, trace, off) or a list such as \"info,vigie_store=debug\"";

    fn read(text: &str) -> Result<Self, String> {
        const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
        // A bare word that is no level would be taken for a target, which is never what was meant.
        let known = |part: &str| {
            let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
            LEVELS.contains(&level.trim())
        };
        if text.split(',').all(known) && vigie_telemetry::logging::check_filter(text).is_ok() {
            Ok(LogFilter(text.to_owned()))
        } else {
            Err(String::new())
        }
    }

    fn write(&self) -> String {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<T: SettingType + PartialEq + std::fmt::Debug>(text: &str, value: T, written: &str) {
        assert_eq!(T::read(text), Ok(value), "{text}");
        let again = T::read(text).unwrap().write();
        assert_eq!(again, written, "{text}");
        assert_eq!(T::read(&again), T::read(text), "{text}");
    }

    #[test]
    fn values_read_and_write() {
        round_trip("10s", Duration::from_secs(10), "10s");
        round_trip("90 s", Duration::from_secs(90), "90s");
        round_trip("120s", Duration::from_secs(120), "2m");
        round_trip("0ms", Duration::ZERO, "0s");
        round_trip("400d", Duration::from_hours(9600), "400d");
        round_trip("5 MiB", Size::new(5 << 20), "5 MiB");
        round_trip("1536KiB", Size::new(1536 << 10), "1536 KiB");
        round_trip("0 B", Size::new(0), "0 B");
        round_trip("64", 64_u16, "64");
        round_trip("", None::<SocketAddr>, "");
        round_trip(
            "[::1]:80",
            Some(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 80))),
            "[::1]:80",
        );
        round_trip(
            "shop.example, b\u{fc}cher.example",
            Hosts(vec!["shop.example".to_owned(), "b\u{fc}cher.example".to_owned()]),
            "shop.example,b\u{fc}cher.example",
        );
        round_trip("", Hosts(Vec::new()), "");
        round_trip(
            "info,vigie_store=debug",
            LogFilter("info,vigie_store=debug".to_owned()),
            "info,vigie_store=debug",
        );
    }

    #[test]
    fn bad_values_say_why() {
        assert_eq!(
            Duration::read("10"),
            Err("a unit is missing: ms, s, m, h, d".to_owned())
        );
        assert_eq!(
            Duration::read("10 sec"),
            Err("unit \"sec\" is none of ms, s, m, h, d".to_owned())
        );
        assert_eq!(Duration::read("-1s"), Err(String::new()));
        assert_eq!(
            Duration::read("99999999999999999999s"),
            Err("the number is too large".to_owned())
        );
        assert_eq!(Size::read("99999999999 TiB"), Err("the number is too large".to_owned()));
        assert_eq!(
            Size::read("5 MB"),
            Err("unit \"MB\" is none of B, KiB, MiB, GiB, TiB".to_owned())
        );
        assert_eq!(u16::read("70000"), Err("the number is too large".to_owned()));
        assert_eq!(u16::read("6e1"), Err(String::new()));
        assert!(Hosts::read("https://shop.example").is_err());
        assert!(LogFilter::read("verbose").is_err());
    }
}
