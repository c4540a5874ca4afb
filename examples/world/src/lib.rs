//! Synthetic world of images with known factors, for training and evaluating small models.
//!
//! A [`Scene`] is one thing on a background: its kind, colour, texture, size and position, the background's
//! colour and pattern, and, for a face, its [`Identity`]. [`Scene::render`] draws it. [`caption`] describes it
//! in words and records the factors that it names; [`parse_caption`] recovers them from the text. A
//! [`Variation`] holds the details that no caption mentions. Combinations that are excluded from training
//! ([`Scene::is_held_out`]) show whether a model generalises over the factors or memorises images.
//!
//! ```
//! use fabric_world::{Attribute, Named, SIDE, Split, sample};
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
//! # Ok::<(), fabric_world::WorldError>(())
//! ```
//!
//! | topic | items |
//! |---|---|
//! | factors of the thing | [`Kind`], [`Colour`], [`Texture`], [`Size`], [`Position`] |
//! | factors of the background | [`BackgroundColour`], [`BackgroundPattern`] |
//! | factors of faces | [`Eyes`], [`Brows`], [`Mouth`], [`Hair`], [`Skin`], [`Glasses`] |
//! | all factors | [`Factor`] as a trait, [`Attribute`] as a value |
//! | factors that a caption names | [`Named`] |
//! | pairs of images that share factors | [`Pair`], [`InstructTask`], [`Curriculum`] |
//! | images that each share another factor with a target | [`SeveralPrompts`] |
//! | vocabulary | [`words`] |
//! | reading images | [`Judge`], [`Readers`], [`Tally`]; [`measure`] for whole networks; [`Person`] for feedback |

mod attribute;
mod canvas;
mod caption;
mod curriculum;
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
pub mod measure;
mod named;
mod pair;
mod palette;
mod parse;
mod patterns;
mod person;
mod readers;
mod reasons;
mod render;
mod sample;
mod scene;
mod several;
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
pub use curriculum::Curriculum;
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
pub use person::Person;
pub use readers::Readers;
pub use reasons::Reasons;
pub use sample::{Sample, sample};
pub use scene::{Background, SIDE, Scene};
pub use several::{InstructedImage, MOST_PROMPTS, SeveralPrompts, several_prompts};
pub use split::{Split, is_held_out_ground, is_held_out_pair};
pub use tally::Tally;
pub use variation::Variation;
pub use words::words;
