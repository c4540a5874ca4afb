//! A file's tensors into a network, checked before the first is read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Tensor, TensorData};
use fabric_backends::{catch_panic, ops::to_kernel_layout};

use super::contents::Contents;
use super::device::guarded;
use super::mismatch::nearest;
use super::parameters::ModulePath;
use super::{
    LoadError, LoadOptions, LoadProgress, MappedSource, Mismatch, MissingTensor, PublishedNames, ShapeMismatch,
    TensorSource, parameters,
};

/// What a load did; all names are published names.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// The file.
    pub place: String,
    /// Parameters that were filled.
    pub applied: Vec<String>,
    /// Parameters that the file lacks; they keep their random values. Empty when strict.
    pub missing: Vec<MissingTensor>,
    /// Tensors that nothing took. Empty when strict.
    pub unexpected: Vec<String>,
    /// Tensors of another shape than their parameter, which keeps its random values. Empty when strict.
    pub mismatched: Vec<ShapeMismatch>,
    /// Tensors known to carry nothing, such as `position_ids`, or to belong to another network in the same file.
    pub ignored: Vec<String>,
    /// Bytes read, as stored.
    pub bytes: u64,
    /// Time it took.
    pub elapsed: Duration,
}

impl LoadReport {
    /// Whether every parameter was filled and every tensor used or known to carry nothing.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.mismatched.is_empty()
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} tensors, {:.1} MB in {:.2} s; {} missing, {} unexpected, {} of another shape, {} ignored",
            self.place,
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

/// Fills a module's parameters with the tensors of a source.
///
/// All names and shapes are compared before the first value is read. Tensors are read, converted and handed to
/// the device one by one, so the peak is the weights and one tensor. Weights keep PyTorch's layout.
///
/// # Errors
///
/// Strict (the default): when a tensor is missing, unexpected or of another shape, with all of them in one
/// [`Mismatch`]. Always: when a file cannot be read, a weight is not a finite float, or the device fails.
pub fn load_into<M: Module + PublishedNames>(
    module: M,
    source: &dyn TensorSource,
    options: &LoadOptions,
) -> Result<(M, LoadReport), LoadError> {
    let Some(layout) = module.layout(source.tensors()) else {
        return fill(module.without_absent(source.tensors()), source, options);
    };
    let taken: BTreeSet<&str> = layout.iter().map(|renamed| renamed.from.as_str()).collect();
    let others = source.tensors().keys().filter(|name| !taken.contains(name.as_str()));
    let others: Vec<String> = others.cloned().collect();
    let mapped = MappedSource::new(source, layout)?;
    let (module, mut report) = fill(module.without_absent(mapped.tensors()), &mapped, options)?;
    report.ignored.extend(others);
    Ok((module, report))
}

/// Fills a module from a source that has its names.
fn fill<M: Module + PublishedNames>(
    module: M,
    source: &dyn TensorSource,
    options: &LoadOptions,
) -> Result<(M, LoadReport), LoadError> {
    let start = Instant::now();
    let (mut report, places) = compare(&module, source);
    if options.strict && !report.is_complete() {
        let looks_like = looks_like(&module, source);
        let LoadReport { place, missing, unexpected, mismatched, .. } = report;
        return Err(Box::new(Mismatch { place, looks_like, missing, unexpected, mismatched }).into());
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

/// Compares a module with a source: a report with nothing applied yet, and which tensor goes to which path.
fn compare<M: Module + PublishedNames>(
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

/// What the source holds, when that is something else than the module.
fn looks_like<M: Module + PublishedNames>(module: &M, source: &dyn TensorSource) -> Option<String> {
    let parameters = parameters(module);
    let expected = Contents::of(parameters.iter().map(|p| (p.name.as_str(), p.shape.as_slice())));
    let got = Contents::of(source.tensors().iter().map(|(name, info)| (name.as_str(), info.shape.as_slice())));
    got.filter(|_| got != expected).map(|contents| contents.to_string())
}

/// Buffers that older files store beside the weights: the numbers 0, 1, 2...
fn carries_nothing(name: &str) -> bool {
    name.rsplit('.').next() == Some("position_ids")
}

/// Walks through a module and fills it.
struct Loader<'a> {
    source: &'a dyn TensorSource,
    options: &'a LoadOptions,
    /// Path in the module to name in the source, for every parameter that will be filled.
    places: BTreeMap<String, String>,
    path: ModulePath,
    place: String,
    applied: Vec<String>,
    done_bytes: u64,
    total_bytes: u64,
    /// The first error; traversal cannot be left early, so the rest is passed through.
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
        // Asked in vain, a GPU fails much later, on a thread of its own.
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
