//! Comparison of a file with a network before any values are read.

use std::collections::BTreeMap;

use burn::module::Module;

use super::apply::{check_complete, compare, in_layout};
use super::{LoadError, PublishedNames, TensorInfo, TensorSource};

/// Tensors of a source that [`load_into`](super::load_into) would load into a module.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MatchedTensors {
    /// Stored type and shape of each tensor, by published name.
    pub tensors: BTreeMap<String, TensorInfo>,
    /// Tensors without information, such as `position_ids`, and tensors of another network in the same file.
    pub ignored: Vec<String>,
}

/// Compares all names and shapes of a source with those of a module, as a strict [`load_into`](super::load_into) does.
/// No values are read, and no parameters are initialised.
///
/// # Errors
///
/// Returns an error if a tensor is missing, unexpected or of another shape; one [`Mismatch`](super::Mismatch) lists all
/// of them.
pub fn match_tensors<M: Module + PublishedNames>(
    module: M,
    source: &dyn TensorSource,
) -> Result<MatchedTensors, LoadError> {
    let Some((mapped, others)) = in_layout(&module, source)? else {
        return matched(&module.without_absent(source.tensors()), source);
    };
    let mut got = matched(&module.without_absent(mapped.tensors()), &mapped)?;
    got.ignored.extend(others);
    Ok(got)
}

/// Compares a module with a source that has its published names.
fn matched<M: Module + PublishedNames>(module: &M, source: &dyn TensorSource) -> Result<MatchedTensors, LoadError> {
    let (report, places) = compare(module, source);
    check_complete(module, source, &report)?;
    let with_info = |name: String| {
        let info = source.tensors()[&name].clone();
        (name, info)
    };
    let tensors = places.into_values().map(with_info).collect();
    Ok(MatchedTensors { tensors, ignored: report.ignored })
}
