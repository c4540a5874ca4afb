//! Prompt syntax of other programs, where it differs from the one here.

use super::parameters::is_word;

/// Returns a prompt of ComfyUI in the syntax of this library.
///
/// Both read `(a:1.2)` as a weight, and `\(` and `\)` as brackets. Here, square brackets give a weight as well, and a
/// backslash also escapes them and itself. In ComfyUI all of these are text.
pub(super) fn from_comfy_syntax(prompt: &str) -> String {
    let mut escaped = String::with_capacity(prompt.len());
    let mut letters = prompt.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, letters.peek().copied()) {
            ('\\', Some(bracket @ ('(' | ')'))) => {
                escaped.extend(['\\', bracket]);
                letters.next();
            }
            ('\\', Some('\\' | '[' | ']')) | ('[' | ']', _) => escaped.extend(['\\', letter]),
            _ => escaped.push(letter),
        }
    }
    escaped
}

/// Reports syntax of the web UI that has no counterpart here and is read as text.
pub(super) fn report_web_ui_syntax(prompt: &str, negative_prompt: &str, unread: &mut Vec<String>) {
    let both = [prompt, negative_prompt];
    let mut report = |what: &str| unread.push(format!("{what} has no counterpart here and is read as text"));
    if both.into_iter().any(|text| has_word(text, "BREAK")) {
        report("`BREAK`, which begins a new window of the text encoder,");
    }
    // In a negative prompt, it is text in the web UI too.
    if has_word(prompt, "AND") {
        report("`AND`, which combines prompts,");
    }
    if both.into_iter().any(has_prompt_editing) {
        report("a prompt that changes between steps, such as `[a:b:0.5]` or `[a|b]`,");
    }
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|letter: char| !is_word(letter)).any(|other| other == word)
}

/// Returns whether square brackets have a colon or a bar in them that is not within round brackets.
fn has_prompt_editing(text: &str) -> bool {
    // Of each open square bracket: the number of round brackets that are open in it, and whether a mark was found.
    let mut open: Vec<(usize, bool)> = Vec::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, open.last_mut()) {
            // The next character is text.
            ('\\', _) => {
                letters.next();
            }
            ('[', _) => open.push((0, false)),
            (']', Some((_, true))) => return true,
            (']', _) => {
                open.pop();
            }
            ('(', Some((round, _))) => *round += 1,
            (')', Some((round, _))) => *round = round.saturating_sub(1),
            (':' | '|', Some((0, has_mark))) => *has_mark = true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_text_in_comfyui_is_escaped_and_weights_stay() {
        let cases = [
            ("a (cat:1.2), \\(b\\)", "a (cat:1.2), \\(b\\)"),
            ("[cat] and ]", "\\[cat\\] and \\]"),
            // A backslash before a square bracket is text in ComfyUI.
            ("\\[cat\\]", "\\\\\\[cat\\\\\\]"),
            ("\\\\(cat)", "\\\\\\(cat)"),
            ("a\\b\\", "a\\b\\"),
            ("日[", "日\\["),
            ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(from_comfy_syntax(text), expected, "{text}");
        }
    }

    /// Returns the notes on a prompt and a negative prompt.
    fn notes(prompt: &str, negative_prompt: &str) -> Vec<String> {
        let mut unread = Vec::new();
        report_web_ui_syntax(prompt, negative_prompt, &mut unread);
        unread
    }

    #[test]
    fn syntax_of_the_web_ui_without_a_counterpart_is_reported() {
        let cases = [
            ("a cat BREAK a dog", "`BREAK`"),
            ("a cat,\nBREAK\na dog", "`BREAK`"),
            ("a cat AND a dog", "`AND`"),
            ("a cat:1.2 AND(a dog)", "`AND`"),
            ("a [cat:dog:0.5]", "`[a:b:0.5]`"),
            ("a [cat::10], (b [cat|dog]:1.2)", "`[a:b:0.5]`"),
            ("[ a [(cat:1.2):dog:0.5]", "`[a:b:0.5]`"),
        ];
        for (prompt, part) in cases {
            let notes = notes(prompt, "");
            assert!(notes.len() == 1 && notes[0].contains(part), "{prompt}: {notes:?}");
        }
        assert_eq!(notes("", "BREAK [a|b] AND c").len(), 2);
    }

    #[test]
    fn weights_and_words_are_not_reported() {
        let prompts = [
            "a [cat], [[b]], a: b | c",
            "[(cat:1.2)], [a (b:0.8) c]",
            "\\[a:b\\], [a\\:b], [a:b",
            "]a:b], BREAKFAST, BRANDY AND_B and break",
            "(a [b] c:1.2)",
        ];
        for prompt in prompts {
            assert_eq!(notes(prompt, prompt), [""; 0], "{prompt}");
        }
    }
}
