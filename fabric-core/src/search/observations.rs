//! Observations of a search, and the form of a search in files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Comparison, Point, Search, Space, check_score};
use crate::InvalidValue;

/// Score of a tried point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Score {
    /// Index of the point among the tried ones.
    pub(super) point: usize,
    pub(super) score: f64,
}

/// Observations of one kind, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Observations {
    None,
    Scores(Vec<Score>),
    /// Comparisons of tried points, from votes.
    Votes(Vec<Comparison>),
}

/// A search as it is serialised. Coordinates of points follow from their values.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stored {
    space: Space,
    seed: u64,
    rounds: u64,
    tried: Vec<BTreeMap<String, f64>>,
    observations: Observations,
}

impl From<Search> for Stored {
    fn from(search: Search) -> Self {
        let Search { space, seed, rounds, tried, observations } = search;
        Self { space, seed, rounds, tried: tried.into_iter().map(BTreeMap::from).collect(), observations }
    }
}

impl TryFrom<Stored> for Search {
    type Error = InvalidValue;

    fn try_from(stored: Stored) -> Result<Self, InvalidValue> {
        let Stored { space, seed, rounds, tried, observations } = stored;
        let tried: Vec<Point> = tried.into_iter().map(|values| space.point(values)).collect::<Result<_, _>>()?;
        if let Some((_, point)) = tried.iter().enumerate().find(|(index, point)| tried[..*index].contains(point)) {
            return Err(InvalidValue::new(
                "tried points of a stored search",
                format!("the point ({point}) twice"),
                "different points",
                "restore the file, or start a new search",
            ));
        }
        let check_index = |index: usize| {
            tried.get(index).ok_or_else(|| {
                InvalidValue::new(
                    "index of a tried point in a stored search",
                    index,
                    format!("an index below {}", tried.len()),
                    "restore the file, or start a new search",
                )
            })
        };
        match &observations {
            Observations::None => {}
            Observations::Scores(scores) => {
                // A model of scores needs at least one.
                if scores.is_empty() {
                    return Err(InvalidValue::new(
                        "scores of a stored search",
                        0,
                        "at least 1 score",
                        "write `none` for a search without observations",
                    ));
                }
                for Score { point, score } in scores {
                    check_score(check_index(*point)?, *score)?;
                }
            }
            Observations::Votes(comparisons) => {
                for Comparison { preferred, other } in comparisons {
                    check_index(*preferred)?;
                    check_index(*other)?;
                    if preferred == other {
                        return Err(InvalidValue::new(
                            "comparison in a stored search",
                            format!("point {preferred} with itself"),
                            "two different points",
                            "restore the file, or start a new search",
                        ));
                    }
                }
            }
        }
        Ok(Self { space, seed, rounds, tried, observations })
    }
}
