//! Parser of weights in prompts: `(word)`, `(word:1.2)`, `[word]`.

use super::TokenizerError;

/// Maximum absolute weight; larger ones only break images.
pub(crate) const MAX_WEIGHT: f32 = 10.0;
/// Factor of one pair of round brackets, and divisor of one pair of square brackets.
const STEP: f32 = 1.1;

/// Run of text with one weight.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WeightedRun {
    /// The text, without the brackets that gave the weight.
    pub(crate) text: String,
    /// Weight of the text; 1 is neutral.
    pub(crate) weight: f32,
}

/// Prompt as a list of text runs with weights.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct WeightedPrompt {
    /// Runs in the order of the text; neighbours differ in weight.
    pub(crate) runs: Vec<WeightedRun>,
}

/// Matching pair of brackets: their positions and the text between them.
struct Pair {
    open: usize,
    close: usize,
    /// End of the text between them: the closing bracket, or the colon before the weight.
    end: usize,
    weight: f32,
}

impl WeightedPrompt {
    /// Creates an unweighted prompt from literal text: brackets are text and all weights are 1.
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { runs: if text.is_empty() { Vec::new() } else { vec![WeightedRun { text, weight: 1.0 }] } }
    }

    /// Parses the weight syntax of the common web interfaces.
    ///
    /// `(a)` has weight 1.1, `(a:1.2)` 1.2, `[a]` 1/1.1; nested weights multiply. `\(`, `\)`, `\[`, `\]` and `\\` are
    /// text, and so are unmatched brackets. A weight splits words: `(pa:1.2)per` is two words.
    ///
    /// # Errors
    ///
    /// Returns [`TokenizerError::Weight`] if a weight, or a product of weights, is not finite or exceeds
    /// [`MAX_WEIGHT`].
    pub(crate) fn parse(text: &str) -> Result<Self, TokenizerError> {
        let mut pairs = pairs(text)?;
        pairs.sort_unstable_by_key(|pair| pair.open);
        let mut pairs = pairs.into_iter().peekable();
        // Pairs open at this position, with the weight of the text in them.
        let mut open: Vec<(Pair, f32)> = Vec::new();
        let mut prompt = Self::default();
        let mut escaped = false;
        for (at, c) in text.char_indices() {
            if let Some(pair) = pairs.next_if(|pair| pair.open == at) {
                let weight = pair.weight * open.last().map_or(1.0, |(_, weight)| *weight);
                if weight.is_nan() || weight.abs() > MAX_WEIGHT {
                    return Err(bad_weight(&text[pair.open..=pair.close], weight));
                }
                open.push((pair, weight));
                continue;
            }
            let weight = match open.last() {
                Some((pair, _)) if at == pair.close => {
                    open.pop();
                    continue;
                }
                Some((pair, _)) if at >= pair.end => continue,
                Some((_, weight)) => *weight,
                None => 1.0,
            };
            if !escaped && is_escape(&text[at..]) {
                escaped = true;
                continue;
            }
            escaped = false;
            prompt.push(c, weight);
        }
        Ok(prompt)
    }

    pub(super) fn push(&mut self, c: char, weight: f32) {
        match self.runs.last_mut() {
            Some(run) if run.weight == weight => run.text.push(c),
            _ => self.runs.push(WeightedRun { text: c.into(), weight }),
        }
    }
}

/// Returns whether the text starts with an escape: a backslash that makes the next character literal.
fn is_escape(text: &str) -> bool {
    matches!(text.as_bytes(), [b'\\', b'(' | b')' | b'[' | b']' | b'\\', ..])
}

/// Returns the matching pairs of brackets. A closing bracket matches the nearest open one of its kind; open brackets
/// between the two are unmatched.
fn pairs(text: &str) -> Result<Vec<Pair>, TokenizerError> {
    let bytes = text.as_bytes();
    let mut pairs = Vec::new();
    let mut open: [Vec<usize>; 2] = Default::default();
    // Position after the last bracket or escape; an explicit weight contains neither.
    let mut last_mark = 0;
    let mut at = 0;
    while at < bytes.len() {
        let here = at;
        at += if is_escape(&text[at..]) { 2 } else { text[at..].chars().next().map_or(1, char::len_utf8) };
        let kind = match bytes[here] {
            b'(' | b')' => 0,
            b'[' | b']' => 1,
            b'\\' => {
                last_mark = here + 1;
                continue;
            }
            _ => continue,
        };
        if matches!(bytes[here], b'(' | b'[') {
            open[kind].push(here);
        } else if let Some(start) = open[kind].pop() {
            while open[1 - kind].pop_if(|other| *other > start).is_some() {}
            let mut pair = Pair { open: start, close: here, end: here, weight: STEP };
            if kind == 1 {
                pair.weight = 1.0 / STEP;
            } else if let Some((end, weight)) = explicit_weight(text, last_mark.max(start + 1), here)? {
                (pair.end, pair.weight) = (end, weight);
            }
            pairs.push(pair);
        }
        last_mark = here + 1;
    }
    Ok(pairs)
}

/// Returns the weight before a closing bracket and the position of its colon.
fn explicit_weight(text: &str, from: usize, close: usize) -> Result<Option<(usize, f32)>, TokenizerError> {
    let Some(colon) = text[from..close].rfind(':').map(|colon| from + colon) else { return Ok(None) };
    match text[colon + 1..close].trim().parse::<f32>() {
        Ok(weight) if weight.abs() <= MAX_WEIGHT => Ok(Some((colon, weight))),
        Ok(weight) => Err(bad_weight(&text[from..close], weight)),
        Err(_) => Ok(None),
    }
}

fn bad_weight(text: &str, got: f32) -> TokenizerError {
    let text = if text.chars().count() > 40 { text.chars().take(40).chain(['…']).collect() } else { text.to_owned() };
    TokenizerError::Weight { text, got: got.to_string(), limit: MAX_WEIGHT }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(text: &str) -> Vec<(String, f32)> {
        let prompt = WeightedPrompt::parse(text).unwrap();
        prompt.runs.into_iter().map(|run| (run.text, (run.weight * 1e4).round() / 1e4)).collect()
    }

    #[track_caller]
    fn check(text: &str, expected: &[(&str, f32)]) {
        let expected: Vec<(String, f32)> =
            expected.iter().map(|(text, weight)| ((*text).to_owned(), *weight)).collect();
        assert_eq!(runs(text), expected, "{text}");
    }

    #[test]
    fn brackets_give_weights() {
        check("", &[]);
        check("plain: 1.2", &[("plain: 1.2", 1.0)]);
        check("a (b) [c]", &[("a ", 1.0), ("b", 1.1), (" ", 1.0), ("c", 0.9091)]);
        check("(b:1.3)(c: .5 )(d:-1)", &[("b", 1.3), ("c", 0.5), ("d", -1.0)]);
        check("(é:1.2)日", &[("é", 1.2), ("日", 1.0)]);
    }

    #[test]
    fn nested_weights_multiply() {
        check("((a))", &[("a", 1.21)]);
        check("(a (b:1.5) c:2)", &[("a ", 2.0), ("b", 3.0), (" c", 2.0)]);
        check("[(a)]b", &[("ab", 1.0)]);
    }

    #[test]
    fn escaped_brackets_are_text() {
        check(r"\(a:1.2\) \[b\] \\ \n", &[(r"(a:1.2) [b] \ \n", 1.0)]);
        check(r"(a\):1.5)", &[("a)", 1.5)]);
        check(r"(a:1.5\)", &[("(a:1.5)", 1.0)]);
        check(r"\\(a)", &[("\\", 1.0), ("a", 1.1)]);
    }

    #[test]
    fn brackets_without_a_partner_are_text() {
        check("(a", &[("(a", 1.0)]);
        check("a) b] [", &[("a) b] [", 1.0)]);
        check("(a [b) c]", &[("a [b", 1.1), (" c]", 1.0)]);
        check("((a)", &[("(", 1.0), ("a", 1.1)]);
    }

    #[test]
    fn what_is_no_number_is_text() {
        check("(a:b)", &[("a:b", 1.1)]);
        check("(a:)", &[("a:", 1.1)]);
        check("[a:0.5]", &[("a:0.5", 0.9091)]);
        check("(a:1.2 (b))", &[("a:1.2 ", 1.1), ("b", 1.21)]);
    }

    #[test]
    fn absurd_weights_are_refused() {
        for text in ["(a:nan)", "(a:inf)", "(a:-1e9)", "(a:11)", &format!("{}a{}", "(".repeat(40), ")".repeat(40))] {
            let error = WeightedPrompt::parse(text).unwrap_err();
            assert!(matches!(error, TokenizerError::Weight { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn many_brackets_take_no_longer_than_their_number() {
        let text = format!("{}{}", "([".repeat(100_000), "a)".repeat(100_000));
        assert!(WeightedPrompt::parse(&text).is_err());
        assert!(WeightedPrompt::parse(&"()[](:1)".repeat(50_000)).unwrap().runs.is_empty());
    }
}
