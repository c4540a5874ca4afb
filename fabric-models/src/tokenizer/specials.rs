//! Special tokens, and the search for them in a text.

/// Maximum length of a special token; those of textual inversions have up to about 50 bytes.
pub(super) const MAX_TOKEN_BYTES: usize = 1024;

/// Part of a text: plain text or a special token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Text(&'a str),
    Special(u32),
}

/// Special tokens that are recognised in a text, with their ids.
#[derive(Debug, Clone, Default)]
pub(super) struct Specials {
    /// Names and ids, sorted.
    tokens: Vec<(String, u32)>,
    /// For each token, the index of the token with the longest name with which its own name begins.
    prefixes: Vec<Option<usize>>,
    /// Indices of the tokens, sorted by their ids.
    by_id: Vec<usize>,
}

impl Specials {
    /// Creates the search for these tokens. Names that are empty or longer than [`MAX_TOKEN_BYTES`] are left out.
    pub(super) fn new(mut tokens: Vec<(String, u32)>) -> Self {
        tokens.retain(|(name, _)| (1..=MAX_TOKEN_BYTES).contains(&name.len()));
        tokens.sort_unstable();
        tokens.dedup();
        let mut prefixes = Vec::with_capacity(tokens.len());
        // Tokens, each of which begins with the one before it, that may also begin the next.
        let mut open: Vec<usize> = Vec::new();
        for (index, (name, _)) in tokens.iter().enumerate() {
            let is_no_prefix = |last: &mut usize| {
                let last = tokens[*last].0.as_str();
                last.len() == name.len() || !name.starts_with(last)
            };
            while open.pop_if(is_no_prefix).is_some() {}
            prefixes.push(open.last().copied());
            open.push(index);
        }
        let mut by_id: Vec<usize> = (0..tokens.len()).collect();
        by_id.sort_by_key(|&index| tokens[index].1);
        Self { tokens, prefixes, by_id }
    }

    /// Adds a token.
    pub(super) fn with(self, name: &str, id: u32) -> Self {
        let mut tokens = self.tokens;
        tokens.push((name.to_owned(), id));
        Self::new(tokens)
    }

    /// Returns the tokens, sorted by their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(String, u32)> {
        self.tokens.iter()
    }

    /// Returns the name of an id; of several, the first in the alphabet.
    pub(super) fn name_of(&self, id: u32) -> Option<&str> {
        let place = self.by_id.partition_point(|&index| self.tokens[index].1 < id);
        let (name, found) = &self.tokens[*self.by_id.get(place)?];
        (*found == id).then_some(name.as_str())
    }

    /// Splits a text at special tokens; of several at one position, the longest is used.
    pub(super) fn cut<'a>(&self, text: &'a str) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        let (mut start, mut at) = (0, 0);
        while at < text.len() {
            if let Some((length, id)) = self.at_start_of(&text[at..]) {
                if start < at {
                    parts.push(Part::Text(&text[start..at]));
                }
                parts.push(Part::Special(id));
                at += length;
                start = at;
            } else {
                at += text[at..].chars().next().map_or(1, char::len_utf8);
            }
        }
        if start < text.len() {
            parts.push(Part::Text(&text[start..]));
        }
        parts
    }

    /// Returns the length and the id of the longest token with which a text begins.
    ///
    /// Every such token comes before the text in the alphabet. The last token before the text is therefore the longest
    /// one, or begins with it. The cost is that of a binary search, for any tokens and texts.
    fn at_start_of(&self, text: &str) -> Option<(usize, u32)> {
        let mut index = self.tokens.partition_point(|(name, _)| name.as_str() <= text).checked_sub(1)?;
        let last = self.tokens[index].0.as_bytes();
        let shared = last.iter().zip(text.as_bytes()).take_while(|(a, b)| a == b).count();
        loop {
            let (name, id) = &self.tokens[index];
            if name.len() <= shared {
                return Some((name.len(), *id));
            }
            index = self.prefixes[index]?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specials(tokens: &[(&str, u32)]) -> Specials {
        Specials::new(tokens.iter().map(|&(name, id)| (name.to_owned(), id)).collect())
    }

    #[test]
    fn special_tokens_cut_the_text() {
        let some = specials(&[("<a>", 1), ("<a>>", 2), ("!", 0), ("", 3)]);
        assert_eq!(
            some.cut("é<a>b<a>>!"),
            [Part::Text("é"), Part::Special(1), Part::Text("b"), Part::Special(2), Part::Special(0)]
        );
        assert_eq!(some.cut(""), []);
        assert_eq!(Specials::default().cut("é<a>"), [Part::Text("é<a>")]);
    }

    #[test]
    fn names_are_found_by_their_ids() {
        let some = specials(&[("b", 7), ("a", 7), ("c", 2)]);
        assert_eq!([2, 7, 3, 8].map(|id| some.name_of(id)), [Some("c"), Some("a"), None, None]);
        assert_eq!(some.with("d", 3).name_of(3), Some("d"));
    }

    #[test]
    fn the_search_finds_the_longest_token_at_every_position() {
        // Names and texts of two letters, so that many begin with others.
        let word = |number: u64, length: u64| -> String {
            (0..length).map(|place| if (number >> place) & 1 == 0 { 'a' } else { 'é' }).collect()
        };
        for seed in 0..200_u64 {
            let names = (0..seed % 13).map(|i| word(seed * 31 + i * 7919, 1 + (seed + i * 5) % 6));
            let tokens: Vec<(String, u32)> = names.zip(0..).collect();
            let some = Specials::new(tokens.clone());
            let text = word(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), 40);
            for (at, _) in text.char_indices() {
                let here = tokens.iter().filter(|(name, _)| text[at..].starts_with(name.as_str()));
                let longest = here.max_by_key(|(name, id)| (name.len(), *id));
                let expected = longest.map(|(name, id)| (name.len(), *id));
                assert_eq!(some.at_start_of(&text[at..]), expected, "{tokens:?} in {}", &text[at..]);
            }
        }
    }

    #[test]
    fn many_tokens_cost_little_also_in_texts_that_nearly_have_them() {
        // Each name begins with all shorter ones, and no text ends as they do.
        let nested = (1..MAX_TOKEN_BYTES).map(|length| (format!("{}!", "a".repeat(length)), 1));
        let numbered = (0..100_000).map(|i| (format!("<tok{i}>"), i));
        let some = Specials::new(nested.chain(numbered).collect());
        for text in ["a".repeat(65_536), "a <to ".repeat(10_000), "<tok99999".repeat(7_000)] {
            assert_eq!(some.cut(&text), [Part::Text(&text)]);
        }
        let all = "<tok99999>".repeat(6_000);
        assert_eq!(some.cut(&all).len(), 6_000);
        assert_eq!(some.name_of(99_999), Some("<tok99999>"));
    }
}
