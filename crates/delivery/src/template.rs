//! Bodies from configuration: a JSON document in which `{{field}}` stands for a field of the flag.
//!
//! The template is read as JSON first and filled afterwards, in its values and never in its text: whatever a field holds, the
//! result is JSON with the shape of the template. A value that is nothing but one placeholder becomes the field itself, with
//! its type; within a longer text the field is written as text. A field that is not there is `null`, or nothing in a text.
//! Names are paths (`score.value`, `reasons.0.text`); keys are never filled. It never evaluates anything.

use serde_json::Value;

/// Deepest path.
const MAX_PATH: usize = 8;

/// Why a text is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Not JSON.
    #[error("the body is not JSON: {0}; placeholders stand within quotes, as in \"{{{{score.value}}}}\"")]
    Json(String),
    /// A placeholder that is none.
    #[error("{{{{{0}}}}} is not a path of field names such as {{{{score.value}}}}")]
    Path(String),
    /// An opening without an end.
    #[error("{{{{ without }}}} in {0:?}")]
    Open(String),
}

/// A checked template.
#[derive(Debug, Clone, PartialEq)]
pub struct Template(Value);

impl Template {
    /// Reads and checks a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let value = serde_json::from_str(text).map_err(|error| TemplateError::Json(error.to_string()))?;
        check(&value)?;
        Ok(Self(value))
    }

    /// The body for a flag.
    #[must_use]
    pub fn fill(&self, fields: &Value) -> Value {
        fill(&self.0, fields)
    }
}

/// A piece of a text.
enum Piece<'a> {
    Text(&'a str),
    Field(&'a str),
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (path, after) = after
            .split_once("}}")
            .ok_or_else(|| TemplateError::Open(text.to_owned()))?;
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        let path = path.trim();
        let name = |name: &str| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        };
        if path.split('.').count() > MAX_PATH || !path.split('.').all(name) {
            return Err(TemplateError::Path(path.to_owned()));
        }
        pieces.push(Piece::Field(path));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

fn check(value: &Value) -> Result<(), TemplateError> {
    match value {
        Value::String(text) => pieces(text).map(drop),
        Value::Array(items) => items.iter().try_for_each(check),
        Value::Object(fields) => fields.values().try_for_each(check),
        _ => Ok(()),
    }
}

fn fill(template: &Value, fields: &Value) -> Value {
    match template {
        Value::String(text) => fill_text(text, fields),
        Value::Array(items) => items.iter().map(|item| fill(item, fields)).collect(),
        Value::Object(entries) => entries
            .iter()
            .map(|(key, value)| (key.clone(), fill(value, fields)))
            .collect(),
        plain => plain.clone(),
    }
}

fn fill_text(text: &str, fields: &Value) -> Value {
    // Checked when the template was read.
    let pieces = pieces(text).unwrap_or_default();
    if let [Piece::Field(path)] = pieces.as_slice() {
        return find(fields, path).cloned().unwrap_or(Value::Null);
    }
    let written = |piece: &Piece<'_>| match piece {
        Piece::Text(text) => (*text).to_owned(),
        Piece::Field(path) => match find(fields, path) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        },
    };
    Value::String(pieces.iter().map(written).collect())
}

fn find<'a>(fields: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(fields, |value, name| match value {
        Value::Object(entries) => entries.get(name),
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn fields_keep_their_type_alone_and_become_text_within_text() {
        let template = Template::parse(
            r#"{"score":"{{score.value}}","line":"{{ customer }}: {{score.value}} {{nothing}}!","list":["{{reasons.0.code}}"],
                "all":"{{reasons}}","none":"{{nothing.at.all}}","plain":3,"braces":"} } {"}"#,
        )
        .unwrap();
        let fields = json!({"customer": "C\"1", "score": {"value": 0.5}, "reasons": [{"code": "silence"}]});
        let expected = json!({
            "score": 0.5, "line": "C\"1: 0.5 !", "list": ["silence"], "all": [{"code": "silence"}], "none": null,
            "plain": 3, "braces": "} } {",
        });
        assert_eq!(template.fill(&fields), expected);
    }

    #[test]
    fn mistakes_are_told_when_the_template_is_read() {
        let wrong = |text| Template::parse(text).unwrap_err().to_string();
        assert!(wrong(r#"{"a": {{b}} }"#).contains("placeholders stand within quotes"));
        assert!(wrong(r#"{"a": "{{b c}}"}"#).contains("{{b c}}"));
        assert!(wrong(r#"{"a": "{{}}"}"#).contains("is not a path"));
        assert!(wrong(r#"{"a": "{{b"}"#).contains("without }}"));
    }

    proptest! {
        /// No text of a field changes the shape of the body, or leads to a second filling.
        #[test]
        fn hostile_fields_stay_values(customer in ".*", other in "\\{\\{(id|customer)\\}\\}|\",\"x\":\"|\\PC*") {
            let template = Template::parse(r#"{"to":"{{customer}}","say":"hello {{other}}"}"#).unwrap();
            let body = template.fill(&json!({"customer": customer, "other": other, "id": "secret"}));
            let again: Value = serde_json::from_str(&body.to_string()).unwrap();
            prop_assert_eq!(&again, &json!({"to": customer, "say": format!("hello {other}")}));
        }
    }
}
