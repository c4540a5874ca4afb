use std::fmt;

use crate::load::{Component, Mismatch, ShapeMismatch, shortened};

/// What applying a LoRA did.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LoraReport {
    /// The file.
    pub place: String,
    /// The network.
    pub part: Component,
    /// The scale it was applied with.
    pub scale: f32,
    /// Weights that it changes, by their published names; also listed at scale 0, which changes nothing.
    pub applied: Vec<String>,
    /// Entries without a place in the network. Empty when strict.
    pub unmatched: Vec<UnmatchedEntry>,
    /// Entries for weights of another shape. Empty when strict.
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

/// An entry that no weight of the network answers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnmatchedEntry {
    /// The module as the file names it.
    pub target: String,
    /// The most similar published name of a module, if one is similar. Looked up for the first
    /// [`Mismatch::SHOWN`] only.
    pub nearest: Option<String>,
}

/// A LoRA whose names or shapes are not those of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoraMismatch {
    /// The file.
    pub place: String,
    /// The network.
    pub part: Component,
    /// How many entries the file has for it.
    pub entries: usize,
    /// Which models the two are for, where it shows that these differ.
    pub models: Option<String>,
    /// Entries without a place in the network.
    pub unmatched: Vec<UnmatchedEntry>,
    /// Entries for weights of another shape.
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
