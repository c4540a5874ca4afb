//! How to load, and how far it has come.

use std::fmt;
use std::sync::Arc;

use burn::tensor::DType;

/// The type that weights get in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadDtype {
    /// As stored (f64, which devices lack or crawl on, becomes f32).
    Keep,
    /// 32-bit floats, what CPUs compute in.
    #[default]
    F32,
    /// 16-bit floats; a weight beyond 65504 is an error.
    F16,
    /// Brain floats: f32's range with 8 bits of precision.
    BF16,
}

impl LoadDtype {
    /// As burn calls it; `None` for [`LoadDtype::Keep`].
    pub fn dtype(self) -> Option<DType> {
        match self {
            Self::Keep => None,
            Self::F32 => Some(DType::F32),
            Self::F16 => Some(DType::F16),
            Self::BF16 => Some(DType::BF16),
        }
    }
}

/// How to load.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The type that weights get (default f32).
    pub dtype: LoadDtype,
    /// Whether a missing, unexpected or misshapen tensor is an error (default) or only a line of the report.
    pub strict: bool,
    /// Whether NaN and infinite weights are an error (default).
    pub check_finite: bool,
    /// Told after each tensor.
    pub progress: Option<ProgressCallback>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { dtype: LoadDtype::default(), strict: true, check_finite: true, progress: None }
    }
}

impl LoadOptions {
    /// The same with another type for the weights.
    #[must_use]
    pub fn with_dtype(mut self, dtype: LoadDtype) -> Self {
        self.dtype = dtype;
        self
    }

    /// The same, strict or not.
    #[must_use]
    pub fn with_strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// The same with a callback that is told after each tensor.
    #[must_use]
    pub fn with_progress(mut self, callback: impl Fn(&LoadProgress<'_>) + Send + Sync + 'static) -> Self {
        self.progress = Some(ProgressCallback::new(callback));
        self
    }
}

/// How far a load has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadProgress<'a> {
    /// The tensor that was just read, by its published name.
    pub tensor: &'a str,
    /// Bytes read so far, as stored.
    pub done_bytes: u64,
    /// Bytes to read in all, as stored.
    pub total_bytes: u64,
}

/// Someone to tell how far a load has come.
#[derive(Clone)]
pub struct ProgressCallback(Arc<dyn Fn(&LoadProgress<'_>) + Send + Sync>);

impl ProgressCallback {
    /// Calls `callback` after each tensor.
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
