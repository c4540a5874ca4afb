//! Checkpoints of training runs: one folder per saved step, written to a temporary folder and renamed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::TrainError;
use super::optimizer::{Optimizer, Slot, visit};
use crate::load::{
    Dtype, HostTensor, LoadDtype, LoadError, LoadOptions, MAX_CONFIG_BYTES, Partial, PublishedNames, SafetensorsFile,
    TensorSource, is_stale, load_into, read_json, sweep, write_json, write_safetensors,
};

/// Identity and progress of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// Number of completed steps.
    pub(super) step: u64,
    /// Everything that the weights depend on. A run resumes only from a checkpoint with an equal value.
    pub(super) run: Value,
}

const WEIGHTS: &str = "weights.safetensors";
const AVERAGE: &str = "average.safetensors";
const MOMENTS: [&str; 2] = ["moments-1.safetensors", "moments-2.safetensors"];
const STATE: &str = "state.json";
/// Prefix of the folders of checkpoints, before the number of their step.
const PREFIX: &str = "step-";
/// Number of checkpoints to keep; older ones are removed.
const KEPT: usize = 2;

const REMOVE: &str = "remove this checkpoint, and the run goes on from the one before it";

/// Writes a checkpoint and removes old ones.
pub(super) fn save<M: Module + PublishedNames>(
    folder: &Path,
    state: &State,
    module: &M,
    optimizer: &Optimizer,
) -> Result<PathBuf, TrainError> {
    let place = folder.join(format!("{PREFIX}{:08}", state.step));
    // A checkpoint of the same step is identical. Replacing it would leave a moment without a checkpoint.
    if place.join(STATE).is_file() {
        return Ok(place);
    }
    let partial = Partial::folder_beside(&place)?;
    let mut weights = BTreeMap::new();
    visit(module, &mut |name, values, shape| {
        weights.insert(name, (values, shape));
    });
    write(&partial.path().join(WEIGHTS), &weights)?;
    let slots = |of: fn(&Slot) -> &Tensor<1>| -> BTreeMap<String, (Tensor<1>, Vec<usize>)> {
        optimizer.slots.iter().map(|(name, slot)| (name.clone(), (of(slot).clone(), slot.shape.clone()))).collect()
    };
    write(&partial.path().join(AVERAGE), &slots(|slot| &slot.average))?;
    write(&partial.path().join(MOMENTS[0]), &slots(|slot| &slot.moment_1))?;
    write(&partial.path().join(MOMENTS[1]), &slots(|slot| &slot.moment_2))?;
    write_json(&partial.path().join(STATE), &json!(state))?;
    // A folder of this name without `state.json` is incomplete and was not left by this function.
    if place.is_dir() {
        fs::remove_dir_all(&place).map_err(|error| LoadError::io(&place, "replace", error))?;
    }
    partial.rename(&place)?;
    for old in all(folder)?.iter().rev().skip(KEPT) {
        // Under its own name, a checkpoint that is half removed could look complete.
        let removed = Partial::beside(old)?;
        fs::rename(old, removed.path()).map_err(|error| LoadError::io(old, "remove an old checkpoint", error))?;
    }
    Ok(place)
}

/// Removes what a process that was stopped left in the folder of a run more than a day ago: temporary folders, and
/// folders of checkpoints without `state.json`. Whatever cannot be removed stays.
pub(super) fn remove_leftovers(folder: &Path) {
    sweep(folder, |name| number(name).is_some());
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        // A link is not followed, and a folder that cannot be read is not taken for an incomplete one.
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let is_checkpoint = is_folder && number(&entry.file_name().to_string_lossy()).is_some();
        let is_incomplete = || path.join(STATE).try_exists().is_ok_and(|exists| !exists);
        if is_checkpoint && is_incomplete() && is_stale(&entry) {
            // Files of others stay, and their folder with them.
            for file in [WEIGHTS, AVERAGE, MOMENTS[0], MOMENTS[1]] {
                let _ = fs::remove_file(path.join(file));
            }
            let _ = fs::remove_dir(path);
        }
    }
}

/// Returns the step of a checkpoint by the name of its folder; `None` for other names.
fn number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Finds the newest checkpoint in a folder, if there is one.
pub(super) fn newest(folder: &Path) -> Result<Option<PathBuf>, TrainError> {
    Ok(all(folder)?.pop())
}

/// Opens the averaged weights in a checkpoint, f32 tensors under their published names; see
/// [`Trainer::averaged`](super::Trainer::averaged).
///
/// `folder` is the folder of one checkpoint (`step-00001000`), or the folder of a run, of which the newest checkpoint
/// is opened.
///
/// # Errors
///
/// Returns an error if the folder is no complete checkpoint and contains none, or the file is damaged.
pub fn averaged_weights(folder: impl AsRef<Path>) -> Result<SafetensorsFile, TrainError> {
    let folder = folder.as_ref();
    let place = if folder.join(STATE).is_file() { Some(folder.to_owned()) } else { newest(folder)? };
    let Some(place) = place else {
        let next = "give the folder of a training run, or one of the folders `step-...` in it";
        let what = "complete checkpoint of a training run".to_owned();
        return Err(LoadError::NotFound { what, path: folder.to_owned(), next: next.to_owned() }.into());
    };
    Ok(SafetensorsFile::open(place.join(AVERAGE))?)
}

/// Lists complete checkpoints, oldest first. Incomplete ones have other names.
fn all(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let list = |error| LoadError::io(folder, "list", error);
    let mut got = Vec::new();
    for entry in fs::read_dir(folder).map_err(list)? {
        let path = entry.map_err(list)?.path();
        if let Some(step) = step_of(&path)
            && path.join(STATE).is_file()
        {
            got.push((step, path));
        }
    }
    got.sort();
    Ok(got.into_iter().map(|(_, path)| path).collect())
}

/// Returns the step of a checkpoint by the path of its folder.
fn step_of(place: &Path) -> Option<u64> {
    number(&place.file_name()?.to_string_lossy())
}

/// Loads a checkpoint into a network and an optimizer of the same run, which has so many `steps`.
pub(super) fn load<M: Module + PublishedNames>(
    place: &Path,
    run: &Value,
    steps: u64,
    module: M,
    mut optimizer: Optimizer,
    device: &Device,
) -> Result<(State, M, Optimizer), TrainError> {
    let path = place.join(STATE);
    let state: State = read_json(&path, MAX_CONFIG_BYTES)?;
    if state.run != *run {
        return Err(TrainError::OtherRun { path: place.to_owned(), differing: differing(&state.run, run) });
    }
    if state.step > steps || step_of(place) != Some(state.step) {
        let expected = format!("the number of the folder, and at most {steps}");
        return Err(LoadError::malformed(&path, "step", state.step, expected, REMOVE).into());
    }
    let options = LoadOptions::default().with_dtype(LoadDtype::F32);
    let (module, _) = load_into(module, &SafetensorsFile::open(place.join(WEIGHTS))?, &options)?;
    let [first, second, average] =
        [MOMENTS[0], MOMENTS[1], AVERAGE].map(|file| SafetensorsFile::open(place.join(file)));
    let (first, second, average) = (first?, second?, average?);
    let plain = device.clone().inner();
    for (name, slot) in &mut optimizer.slots {
        let moment_2 = read(&second, name, slot)?;
        if let Some(index) = moment_2.iter::<f32>().position(|value| value < 0.0) {
            // The optimizer takes its root.
            let what = format!("tensor `{name}`");
            let got = format!("a negative number at index {index}");
            return Err(LoadError::malformed(second.path(), what, got, "means of squares, at least 0", REMOVE).into());
        }
        let values = [read(&first, name, slot)?, moment_2, read(&average, name, slot)?];
        *slot = Slot::on(values.map(|data| Tensor::from_data(data, &plain)), slot.shape.clone(), &plain);
    }
    Ok((state, module, optimizer))
}

/// Reads the flattened values of a tensor in a checkpoint: finite numbers, in the type and shape in which they were
/// written.
fn read(file: &SafetensorsFile, name: &str, slot: &Slot) -> Result<TensorData, LoadError> {
    let tensor = file.read(name)?;
    if tensor.info.dtype != Dtype::F32 || tensor.info.shape != slot.shape {
        let got = format!("{:?} {:?}", tensor.info.dtype, tensor.info.shape);
        let expected = format!("F32 {:?}", slot.shape);
        return Err(LoadError::malformed(file.path(), format!("tensor `{name}`"), got, expected, REMOVE));
    }
    let count = tensor.info.elements();
    let (bytes, _, dtype) = tensor.into_data(LoadDtype::F32, true, &file.place(), name)?.into_parts();
    Ok(TensorData::from_bytes(bytes, [count], dtype))
}

/// Describes the settings in which two runs differ.
fn differing(got: &Value, expected: &Value) -> String {
    let (Some(got), Some(expected)) = (got.as_object(), expected.as_object()) else { return "all of them".to_owned() };
    let mut names: Vec<String> = Vec::new();
    for (name, value) in expected {
        match (got.get(name), value) {
            (Some(old), new) if old == new => {}
            (Some(old @ Value::Object(_)), new @ Value::Object(_)) => {
                names.push(format!("{name}: {}", differing(old, new)));
            }
            (Some(old), new) => names.push(format!("{name}: {old} then, {new} now")),
            (None, new) => names.push(format!("{name}: absent then, {new} now")),
        }
    }
    names.join(", ")
}

fn write(path: &Path, tensors: &BTreeMap<String, (Tensor<1>, Vec<usize>)>) -> Result<(), TrainError> {
    let host = |name: &str| {
        let (values, shape) = &tensors[name];
        let mut tensor = HostTensor::from_data(&values.to_data());
        tensor.info.shape.clone_from(shape);
        tensor
    };
    let infos: Vec<_> = tensors.keys().map(|name| (name.clone(), host(name).info)).collect();
    Ok(write_safetensors(path, &BTreeMap::new(), &infos, |name| Ok(host(name)))?)
}
