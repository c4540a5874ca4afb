//! The form of a search for settings in files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CandidateSeeds, SearchedSettings, SettingsSearch};
use crate::InvalidValue;
use crate::search::{Point, Search};

/// A search for settings as it is serialised. Coordinates of points follow from their values.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stored {
    searched: SearchedSettings,
    seeds: CandidateSeeds,
    search: Search,
    open: Vec<BTreeMap<String, f64>>,
}

impl From<SettingsSearch> for Stored {
    fn from(search: SettingsSearch) -> Self {
        let SettingsSearch { searched, seeds, search, open } = search;
        Self { searched, seeds, search, open: open.into_iter().map(BTreeMap::from).collect() }
    }
}

impl TryFrom<Stored> for SettingsSearch {
    type Error = InvalidValue;

    fn try_from(stored: Stored) -> Result<Self, InvalidValue> {
        let Stored { searched, seeds, search, open } = stored;
        let space = searched.space()?;
        if *search.space() != space {
            return Err(InvalidValue::new(
                "search.space of a stored search",
                "other settings or ranges",
                "those of `searched`",
                "restore the file, or start a new search",
            ));
        }
        let open: Vec<Point> = open.into_iter().map(|values| space.point(values)).collect::<Result<_, _>>()?;
        Ok(Self { searched, seeds, search, open })
    }
}
