//! The words of this world, for a tokenizer that knows no others.

use std::collections::BTreeSet;

use super::Attribute;

/// The words of captions and instructions that name no value of a factor.
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

/// Every word that a caption or an instruction can hold, in lower case and sorted; besides these, captions hold commas only.
///
/// ```
/// let words = fabric_models::world::words();
/// assert!(words.contains(&"striped") && words.contains(&"top"));
/// assert!(words.len() < 120);
/// ```
pub fn words() -> Vec<&'static str> {
    let names = Attribute::ALL.into_iter().flat_map(Attribute::values).flat_map(str::split_whitespace);
    names.chain(OTHER_WORDS).collect::<BTreeSet<_>>().into_iter().collect()
}
