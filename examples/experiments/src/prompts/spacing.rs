//! Spacing clean-up of HPS prompts, as FABRIC's authors do it (`fabric/data/hps_prompts.py`).
//!
//! The prompts of HPS separate digits, single letters and punctuation by spaces: `4 k`, `1 9 9 0 s`, `( detailed )`.

/// Replacements of punctuation with spaces, in the order in which they are applied.
const PUNCTUATION: [(&str, &str); 6] =
    [(" / ", "/"), ("( ", "("), (" )", ")"), (" - ", "-"), (" :", ":"), (" _ ", "_")];

/// Removes the spaces that separate parts of a number or of an abbreviation, then those around punctuation.
pub(super) fn clean(prompt: &str) -> String {
    PUNCTUATION.iter().fold(join_parts(prompt), |text, (spaced, tight)| text.replace(spaced, tight))
}

/// Removes each single space that stands after and before a part. All are judged by the text before any removal.
fn join_parts(prompt: &str) -> String {
    let chars: Vec<char> = prompt.chars().collect();
    let is_kept =
        |&(i, c): &(usize, &char)| *c != ' ' || !(ends_in_part(&chars[..i]) && starts_with_part(&chars[i + 1..]));
    chars.iter().enumerate().filter(is_kept).map(|(_, c)| c).collect()
}

/// Returns whether a text ends in a digit, a digit and a dot, or a word of one letter other than `a`.
fn ends_in_part(text: &[char]) -> bool {
    match text {
        [.., digit] if digit.is_ascii_digit() => true,
        [.., digit, '.'] => digit.is_ascii_digit(),
        [before @ .., letter] => letter.is_ascii_alphabetic() && *letter != 'a' && !before.last().is_some_and(is_word),
        [] => false,
    }
}

/// Returns whether a text starts with a digit, a word of one letter, or an ending of ordinal numbers as a word.
fn starts_with_part(text: &[char]) -> bool {
    match text {
        [digit, ..] if digit.is_ascii_digit() => true,
        [letter, after @ ..] if letter.is_ascii_alphabetic() && !after.first().is_some_and(is_word) => true,
        ['t', 'h', after @ ..] | ['s', 't', after @ ..] | ['n', 'd', after @ ..] | ['r', 'd', after @ ..] => {
            !after.first().is_some_and(is_word)
        }
        _ => false,
    }
}

/// Returns whether a character belongs to a word, as in regular expressions.
fn is_word(c: &char) -> bool {
    c.is_alphanumeric() || *c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with what the authors' regular expressions return.
    #[track_caller]
    fn check(cases: &[(&str, &str)]) {
        for (prompt, expected) in cases {
            assert_eq!(clean(prompt), *expected, "{prompt:?}");
        }
    }

    #[test]
    fn digits_join_digits_and_single_letters() {
        check(&[("1 9 9 0 s", "1990s"), ("in 4 k", "in 4k"), ("8 k, 3 a", "8k, 3a"), ("5 things", "5 things")]);
    }

    #[test]
    fn a_dot_after_a_digit_joins_what_follows() {
        check(&[("3. 5", "3.5"), ("2 . 5 d", "2 . 5d"), ("end. 5", "end. 5"), (". 5", ". 5")]);
    }

    #[test]
    fn single_letters_join_except_a_on_the_left() {
        check(&[("u s a", "usa"), ("b b b", "bbb"), ("f 1 . 8", "f1 . 8"), ("A 3", "A3"), ("\u{e9} x 3", "\u{e9} x3")]);
        check(&[("a 4 k", "a 4k"), ("a a a", "a a a"), ("x a", "xa"), ("portrait of a b c", "portrait of a bc")]);
        check(&[("it s big", "it s big"), ("3_ x", "3_ x"), ("x_ y 3", "x_ y3"), ("it's 3", "it's3")]);
    }

    #[test]
    fn ordinal_endings_join_only_as_words() {
        check(&[("1 2 th", "12th"), ("1 st", "1st"), ("2 nd", "2nd"), ("3 rd.", "3rd."), ("ab 3 rd", "ab 3rd")]);
        check(&[("3 the", "3 the"), ("3 strong", "3 strong"), ("ab th", "ab th"), ("3 Th", "3 Th")]);
    }

    #[test]
    fn only_single_spaces_are_removed() {
        check(&[("b  b", "b  b"), ("3\t4", "3\t4"), (" 3", " 3"), ("3 ", "3 "), ("", "")]);
    }

    #[test]
    fn each_punctuation_is_tightened() {
        check(&[("f / 2", "f/2"), ("and / or", "and/or"), ("and/ or", "and/ or")]);
        check(&[("( soft light )", "(soft light)"), ("(soft )", "(soft)")]);
        check(&[("semi - real", "semi-real"), ("semi -real", "semi -real")]);
        check(&[("style : oil", "style: oil"), ("snake _ case", "snake_case")]);
        check(&[("( a ) / b - c : d _ e", "(a)/b-c: d_e")]);
    }
}
