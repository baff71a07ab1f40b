//! One pass over the text of a JSON body that checks every limit without building a tree, and finds where the events
//! of a batch lie. Time is linear in the body; memory is bounded by depth × keys.
//!
//! Some faults make the whole body meaningless (malformed text, too deep, too many keys); they end the pass. Others
//! concern one event only (a duplicate key, half a surrogate pair, a string that is too long); they are noted with the
//! event they are in. This file knows nothing of what an event means.

use crate::limits::JsonLimits;
use std::borrow::Cow;
use std::ops::Range;
use vigie_event::RejectCode;

/// Where a protocol puts the events of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The key of the root object that holds the array of events.
    pub key: Option<&'static str>,
    /// Whether a bare array at the root is a batch.
    pub bare: bool,
}

/// What kind of value the root is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// Anything else.
    Scalar,
}

/// One element of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Where its text is.
    pub span: Range<usize>,
    /// What is wrong with it.
    pub fault: Option<RejectCode>,
}

/// What a body consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The root.
    pub kind: Kind,
    /// Where its text is, without surrounding white space.
    pub span: Range<usize>,
    /// A fault outside the elements of the batch.
    pub fault: Option<RejectCode>,
    /// The elements of the batch, if there is one: all of them, or one more than `max_items`.
    pub items: Option<Vec<Item>>,
}

/// Checks a body. Stops collecting elements after `max_items` + 1, so that a count beyond the limit is visible.
pub fn scan(text: &str, layout: Layout, max_items: usize, limits: &JsonLimits) -> Result<Document, RejectCode> {
    let mut scanner = Scanner {
        bytes: text.as_bytes(),
        at: 0,
        limits,
        keys: Vec::new(),
        fault: None,
        items: None,
        max_items,
    };
    scanner.space();
    let start = scanner.at;
    let kind = match scanner.peek() {
        Some(b'{') => {
            scanner.object(1, layout.key)?;
            Kind::Object
        }
        Some(b'[') if layout.bare => {
            scanner.batch(1)?;
            Kind::Array
        }
        Some(b'[') => {
            scanner.array(1)?;
            Kind::Array
        }
        _ => {
            scanner.value(1)?;
            Kind::Scalar
        }
    };
    let span = start..scanner.at;
    scanner.space();
    if scanner.at != text.len() {
        return Err(RejectCode::Json);
    }
    Ok(Document {
        kind,
        span,
        fault: scanner.fault,
        items: scanner.items,
    })
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    limits: &'a JsonLimits,
    /// Keys of all open objects, innermost last. Sorted per object when it ends: no hashing, so no collisions.
    keys: Vec<Cow<'a, [u8]>>,
    /// First fault of the event (or envelope) being read.
    fault: Option<RejectCode>,
    items: Option<Vec<Item>>,
    max_items: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn bump(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, byte: u8) -> Result<(), RejectCode> {
        if self.bump() == Some(byte) {
            Ok(())
        } else {
            Err(RejectCode::Json)
        }
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn note(&mut self, code: RejectCode) {
        let _first = self.fault.get_or_insert(code);
    }

    /// Recursion is bounded by the depth limit.
    fn value(&mut self, depth: usize) -> Result<(), RejectCode> {
        match self.peek() {
            Some(b'{') => self.object(depth, None),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string(self.limits.string_bytes).map(drop),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            _ => Err(RejectCode::Json),
        }
    }

    fn object(&mut self, depth: usize, batch_key: Option<&str>) -> Result<(), RejectCode> {
        if depth > self.limits.depth {
            return Err(RejectCode::JsonDepth);
        }
        self.expect(b'{')?;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        let from = self.keys.len();
        loop {
            self.space();
            let key = self.key()?;
            if self.keys.len() - from == self.limits.keys {
                return Err(RejectCode::JsonKeys);
            }
            let is_batch = batch_key.is_some_and(|name| name.as_bytes() == &*key);
            self.keys.push(key);
            self.space();
            self.expect(b':')?;
            self.space();
            if is_batch && self.peek() == Some(b'[') {
                self.batch(depth + 1)?
            } else {
                self.value(depth + 1)?
            }
            self.space();
            match self.bump() {
                Some(b',') => {}
                Some(b'}') => break,
                _ => return Err(RejectCode::Json),
            }
        }
        let own = self.keys.get_mut(from..).unwrap_or_default();
        own.sort_unstable();
        if own.array_windows().any(|[a, b]| a == b) {
            self.note(RejectCode::DuplicateKey);
        }
        self.keys.truncate(from);
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), RejectCode> {
        self.elements(depth, |scanner| scanner.value(depth + 1))
    }

    /// An array whose elements are events: each gets its own span and fault.
    fn batch(&mut self, depth: usize) -> Result<(), RejectCode> {
        let mut items = Vec::new();
        let max = self.max_items;
        let done = self.elements(depth, |scanner| {
            let outside = scanner.fault.take();
            let start = scanner.at;
            scanner.value(depth + 1)?;
            let fault = std::mem::replace(&mut scanner.fault, outside);
            if items.len() <= max {
                items.push(Item {
                    span: start..scanner.at,
                    fault,
                });
            }
            Ok(())
        });
        self.items = Some(items);
        done
    }

    fn elements(
        &mut self,
        depth: usize,
        mut element: impl FnMut(&mut Self) -> Result<(), RejectCode>,
    ) -> Result<(), RejectCode> {
        if depth > self.limits.depth {
            return Err(RejectCode::JsonDepth);
        }
        self.expect(b'[')?;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.space();
            element(self)?;
            self.space();
            match self.bump() {
                Some(b',') => {}
                Some(b']') => return Ok(()),
                _ => return Err(RejectCode::Json),
            }
        }
    }

    /// A key, unescaped so that `"a"` and `"\u0061"` are the same key.
    fn key(&mut self) -> Result<Cow<'a, [u8]>, RejectCode> {
        let start = self.at;
        let escaped = self.string(self.limits.key_bytes)?;
        let bytes: &'a [u8] = self.bytes;
        let quoted = bytes.get(start..self.at).unwrap_or_default();
        let inner = bytes.get(start + 1..self.at - 1).unwrap_or_default();
        if !escaped {
            return Ok(Cow::Borrowed(inner));
        }
        // A key with half a surrogate pair has no text; its event is refused for that already.
        Ok(serde_json::from_slice::<String>(quoted).map_or(Cow::Borrowed(inner), |text| Cow::Owned(text.into_bytes())))
    }

    /// Passes over a string; answers whether it holds escapes.
    fn string(&mut self, max: usize) -> Result<bool, RejectCode> {
        self.expect(b'"')?;
        let mut length = 0usize;
        let mut escaped = false;
        loop {
            match self.bump() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    length += self.escape()?;
                }
                None | Some(0..=0x1f) => return Err(RejectCode::Json),
                Some(_) => length += 1,
            }
        }
        if length > max {
            self.note(RejectCode::TooLong);
        }
        Ok(escaped)
    }

    /// The part of an escape after its backslash; answers the bytes that it stands for.
    fn escape(&mut self) -> Result<usize, RejectCode> {
        match self.bump() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(1),
            Some(b'u') => {
                let unit = self.hex4()?;
                match unit {
                    0xd800..=0xdbff => {
                        let rest = self.bytes.get(self.at..).unwrap_or_default();
                        if rest.starts_with(b"\\u") {
                            let back = self.at;
                            self.at += 2;
                            if (0xdc00..=0xdfff).contains(&self.hex4()?) {
                                return Ok(4);
                            }
                            // Another escape: it is looked at on its own.
                            self.at = back;
                        }
                        self.note(RejectCode::Surrogate);
                        Ok(3)
                    }
                    0xdc00..=0xdfff => {
                        self.note(RejectCode::Surrogate);
                        Ok(3)
                    }
                    0..=0x7f => Ok(1),
                    0x80..=0x7ff => Ok(2),
                    _ => Ok(3),
                }
            }
            _ => Err(RejectCode::Json),
        }
    }

    fn hex4(&mut self) -> Result<u32, RejectCode> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self
                .bump()
                .and_then(|byte| char::from(byte).to_digit(16))
                .ok_or(RejectCode::Json)?;
            unit = unit * 16 + digit;
        }
        Ok(unit)
    }

    fn number(&mut self) -> Result<(), RejectCode> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.bump() {
            Some(b'0') => {}
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(RejectCode::Json),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        if self.at - start > self.limits.string_bytes {
            self.note(RejectCode::TooLong);
        }
        Ok(())
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Result<(), RejectCode> {
        let start = self.at;
        self.digits();
        if self.at == start {
            Err(RejectCode::Json)
        } else {
            Ok(())
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), RejectCode> {
        if self.bytes.get(self.at..).unwrap_or_default().starts_with(word) {
            self.at += word.len();
            Ok(())
        } else {
            Err(RejectCode::Json)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BATCH: Layout = Layout {
        key: Some("events"),
        bare: true,
    };

    fn check(text: &str) -> Result<Document, RejectCode> {
        scan(text, BATCH, 10, &JsonLimits::default())
    }

    fn fault(text: &str) -> Option<RejectCode> {
        check(text).unwrap().fault
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for bad in [
            "",
            " ",
            "{",
            "}",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "{'a':1}",
            "NaN",
            "Infinity",
            "-",
            "01",
            "1.",
            "1e",
            "+1",
            ".5",
            "tru",
            "\"a",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\n\"",
            "{} {}",
            "[] x",
            "// c\n{}",
            "{\"a\" 1}",
            "[1 2]",
            "\u{feff}{}",
        ] {
            assert_eq!(check(bad), Err(RejectCode::Json), "{bad}");
        }
    }

    #[test]
    fn limits_hold_at_the_limit_and_one_beyond() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(check(&nested(32)).is_ok());
        assert_eq!(check(&nested(33)), Err(RejectCode::JsonDepth));
        assert_eq!(check(&"[".repeat(100_000)), Err(RejectCode::JsonDepth));
        let keys = |n: usize| {
            format!(
                "{{{}}}",
                (0..n).map(|i| format!("\"k{i}\":0")).collect::<Vec<_>>().join(",")
            )
        };
        assert!(check(&keys(256)).is_ok());
        assert_eq!(check(&keys(257)), Err(RejectCode::JsonKeys));
        let string = |n: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(n));
        assert_eq!(fault(&string(8192)), None);
        assert_eq!(fault(&string(8193)), Some(RejectCode::TooLong));
        let key = |n: usize| format!("{{\"{}\":1}}", "x".repeat(n));
        assert_eq!(fault(&key(128)), None);
        assert_eq!(fault(&key(129)), Some(RejectCode::TooLong));
    }

    #[test]
    fn faults_belong_to_the_event_they_are_in() {
        let document =
            check(r#"{"events":[{"a":1},{"a":1,"\u0061":2},{"b":"\ud800"},{"b":"\ud83d\ude00"}],"x":1}"#).unwrap();
        let faults: Vec<_> = document.items.unwrap().into_iter().map(|item| item.fault).collect();
        assert_eq!(
            faults,
            [None, Some(RejectCode::DuplicateKey), Some(RejectCode::Surrogate), None]
        );
        assert_eq!(document.fault, None);
        assert_eq!(fault(r#"{"events":[],"events":[]}"#), Some(RejectCode::DuplicateKey));
        assert_eq!(
            fault(r#"{"x":{"a":1,"a":1},"events":[{}]}"#),
            Some(RejectCode::DuplicateKey)
        );
    }

    #[test]
    fn spans_are_the_text_of_the_elements() {
        let text = r#" [ {"a":[1,2]} , 3 ] "#;
        let items = check(text).unwrap().items.unwrap();
        let texts: Vec<_> = items.iter().map(|item| &text[item.span.clone()]).collect();
        assert_eq!(texts, [r#"{"a":[1,2]}"#, "3"]);
        assert_eq!(
            check(&format!("[{}0]", "0,".repeat(99))).unwrap().items.unwrap().len(),
            11
        );
    }

    proptest! {
        /// The oracle is serde_json: whatever passes here parses there, and (limits and surrogates aside) the reverse.
        #[test]
        fn agrees_with_serde_json(text in r#"[\[\]{}",:0-9a-f\\utrnls.eE+ -]{0,24}"#) {
            let ours = check(&text);
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text);
            match ours {
                Ok(_) => prop_assert!(theirs.is_ok(), "{text}"),
                Err(RejectCode::Json) => prop_assert!(theirs.is_err(), "{text}"),
                Err(other) => prop_assert!(matches!(other, RejectCode::JsonDepth | RejectCode::JsonKeys)),
            }
        }
    }
}
