//! Conversion of a training run's checkpoint to an adapter file.

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Args;
use fabric::ipadapter::AdapterFile;
use fabric::models::load::weights_bytes;

use super::report::Report;
use super::weights::{self, Input};
use super::{Dtype, target};

/// Options for converting a checkpoint.
#[derive(Args)]
pub(super) struct Arguments {
    /// Folder of a checkpoint (step-00001000), or of a training run, of which the newest checkpoint is converted.
    checkpoint: PathBuf,
    /// File to write, with the extension .safetensors. Nothing may exist at this path.
    output: PathBuf,
    /// Number type of the weights.
    #[arg(long, value_enum, default_value = "f16")]
    dtype: Dtype,
}

/// Converts the averaged weights in a checkpoint.
pub(super) fn run(arguments: &Arguments, dry_run: bool) -> Result<Report, Box<dyn Error>> {
    target::check_safetensors(&arguments.output)?;
    let path = averaged_weights(&arguments.checkpoint)?;
    let bytes_before = weights_bytes(&path)?;
    let file = AdapterFile::open(&path)?;
    let mut unused = beside(&path)?;
    unused.extend_from_slice(file.ignored());
    weights::adapter(&file, arguments.dtype.into(), &arguments.output, Input { unused, bytes_before, dry_run })
}

/// Returns the path of the averaged weights in a checkpoint.
#[cfg(feature = "train")]
fn averaged_weights(checkpoint: &Path) -> Result<PathBuf, Box<dyn Error>> {
    Ok(fabric::models::train::averaged_weights(checkpoint)?.path().to_owned())
}

#[cfg(not(feature = "train"))]
fn averaged_weights(checkpoint: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let what = "a checkpoint of a training run needs the cargo feature `train`, which is off";
    Err(format!("{}: {what}; build with `--features train`", checkpoint.display()).into())
}

/// Names of the other files in the folder of a file: the current weights and the state of the optimizer.
fn beside(path: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let other = entry.map_err(failed)?.path();
        if other != path {
            names.push(other.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}
