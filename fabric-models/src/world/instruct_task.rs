//! What an instruction can ask for, and the ways to say it.

use super::factor::factor;
use super::{Attribute, Factor, Kind, Split};

factor! {
    /// What an instruction asks to take from an image: the tasks on which an Instruct adapter of this world is trained.
    InstructTask, "task", {
        /// Every factor that the text does not name.
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
    }
}

/// Instructions that training shows; `{}` stands for what is to be taken.
const TEMPLATES: [&str; 6] =
    ["use {}", "take {}", "keep {}", "copy {}", "use {} from the image", "take only {} of the image"];

/// Instructions that training never shows, made of words that it does show.
const HELD_OUT: [&str; 3] = ["copy {} of the image", "keep only {}", "take {} from the image"];

impl InstructTask {
    /// The factors that the made image shares with the image that the instruction is about.
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
        }
    }

    /// The instructions for this task that training shows, or those that it never shows.
    ///
    /// An object may also be called by its name, as in "use the star", where `kind` tells it.
    ///
    /// ```
    /// use fabric_models::world::{InstructTask, Kind, Split};
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
