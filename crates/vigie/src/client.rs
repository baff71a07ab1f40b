//! What the command line asks a running server over HTTP. It holds no state and knows no shape beyond "a JSON document".

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use std::fmt::Write;
use std::time::Duration;

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Longest wait for work that takes minutes.
const LONG_TIMEOUT: Duration = Duration::from_secs(3_600);
/// Largest answer that is kept in memory.
const MAX_ANSWER: u64 = 1 << 30;

/// A server and a key for it.
pub(crate) struct Server {
    agent: ureq::Agent,
    url: String,
    key: String,
}

impl Server {
    pub(crate) fn new(url: &str, key: &str) -> Self {
        Self {
            agent: agent(TIMEOUT),
            url: url.trim_end_matches('/').to_owned(),
            key: key.to_owned(),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        let request = self
            .agent
            .get(format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {}", self.key));
        self.answer(request.call())
    }

    pub(crate) fn post(&self, path: &str) -> Result<Value> {
        let request = self
            .agent
            .post(format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {}", self.key));
        self.answer(request.send_empty())
    }

    /// Sends a text.
    pub(crate) fn send_text(&self, path: &str, text: &str) -> Result<Value> {
        let request = self
            .agent
            .post(format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {}", self.key))
            .header("Content-Type", "text/plain; charset=utf-8");
        self.answer(request.send(text))
    }

    /// Sends a text; the status and the body of the answer, whatever they are.
    pub(crate) fn post_text(&self, path: &str, text: &str) -> Result<(u16, String)> {
        let request = self
            .agent
            .post(format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {}", self.key))
            .header("Content-Type", "application/toml");
        let mut answer = request.send(text).with_context(|| self.silent())?;
        let body = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_string()?;
        Ok((answer.status().as_u16(), body))
    }

    /// Sends a JSON document that may be sent again: "come back" and silence are told apart from what is final.
    pub(crate) fn send(&self, path: &str, body: &str) -> Result<Sent> {
        let request = self
            .agent
            .post(format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {}", self.key))
            .header("Content-Type", "application/json")
            // A library's own name would be taken for a crawler's.
            .header("User-Agent", concat!("vigie/", env!("CARGO_PKG_VERSION")));
        let answer = match request.send(body) {
            Ok(answer) => answer,
            Err(error) => {
                return Ok(Sent::Silence {
                    why: format!("{}: {error}", self.silent()),
                });
            }
        };
        let status = answer.status();
        if matches!(status.as_u16(), 429 | 502 | 503 | 504) {
            let after = answer
                .headers()
                .get("retry-after")
                .and_then(|after| after.to_str().ok());
            return Ok(Sent::Later {
                why: format!("{} answers {status}", self.url),
                after: after.and_then(|after| after.parse().ok()).map(Duration::from_secs),
            });
        }
        self.answer(Ok(answer)).map(Sent::Taken)
    }

    /// The same server with time for work that takes minutes.
    pub(crate) fn patient(mut self) -> Self {
        self.agent = agent(LONG_TIMEOUT);
        self
    }

    /// Asks a question whose answer may be in any format.
    pub(crate) fn ask(&self, path: &str, question: &Value) -> Result<Answer> {
        let request = self
            .agent
            .post(format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {}", self.key))
            .header("Content-Type", "application/json");
        let answer = request.send(question.to_string());
        let mut answer = answer.with_context(|| self.silent())?;
        if !answer.status().is_success() {
            return self.answer(Ok(answer)).and_then(|_| bail!("an error without an error"));
        }
        let header = |name: &str| {
            answer
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let (rows, truncated) = (header("x-vigie-rows"), header("x-vigie-truncated"));
        Ok(Answer {
            body: answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec()?,
            rows: rows.and_then(|rows| rows.parse().ok()).unwrap_or_default(),
            truncated: truncated.as_deref() == Some("true"),
        })
    }

    fn silent(&self) -> String {
        format!("no answer from {}; is vigie up there? (--url, VIGIE_URL)", self.url)
    }

    /// An answer that is a text.
    pub(crate) fn text(&self, path: &str) -> Result<String> {
        let request = self
            .agent
            .get(format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {}", self.key));
        let mut answer = request.call().with_context(|| self.silent())?;
        let text = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_string()?;
        if !answer.status().is_success() {
            bail!("{} at {}{path}", answer.status(), self.url);
        }
        Ok(text)
    }

    /// Whether the server is ready, and its own words about it.
    pub(crate) fn ready(&self) -> Result<(bool, String)> {
        let answer = self.agent.get(format!("{}/readyz", self.url)).call();
        let mut answer = answer.with_context(|| format!("no answer from {}", self.url))?;
        let text = answer.body_mut().read_to_string()?;
        Ok((answer.status().is_success(), format!("{}\n", text.trim_end())))
    }

    fn answer(&self, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value> {
        let mut answer = answer.with_context(|| self.silent())?;
        let status = answer.status();
        let text = answer.body_mut().read_to_string()?;
        let value: Value = serde_json::from_str(&text).map_err(|_| anyhow!("{status}: the answer is not JSON"))?;
        if !status.is_success() {
            let said = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
            bail!("{status} {}: {}", said("code"), said("detail"));
        }
        Ok(value)
    }
}

fn agent(timeout: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .build()
        .into()
}

/// What became of something that was sent.
pub(crate) enum Sent {
    /// It was taken; the answer.
    Taken(Value),
    /// Not now: why, and when to come back if that was said.
    Later { why: String, after: Option<Duration> },
    /// No answer; it may have been taken.
    Silence { why: String },
}

/// An answer to a question.
pub(crate) struct Answer {
    pub(crate) body: Vec<u8>,
    pub(crate) rows: usize,
    /// There were more.
    pub(crate) truncated: bool,
}

/// A JSON document as lines for people: lists as blocks, objects as `field  value`.
pub(crate) fn table(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value, 0);
    out
}

fn write_value(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(fields) => {
            let width = fields.keys().map(|key| key.len()).max().unwrap_or(0);
            for (key, value) in fields {
                match value {
                    Value::Object(_) | Value::Array(_) => {
                        // Writing to a string cannot fail.
                        let _ = writeln!(out, "{:indent$}{key}", "");
                        write_value(out, value, indent + 2);
                    }
                    plain => {
                        let _ = writeln!(out, "{:indent$}{key:width$}  {}", "", text(plain));
                    }
                }
            }
        }
        Value::Array(items) if items.is_empty() => {
            let _ = writeln!(out, "{:indent$}(none)", "");
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 && item.is_object() {
                    out.push('\n');
                }
                write_value(out, item, indent);
            }
        }
        plain => {
            let _ = writeln!(out, "{:indent$}{}", "", text(plain));
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_read_as_lines() {
        let value = serde_json::json!({"accepted": 3, "names": ["a", "b"], "inner": {"x": null}, "list": []});
        assert_eq!(
            table(&value),
            "accepted  3\ninner\n  x  null\nlist\n  (none)\nnames\n  a\n  b\n"
        );
    }
}
