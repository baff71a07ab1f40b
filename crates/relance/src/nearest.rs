//! The name that somebody probably meant: of known names the one that takes the fewest edits. It never guesses wildly: a name
//! that is far from all others has no neighbour.

/// The known name nearest to `word`, if it is near: at most a third of its letters are to be changed.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    known
        .into_iter()
        .map(|name| (distance(&word, name), name))
        .filter(|(edits, name)| *edits <= name.chars().count().max(3) / 3)
        .min()
        .map(|(_, name)| name)
}

/// `; did you mean "…"?`, or nothing.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
}

/// Edits (insertions, deletions, substitutions of one character) between two words: Levenshtein 1966.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (y, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let above = *cell;
            let substituted = diagonal + usize::from(x != *y);
            left = substituted.min(above + 1).min(left + 1);
            diagonal = above;
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_the_textbook_ones_and_far_names_are_no_neighbours() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!((distance("", "abc"), distance("abc", "")), (3, 3));
        assert_eq!(
            nearest("cooldwn-days", ["holdout", "cooldown-days"]),
            Some("cooldown-days")
        );
        assert_eq!(nearest("purchase", ["purchases", "currency"]), Some("purchases"));
        assert_eq!(nearest("banana", ["purchases", "currency"]), None);
    }
}
