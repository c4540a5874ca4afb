//! Telling the formats apart.

use std::path::Path;

use serde::de::IgnoredAny;

/// Format of a prompt set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// A JSON list of objects.
    Hps,
    /// One JSON object per line.
    GenEval,
    /// A table with tabs.
    Parti,
    /// A table with commas, and images.
    Prompthero,
    /// One prompt per line.
    Lines,
}

impl Format {
    /// Returns the format of a file: by its extension if that is one of the known ones, else by its start.
    pub(super) fn detect(path: &Path, text: &str) -> Self {
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        let start = text.trim_start();
        match extension.to_str() {
            Some("json" | "jsonl" | "ndjson") if start.starts_with('[') => Self::Hps,
            Some("json" | "jsonl" | "ndjson") => Self::GenEval,
            Some("tsv") => Self::Parti,
            Some("csv") => Self::Prompthero,
            _ => Self::by_start(start),
        }
    }

    /// Returns the format that the first line shows. Prompts may start with brackets, so single signs are not enough.
    fn by_start(start: &str) -> Self {
        let first = start.lines().next().unwrap_or_default();
        let compact: String = start.chars().filter(|c| !c.is_whitespace()).take(3).collect();
        let has = |delimiter: char, name: &str| first.split(delimiter).any(|n| n.trim().eq_ignore_ascii_case(name));
        if first.starts_with('{') && serde_json::from_str::<IgnoredAny>(first).is_ok() {
            Self::GenEval
        } else if compact.starts_with("[{\"") {
            Self::Hps
        } else if first.contains('\t') && has('\t', "prompt") {
            Self::Parti
        } else if has(',', "image") && has(',', "prompt") {
            Self::Prompthero
        } else {
            Self::Lines
        }
    }

    /// Returns the name of the format for messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hps => "a JSON list of objects with `prompt`",
            Self::GenEval => "one JSON object with `prompt` per line",
            Self::Parti => "a table with tabs and a column `Prompt`",
            Self::Prompthero => "a table with the columns `image` and `prompt`",
            Self::Lines => "one prompt per line",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(name: &str, text: &str) -> Format {
        Format::detect(Path::new(name), text)
    }

    #[test]
    fn the_extension_decides() {
        assert_eq!(detect("preference_test.json", "[]"), Format::Hps);
        assert_eq!(detect("PREFERENCE.JSON", " \n["), Format::Hps);
        assert_eq!(detect("meta.jsonl", "{}"), Format::GenEval);
        assert_eq!(detect("meta.json", "{}"), Format::GenEval);
        assert_eq!(detect("parti.tsv", "a cat"), Format::Parti);
        assert_eq!(detect("prompts.csv", "a cat"), Format::Prompthero);
    }

    #[test]
    fn without_a_known_extension_the_start_decides() {
        assert_eq!(detect("set", "\n{\"prompt\": \"a\"}\n{"), Format::GenEval);
        assert_eq!(detect("set.txt", "[\n  {\n \"prompt\""), Format::Hps);
        assert_eq!(detect("set.txt", "Category\tPrompt\nx\ty"), Format::Parti);
        assert_eq!(detect("set", "image,prompt\n"), Format::Prompthero);
    }

    #[test]
    fn prompts_that_start_with_brackets_are_plain_text() {
        for text in ["[cat:dog:0.5] on a mat", "{red|blue} kite", "[{cat}]", "a prompt, an image of a cat"] {
            assert_eq!(detect("prompts.txt", text), Format::Lines, "{text}");
        }
    }
}
