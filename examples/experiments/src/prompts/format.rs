//! Telling the formats apart.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use fabric::core::InvalidValue;
use serde::de::IgnoredAny;

/// Format of a prompt set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptFormat {
    /// HPS v1: a JSON list of objects.
    Hps,
    /// GenEval: one JSON object per line.
    GenEval,
    /// PartiPrompts: a table with tabs.
    Parti,
    /// FABRIC's prompthero set: a table with commas, and images.
    Prompthero,
    /// One prompt per line.
    Lines,
}

impl PromptFormat {
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

/// The name on the command line, which [`FromStr`] parses.
impl fmt::Display for PromptFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hps => "hps",
            Self::GenEval => "geneval",
            Self::Parti => "parti",
            Self::Prompthero => "prompthero",
            Self::Lines => "lines",
        })
    }
}

impl FromStr for PromptFormat {
    type Err = InvalidValue;

    fn from_str(name: &str) -> Result<Self, InvalidValue> {
        match name {
            "hps" => Ok(Self::Hps),
            "geneval" => Ok(Self::GenEval),
            "parti" => Ok(Self::Parti),
            "prompthero" => Ok(Self::Prompthero),
            "lines" => Ok(Self::Lines),
            other => {
                let expected = "hps, geneval, parti, prompthero or lines";
                Err(InvalidValue::new("format of prompts", other, expected, "leave it out to tell it by the file"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(name: &str, text: &str) -> PromptFormat {
        PromptFormat::detect(Path::new(name), text)
    }

    #[test]
    fn the_extension_decides() {
        assert_eq!(detect("preference_test.json", "[]"), PromptFormat::Hps);
        assert_eq!(detect("PREFERENCE.JSON", " \n["), PromptFormat::Hps);
        assert_eq!(detect("meta.jsonl", "{}"), PromptFormat::GenEval);
        assert_eq!(detect("meta.json", "{}"), PromptFormat::GenEval);
        assert_eq!(detect("parti.tsv", "a cat"), PromptFormat::Parti);
        assert_eq!(detect("prompts.csv", "a cat"), PromptFormat::Prompthero);
    }

    #[test]
    fn without_a_known_extension_the_start_decides() {
        assert_eq!(detect("set", "\n{\"prompt\": \"a\"}\n{"), PromptFormat::GenEval);
        assert_eq!(detect("set.txt", "[\n  {\n \"prompt\""), PromptFormat::Hps);
        assert_eq!(detect("set.txt", "Category\tPrompt\nx\ty"), PromptFormat::Parti);
        assert_eq!(detect("set", "image,prompt\n"), PromptFormat::Prompthero);
    }

    #[test]
    fn formats_are_parsed_by_name() {
        for name in ["hps", "geneval", "parti", "prompthero", "lines"] {
            assert_eq!(name.parse::<PromptFormat>().expect("a format").to_string(), name);
        }
        let message = "csv".parse::<PromptFormat>().expect_err("no format").to_string();
        assert!(message.contains("expected hps, geneval") && message.contains("got csv"), "{message}");
    }

    #[test]
    fn prompts_that_start_with_brackets_are_plain_text() {
        for text in ["[cat:dog:0.5] on a mat", "{red|blue} kite", "[{cat}]", "a prompt, an image of a cat"] {
            assert_eq!(detect("prompts.txt", text), PromptFormat::Lines, "{text}");
        }
    }
}
