//! FABRIC's prompthero set: `prompts.csv` with the columns `image` and `prompt`, and the images beside it.

use std::path::{Path, PathBuf};

use super::table::{Row, Table};
use super::{PromptCase, PromptSet, PromptSetError};

/// Reads all rows. The targets are the paths of the images, which must exist.
pub(super) fn read(path: &Path, text: &str) -> Result<PromptSet, PromptSetError> {
    let table = Table::with_commas(text);
    let (image, prompt) = (table.needed_column(path, "image")?, table.needed_column(path, "prompt")?);
    let mut set = PromptSet::default();
    let mut images = Vec::new();
    for Row { line, fields } in table {
        let fields = match fields {
            Ok(fields) => fields,
            Err(reason) => {
                set.skip(line, reason);
                continue;
            }
        };
        let image = fields.get(image).unwrap_or_default().trim();
        if image.is_empty() {
            set.skip(line, "the row names no image");
            continue;
        }
        let target = path.with_file_name("").join(image);
        images.push((line, target.clone()));
        let prompt = fields.get(prompt).unwrap_or_default().replace("\r\n", "\n");
        set.add(line, PromptCase { prompt, target: Some(target), ..PromptCase::default() });
    }
    check_images(path, &images)?;
    Ok(set)
}

/// Checks that all images exist; `images` are those that the rows name, with their lines.
fn check_images(path: &Path, images: &[(usize, PathBuf)]) -> Result<(), PromptSetError> {
    let path = path.to_owned();
    let rows = images.len();
    let mut missing = images.iter().filter(|(_, image)| !image.is_file());
    let Some((line, image)) = missing.next().cloned() else { return Ok(()) };
    match missing.count() + 1 {
        all if all == rows => Err(PromptSetError::NoImages { path, image, rows }),
        missing => Err(PromptSetError::MissingImage { path, line, image, missing, rows }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates a folder with a table and images.
    fn folder(table: &str, images: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("prompts.csv"), table).unwrap();
        for image in images {
            std::fs::write(folder.path().join(image), "").unwrap();
        }
        folder
    }

    const TABLE: &str =
        "\u{feff}image,prompt\r\n0.jpg,\"a cat, \"\"asleep\"\"\"\r\n1.jpg,\"two\r\nlines\"\r\n2.jpg,plain\r\n";

    #[test]
    fn a_folder_and_its_table_are_the_same_set() {
        let folder = folder(TABLE, &["0.jpg", "1.jpg", "2.jpg"]);
        let set = PromptSet::open(folder.path()).unwrap();
        let prompts: Vec<_> = set.prompts.iter().map(|case| case.prompt.as_str()).collect();
        assert_eq!(prompts, ["a cat, \"asleep\"", "two\nlines", "plain"]);
        assert_eq!(set.prompts[1].target.as_deref(), Some(folder.path().join("1.jpg").as_path()));
        assert_eq!(set, PromptSet::open(folder.path().join("prompts.csv")).unwrap());
    }

    #[test]
    fn a_table_in_the_working_folder_has_its_images_there() {
        let error = read(Path::new("prompts.csv"), "image,prompt\nno such.jpg,x\n").unwrap_err();
        assert!(error.to_string().contains("`no such.jpg`"), "{error}");
    }

    #[test]
    fn a_missing_image_is_named_with_its_line() {
        let folder = folder(TABLE, &["0.jpg"]);
        match PromptSet::open(folder.path()) {
            Err(PromptSetError::MissingImage { line: 3, image, missing: 2, rows: 3, .. }) => {
                assert_eq!(image, folder.path().join("1.jpg"));
            }
            other => panic!("expected a missing image, got {other:?}"),
        }
    }

    #[test]
    fn a_folder_without_images_is_named() {
        let folder = folder(TABLE, &[]);
        let error = PromptSet::open(folder.path()).unwrap_err();
        assert!(matches!(error, PromptSetError::NoImages { rows: 3, .. }), "{error:?}");
        assert!(error.to_string().contains(&folder.path().display().to_string()), "{error}");
    }

    #[test]
    fn a_folder_without_a_table_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = PromptSet::open(folder.path()).unwrap_err();
        assert!(matches!(&error, PromptSetError::NoTable { folder: named } if named == folder.path()), "{error:?}");
    }

    #[test]
    fn broken_rows_are_recorded() {
        let folder = folder("prompt,image\na cat,0.jpg\nno image,\na, b, c,0.jpg\n,0.jpg\n\"open,0.jpg\n", &["0.jpg"]);
        let set = PromptSet::open(folder.path()).unwrap();
        assert_eq!(set.prompts.len(), 1);
        let lines: Vec<_> = set.skipped.iter().map(|skipped| skipped.line).collect();
        assert_eq!(lines, [3, 4, 5, 6], "{:?}", set.skipped);
    }
}
