//! Captions of scenes, in several wordings.

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::draws::pick;
use super::factor::factor;
use super::{Factor, Glasses, Kind, Mouth, Named, Position, Scene};

factor! {
    /// Wording of a caption.
    Wording, "wording", {
        /// "a small red star at the top left on a blue background"
        Sentence = "sentence",
        /// "a small red star at the top left on blue"
        Short = "short",
        /// "red star, small, top left, blue background"
        Tags = "tags",
        /// "there is a small red star at the top left on a blue background"
        There = "there",
        /// "a picture of a small red star at the top left on a blue background"
        Picture = "picture",
        /// "on a blue background, a small red star at the top left"
        BackgroundFirst = "background first",
        /// "at the top left, a small red star on a blue background"
        PositionFirst = "position first",
        /// "a star that is small and red, at the top left, on a blue background"
        ThatIs = "that is",
    }
}

/// Caption with the factors that it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caption {
    /// Lower-case words and commas.
    pub text: String,
    /// The factors that the caption names, which an evaluation may check in an image generated from it.
    pub named: Named,
}

/// Writes a random caption of a scene, in one of the [`Wording`]s and with some factors left out.
///
/// The factors that it names agree with the scene ([`Named::is_true_of`]).
pub fn caption(scene: &Scene, rng: &mut (impl Rng + ?Sized)) -> Caption {
    let named = Named::some_of(scene, rng);
    let wording: Wording = pick(rng);
    Caption { text: named.caption(wording), named }
}

/// Writes a caption with all factors of a scene, as a [`Wording::Sentence`].
pub fn full_caption(scene: &Scene) -> String {
    Named::of(scene).caption(Wording::Sentence)
}

impl Named {
    /// Writes the caption that names these factors, in one wording; [`parse_caption`](super::parse_caption)
    /// recovers them.
    ///
    /// Without a kind, the caption says "thing".
    pub fn caption(&self, wording: Wording) -> String {
        let thing = self.thing();
        let position = self.position.map(place);
        let background = self.background();
        let phrase = |parts: &[Option<String>]| join(parts.iter().flatten().cloned(), " ");
        let with = self.features().map(|features| format!("with {features}"));
        match wording {
            Wording::Sentence => phrase(&[Some(a(&thing)), with, position, background]),
            Wording::Short => phrase(&[Some(a(&thing)), with, position, self.ground().map(|it| format!("on {it}"))]),
            Wording::There => phrase(&[Some("there is".into()), Some(a(&thing)), with, position, background]),
            Wording::Picture => phrase(&[Some("a picture of".into()), Some(a(&thing)), with, position, background]),
            Wording::BackgroundFirst => comma(background, phrase(&[Some(a(&thing)), with, position])),
            Wording::PositionFirst => comma(position, phrase(&[Some(a(&thing)), with, background])),
            Wording::ThatIs => {
                let is = self.that_is().map(|adjectives| format!("that is {adjectives}"));
                let parts = [Some(phrase(&[Some(a(self.noun())), is])), with, position, background];
                join(parts.into_iter().flatten(), ", ")
            }
            Wording::Tags => {
                let size = self.size.map(|size| size.name().into());
                let thing = words([self.own_colour(), name(self.texture), Some(self.noun())]);
                let tags = [Some(thing), size].into_iter().flatten().chain(self.feature_list());
                let position = self.position.map(|position| position.name().into());
                let ground = self.ground().map(|ground| format!("{ground} background"));
                join(tags.chain(position).chain(ground), ", ")
            }
        }
    }

    fn noun(&self) -> &'static str {
        name(self.kind).unwrap_or("thing")
    }

    /// Returns the colour if it describes the thing itself; for a face, it describes the hair.
    fn own_colour(&self) -> Option<&'static str> {
        name(self.colour).filter(|_| self.kind != Some(Kind::Face))
    }

    /// "small red striped star"
    fn thing(&self) -> String {
        words([name(self.size), self.own_colour(), name(self.texture), Some(self.noun())])
    }

    /// "small, red and striped"
    fn that_is(&self) -> Option<String> {
        enumerate([name(self.size), self.own_colour(), name(self.texture)].into_iter().flatten().map(String::from))
    }

    /// "blue striped"
    fn ground(&self) -> Option<String> {
        let words = words([name(self.background_colour), name(self.background_pattern)]);
        Some(words).filter(|words| !words.is_empty())
    }

    /// "on a blue striped background"
    fn background(&self) -> Option<String> {
        self.ground().map(|ground| format!("on {} background", a(&ground)))
    }

    /// "long red hair, a smile and glasses"
    fn features(&self) -> Option<String> {
        enumerate(self.feature_list().into_iter().map(|feature| match feature.as_str() {
            "smile" | "frown" | "open mouth" => a(&feature),
            _ => feature,
        }))
    }

    fn feature_list(&self) -> Vec<String> {
        let of = |name: Option<&str>, noun: &str| name.map(|name| format!("{name} {noun}"));
        let hair_colour = name(self.colour).filter(|_| self.kind == Some(Kind::Face));
        let hair = words([name(self.hair), hair_colour]);
        let mouth = self.mouth.map(|mouth| match mouth {
            Mouth::Open => "open mouth".into(),
            Mouth::Smile | Mouth::Frown => mouth.name().into(),
        });
        let features = [
            of(Some(hair.as_str()).filter(|hair| !hair.is_empty()), "hair"),
            of(name(self.eyes), "eyes"),
            of(name(self.brows), "brows"),
            mouth,
            of(name(self.skin), "skin"),
            self.glasses.map(|glasses: Glasses| glasses.name().into()),
        ];
        features.into_iter().flatten().collect()
    }
}

fn name<F: Factor>(value: Option<F>) -> Option<&'static str> {
    value.map(Factor::name)
}

fn place(position: Position) -> String {
    match position {
        Position::Center => "in the center".into(),
        Position::Left | Position::Right => format!("on the {position}"),
        _ => format!("at the {position}"),
    }
}

/// Prefixes the words with their article.
fn a(words: &str) -> String {
    let article = if words.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {words}")
}

fn words<const N: usize>(words: [Option<&str>; N]) -> String {
    join(words.into_iter().flatten().map(String::from), " ")
}

fn comma(before: Option<String>, after: String) -> String {
    join(before.into_iter().chain([after]), ", ")
}

/// Joins items as "one, two and three"; `None` without items.
fn enumerate(items: impl Iterator<Item = String>) -> Option<String> {
    let mut items: Vec<String> = items.collect();
    let last = items.pop()?;
    Some(if items.is_empty() { last } else { format!("{} and {last}", items.join(", ")) })
}

fn join(parts: impl Iterator<Item = String>, separator: &str) -> String {
    parts.collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        BackgroundColour, BackgroundPattern, Brows, Colour, Eyes, Hair, Kind, Size, Skin, Texture, parse_caption,
    };

    #[test]
    fn wordings_read_like_language() {
        let star = Named {
            kind: Some(Kind::Star),
            colour: Some(Colour::Orange),
            texture: Some(Texture::Striped),
            size: Some(Size::Small),
            position: Some(Position::Left),
            background_colour: Some(BackgroundColour::Blue),
            ..Named::default()
        };
        let texts = [
            "a small orange striped star on the left on a blue background",
            "a small orange striped star on the left on blue",
            "orange striped star, small, left, blue background",
            "there is a small orange striped star on the left on a blue background",
            "a picture of a small orange striped star on the left on a blue background",
            "on a blue background, a small orange striped star on the left",
            "on the left, a small orange striped star on a blue background",
            "a star that is small, orange and striped, on the left, on a blue background",
        ];
        for (wording, text) in Wording::ALL.into_iter().zip(texts) {
            assert_eq!(star.caption(wording), text);
            assert_eq!(parse_caption(text), star, "{text}");
        }
    }

    #[test]
    fn the_colour_of_a_face_is_its_hair() {
        let face = Named {
            kind: Some(Kind::Face),
            colour: Some(Colour::Red),
            size: Some(Size::Large),
            background_pattern: Some(BackgroundPattern::Dotted),
            eyes: Some(Eyes::Closed),
            brows: Some(Brows::Raised),
            mouth: Some(Mouth::Open),
            hair: Some(Hair::Long),
            skin: Some(Skin::Dark),
            glasses: Some(Glasses::Worn),
            ..Named::default()
        };
        let text = "a large face with long red hair, closed eyes, raised brows, an open mouth, dark skin and glasses \
                    on a dotted background";
        assert_eq!(face.caption(Wording::Sentence), text);
        let tags = "face, large, long red hair, closed eyes, raised brows, open mouth, dark skin, glasses, \
                    dotted background";
        assert_eq!(face.caption(Wording::Tags), tags);
        assert_eq!(parse_caption(text), face);
    }

    #[test]
    fn what_is_not_named_is_not_said() {
        assert_eq!(Named::default().caption(Wording::Sentence), "a thing");
        assert_eq!(Named::default().caption(Wording::ThatIs), "a thing");
        assert_eq!(parse_caption("a thing"), Named::default());
    }
}
