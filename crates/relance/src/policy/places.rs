//! Where a key stands in a policy file: the reader of TOML forgets lines once a value is read. This file finds sections by
//! their headers and never interprets a value.

/// A policy file as lines.
#[derive(Debug)]
pub(super) struct Places<'a> {
    lines: Vec<&'a str>,
}

impl<'a> Places<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self {
            lines: text.lines().map(str::trim).collect(),
        }
    }

    /// `line N: ` of a key in the `nth` section of a header, `within` the section of another one; of the section when the key
    /// is not there; nothing when the section is written in another way.
    pub(super) fn key(&self, within: Option<(&str, usize)>, header: (&str, usize), key: &str) -> String {
        let all = (0, self.lines.len());
        let outer = match within {
            Some((name, nth)) => self.block(all, name, nth),
            None => Some(all),
        };
        let Some((start, end)) = outer.and_then(|outer| self.block(outer, header.0, header.1)) else {
            return String::new();
        };
        let stands = |line: &&str| {
            line.strip_prefix(key)
                .is_some_and(|rest| rest.trim_start().starts_with('='))
        };
        let own = self.lines.get(start + 1..end).unwrap_or_default();
        // The section's own keys end where the next header stands.
        let own = own.iter().take_while(|line| !line.starts_with('[') || stands(line));
        let found = own
            .enumerate()
            .find(|(_, line)| stands(line))
            .map(|(index, _)| start + 1 + index);
        format!("line {}: ", found.unwrap_or(start) + 1)
    }

    /// Header line and end of the `nth` section of a header: up to the next one of the same or, for a whole policy, of
    /// another family.
    fn block(&self, (from, to): (usize, usize), header: &str, nth: usize) -> Option<(usize, usize)> {
        let headers = |name: &str| format!("[{name}]") == header || format!("[[{name}]]") == header;
        let heads = |line: &str| {
            line.strip_prefix(header)
                .is_some_and(|rest| rest.trim_start().is_empty() || rest.trim_start().starts_with('#'))
        };
        let lines = self.lines.get(from..to)?;
        let start = lines
            .iter()
            .enumerate()
            .filter(|(_, line)| heads(line))
            .nth(nth)
            .map(|(index, _)| from + index)?;
        let family = header.trim_matches(['[', ']']);
        let rest = self.lines.get(start + 1..to)?;
        let ends = |line: &str| {
            let name = line.trim_start_matches('[').split(']').next().unwrap_or_default();
            line.starts_with('[') && (headers(name) || !name.starts_with(&format!("{family}.")))
        };
        let length = rest.iter().position(|line| ends(line)).unwrap_or(rest.len());
        Some((start, start + 1 + length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_their_own_section() {
        let text = "[money]\nmargin = 2\n\n[[policy]]\nid = \"a\"\n[[policy.segment]]\nname = \"x\"\n[[policy]] # second\n  id = \"b\"\nthreshold=3\n[[policy.segment]]\nname = \"y\"\nthreshold = 9\n";
        let places = Places::of(text);
        assert_eq!(places.key(None, ("[money]", 0), "margin"), "line 2: ");
        assert_eq!(places.key(None, ("[[policy]]", 0), "threshold"), "line 4: ");
        assert_eq!(places.key(None, ("[[policy]]", 1), "threshold"), "line 10: ");
        let second = Some(("[[policy]]", 1));
        assert_eq!(places.key(second, ("[[policy.segment]]", 0), "threshold"), "line 13: ");
        assert_eq!(places.key(second, ("[[policy.segment]]", 1), "threshold"), "");
        assert_eq!(places.key(None, ("[calendar]", 0), "country"), "");
    }
}
