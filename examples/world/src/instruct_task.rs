//! Tasks and wordings of instructions.

use super::factor::factor;
use super::{Attribute, Factor, Kind, Split};

factor! {
    /// Task of an instruction: what to use from an image. An Instruct adapter of this world is trained on these
    /// tasks.
    InstructTask, "task", {
        /// All factors that the text does not name.
        Everything = "everything",
        /// Texture and colours.
        Style = "style",
        /// The colour of the thing.
        Colour = "colour",
        /// Size and position.
        Composition = "composition",
        /// The kind of the thing.
        Object = "object",
        /// Colour and pattern of the background.
        Background = "background",
        /// The identity of a face.
        Face = "face",
        /// The texture of the thing.
        Texture = "texture",
        /// The size of the thing.
        Size = "size",
        /// The position of the thing.
        Position = "position",
        /// The colour of the background.
        BackgroundColour = "background colour",
        /// The pattern of the background.
        BackgroundPattern = "background pattern",
    }
}

/// Instruction templates used in training; `{}` stands for a noun of the task. Nouns may have words that the tokenizer
/// does not know as a whole and spells in pieces, such as "texture": an adapter learns them all the same.
const TEMPLATES: [&str; 6] =
    ["use {}", "take {}", "keep {}", "copy {}", "use {} from the image", "take only {} of the image"];

/// Instruction templates excluded from training, made of words that occur in training.
const HELD_OUT: [&str; 3] = ["copy {} of the image", "keep only {}", "take {} from the image"];

impl InstructTask {
    /// Returns the factors that the target image shares with the condition image.
    pub fn shared(self) -> &'static [Attribute] {
        match self {
            Self::Everything => &Attribute::ALL,
            Self::Style => &[Attribute::Texture, Attribute::Colour, Attribute::BackgroundColour],
            Self::Colour => &[Attribute::Colour],
            Self::Composition => &[Attribute::Size, Attribute::Position],
            Self::Object => &[Attribute::Kind],
            Self::Background => &[Attribute::BackgroundColour, Attribute::BackgroundPattern],
            Self::Face => &[
                Attribute::Kind,
                Attribute::Eyes,
                Attribute::Brows,
                Attribute::Mouth,
                Attribute::Hair,
                Attribute::Skin,
                Attribute::Glasses,
            ],
            Self::Texture => &[Attribute::Texture],
            Self::Size => &[Attribute::Size],
            Self::Position => &[Attribute::Position],
            Self::BackgroundColour => &[Attribute::BackgroundColour],
            Self::BackgroundPattern => &[Attribute::BackgroundPattern],
        }
    }

    fn nouns(self) -> &'static [&'static str] {
        match self {
            Self::Everything => &["everything", "all"],
            Self::Style => &["the style", "its style", "the look", "its look"],
            Self::Colour => &["the colour", "its colour", "the hue", "its hue"],
            Self::Composition => &["the composition", "its composition", "the layout", "its layout"],
            Self::Object => &["the object", "its object", "the shape", "its shape"],
            Self::Background => &["the background", "its background", "the backdrop", "its backdrop"],
            Self::Face => &["the face", "its face", "the person"],
            Self::Texture => &["the texture", "its texture"],
            Self::Size => &["the size", "its size"],
            Self::Position => &["the position", "its position", "the place", "its place"],
            Self::BackgroundColour => &["the colour of the background", "the background colour"],
            Self::BackgroundPattern => &["the pattern of the background", "the background pattern"],
        }
    }

    /// Returns the instructions for this task: those used in training, or those excluded from it.
    ///
    /// With `kind`, [`InstructTask::Object`] also names the object, as in "use the star".
    ///
    /// ```
    /// use fabric_world::{InstructTask, Kind, Split};
    ///
    /// let shown = InstructTask::Object.instructions(Split::Train, Some(Kind::Star));
    /// assert!(shown.contains(&"use the object".to_owned()) && shown.contains(&"use the star".to_owned()));
    /// assert!(InstructTask::Style.instructions(Split::HeldOut, None).contains(&"keep only the style".to_owned()));
    /// ```
    pub fn instructions(self, split: Split, kind: Option<Kind>) -> Vec<String> {
        let templates: &[&str] = match split {
            Split::Train => &TEMPLATES,
            Split::HeldOut => &HELD_OUT,
        };
        let name = kind.filter(|_| self == Self::Object).map(|kind| format!("the {}", kind.name()));
        let nouns: Vec<&str> = self.nouns().iter().copied().chain(name.as_deref()).collect();
        templates.iter().flat_map(|template| nouns.iter().map(|noun| template.replace("{}", noun))).collect()
    }
}
