//! The log of the process: one event, one line, as text for people or as JSON for machines.
//!
//! No byte that a stranger sent can end a line, hide one or colour a terminal: control characters, line separators and
//! direction marks are escaped in both formats. Lines go to standard error; standard output belongs to commands.
//! It reads the wall clock to stamp lines, and for nothing else.

use std::fmt::Write as _;
use std::io;
use std::str::FromStr;

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use crate::TelemetryError;

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `2026-01-02T03:04:05.678901Z  INFO target: message key=value`.
    #[default]
    Text,
    /// One JSON object per line: `timestamp`, `level`, `target`, `fields.message`, and the other fields.
    Json,
}

impl FromStr for LogFormat {
    type Err = UnknownLogFormat;

    fn from_str(text: &str) -> Result<LogFormat, UnknownLogFormat> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(UnknownLogFormat),
        }
    }
}

/// Neither `text` nor `json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log format is neither text nor json")]
pub struct UnknownLogFormat;

/// Sets up the log of this process, on standard error. `filter` is a level (`info`) or a list of directives
/// (`info,vigie_store=debug`).
///
/// # Errors
/// [`TelemetryError::Filter`] when `filter` is not understood, [`TelemetryError::Logging`] at the second call.
pub fn install(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    Ok(subscriber(format, filter, io::stderr)?.try_init()?)
}

/// Checks that [`install`] would understand `filter`.
///
/// # Errors
/// [`TelemetryError::Filter`] with the reason.
pub fn check_filter(filter: &str) -> Result<(), TelemetryError> {
    let _understood = EnvFilter::builder().parse(filter)?;
    Ok(())
}

/// The subscriber that [`install`] installs, with another writer: for tests.
///
/// # Errors
/// [`TelemetryError::Filter`] when `filter` is not understood.
pub fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    writer: W,
) -> Result<impl Subscriber + Send + Sync, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().parse(filter)?;
    let lines = fmt::layer()
        .with_ansi(false)
        .with_writer(OneLine { inner: writer, format });
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    Ok(tracing_subscriber::registry().with(filter).with(lines))
}

/// Wraps a writer so that each event is written as exactly one line.
struct OneLine<W> {
    inner: W,
    format: LogFormat,
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for OneLine<W> {
    type Writer = OneLineWriter<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLineWriter {
            inner: self.inner.make_writer(),
            format: self.format,
        }
    }
}

struct OneLineWriter<W> {
    inner: W,
    format: LogFormat,
}

impl<W: io::Write> io::Write for OneLineWriter<W> {
    /// The formatter hands over a whole event, its line feed included, in one call.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let mut line = escape(text.strip_suffix('\n').unwrap_or(&text), self.format);
        line.push('\n');
        self.inner.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Escapes what could end a line, hide text or command a terminal, so that the result is one line.
fn escape(text: &str, format: LogFormat) -> String {
    let mut line = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        let dangerous = c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match (dangerous, format) {
            (false, _) => line.push(c),
            (true, LogFormat::Text) => line.extend(c.escape_default()),
            // The formatter has escaped C0 already; what is left stands inside a JSON string.
            (true, LogFormat::Json) => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    // Writing to a string cannot fail.
                    let _ = write!(line, "\\u{unit:04x}");
                }
            }
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Capture(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Capture {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str, log: impl FnOnce()) -> String {
        let capture = Capture::default();
        let writer = capture.clone();
        let subscriber = subscriber(format, filter, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = capture.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    const HOSTILE: &str = "a\r\nb\u{1b}[2Jc\u{85}d\u{2028}e\u{202e}f\"g";

    #[test]
    fn a_hostile_message_stays_one_line_of_text() {
        let text = logged(
            LogFormat::Text,
            "info",
            || tracing::info!(id = %HOSTILE, "got {HOSTILE}"),
        );
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(text.ends_with('\n'));
        assert!(
            !text
                .trim_end_matches('\n')
                .contains(|c: char| c.is_control() || c == '\u{202e}'),
            "{text:?}"
        );
        assert!(text.contains(r"\u{202e}f"), "{text:?}");
    }

    #[test]
    fn a_hostile_message_stays_one_json_object() {
        let text = logged(
            LogFormat::Json,
            "info",
            || tracing::info!(id = %HOSTILE, "got {HOSTILE}"),
        );
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(
            !text
                .trim_end_matches('\n')
                .contains(|c: char| c.is_control() || c == '\u{202e}'),
            "{text:?}"
        );
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["fields"]["id"], HOSTILE, "JSON keeps the value exactly");
        assert_eq!(value["level"], "INFO");
    }

    #[test]
    fn the_filter_filters_by_target() {
        let log = || {
            tracing::debug!(target: "vigie_store", "kept");
            tracing::debug!(target: "vigie_serve", "left out");
            tracing::info!(target: "vigie_serve", "kept too");
        };
        let text = logged(LogFormat::Text, "info,vigie_store=debug", log);
        assert!(
            text.contains("kept\n") && text.contains("kept too\n") && !text.contains("left out"),
            "{text}"
        );
    }

    #[test]
    fn a_filter_that_is_not_understood_is_an_error() {
        assert!(subscriber(LogFormat::Text, "info,=,=", io::sink).is_err());
        assert!(check_filter("info,=,=").is_err() && check_filter("info,vigie_store=debug").is_ok());
        assert_eq!("xml".parse::<LogFormat>(), Err(UnknownLogFormat));
    }
}
