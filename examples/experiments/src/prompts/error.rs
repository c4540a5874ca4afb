//! Error type of prompt sets.

use std::path::PathBuf;

use fabric::core::printable_value;

use super::SkippedLine;

/// Error when a prompt set cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromptSetError {
    /// The file cannot be read.
    #[error(
        "prompt set: `{}` cannot be read: {source}; name a file that exists and may be read",
        printable_value(path.display()), source = printable_value(.source)
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The folder has no `prompts.csv`.
    #[error(
        "prompt set: expected a file `prompts.csv` in the folder `{}`, got none; name a folder that has one, or a \
         file of prompts",
        printable_value(folder.display())
    )]
    NoTable {
        /// The folder.
        folder: PathBuf,
    },
    /// The file is too large.
    #[error(
        "prompt set: expected at most {limit} bytes in `{}`, got more; split the file",
        printable_value(path.display())
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The largest accepted size, in bytes.
        limit: u64,
    },
    /// The file is not UTF-8 text.
    #[error(
        "prompt set: expected UTF-8 text in `{}`, got the byte {byte:#04x} at byte offset {offset}; save the file as \
         UTF-8",
        printable_value(path.display())
    )]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Offset of the first byte that is not UTF-8 text, from 0.
        offset: usize,
        /// That byte.
        byte: u8,
    },
    /// The file is not valid JSON.
    #[error(
        "prompt set: `{}` is not a valid JSON list of objects: {reason} at line {line} column {column}; check whether \
         the file is complete",
        printable_value(path.display()), reason = printable_value(.reason)
    )]
    Json {
        /// The file.
        path: PathBuf,
        /// Line of the error, from 1.
        line: usize,
        /// Column of the error, from 1.
        column: usize,
        /// Description of the problem.
        reason: String,
    },
    /// The header of a table lacks a column.
    #[error(
        "prompt set: expected a column `{column}` in the header of `{}`, got {header:?}; add the header, or give plain \
         prompts as a `.txt` file with one prompt per line",
        printable_value(path.display())
    )]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The missing column.
        column: &'static str,
        /// The header, cut to its first 80 characters.
        header: String,
    },
    /// Some target images do not exist.
    #[error(
        "prompt set: line {line} of `{}` names the image `{}`, which is missing ({missing} of {rows} images are); put \
         the images into the folder of the table, or remove these rows",
        printable_value(path.display()), printable_value(image.display())
    )]
    MissingImage {
        /// The table.
        path: PathBuf,
        /// Line of the first row whose image is missing, from 1.
        line: usize,
        /// The missing image of that row.
        image: PathBuf,
        /// Number of rows whose images are missing.
        missing: usize,
        /// Number of rows.
        rows: usize,
    },
    /// No target image exists.
    #[error(
        "prompt set: expected the {rows} images that `{}` names beside it, got none of them, the first being `{}`; put \
         the images into the folder of the table",
        printable_value(path.display()), printable_value(image.display())
    )]
    NoImages {
        /// The table.
        path: PathBuf,
        /// The first of the missing images.
        image: PathBuf,
        /// Number of rows.
        rows: usize,
    },
    /// The file holds no prompt.
    #[error(
        "prompt set: expected at least one prompt in `{}`, got none; add prompts or name another file",
        printable_value(path.display())
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// No line of the file holds a usable prompt.
    #[error(
        "prompt set: expected {format} in `{}`, got {skipped} line(s) and no usable prompt, the first being {first}; \
         correct these lines, or the extension if the file has another format",
        printable_value(path.display())
    )]
    NothingUsable {
        /// The file.
        path: PathBuf,
        /// The format that the file was taken for.
        format: &'static str,
        /// Number of lines that were skipped.
        skipped: usize,
        /// The first of them.
        first: SkippedLine,
    },
}
