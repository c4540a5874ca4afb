//! Conversion of a tokenizer in one file to the files of CLIP's tokenizer.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use fabric::models::tokenizer::ClipTokenizer;

use super::report::{OutputFile, Report};
use super::target::{self, Staging};

/// Options for converting a tokenizer.
#[derive(Args)]
pub(super) struct Arguments {
    /// File of the library tokenizers, usually tokenizer.json. `tokenizer_config.json` and `special_tokens_map.json` in
    /// the same folder are read, too.
    input: PathBuf,
    /// Folder to write. Nothing may exist at this path.
    output: PathBuf,
}

/// Converts a tokenizer.
pub(super) fn run(arguments: &Arguments, dry_run: bool) -> Result<Report, Box<dyn Error>> {
    let Arguments { input, output } = arguments;
    target::check_free(output)?;
    let tokenizer = ClipTokenizer::from_tokenizer_json(input)?;
    let bytes_before = std::fs::metadata(input).map_err(|error| format!("{}: {error}", input.display()))?.len();
    let files = tokenizer.to_files().into_iter().map(|(name, text)| OutputFile {
        path: output.join(name),
        tensors: 0,
        bytes: Some(text.len() as u64),
    });
    let report = Report {
        written: false,
        read: vec![format!("{}: {} tokens", input.display(), tokenizer.vocabulary_size())],
        files: files.collect(),
        unused: Vec::new(),
        bytes_before,
    };
    if dry_run {
        return Ok(report);
    }
    let staging = Staging::beside(output)?;
    std::fs::create_dir(staging.path()).map_err(|error| format!("{}: {error}", output.display()))?;
    tokenizer.save(staging.path())?;
    staging.finish()?;
    report.after_writing()
}
