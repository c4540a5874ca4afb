//! Plain text with one prompt per line. Blank lines and lines that begin with `#` hold no prompt.

use super::{PromptCase, PromptSet, trimmed};

/// Reads all lines.
pub(super) fn read(text: &str) -> PromptSet {
    let mut set = PromptSet::default();
    for (index, line) in text.lines().enumerate() {
        let prompt = trimmed(line);
        if !prompt.is_empty() && !prompt.starts_with('#') {
            set.add(index + 1, PromptCase { prompt: prompt.to_owned(), ..PromptCase::default() });
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_and_comments_hold_no_prompt() {
        let set = read("# animals\r\n\r\n  a cat, \"asleep\"  \r\n \t\n #x\nitem #1");
        let prompts: Vec<_> = set.prompts.iter().map(|case| case.prompt.as_str()).collect();
        assert_eq!(prompts, ["a cat, \"asleep\"", "item #1"]);
        assert!(set.skipped.is_empty());
    }
}
