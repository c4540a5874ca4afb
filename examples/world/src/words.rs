//! Vocabulary of this world, for a tokenizer without other words.

use std::collections::BTreeSet;

use super::Attribute;

/// Words of captions and instructions that are not values of a factor.
const OTHER_WORDS: [&str; 40] = [
    "a",
    "all",
    "an",
    "and",
    "at",
    "backdrop",
    "background",
    "brows",
    "colour",
    "composition",
    "copy",
    "everything",
    "eyes",
    "from",
    "hair",
    "hue",
    "image",
    "in",
    "is",
    "its",
    "keep",
    "layout",
    "look",
    "mouth",
    "object",
    "of",
    "on",
    "only",
    "person",
    "picture",
    "shape",
    "skin",
    "style",
    "take",
    "that",
    "the",
    "there",
    "thing",
    "use",
    "with",
];

/// Returns all words that captions and instructions use, in lower case and sorted. Captions contain only these
/// and commas.
///
/// ```
/// let words = fabric_world::words();
/// assert!(words.contains(&"striped") && words.contains(&"top"));
/// assert!(words.len() < 120);
/// ```
pub fn words() -> Vec<&'static str> {
    let names = Attribute::ALL.into_iter().flat_map(Attribute::values).flat_map(str::split_whitespace);
    names.chain(OTHER_WORDS).collect::<BTreeSet<_>>().into_iter().collect()
}
