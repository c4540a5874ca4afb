//! Reasons for votes: the aspects of an image that agree with what is wanted, and those that do not.

use fabric::core::Aspect;

use crate::{InstructTask, Kind, Named};

/// Reasons that a [`Person`](crate::Person) gives for its votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reasons {
    /// None: plain likes and dislikes.
    #[default]
    None,
    /// Named aspects, such as [`Aspect::Style`].
    Aspects,
    /// Free words, such as "its look".
    Words,
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
        }
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
        let is_of_this_image = |task| match task {
            InstructTask::Everything => false,
            InstructTask::Face => wanted.kind == Some(Kind::Face),
            _ => true,
        };
        let all = InstructTask::ALL.into_iter().filter(|&task| is_of_this_image(task));
        let named = all.clone().filter(|&task| applies(task) && !all.clone().any(|wider| within(task, wider)));
        match self {
            Self::None => Vec::new(),
            Self::Aspects => named.map(InstructTask::aspect).collect(),
            Self::Words => named.map(InstructTask::words).collect(),
        }
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
    fn words_are_about_the_same_aspects() {
        let (wanted, seen) = (parse_caption(WANTED), parse_caption("a large green plain heart on a yellow background"));
        assert_eq!(Reasons::Words.to_like(&wanted, &seen), [Aspect::Words("its layout".to_owned())]);
        assert!(
            Reasons::None.to_like(&wanted, &seen).is_empty() && Reasons::None.to_dislike(&wanted, &seen).is_empty()
        );
    }
}
