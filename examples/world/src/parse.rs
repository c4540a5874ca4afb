//! Parsing of captions.

use super::{BackgroundColour, Colour, Factor, Glasses, Kind, Mouth, Named, Position, Texture};

/// Returns the factors that a caption names, in any of the [`Wording`](super::Wording)s or in free words of
/// similar structure.
///
/// Unknown words are ignored. If the caption names several things, the first one counts. A colour or pattern
/// belongs to the next thing, "hair" or "background"; after "on", it belongs to the background even without
/// that word.
///
/// ```
/// use fabric_world::{BackgroundColour, Colour, Named, Kind, parse_caption};
///
/// let named = parse_caption("My favourite: one RED star on blue!");
/// let wanted = Named {
///     kind: Some(Kind::Star),
///     colour: Some(Colour::Red),
///     background_colour: Some(BackgroundColour::Blue),
///     ..Named::default()
/// };
/// assert_eq!(named, wanted);
/// ```
pub fn parse_caption(text: &str) -> Named {
    let text = text.to_lowercase().replace([',', '.', ';', ':', '!', '?'], " , ");
    let mut reader = Reader::default();
    text.split_whitespace().for_each(|word| reader.read(word));
    reader.end_phrase();
    reader.named
}

/// Parser state: the factors found so far, and adjectives whose noun has not been read yet.
#[derive(Default)]
struct Reader<'a> {
    named: Named,
    colour: Option<&'a str>,
    texture: Option<&'a str>,
    vertical: Option<&'a str>,
    before: &'a str,
    behind_on: bool,
}

impl<'a> Reader<'a> {
    fn read(&mut self, word: &'a str) {
        if word == "background" {
            self.give_to_background();
        } else if word == "hair" {
            self.give_to_thing();
        } else if let Ok(kind) = word.parse::<Kind>() {
            self.give_to_thing();
            first(&mut self.named.kind, Some(kind));
        } else if word == "thing" {
            self.give_to_thing();
        } else if is_colour(word) {
            self.colour.get_or_insert(word);
        } else if word.parse::<Texture>().is_ok() {
            self.texture.get_or_insert(word);
        } else if matches!(word, "," | "and" | "with" | "at" | "in" | "on" | "that" | "of") {
            self.end_phrase();
            self.behind_on = word == "on";
        } else {
            self.read_own_noun(word);
        }
        self.before = word;
    }

    /// Handles words that stand alone, or whose noun is adjacent.
    fn read_own_noun(&mut self, word: &'a str) {
        let named = &mut self.named;
        match word {
            "top" | "bottom" => self.vertical = Some(word),
            "left" | "right" | "center" => {
                let position = match self.vertical.take() {
                    Some(vertical) => format!("{vertical} {word}"),
                    None => word.to_owned(),
                };
                first(&mut named.position, position.parse().ok());
            }
            "eyes" => first(&mut named.eyes, self.before.parse().ok()),
            "brows" => first(&mut named.brows, self.before.parse().ok()),
            "skin" => first(&mut named.skin, self.before.parse().ok()),
            "mouth" if self.before == "open" => first(&mut named.mouth, Some(Mouth::Open)),
            "smile" => first(&mut named.mouth, Some(Mouth::Smile)),
            "frown" => first(&mut named.mouth, Some(Mouth::Frown)),
            "glasses" if self.before == "no" => first(&mut named.glasses, Some(Glasses::None)),
            "glasses" => first(&mut named.glasses, Some(Glasses::Worn)),
            "short" | "long" | "spiky" => first(&mut named.hair, word.parse().ok()),
            _ => first(&mut named.size, word.parse().ok()),
        }
    }

    /// Assigns adjectives without a noun to the thing or, after "on", to the background.
    fn end_phrase(&mut self) {
        if self.behind_on {
            self.give_to_background();
        } else {
            self.give_to_thing();
        }
        let vertical = self.vertical.take();
        first(&mut self.named.position, vertical.and_then(|word| word.parse::<Position>().ok()));
    }

    fn give_to_thing(&mut self) {
        first(&mut self.named.colour, take(&mut self.colour));
        first(&mut self.named.texture, take(&mut self.texture));
        self.behind_on = false;
    }

    fn give_to_background(&mut self) {
        first(&mut self.named.background_colour, take(&mut self.colour));
        first(&mut self.named.background_pattern, take(&mut self.texture));
        self.behind_on = false;
    }
}

fn is_colour(word: &str) -> bool {
    word.parse::<Colour>().is_ok() || word.parse::<BackgroundColour>().is_ok()
}

fn take<F: Factor>(word: &mut Option<&str>) -> Option<F> {
    word.take().and_then(|word| F::from_name(word).ok())
}

/// Keeps the first value.
fn first<F>(value: &mut Option<F>, got: Option<F>) {
    *value = value.take().or(got);
}
