//! The words of this world, for a tokenizer that knows no others.

use std::collections::BTreeSet;

use super::Attribute;

/// The words of captions that name no value of a factor.
const OTHER_WORDS: [&str; 20] = [
    "a",
    "an",
    "and",
    "at",
    "background",
    "brows",
    "eyes",
    "hair",
    "in",
    "is",
    "mouth",
    "of",
    "on",
    "picture",
    "skin",
    "that",
    "the",
    "there",
    "thing",
    "with",
];

/// Every word that a caption can hold, in lower case and sorted; besides these, captions hold commas only.
///
/// ```
/// let words = fabric_models::world::words();
/// assert!(words.contains(&"striped") && words.contains(&"top"));
/// assert!(words.len() < 100);
/// ```
pub fn words() -> Vec<&'static str> {
    let names = Attribute::ALL.into_iter().flat_map(Attribute::values).flat_map(str::split_whitespace);
    names.chain(OTHER_WORDS).collect::<BTreeSet<_>>().into_iter().collect()
}
