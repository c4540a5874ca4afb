//! Progress of a download.

use std::fmt;
use std::sync::Arc;

/// Progress of fetching the weights of a model.
///
/// The small files, which come first, are not reported: their contents determine which others are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HubProgress<'a> {
    /// Path of the file in the model's folder.
    pub file: &'a str,
    /// Bytes of this file that are on disk, including those of an earlier, interrupted download.
    pub file_done_bytes: u64,
    /// Size of this file.
    pub file_total_bytes: u64,
    /// Bytes of all files of this fetch that are on disk.
    pub done_bytes: u64,
    /// Size of all files of this fetch. Files that were complete before are not counted.
    pub total_bytes: u64,
}

/// Callback for the progress of a download.
#[derive(Clone)]
pub(super) struct HubCallback(Arc<dyn Fn(&HubProgress<'_>) + Send + Sync>);

impl HubCallback {
    pub(super) fn new(callback: impl Fn(&HubProgress<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(callback))
    }

    pub(super) fn tell(&self, progress: &HubProgress<'_>) {
        (self.0)(progress);
    }
}

impl fmt::Debug for HubCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HubCallback")
    }
}
