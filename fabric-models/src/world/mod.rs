//! A small world of images whose factors are known, to train small models on and to measure what they do.
//!
//! A [`Scene`] is one thing on a background: its kind, colour, texture, size and position, the background's colour
//! and pattern, and, if it is a face, its [`Identity`]. [`Scene::render`] draws it, [`caption`] says something about
//! it and keeps record of what it said, and [`parse_caption`] reads that back from the words. A [`Variation`] is what
//! no caption mentions. Combinations that training never shows ([`Scene::is_held_out`]) tell whether a model has
//! understood the factors or remembers images.
//!
//! ```
//! use fabric_models::world::{Attribute, Named, SIDE, Split, sample};
//!
//! // Example 0 of the training set that seed 42 names: an image and its caption.
//! let example = sample(42, 0, Split::Train);
//! let rgb = example.scene.render(&example.variation, SIDE)?;
//! assert_eq!(rgb.len(), 64 * 64 * 3);
//!
//! // What an image made from this caption is to show, factor by factor.
//! for attribute in example.caption.named.attributes() {
//!     let wanted = example.caption.named.index_of(attribute);
//!     assert_eq!(wanted, Named::of(&example.scene).index_of(attribute));
//! }
//! # Ok::<(), fabric_models::world::WorldError>(())
//! ```
//!
//! | question | answer |
//! |---|---|
//! | what can differ | [`Kind`], [`Colour`], [`Texture`], [`Size`], [`Position`] |
//! | behind it | [`BackgroundColour`], [`BackgroundPattern`] |
//! | in faces | [`Eyes`], [`Brows`], [`Mouth`], [`Hair`], [`Skin`], [`Glasses`] |
//! | all of these alike | [`Factor`] as a trait, [`Attribute`] as a value |
//! | what was said | [`Named`] |
//! | images that share factors | [`Pair`], [`InstructTask`] |
//! | which words there are | [`words`] |

mod attribute;
mod canvas;
mod caption;
mod draws;
mod error;
mod face;
mod factor;
mod factor_heads;
mod factors;
mod identity;
mod instruct_task;
mod judge;
#[cfg(feature = "train")]
pub mod learn;
mod named;
mod pair;
mod palette;
mod parse;
mod patterns;
mod readers;
mod render;
mod sample;
mod scene;
mod shapes;
mod split;
mod tally;
mod variation;
mod words;

#[cfg(test)]
mod tests;

pub use attribute::Attribute;
pub use canvas::{MAX_SIDE, MIN_SIDE};
pub use caption::{Caption, Wording, caption, full_caption};
pub use error::WorldError;
pub use factor::Factor;
pub use factor_heads::FactorHeads;
pub use factors::{BackgroundColour, BackgroundPattern, Colour, Kind, Position, Size, Texture};
pub use identity::{Brows, Eyes, Glasses, Hair, Identity, Mouth, Skin};
pub use instruct_task::InstructTask;
pub use judge::Judge;
pub use named::Named;
pub use pair::{Pair, pair};
pub use palette::{Rgb, Tones};
pub use parse::parse_caption;
pub use readers::Readers;
pub use sample::{Sample, sample};
pub use scene::{Background, SIDE, Scene};
pub use split::{Split, is_held_out_ground, is_held_out_pair};
pub use tally::Tally;
pub use variation::Variation;
pub use words::words;
