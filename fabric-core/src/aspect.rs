//! Aspects of an image: what of it an instruction or the reason of a vote is about.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::InvalidValue;

/// An aspect of an image, as an instruction to IPAdapter-Instruct or as the reason of a vote names it.
///
/// ```
/// use fabric_core::Aspect;
///
/// assert_eq!(Aspect::Style.to_string(), "use the style");
/// assert_eq!(Aspect::Object("lamp".to_owned()).to_string(), "use the lamp");
/// // Words that name a known aspect are that aspect; others are used as they are.
/// assert_eq!(Aspect::from("the style"), Aspect::Style);
/// assert_eq!(Aspect::from("its warm light").to_string(), "use its warm light");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Aspect {
    /// The whole image.
    Everything,
    /// The style.
    Style,
    /// The colours.
    Colour,
    /// The pose of a person.
    Pose,
    /// The arrangement of the image.
    Composition,
    /// The identity of a person.
    Face,
    /// The foreground.
    Foreground,
    /// The background.
    Background,
    /// An object by its name (training used names; "object" itself works too).
    Object(String),
    /// Any other words, for example "its warm light".
    Words(String),
}

/// Kind of an [`Aspect`], without the words of objects and free text. It names settings that depend on the aspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AspectKind {
    /// [`Aspect::Everything`].
    Everything,
    /// [`Aspect::Style`].
    Style,
    /// [`Aspect::Colour`].
    Colour,
    /// [`Aspect::Pose`].
    Pose,
    /// [`Aspect::Composition`].
    Composition,
    /// [`Aspect::Face`].
    Face,
    /// [`Aspect::Foreground`].
    Foreground,
    /// [`Aspect::Background`].
    Background,
    /// [`Aspect::Object`], whatever its name.
    Object,
    /// [`Aspect::Words`], whatever they say.
    Words,
}

/// Formats the name as in JSON.
impl fmt::Display for AspectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// The aspects that have a name, with the published wording.
const NAMED: [(Aspect, &str); 8] = [
    (Aspect::Everything, "everything from the image"),
    (Aspect::Style, "the style"),
    (Aspect::Colour, "the colour"),
    (Aspect::Pose, "the pose"),
    (Aspect::Composition, "the composition"),
    (Aspect::Face, "the face"),
    (Aspect::Foreground, "the foreground"),
    (Aspect::Background, "the background"),
];

/// Largest length of an aspect's words in bytes; text encoders read about 300.
const MAX_LENGTH: usize = 1000;

impl Aspect {
    /// Returns the kind of the aspect.
    pub fn kind(&self) -> AspectKind {
        match self {
            Self::Everything => AspectKind::Everything,
            Self::Style => AspectKind::Style,
            Self::Colour => AspectKind::Colour,
            Self::Pose => AspectKind::Pose,
            Self::Composition => AspectKind::Composition,
            Self::Face => AspectKind::Face,
            Self::Foreground => AspectKind::Foreground,
            Self::Background => AspectKind::Background,
            Self::Object(_) => AspectKind::Object,
            Self::Words(_) => AspectKind::Words,
        }
    }

    /// Checks that the words of an object or of free text can be used.
    ///
    /// # Errors
    ///
    /// Returns an error if they are empty or longer than 1000 bytes.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        let (Self::Object(words) | Self::Words(words)) = self else { return Ok(()) };
        if !words.trim().is_empty() && words.len() <= MAX_LENGTH {
            return Ok(());
        }
        let expected = format!("words of 1 to {MAX_LENGTH} bytes");
        let got = format!("{} bytes", words.len());
        Err(InvalidValue::new("aspect of an image", got, expected, "say it in a few words, for example \"the style\""))
    }
}

/// Formats the instruction with the published wording.
impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(name) => write!(f, "use the {name}"),
            Self::Words(words) => write!(f, "use {words}"),
            named => {
                let words = NAMED.iter().find(|(aspect, _)| aspect == named).map_or("", |(_, words)| words);
                write!(f, "use {words}")
            }
        }
    }
}

/// Reads words such as "the style", "style" or "use the style".
impl From<&str> for Aspect {
    fn from(whole: &str) -> Self {
        let after_verb = whole.trim().split_at_checked(4).filter(|(verb, _)| verb.eq_ignore_ascii_case("use "));
        let words = after_verb.map_or(whole.trim(), |(_, rest)| rest.trim());
        let lower = words.to_lowercase();
        let noun = lower.strip_prefix("the ").unwrap_or(&lower);
        match NAMED.iter().find(|(_, name)| name.strip_prefix("the ") == Some(noun) || *name == lower) {
            Some((aspect, _)) => aspect.clone(),
            None if noun == "everything" => Self::Everything,
            None if noun == "color" || noun == "colours" || noun == "colors" => Self::Colour,
            None => Self::Words(words.to_owned()),
        }
    }
}

impl From<String> for Aspect {
    fn from(words: String) -> Self {
        Self::from(&*words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_names_of_their_aspects() {
        for (aspect, _) in NAMED {
            let json = serde_json::to_string(&aspect).unwrap();
            assert_eq!(serde_json::to_string(&aspect.kind()).unwrap(), json);
            assert_eq!(format!("\"{}\"", aspect.kind()), json);
        }
        assert_eq!(Aspect::from("its light").kind().to_string(), "words");
        assert_eq!(Aspect::Object("lamp".to_owned()).kind().to_string(), "object");
    }

    #[test]
    fn words_and_json_give_back_the_aspect() {
        for (aspect, words) in NAMED {
            assert_eq!(Aspect::from(&*aspect.to_string()), aspect);
            assert_eq!(Aspect::from(words), aspect);
        }
        assert_eq!(Aspect::from("everything"), Aspect::Everything);
        for words in ["Style", "THE STYLE", "Use the style", "use style", " the style "] {
            assert_eq!(Aspect::from(words), Aspect::Style, "{words}");
        }
        assert_eq!(Aspect::from("color"), Aspect::Colour);
        assert_eq!(Aspect::from("Its Light"), Aspect::Words("Its Light".to_owned()));
        for aspect in [Aspect::Style, Aspect::Object("lamp".to_owned()), Aspect::Words("its light".to_owned())] {
            let json = serde_json::to_string(&aspect).unwrap();
            assert_eq!(serde_json::from_str::<Aspect>(&json).unwrap(), aspect, "{json}");
            assert!(aspect.validate().is_ok());
        }
        for words in [String::new(), " ".to_owned(), "a".repeat(10 << 20)] {
            assert!(
                Aspect::Words(words).validate().unwrap_err().to_string().starts_with("aspect of an image: expected")
            );
        }
    }
}
