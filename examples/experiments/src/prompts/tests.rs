//! Tests of opening prompt sets.

use std::path::Path;

use super::*;

/// Writes a file and opens it.
fn open(name: &str, text: &str) -> Result<PromptSet, PromptSetError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    PromptSet::open(path)
}

#[test]
fn each_format_is_read_with_a_byte_order_mark_and_both_line_ends() {
    let sets = [
        ("preference_test.json", "[{\"prompt\": \"a cat\"},\n {\"prompt\": \"a dog\"}]\n"),
        ("meta.jsonl", "{\"prompt\": \"a cat\"}\n{\"prompt\": \"a dog\"}\n"),
        ("parti.tsv", "Prompt\tNote\na cat\t\na dog\t\n"),
        ("prompts.txt", "a cat\na dog\n"),
        ("prompts", "a cat\na dog"),
    ];
    for (name, text) in sets {
        for text in [text.to_owned(), format!("\u{feff}{}", text.replace('\n', "\r\n"))] {
            let set = open(name, &text).unwrap();
            let prompts: Vec<_> = set.prompts.iter().map(|case| case.prompt.as_str()).collect();
            assert_eq!(prompts, ["a cat", "a dog"], "{name}: {text:?}");
            assert!(set.skipped.is_empty(), "{name}: {:?}", set.skipped);
        }
    }
}

#[test]
fn files_without_prompts_are_empty() {
    let empty = [
        ("x.txt", ""),
        ("x.txt", "\u{feff}\r\n \n"),
        ("x.txt", "# only a comment\n"),
        ("x.json", "[]"),
        ("x.json", ""),
        ("x.tsv", "Prompt\tNote\n"),
        ("x.csv", "image,prompt\n"),
    ];
    for (name, text) in empty {
        let error = open(name, text).unwrap_err();
        assert!(matches!(error, PromptSetError::Empty { .. }), "{name} {text:?}: {error:?}");
    }
}

#[test]
fn a_file_without_usable_lines_names_the_first_of_them() {
    match open("x.jsonl", "\nno JSON\n{}\n") {
        Err(error @ PromptSetError::NothingUsable { skipped: 2, .. }) => {
            let message = error.to_string();
            assert!(message.contains("line 2: not valid JSON"), "{message}");
            assert!(message.contains("one JSON object with `prompt` per line"), "{message}");
        }
        other => panic!("expected an error, got {other:?}"),
    }
}

#[test]
fn long_prompts_are_recorded_and_those_at_the_limit_are_used() {
    let (long, limit) = ("x".repeat(MAX_PROMPT_BYTES + 1), "y".repeat(MAX_PROMPT_BYTES));
    let set = open("x.txt", &format!("a cat\n{long}\n {limit} \n")).unwrap();
    assert_eq!(set.prompts.len(), 2);
    assert_eq!(set.skipped[0].to_string(), "line 2: expected a prompt of at most 65536 bytes, got 65537");
}

#[test]
fn a_given_format_counts_more_than_the_extension() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("prompts.tsv");
    std::fs::write(&path, "a cat\na dog\n").unwrap();
    assert!(PromptSet::open(&path).is_err());
    assert_eq!(PromptSet::open_as(&path, Some(PromptFormat::Lines)).unwrap().prompts.len(), 2);
}

#[test]
fn a_path_that_does_not_exist_is_named() {
    let message = PromptSet::open(Path::new("no/such/set")).unwrap_err().to_string();
    assert!(message.contains("`no/such/set`"), "{message}");
}
