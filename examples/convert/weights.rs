//! Conversion of files of weights.

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Args;
use fabric::ipadapter::AdapterFile;
use fabric::models::load::{ConvertedSource, SaveDtype, TensorSource, match_tensors, open_weights, weights_bytes};

use super::Dtype;
use super::report::{OutputFile, Report};
use super::target::{self, Staging};

/// Options for converting a file of weights.
#[derive(Args)]
pub(super) struct Arguments {
    /// File of weights: .ckpt, .bin, .pt, .pth or .safetensors, or the index of its shards. Tensors keep their names,
    /// except that those of adapters get the published names.
    input: PathBuf,
    /// File to write, with the extension .safetensors. Nothing may exist at this path.
    output: PathBuf,
    /// Number type of the weights. Default: that in which they are stored; 8-bit weights become f32.
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
}

/// Converts a file of weights, of an adapter or of anything else.
pub(super) fn run(arguments: &Arguments, dry_run: bool) -> Result<Report, Box<dyn Error>> {
    target::check_safetensors(&arguments.output)?;
    let source = open_weights(&arguments.input)?;
    let bytes_before = weights_bytes(&arguments.input)?;
    let dtype = arguments.dtype.map_or(SaveDtype::Keep, SaveDtype::from);
    if AdapterFile::recognizes(&source) {
        let file = AdapterFile::new(source)?;
        let unused = file.ignored().to_vec();
        return adapter(&file, dtype, &arguments.output, Input { unused, bytes_before, dry_run });
    }
    let read = format!("{}: {} tensors", source.place(), source.tensors().len());
    save(&source, dtype, &arguments.output, read, Input { unused: Vec::new(), bytes_before, dry_run })
}

/// Description of the input for the report, and whether only that is made.
pub(super) struct Input {
    pub(super) unused: Vec<String>,
    pub(super) bytes_before: u64,
    pub(super) dry_run: bool,
}

/// Writes an adapter under its published names, after comparing them with those that its kind has.
pub(super) fn adapter(
    file: &AdapterFile,
    dtype: SaveDtype,
    output: &Path,
    input: Input,
) -> Result<Report, Box<dyn Error>> {
    let config = file.config()?;
    match_tensors(config.init(&fabric::default_device()?), file.weights())?;
    let read = format!("{}: {config}", file.weights().place());
    save(file.tensors(), dtype, output, read, input)
}

/// Writes all tensors of a source to one file.
fn save(
    source: &dyn TensorSource,
    dtype: SaveDtype,
    output: &Path,
    read: String,
    input: Input,
) -> Result<Report, Box<dyn Error>> {
    let Input { unused, bytes_before, dry_run } = input;
    let converted = ConvertedSource::new(source, dtype);
    let bytes: u64 = converted.tensors().values().map(|info| info.bytes() as u64).sum();
    let file = OutputFile { path: output.to_owned(), tensors: converted.tensors().len(), bytes: Some(bytes) };
    let report = Report { written: false, read: vec![read], files: vec![file], unused, bytes_before };
    if dry_run {
        return Ok(report);
    }
    let staging = Staging::beside(output)?;
    converted.save(staging.path())?;
    staging.finish()?;
    report.after_writing()
}
