//! Removal of words from weighted prompts, and conversion of weighted prompts to text.

use super::WeightedPrompt;

impl WeightedPrompt {
    /// Removes the words for which `keep` returns false; `keep` is called once per word, in order.
    ///
    /// Words are separated by white space, whatever weights their letters have. The remaining words are joined by
    /// single spaces and keep their weights. As brackets are parsed before, removing words cannot unbalance them.
    #[must_use]
    pub(crate) fn without_words(&self, mut keep: impl FnMut() -> bool) -> Self {
        let mut kept = Self::default();
        // Whether the current word is kept; `None` between words.
        let mut word = None;
        for run in &self.runs {
            for c in run.text.chars() {
                if c.is_whitespace() {
                    word = None;
                    continue;
                }
                let begins = word.is_none();
                if !*word.get_or_insert_with(&mut keep) {
                    continue;
                }
                if begins && let Some(before) = kept.runs.last().map(|run| run.weight) {
                    kept.push(' ', if before == run.weight { before } else { 1.0 });
                }
                kept.push(c, run.weight);
            }
        }
        kept
    }

    /// Returns a text that [`Self::parse`] parses to this prompt.
    #[must_use]
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        for run in &self.runs {
            let mut escaped = String::new();
            for c in run.text.chars() {
                if matches!(c, '(' | ')' | '[' | ']' | '\\') {
                    escaped.push('\\');
                }
                escaped.push(c);
            }
            // `{}` prints the shortest decimal that parses to the same number.
            text += &if run.weight == 1.0 { escaped } else { format!("({escaped}:{})", run.weight) };
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMPTS: [&str; 9] = [
        "a small red star",
        "a (white:1.2) square",
        "(the year :1984 night )",
        "a (very (small red:1.5) star) on [blue grey] ground",
        r"escaped \(brackets :2\) and \\ (one\):1.5) back\slash",
        "(pa:1.2)per ((nested)) (((thrice : :3)))",
        "( a ) ] b ( [ c",
        "(negative:-1.25) [(one)] (é:0.3)日本 (x:1e-9)",
        "",
    ];

    #[test]
    fn a_prompt_is_read_from_its_text_again() {
        for text in PROMPTS {
            let prompt = WeightedPrompt::parse(text).unwrap();
            assert_eq!(WeightedPrompt::parse(&prompt.to_text()).unwrap(), prompt, "{text}");
        }
    }

    #[test]
    fn words_that_are_left_out_take_no_bracket_and_no_weight_with_them() {
        for text in PROMPTS {
            let whole = WeightedPrompt::parse(text).unwrap();
            // All letters with their weights, word by word.
            let letters = |prompt: &WeightedPrompt| {
                let mut words = vec![Vec::new()];
                for run in &prompt.runs {
                    for c in run.text.chars() {
                        if c.is_whitespace() {
                            words.push(Vec::new());
                        } else {
                            words.last_mut().unwrap().push((c, run.weight));
                        }
                    }
                }
                words.retain(|word| !word.is_empty());
                words
            };
            let words = letters(&whole);
            for choice in 0..1_u32 << words.len() {
                let kept = |word: usize| (choice >> word) & 1 == 1;
                let mut asked = 0;
                let got = whole.without_words(|| {
                    asked += 1;
                    kept(asked - 1)
                });
                assert_eq!(asked, words.len(), "{text}");
                let expected: Vec<_> =
                    words.iter().enumerate().filter(|(word, _)| kept(*word)).map(|(_, word)| word.clone()).collect();
                // As for the text encoder: converted to text and parsed again.
                let got = WeightedPrompt::parse(&got.to_text()).unwrap();
                assert_eq!(letters(&got), expected, "{text}: {choice:b}");
            }
        }
    }

    #[test]
    fn without_weights_words_are_what_white_space_parts() {
        let prompt = WeightedPrompt::plain("  a (small\t red:1.5)\nstar ");
        let all: String = prompt.without_words(|| true).runs.into_iter().map(|run| run.text).collect();
        assert_eq!(all, "a (small red:1.5) star");
        assert!(prompt.without_words(|| false).runs.is_empty());
    }
}
