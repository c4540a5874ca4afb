use std::fmt;

use fabric_core::{printable, printable_value};

use crate::load::{Component, Mismatch, ShapeMismatch};

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
            "{}: {} weights of the {part} at scale {scale}; {} entries without a place, {} of another shape",
            printable_value(place),
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
            "{}: of {entries} entries for the {part} {} have no place in it and {} have another shape; ",
            printable_value(place),
            unmatched.len(),
            mismatched.len()
        )?;
        match models {
            Some(models) => write!(f, "{}: use a LoRA that was made for this model", printable_value(models))?,
            None => write!(f, "use the model it was made for, or skip these with `with_strict(false)`")?,
        }
        for UnmatchedEntry { target, nearest } in unmatched.iter().take(Mismatch::SHOWN) {
            write!(f, "\n  no place for `{}`", printable(target))?;
            nearest.as_ref().map_or(Ok(()), |name| write!(f, " (the network has `{}`)", printable(name)))?;
        }
        for ShapeMismatch { name, got, expected } in mismatched.iter().take(Mismatch::SHOWN) {
            write!(f, "\n  `{}`: expected {expected:?}, got {got:?}", printable(name))?;
        }
        let hidden = [unmatched.len(), mismatched.len()].map(|n| n.saturating_sub(Mismatch::SHOWN));
        let hidden: usize = hidden.iter().sum();
        if hidden > 0 { write!(f, "\n  and {hidden} more") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile_texts::{assert_printable, hostile_texts};

    #[test]
    fn no_message_hands_a_text_from_a_file_to_the_terminal() {
        for text in hostile_texts() {
            let (name, part) = (|| text.clone(), Component::UNet);
            let unmatched = || vec![UnmatchedEntry { target: name(), nearest: Some(name()) }];
            let mismatched = || vec![ShapeMismatch { name: name(), got: vec![3], expected: vec![4] }];
            let mismatch = LoraMismatch {
                place: name(),
                part,
                entries: 2,
                models: None,
                unmatched: unmatched(),
                mismatched: mismatched(),
            };
            let message = mismatch.to_string();
            assert_eq!(message.split('\n').count(), 3, "one line for each entry: {message:?}");
            message.split('\n').for_each(assert_printable);
            let report = LoraReport {
                place: name(),
                part,
                scale: 1.0,
                applied: vec![name()],
                unmatched: unmatched(),
                mismatched: mismatched(),
            };
            assert_printable(&report.to_string());
        }
    }
}
