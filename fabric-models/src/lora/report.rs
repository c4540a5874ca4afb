use std::fmt;

use crate::load::{Component, Mismatch, ShapeMismatch, shortened};

/// Result of applying a LoRA.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LoraReport {
    /// Path of the file.
    pub place: String,
    /// The network.
    pub part: Component,
    /// The scale that was applied.
    pub scale: f32,
    /// Published names of the changed weights; also listed at scale 0, which changes nothing.
    pub applied: Vec<String>,
    /// Entries that match no weight of the network. Empty if the LoRA is strict.
    pub unmatched: Vec<UnmatchedEntry>,
    /// Entries whose shape differs from the weight's. Empty if the LoRA is strict.
    pub mismatched: Vec<ShapeMismatch>,
}

impl fmt::Display for LoraReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, part, scale, applied, unmatched, mismatched } = self;
        write!(
            f,
            "{place}: {} weights of the {part} at scale {scale}; {} entries without a place, {} of another shape",
            applied.len(),
            unmatched.len(),
            mismatched.len()
        )
    }
}

/// Entry that matches no weight of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnmatchedEntry {
    /// Name of the module in the file.
    pub target: String,
    /// Most similar published name of a module, if one is similar. Searched for the first [`Mismatch::SHOWN`] entries
    /// only.
    pub nearest: Option<String>,
}

/// All differences in names and shapes between a LoRA and a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoraMismatch {
    /// Path of the file.
    pub place: String,
    /// The network.
    pub part: Component,
    /// Number of entries for this network in the file.
    pub entries: usize,
    /// Models that the LoRA and the network are for, if they were recognized to differ.
    pub models: Option<String>,
    /// Entries that match no weight of the network.
    pub unmatched: Vec<UnmatchedEntry>,
    /// Entries whose shape differs from the weight's.
    pub mismatched: Vec<ShapeMismatch>,
}

impl std::error::Error for LoraMismatch {}

impl fmt::Display for LoraMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, part, entries, models, unmatched, mismatched } = self;
        write!(
            f,
            "{place}: of {entries} entries for the {part} {} have no place in it and {} have another shape; ",
            unmatched.len(),
            mismatched.len()
        )?;
        match models {
            Some(models) => write!(f, "{models}: use a LoRA that was made for this model")?,
            None => write!(f, "use the model it was made for, or skip these with `with_strict(false)`")?,
        }
        for UnmatchedEntry { target, nearest } in unmatched.iter().take(Mismatch::SHOWN) {
            write!(f, "\n  no place for `{}`", shortened(target))?;
            nearest.as_ref().map_or(Ok(()), |name| write!(f, " (the network has `{name}`)"))?;
        }
        for ShapeMismatch { name, got, expected } in mismatched.iter().take(Mismatch::SHOWN) {
            write!(f, "\n  `{name}`: expected {expected:?}, got {got:?}")?;
        }
        let hidden = [unmatched.len(), mismatched.len()].map(|n| n.saturating_sub(Mismatch::SHOWN));
        let hidden: usize = hidden.iter().sum();
        if hidden > 0 { write!(f, "\n  and {hidden} more") } else { Ok(()) }
    }
}
