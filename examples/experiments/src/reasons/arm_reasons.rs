//! The reasons of an arm's votes, as data.

use fabric_world::Reasons;
use serde::{Deserialize, Serialize};

use crate::ReasonAdapter;

/// Reasons of the votes of an arm, and how they act.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmReasons {
    /// Kind of the reasons.
    pub given: GivenReasons,
    /// Adapter that realises them. Without one, votes act only as the references that the settings give them
    /// ([`ReasonSettings::references`](fabric::core::pipeline::ReasonSettings::references)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<ReasonAdapter>,
    /// Whether the best and the worst image of each round get a plain vote too. A session has no such votes, because a
    /// reason refines a plain vote, so their references are added to its requests.
    #[serde(default)]
    pub plain_votes: bool,
    /// Whether any image of a round may be liked, and not only the best one: each reason is given for the best image of
    /// which it holds ("this one's colour, that one's size").
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub likes_any_image: bool,
    /// Images of a round that are disliked for what is wrong in them ("its size, but not its colour").
    #[serde(default, skip_serializing_if = "DislikedImages::is_default")]
    pub disliked: DislikedImages,
    /// Whether the factors that were liked are written into the prompt of the next round ("a large red star"). The votes then
    /// have no other effect. It shows what an adapter that loses nothing could reach: the U-Net follows prompts best, and
    /// this world has a word for everything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub names_in_prompt: bool,
}

/// Images of a round that are disliked for what is wrong in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DislikedImages {
    /// The worst one.
    #[default]
    Worst,
    /// The best and the worst one.
    BestAndWorst,
    /// Each of them.
    All,
}

impl DislikedImages {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the indices of the images, in the order in which they are disliked.
    pub(super) fn of(self, best: usize, worst: usize, count: usize) -> Vec<usize> {
        match self {
            Self::Worst => vec![worst],
            Self::BestAndWorst => vec![best, worst],
            Self::All => (0..count).collect(),
        }
    }
}

/// Kind of the reasons that a person gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GivenReasons {
    /// Single factors of the world, such as "the size". If there is a single vote and it is a like, the guidance has four
    /// branches by the published rule for words, also where that of a named aspect has two.
    Factors,
    /// Other words for single factors, such as "its hue"; the guidance as with [`Self::Factors`].
    Words,
    /// Aspects with a name of their own, such as "style", most of which are about several factors.
    Aspects,
}

impl From<GivenReasons> for Reasons {
    fn from(given: GivenReasons) -> Self {
        match given {
            GivenReasons::Factors => Self::Factors,
            GivenReasons::Words => Self::Words,
            GivenReasons::Aspects => Self::Aspects,
        }
    }
}
