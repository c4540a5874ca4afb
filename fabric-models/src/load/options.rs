//! Loading options and progress reports.

use std::fmt;
use std::sync::Arc;

use burn::tensor::DType;

/// Type of the weights in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadDtype {
    /// The stored type. f64 becomes f32, because many devices do not support f64 or are slow with it. Weights that are
    /// stored with 8 bits become f32, too.
    Keep,
    /// 32-bit floats, in which CPUs compute.
    #[default]
    F32,
    /// 16-bit floats; weights beyond 65504 are an error.
    F16,
    /// bfloat16: the range of f32 with 8 bits of precision.
    BF16,
}

impl LoadDtype {
    /// Returns burn's type; `None` for [`LoadDtype::Keep`].
    pub fn dtype(self) -> Option<DType> {
        match self {
            Self::Keep => None,
            Self::F32 => Some(DType::F32),
            Self::F16 => Some(DType::F16),
            Self::BF16 => Some(DType::BF16),
        }
    }
}

/// Options for loading weights.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Type of the weights in memory (default f32).
    pub dtype: LoadDtype,
    /// Whether missing tensors, unexpected tensors and wrong shapes are an error (default) or only reported.
    pub strict: bool,
    /// Whether NaN and infinite weights are an error (default).
    pub check_finite: bool,
    /// Callback that is called after each tensor.
    pub progress: Option<ProgressCallback>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { dtype: LoadDtype::default(), strict: true, check_finite: true, progress: None }
    }
}

impl LoadOptions {
    /// Returns the options with another type for the weights.
    #[must_use]
    pub fn with_dtype(mut self, dtype: LoadDtype) -> Self {
        self.dtype = dtype;
        self
    }

    /// Returns the options with [`LoadOptions::strict`] set.
    #[must_use]
    pub fn with_strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Returns the options with a callback that is called after each tensor.
    #[must_use]
    pub fn with_progress(mut self, callback: impl Fn(&LoadProgress<'_>) + Send + Sync + 'static) -> Self {
        self.progress = Some(ProgressCallback::new(callback));
        self
    }
}

/// Progress of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadProgress<'a> {
    /// Published name of the tensor that was just read.
    pub tensor: &'a str,
    /// Bytes read so far, as stored; 8-bit weights count as f32.
    pub done_bytes: u64,
    /// Total bytes to read, as stored; 8-bit weights count as f32.
    pub total_bytes: u64,
}

/// Callback for the progress of a load.
#[derive(Clone)]
pub struct ProgressCallback(Arc<dyn Fn(&LoadProgress<'_>) + Send + Sync>);

impl ProgressCallback {
    /// Wraps a function that is called after each tensor.
    pub fn new(callback: impl Fn(&LoadProgress<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(callback))
    }

    pub(super) fn tell(&self, progress: &LoadProgress<'_>) {
        (self.0)(progress);
    }
}

impl fmt::Debug for ProgressCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProgressCallback")
    }
}
