//! Loading of a file's tensors into a network, with all names and shapes checked first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Tensor, TensorData};
use fabric_backends::{catch_panic, ops::to_kernel_layout};
use fabric_core::printable_value;

use super::contents::Contents;
use super::device::guarded;
use super::mismatch::nearest;
use super::parameters::ModulePath;
use super::{
    LoadError, LoadOptions, LoadProgress, MappedSource, Mismatch, MissingTensor, PublishedNames, ShapeMismatch,
    TensorSource, parameters,
};

/// Result of a load. All names are published names.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// Path of the file.
    pub place: String,
    /// Parameters that were loaded.
    pub applied: Vec<String>,
    /// Parameters that the file lacks; they keep their initial values. Empty after a strict load.
    pub missing: Vec<MissingTensor>,
    /// Tensors that no parameter uses. Empty after a strict load.
    pub unexpected: Vec<String>,
    /// Tensors whose shape differs from their parameter's; the parameter keeps its initial values. Empty after a
    /// strict load.
    pub mismatched: Vec<ShapeMismatch>,
    /// Tensors without information, such as `position_ids`, and tensors of another network in the same file.
    pub ignored: Vec<String>,
    /// Bytes read, as stored; 8-bit weights count as f32.
    pub bytes: u64,
    /// Duration of the load.
    pub elapsed: Duration,
}

impl LoadReport {
    /// Returns whether every parameter was loaded and every tensor was used or ignored.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.mismatched.is_empty()
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} tensors, {:.1} MB in {:.2} s; {} missing, {} unexpected, {} of another shape, {} ignored",
            printable_value(&self.place),
            self.applied.len(),
            self.bytes as f64 / 1e6,
            self.elapsed.as_secs_f64(),
            self.missing.len(),
            self.unexpected.len(),
            self.mismatched.len(),
            self.ignored.len()
        )
    }
}

/// Loads the tensors of a source into the parameters of a module.
///
/// All names and shapes are compared before any value is read. Tensors are read, converted and moved to the device
/// one by one, so peak memory is that of the weights plus one tensor. Weights keep PyTorch's layout.
///
/// # Errors
///
/// If `strict` is set (the default), returns an error if a tensor is missing, unexpected or of another shape; one
/// [`Mismatch`] lists all of them. In any case, returns an error if a file cannot be read, a weight is not a finite
/// float, the device does not support the type or fails, or the progress callback panics.
pub fn load_into<M: Module + PublishedNames>(
    module: M,
    source: &dyn TensorSource,
    options: &LoadOptions,
) -> Result<(M, LoadReport), LoadError> {
    let Some((mapped, others)) = in_layout(&module, source)? else {
        return fill(module.without_absent(source.tensors()), source, options);
    };
    let (module, mut report) = fill(module.without_absent(mapped.tensors()), &mapped, options)?;
    report.ignored.extend(others);
    Ok((module, report))
}

/// Source under the published names of a module, and the names of its tensors that belong to other networks.
type InLayout<'a> = (MappedSource<&'a dyn TensorSource>, Vec<String>);

/// Presents a source under the published names of a module; `None` if its names are used unchanged.
pub(super) fn in_layout<'a, M: PublishedNames>(
    module: &M,
    source: &'a dyn TensorSource,
) -> Result<Option<InLayout<'a>>, LoadError> {
    let Some(layout) = module.layout(source.tensors()) else { return Ok(None) };
    let taken: BTreeSet<&str> = layout.iter().map(|renamed| renamed.from.as_str()).collect();
    let others = source.tensors().keys().filter(|name| !taken.contains(name.as_str()));
    let others: Vec<String> = others.cloned().collect();
    Ok(Some((MappedSource::new(source, layout)?, others)))
}

/// Loads a module from a source that has its published names.
fn fill<M: Module + PublishedNames>(
    module: M,
    source: &dyn TensorSource,
    options: &LoadOptions,
) -> Result<(M, LoadReport), LoadError> {
    let start = Instant::now();
    let (mut report, places) = compare(&module, source);
    if options.strict {
        check_complete(&module, source, &report)?;
    }
    let total_bytes = places.values().map(|name| source.tensors()[name].bytes() as u64).sum();
    let mut loader = Loader {
        source,
        options,
        places,
        path: ModulePath::default(),
        place: report.place.clone(),
        applied: Vec::new(),
        done_bytes: 0,
        total_bytes,
        failed: None,
    };
    let module = module.map(&mut loader);
    if let Some(error) = loader.failed {
        return Err(error);
    }
    report.applied = loader.applied;
    report.bytes = loader.done_bytes;
    report.elapsed = start.elapsed();
    Ok((module, report))
}

/// Returns an error that lists all differences between a module and a source, if there are any.
pub(super) fn check_complete<M: Module + PublishedNames>(
    module: &M,
    source: &dyn TensorSource,
    report: &LoadReport,
) -> Result<(), LoadError> {
    if report.is_complete() {
        return Ok(());
    }
    let looks_like = looks_like(module, source);
    let LoadReport { place, missing, unexpected, mismatched, .. } = report.clone();
    Err(Box::new(Mismatch { place, looks_like, missing, unexpected, mismatched }).into())
}

/// Compares a module with a source. Returns a report with nothing applied yet, and the map from module path to tensor.
pub(super) fn compare<M: Module + PublishedNames>(
    module: &M,
    source: &dyn TensorSource,
) -> (LoadReport, BTreeMap<String, String>) {
    let tensors = source.tensors();
    let parameters = parameters(module);
    let known: BTreeSet<&str> = parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    assert_eq!(known.len(), parameters.len(), "published names of {} parameters", parameters.len());
    let mut report = LoadReport {
        place: source.place(),
        applied: Vec::new(),
        missing: Vec::new(),
        unexpected: Vec::new(),
        mismatched: Vec::new(),
        ignored: Vec::new(),
        bytes: 0,
        elapsed: Duration::ZERO,
    };
    for name in tensors.keys().filter(|name| !known.contains(name.as_str())) {
        let list = if carries_nothing(name) { &mut report.ignored } else { &mut report.unexpected };
        list.push(name.clone());
    }
    let mut places = BTreeMap::new();
    for parameter in parameters {
        match tensors.get(&parameter.name) {
            None => {
                let nearest = if report.missing.len() < Mismatch::SHOWN {
                    nearest(&parameter.name, report.unexpected.iter().map(String::as_str)).map(str::to_owned)
                } else {
                    None
                };
                report.missing.push(MissingTensor { name: parameter.name, shape: parameter.shape, nearest });
            }
            Some(info) if info.shape != parameter.shape => report.mismatched.push(ShapeMismatch {
                name: parameter.name,
                got: info.shape.clone(),
                expected: parameter.shape,
            }),
            Some(_) => {
                places.insert(parameter.path, parameter.name);
            }
        }
    }
    (report, places)
}

/// Returns the kind of the source if it is recognized and differs from the kind of the module.
fn looks_like<M: Module + PublishedNames>(module: &M, source: &dyn TensorSource) -> Option<String> {
    let parameters = parameters(module);
    let expected = Contents::of(parameters.iter().map(|p| (p.name.as_str(), p.shape.as_slice())));
    let got = Contents::of(source.tensors().iter().map(|(name, info)| (name.as_str(), info.shape.as_slice())));
    got.filter(|_| got != expected).map(|contents| contents.to_string())
}

/// Returns whether a tensor is a buffer `position_ids` of older files, which contains 0, 1, 2, ...
fn carries_nothing(name: &str) -> bool {
    name.rsplit('.').next() == Some("position_ids")
}

/// Module mapper that loads parameters from a source.
struct Loader<'a> {
    source: &'a dyn TensorSource,
    options: &'a LoadOptions,
    /// Map from module path to tensor name, for every parameter to load.
    places: BTreeMap<String, String>,
    path: ModulePath,
    place: String,
    applied: Vec<String>,
    done_bytes: u64,
    total_bytes: u64,
    /// The first error. The traversal cannot be aborted, so the remaining parameters are returned unchanged.
    failed: Option<LoadError>,
}

impl Loader<'_> {
    fn data(&mut self, name: &str) -> Result<TensorData, LoadError> {
        let tensor = self.source.read(name)?;
        self.done_bytes += tensor.bytes.len() as u64;
        tensor.into_data(self.options.dtype, self.options.check_finite, &self.place, name)
    }

    fn fill<const D: usize>(&mut self, param: Param<Tensor<D>>, name: &str) -> Result<Param<Tensor<D>>, LoadError> {
        let data = self.data(name)?;
        let (device, dtype) = (param.lazy_device(), data.dtype());
        // With an unsupported type, a GPU backend would fail much later, on another thread.
        if dtype != DType::F32 && !device.supports_dtype(dtype) {
            let (place, tensor) = (self.place.clone(), name.to_owned());
            return Err(LoadError::UnsupportedType { place, tensor, dtype });
        }
        let filled = guarded(&self.place, name, || {
            let tensor = to_kernel_layout(Tensor::from_data(data, (&device, dtype)));
            let id = param.id;
            param.transform_for_load(tensor, id)
        })?;
        if let Some(progress) = &self.options.progress {
            let (done_bytes, total_bytes) = (self.done_bytes, self.total_bytes);
            let told = catch_panic(|| progress.tell(&LoadProgress { tensor: name, done_bytes, total_bytes }));
            told.map_err(|message| LoadError::Callback { place: self.place.clone(), message })?;
        }
        Ok(filled)
    }
}

impl ModuleMapper for Loader<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.failed.is_some() {
            return param;
        }
        let Some(name) = self.places.remove(&self.path.join()) else {
            return param;
        };
        match self.fill(param.clone(), &name) {
            Ok(filled) => {
                self.applied.push(name);
                filled
            }
            Err(error) => {
                self.failed = Some(error);
                param
            }
        }
    }
}
