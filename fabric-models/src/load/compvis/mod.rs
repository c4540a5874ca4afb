//! Translation between the names of the original (CompVis, Stability) code and diffusers' names.
//!
//! Each network has a list of corresponding prefixes, generated for its number of levels and layers, so that small
//! and unusual networks are translated too. Prefixes match whole components: `output_blocks.1` is not a prefix of
//! `output_blocks.10`.

pub(super) mod clip;
pub(super) mod control;
pub(super) mod text;
pub(super) mod unet;
pub(super) mod vae;

use std::collections::BTreeMap;

use self::unet::UNetShape;

/// Pairs of corresponding prefixes: diffusers' name, CompVis' name.
pub(super) type Pairs = Vec<(String, String)>;

/// Table that translates names by their longest known prefix.
#[derive(Debug)]
pub(super) struct KeyTable {
    new: BTreeMap<String, String>,
    /// Length of the longest known prefix in bytes.
    longest: usize,
}

impl KeyTable {
    /// Creates a table from CompVis' names to diffusers' names.
    pub(super) fn to_diffusers(pairs: Pairs) -> Self {
        Self::new(pairs.into_iter().map(|(diffusers, compvis)| (compvis, diffusers)).collect())
    }

    /// Creates a table from diffusers' names to CompVis' names.
    pub(in crate::load) fn to_compvis(pairs: Pairs) -> Self {
        Self::new(pairs.into_iter().collect())
    }

    fn new(new: BTreeMap<String, String>) -> Self {
        let longest = new.keys().map(String::len).max().unwrap_or(0);
        Self { new, longest }
    }

    /// Translates a name; `None` if no prefix of it is known.
    pub(super) fn translate(&self, name: &str) -> Option<String> {
        let mut end = name.len();
        if end > self.longest {
            // A malicious file may have very long names that consist of dots; this bounds the loop below.
            end = name.as_bytes()[..=self.longest].iter().rposition(|byte| *byte == b'.')?;
        }
        loop {
            if let Some(prefix) = self.new.get(&name[..end]) {
                return Some(format!("{prefix}{}", &name[end..]));
            }
            end = name[..end].rfind('.')?;
        }
    }
}

/// Translates the names of all parameters of a U-Net from diffusers' to CompVis' names; `None` for other networks.
pub(crate) fn original_unet_names<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Vec<Option<String>> {
    let shape = UNetShape::of_diffusers(names.clone());
    let is_unet = !shape.down_attention.is_empty() && shape.down_attention.len() == shape.up_attention.len();
    let table = KeyTable::to_compvis(if is_unet { shape.pairs() } else { Pairs::new() });
    names.map(|name| table.translate(name)).collect()
}

/// Returns the number after `prefix` in a name and the rest of the name: `down.3.block` with prefix `down.` gives 3
/// and `block`.
fn numbered<'a>(name: &'a str, prefix: &str) -> Option<(usize, &'a str)> {
    let rest = name.strip_prefix(prefix)?;
    let (number, rest) = rest.split_once('.').unwrap_or((rest, ""));
    Some((number.parse().ok()?, rest))
}

/// Returns one more than the largest number after `prefix`; 0 if there is none.
fn count<'a>(names: impl IntoIterator<Item = &'a str>, prefix: &str) -> usize {
    names.into_iter().filter_map(|name| numbered(name, prefix)).map(|(n, _)| n.saturating_add(1)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_known_prefix_decides_and_only_whole_components_count() {
        let table = KeyTable::to_diffusers(vec![
            ("one".into(), "out.1".into()),
            ("ten".into(), "out.10".into()),
            ("one.first".into(), "out.1.0".into()),
        ]);
        assert_eq!(table.translate("out.1.2.weight").as_deref(), Some("one.2.weight"));
        assert_eq!(table.translate("out.10.2.weight").as_deref(), Some("ten.2.weight"));
        assert_eq!(table.translate("out.1.0.bias").as_deref(), Some("one.first.bias"));
        assert_eq!(table.translate("out.100.bias"), None);
        assert_eq!(table.translate("out.10").as_deref(), Some("ten"));
        assert_eq!(table.translate("out.1.0é").as_deref(), Some("one.0é"));
        assert_eq!(table.translate("out.1.0.é.é").as_deref(), Some("one.first.é.é"));
        let dots = ".".repeat(1 << 20);
        assert_eq!(table.translate(&format!("out.1{dots}")), Some(format!("one{dots}")));
        assert_eq!(table.translate(&dots), None);
        assert_eq!(table.translate("other"), None);
    }
}
