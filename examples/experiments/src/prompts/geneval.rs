//! GenEval: one JSON object per line, with `prompt` and `tag`; other fields are ignored.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{PromptCase, PromptSet, entry, trimmed};

/// Reads all lines.
pub(super) fn read(text: &str) -> PromptSet {
    let mut set = PromptSet::default();
    for (index, line) in text.lines().enumerate() {
        let line = trimmed(line);
        if !line.is_empty() {
            match case_of(line) {
                Ok(case) => set.add(index + 1, case),
                Err(reason) => set.skip(index + 1, reason),
            }
        }
    }
    set
}

fn case_of(line: &str) -> Result<PromptCase, String> {
    let object: Value = serde_json::from_str(line)
        .map_err(|error| format!("not valid JSON: {} at column {}", entry::fault(&error), error.column()))?;
    let prompt = entry::prompt_of(&object)?.to_owned();
    let tag = object.get("tag").and_then(Value::as_str).map(|tag| ("tag".to_owned(), tag.to_owned()));
    Ok(PromptCase { prompt, tags: BTreeMap::from_iter(tag), ..PromptCase::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompt_and_tag_are_read_and_other_fields_ignored() {
        let set = read(
            "{\"tag\": \"counting\", \"include\": [{\"class\": \"bench\", \"count\": 2}], \"prompt\": \"two \\\"benches\\\"\"}\r\n\
             \r\n{\"prompt\": \"a cow\"}",
        );
        assert_eq!(set.prompts.len(), 2);
        assert_eq!(set.prompts[0].prompt, "two \"benches\"");
        assert_eq!(set.prompts[0].tags["tag"], "counting");
        assert!(set.prompts[1].tags.is_empty());
        assert!(set.skipped.is_empty());
    }

    #[test]
    fn broken_lines_are_recorded_with_their_number_and_reason() {
        let set = read(
            "{\"prompt\": \"a cow\"}\n{\"prompt\": \"a c\n\n[1]\n{\"prompt\": 3}\n{\"text\": \"a\"}\n{\"prompt\": \" \"}\n{} x\n",
        );
        assert_eq!(set.prompts.len(), 1);
        let skipped: Vec<_> = set.skipped.iter().map(ToString::to_string).collect();
        assert_eq!(
            skipped,
            [
                "line 2: not valid JSON: EOF while parsing a string at column 15",
                "line 4: expected an object with the field `prompt`, got a list",
                "line 5: `prompt`: expected a string, got a number",
                "line 6: expected the field `prompt`, got the fields \"text\"",
                "line 7: the prompt is empty",
                "line 8: not valid JSON: trailing characters at column 4",
            ]
        );
    }

    #[test]
    fn deep_nesting_is_a_broken_line() {
        let set = read(&format!("{{\"prompt\": {}", "[".repeat(100_000)));
        assert!(set.skipped[0].reason.contains("recursion limit"), "{:?}", set.skipped);
    }
}
