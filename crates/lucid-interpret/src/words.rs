//! Words of a caption, for matching and for display.

/// Byte spans of the maximal runs of letters, digits, apostrophes and hyphens that hold a letter or digit.
pub(crate) fn words(text: &str) -> impl Iterator<Item = [usize; 2]> + '_ {
    let inside = |c: char| c.is_alphanumeric() || matches!(c, '\'' | '’' | '-');
    let mut rest = 0;
    std::iter::from_fn(move || {
        loop {
            let start = rest + text[rest..].find(inside)?;
            let end = text[start..].find(|c| !inside(c)).map_or(text.len(), |length| start + length);
            rest = end;
            if text[start..end].chars().any(char::is_alphanumeric) {
                return Some([start, end]);
            }
        }
    })
}

/// The word around a token's byte span, in lower case. Tokens may be parts of words and may hold the space before them.
/// `None` for spans that hold no word, or do not fit the text.
pub(crate) fn word_at(text: &str, span: [u32; 2]) -> Option<String> {
    let (start, end) = (span[0] as usize, span[1] as usize);
    let found = words(text).find(|word| word[0] < end && start < word[1])?;
    Some(text[found[0]..found[1]].to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_words_and_the_word_of_a_piece() {
        let text = "A dog's  ball – Größe!";
        let found: Vec<&str> = words(text).map(|[a, b]| &text[a..b]).collect();
        assert_eq!(found, ["A", "dog's", "ball", "Größe"]);
        assert_eq!(word_at(text, [3, 5]).as_deref(), Some("dog's"));
        assert_eq!(word_at(text, [8, 13]).as_deref(), Some("ball"));
        assert_eq!(word_at(text, [0, 0]), None);
        assert_eq!(word_at(text, [90, 95]), None);
        let scripted = "<script>alert(1)</script>";
        assert_eq!(
            words(scripted).map(|[a, b]| &scripted[a..b]).collect::<Vec<_>>(),
            ["script", "alert", "1", "script"]
        );
    }
}
