//! PartiPrompts: a table with tabs and the columns `Prompt`, `Category`, `Challenge` and `Note`.

use std::path::Path;

use super::table::{Row, Table};
use super::{PromptCase, PromptSet, PromptSetError};

/// Columns that become tags.
const TAGS: [&str; 3] = ["category", "challenge", "note"];

/// Reads all rows. Only the column `Prompt` is needed.
pub(super) fn read(path: &Path, text: &str) -> Result<PromptSet, PromptSetError> {
    let table = Table::with_tabs(text);
    let prompt = table.needed_column(path, "Prompt")?;
    let tags = TAGS.map(|tag| (tag, table.column(tag)));
    let mut set = PromptSet::default();
    for Row { line, fields } in table {
        match fields {
            Ok(fields) => {
                let field = |column: usize| fields.get(column).unwrap_or_default().trim().to_owned();
                let tags = tags.iter().filter_map(|(tag, column)| Some(((*tag).to_owned(), field((*column)?))));
                let tags = tags.filter(|(_, value)| !value.is_empty()).collect();
                set.add(line, PromptCase { prompt: field(prompt), tags, ..PromptCase::default() });
            }
            Err(reason) => set.skip(line, reason),
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(text: &str) -> PromptSet {
        read(Path::new("parti.tsv"), text).unwrap()
    }

    #[test]
    fn columns_are_found_by_name_and_become_tags() {
        let set = prompts(
            "Note\tPrompt\tOther\tCategory\r\n\ta cat, asleep\tx\tAnimals\r\nsays so\t\"G\" on a wall\t\tArts\r\n",
        );
        assert_eq!(set.prompts[0].prompt, "a cat, asleep");
        assert_eq!(set.prompts[0].tags, [("category".to_owned(), "Animals".to_owned())].into());
        assert_eq!(set.prompts[1].prompt, "\"G\" on a wall", "quotes belong to the prompt");
        assert_eq!(set.prompts[1].tags["note"], "says so");
        assert!(set.skipped.is_empty());
    }

    #[test]
    fn rows_without_a_prompt_are_recorded() {
        let set = prompts("Category\tPrompt\nAnimals\nAnimals\ta cat\nArts\t \nArts\ta\tb\n");
        assert_eq!(set.prompts.len(), 1);
        let lines: Vec<_> = set.skipped.iter().map(|skipped| skipped.line).collect();
        assert_eq!(lines, [2, 4, 5]);
    }

    #[test]
    fn a_table_without_the_column_is_an_error() {
        assert!(matches!(
            read(Path::new("x.tsv"), "a cat\n"),
            Err(PromptSetError::MissingColumn { column: "Prompt", .. })
        ));
    }
}
