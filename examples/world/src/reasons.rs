//! Reasons for votes: the aspects of an image that agree with what is wanted, and those that do not.

use fabric::core::Aspect;

use crate::{InstructTask, Kind, Named};

/// Reasons that a [`Person`](crate::Person) gives for its votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reasons {
    /// None: plain likes and dislikes.
    #[default]
    None,
    /// Single factors, such as "the size".
    Factors,
    /// Other words for single factors, such as "its hue".
    Words,
    /// Aspects with a name of their own, such as [`Aspect::Style`], most of which are about several factors.
    Aspects,
}

impl InstructTask {
    /// Returns the aspect of a vote or an image prompt that this task is about.
    pub fn aspect(self) -> Aspect {
        match self {
            Self::Everything => Aspect::Everything,
            Self::Style => Aspect::Style,
            Self::Colour => Aspect::Colour,
            Self::Composition => Aspect::Composition,
            Self::Object => Aspect::Object("object".to_owned()),
            Self::Background => Aspect::Background,
            Self::Face => Aspect::Face,
            Self::Texture => Aspect::from("the texture"),
            Self::Size => Aspect::from("the size"),
            Self::Position => Aspect::from("the position"),
            Self::BackgroundColour => Aspect::from("the colour of the background"),
            Self::BackgroundPattern => Aspect::from("the pattern of the background"),
        }
    }

    /// Whether it is about a single factor.
    fn is_single(self) -> bool {
        self.shared().len() == 1
    }

    /// Returns other words for [`Self::aspect`].
    fn words(self) -> Aspect {
        let words = match self {
            Self::Everything => "all",
            Self::Style => "its look",
            Self::Colour => "its hue",
            Self::Composition => "its layout",
            Self::Object => "its shape",
            Self::Background => "its backdrop",
            Self::Face => "the person",
            Self::Texture => "its texture",
            Self::Size => "its size",
            Self::Position => "its place",
            Self::BackgroundColour => "the background colour",
            Self::BackgroundPattern => "the background pattern",
        };
        Aspect::Words(words.to_owned())
    }
}

impl Reasons {
    /// Returns the reasons to like an image: the aspects whose wanted factors are all right. Aspects without a wanted
    /// factor are no reason, and neither are those within a wider aspect that is one, such as the colour within the
    /// style.
    pub fn to_like(self, wanted: &Named, seen: &Named) -> Vec<Aspect> {
        self.of(wanted, |right, all| right == all, seen)
    }

    /// Returns the reasons to dislike an image: the aspects whose wanted factors are all wrong.
    pub fn to_dislike(self, wanted: &Named, seen: &Named) -> Vec<Aspect> {
        self.of(wanted, |right, _| right == 0, seen)
    }

    /// Returns the aspects for which `holds`, given the numbers of right and of all wanted factors.
    fn of(self, wanted: &Named, holds: impl Fn(usize, usize) -> bool, seen: &Named) -> Vec<Aspect> {
        let applies = |task: InstructTask| {
            let wanted_of_task: Vec<_> =
                task.shared().iter().filter(|&&attribute| wanted.index_of(attribute).is_some()).collect();
            let right =
                wanted_of_task.iter().filter(|&&&attribute| wanted.index_of(attribute) == seen.index_of(attribute));
            !wanted_of_task.is_empty() && holds(right.count(), wanted_of_task.len())
        };
        // An aspect within a wider one that applies is not named apart.
        let within = |task: InstructTask, wider: InstructTask| {
            task != wider && task.shared().iter().all(|attribute| wider.shared().contains(attribute)) && applies(wider)
        };
        let is_of_this_image = |task: InstructTask| match (self, task) {
            (Self::None, _) | (_, InstructTask::Everything) => false,
            (Self::Factors | Self::Words, _) => task.is_single(),
            (Self::Aspects, InstructTask::Face) => wanted.kind == Some(Kind::Face),
            (Self::Aspects, _) => !matches!(task.aspect(), Aspect::Words(_)),
        };
        let all = InstructTask::ALL.into_iter().filter(|&task| is_of_this_image(task));
        let named = all.clone().filter(|&task| applies(task) && !all.clone().any(|wider| within(task, wider)));
        let said = if self == Self::Words { InstructTask::words } else { InstructTask::aspect };
        named.map(said).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_caption;

    const WANTED: &str = "a large red striped star on a blue background";

    fn like(seen: &str) -> Vec<Aspect> {
        Reasons::Aspects.to_like(&parse_caption(WANTED), &parse_caption(seen))
    }

    fn dislike(seen: &str) -> Vec<Aspect> {
        Reasons::Aspects.to_dislike(&parse_caption(WANTED), &parse_caption(seen))
    }

    #[test]
    fn a_reason_is_an_aspect_that_is_right_as_a_whole() {
        let object = Aspect::Object("object".to_owned());
        assert_eq!(
            like("a large red dotted star on a yellow background"),
            [Aspect::Colour, Aspect::Composition, object]
        );
        assert_eq!(dislike("a large red dotted star on a yellow background"), [Aspect::Background]);
    }

    #[test]
    fn an_aspect_within_a_wider_one_is_not_named_apart() {
        let seen = "a small red striped heart on a blue background";
        assert_eq!(like(seen), [Aspect::Style, Aspect::Background], "the style has the colour");
        assert_eq!(dislike(seen), [Aspect::Composition, Aspect::Object("object".to_owned())]);
    }

    #[test]
    fn single_factors_are_named_one_by_one_whatever_the_wider_aspects() {
        let (wanted, seen) = (parse_caption(WANTED), parse_caption("a small red striped heart on a blue background"));
        let words = |all: &[&str]| -> Vec<Aspect> { all.iter().map(|&words| Aspect::from(words)).collect() };
        let liked = [vec![Aspect::Colour], words(&["the texture", "the colour of the background"])].concat();
        assert_eq!(Reasons::Factors.to_like(&wanted, &seen), liked);
        let disliked = [vec![Aspect::Object("object".to_owned())], words(&["the size"])].concat();
        assert_eq!(Reasons::Factors.to_dislike(&wanted, &seen), disliked);
    }

    #[test]
    fn other_words_are_about_the_same_factors() {
        let (wanted, seen) = (parse_caption(WANTED), parse_caption("a large green plain heart on a yellow background"));
        assert_eq!(Reasons::Words.to_like(&wanted, &seen), [Aspect::Words("its size".to_owned())]);
        let [factors, words] = [Reasons::Factors, Reasons::Words].map(|reasons| reasons.to_dislike(&wanted, &seen));
        assert!(factors.len() == words.len() && factors.iter().zip(&words).all(|(a, b)| a != b), "{words:?}");
        assert!(
            Reasons::None.to_like(&wanted, &seen).is_empty() && Reasons::None.to_dislike(&wanted, &seen).is_empty()
        );
    }
}
