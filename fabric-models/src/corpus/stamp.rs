//! Length and modification time of a file, by which unchanged files are recognized without reading them.

use std::fs::Metadata;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Age below which a file has no stamp: another change in the same tick of the file system's clock would not show.
const TICK: Duration = Duration::from_secs(3);

/// Length and modification time of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stamp {
    /// Length in bytes.
    length: u64,
    /// Nanoseconds since 1970.
    modified: u64,
}

impl Stamp {
    /// Returns the stamp of a file. Returns `None` if its time does not tell whether it changes: it was modified just
    /// now, in the future, or before 1970.
    pub(super) fn of(metadata: &Metadata) -> Option<Self> {
        let modified = metadata.modified().ok()?;
        if modified.elapsed().ok()? <= TICK {
            return None;
        }
        let since_1970 = modified.duration_since(UNIX_EPOCH).ok()?;
        Some(Self { length: metadata.len(), modified: u64::try_from(since_1970.as_nanos()).ok()? })
    }
}
