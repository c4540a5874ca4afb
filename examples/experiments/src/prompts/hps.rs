//! HPS v1: a JSON list of objects with `prompt`, `file_path` and `human_preference`.
//!
//! FABRIC's authors shuffle the prompts of all records and take the first 1000, so that prompts with several records
//! can occur twice. Here each prompt occurs once, in the order of the file: a prompt that occurs twice would count as
//! two independent cases.

use std::collections::HashSet;
use std::path::Path;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{PromptCase, PromptSet, PromptSetError, entry, spacing, trimmed};

/// One record, reduced to its prompt or the reason why it has none: a list of whole records would take much memory.
struct Record(Result<String, String>);

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let record = Value::deserialize(deserializer)?;
        // HPS separates numbers and punctuation by spaces; a list of other origin is left as it is.
        let of_hps = record.get("human_preference").is_some();
        let prompt = entry::prompt_of(&record).map(|p| if of_hps { spacing::clean(p) } else { p.to_owned() });
        Ok(Self(prompt))
    }
}

/// Reads the distinct prompts.
pub(super) fn read(path: &Path, text: &str) -> Result<PromptSet, PromptSetError> {
    let records: Vec<Record> = serde_json::from_str(text).map_err(|error| PromptSetError::Json {
        path: path.to_owned(),
        line: error.line(),
        column: error.column(),
        reason: entry::fault(&error),
    })?;
    let mut set = PromptSet::default();
    let mut seen = HashSet::new();
    for (line, Record(prompt)) in entry_lines(text).zip(records) {
        match prompt {
            Ok(prompt) => {
                // Empty prompts are recorded each time.
                if trimmed(&prompt).is_empty() || seen.insert(prompt.clone()) {
                    set.add(line, PromptCase { prompt, ..PromptCase::default() });
                }
            }
            Err(reason) => set.skip(line, reason),
        }
    }
    Ok(set)
}

/// Returns the line on which each entry of a valid JSON list starts, from 1.
fn entry_lines(list: &str) -> impl Iterator<Item = usize> {
    let (mut line, mut depth, mut in_string, mut escaped, mut between) = (1, 0_usize, false, false, false);
    list.bytes().filter_map(move |byte| {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            return None;
        }
        let at_top = depth == 1;
        match byte {
            b'\n' => line += 1,
            b'"' => in_string = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        let starts = at_top && between && !byte.is_ascii_whitespace() && byte != b']';
        if starts || (at_top && byte == b',') || (byte == b'[' && depth == 1) {
            between = !starts;
        }
        starts.then_some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(text: &str) -> Vec<String> {
        read(Path::new("preference_test.json"), text).unwrap().prompts.into_iter().map(|case| case.prompt).collect()
    }

    #[test]
    fn prompts_are_distinct_in_the_order_of_the_file() {
        let record =
            |prompt: &str| format!(r#"{{"human_preference": 0, "prompt": "{prompt}", "file_path": ["a", "b"]}}"#);
        let list = ["a red kite", "soup, 4 k", "a red kite", "soup, 4k"].map(record).join(",\r\n");
        assert_eq!(prompts(&format!("[{list}]")), ["a red kite", "soup, 4k"]);
    }

    #[test]
    fn only_records_of_hps_are_cleaned() {
        assert_eq!(prompts(r#"[{"prompt": "4 k"}, {"prompt": "4 k", "human_preference": 1}]"#), ["4 k", "4k"]);
    }

    #[test]
    fn broken_records_are_recorded_with_their_line() {
        let text = "[\n {\"prompt\": \"a \\\" [\",\n  \"id\": [1, {\"x\": \"]\"}]}\n, {\"prompt\": 1}, 7,\n\"a\"\n,\n\n{\"prompt\": \"\"}, {\"prompt\": \" \"}]\n";
        let set = read(Path::new("x.json"), text).unwrap();
        assert_eq!(set.prompts.len(), 1);
        let lines: Vec<_> = set.skipped.iter().map(|skipped| skipped.line).collect();
        assert_eq!(lines, [4, 4, 5, 8, 8], "{:?}", set.skipped);
    }

    #[test]
    fn each_entry_has_a_line() {
        assert_eq!(entry_lines("[]").count(), 0);
        assert_eq!(
            entry_lines("\n[ [1, 2],\n[], null, \"\\\\\", {\"a\": [1, 2]}]").collect::<Vec<_>>(),
            [2, 3, 3, 3, 3]
        );
    }

    #[test]
    fn a_file_that_is_cut_off_is_an_error_that_names_the_place() {
        let error = read(Path::new("x.json"), "[{\"prompt\": \"a\"},\n{\"pro").unwrap_err();
        let message = error.to_string();
        assert!(message.contains("`x.json`") && message.contains("line 2 column 5"), "{message}");
    }
}
