//! Facts about a session besides its history: title, origin, and a summary for lists.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use fabric::core::image::ContentHash;
use fabric::core::session::FeedbackSession;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::error::ApiError;
use crate::ids::Id;

/// Name of the file, in the folder of the session.
pub(crate) const ABOUT_FILE: &str = "studio.json";

/// Largest number of characters of a title that is taken from a prompt.
const SHORT_TITLE: usize = 80;

/// Content of `studio.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct About {
    pub(crate) title: String,
    pub(crate) created_unix_ms: u64,
    pub(crate) parent: Option<Parent>,
    /// Summary of the session as it was saved, so that lists need no images. `None` also for one of another form, which
    /// an earlier version of the studio saved.
    #[serde(default, deserialize_with = "readable")]
    pub(crate) summary: Option<Summary>,
}

/// The round that a session branched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parent {
    pub(crate) session: Id,
    pub(crate) round: usize,
}

/// Summary of a session, which lists show.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Summary {
    pub(crate) prompt: String,
    pub(crate) rounds: usize,
    pub(crate) votes: usize,
    /// Images of all rounds, oldest first.
    pub(crate) images: Vec<RatedImage>,
}

/// An image of a round with its rating.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RatedImage {
    pub(crate) round: usize,
    pub(crate) image: ContentHash,
    /// Sum of the strengths of the votes on it.
    pub(crate) rating: f64,
    /// Whether a vote on it is above 0.
    pub(crate) liked: bool,
    /// Whether a vote on it is below 0. With reasons, an image can be liked and disliked.
    pub(crate) disliked: bool,
    pub(crate) unix_ms: u64,
}

/// Votes on an image.
#[derive(Debug, Clone, Copy, Default)]
struct Rating {
    sum: f64,
    liked: bool,
    disliked: bool,
}

/// Reads a summary; `None` if it has another form.
fn readable<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Summary>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(from)?).ok())
}

impl About {
    /// Describes a session that is created now.
    pub(crate) fn new(title: Option<String>, prompt: &str, parent: Option<Parent>) -> Self {
        let title = title.unwrap_or_else(|| prompt.chars().take(SHORT_TITLE).collect());
        Self { title, created_unix_ms: now(), parent, summary: None }
    }

    /// Reads the file of a session folder. `None` if there is none, as in a folder that another program saved.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, ApiError> {
        let broken = |error: String| ApiError::broken_session(format!("{ABOUT_FILE}: {error}"));
        let text = match fs::read(folder.join(ABOUT_FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(broken(error.to_string())),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| broken(error.to_string()))
    }

    /// Writes the file of a session folder. An earlier one is replaced as a whole or not at all.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), ApiError> {
        self.write_with(folder, || Ok(()))
    }

    /// Writes the file of a session folder together with the session, which `save` saves: if either fails, for instance
    /// on a full disk, both stay as they were.
    pub(crate) fn write_with(
        &self,
        folder: &Path,
        save: impl FnOnce() -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        let failed = |error| ApiError::storage("the session cannot be saved", error);
        let prepare = || -> io::Result<NamedTempFile> {
            fs::create_dir_all(folder)?;
            let mut file = NamedTempFile::new_in(folder)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.as_file().sync_all()?;
            Ok(file)
        };
        let file = prepare().map_err(failed)?;
        save()?;
        // Only the name is left to change.
        file.persist(folder.join(ABOUT_FILE)).map_err(|error| failed(error.error))?;
        Ok(())
    }
}

impl Summary {
    pub(crate) fn of(session: &FeedbackSession) -> Self {
        let mut ratings: HashMap<ContentHash, Rating> = HashMap::new();
        for judged in session.votes() {
            let rating = ratings.entry(judged.image.content_hash()).or_default();
            let strength = judged.vote.strength();
            rating.sum += strength;
            rating.liked |= strength > 0.0;
            rating.disliked |= strength < 0.0;
        }
        let images = session.rounds().iter().flat_map(|round| {
            round.images.iter().map(|image| {
                let image = image.content_hash();
                let Rating { sum, liked, disliked } = ratings.get(&image).copied().unwrap_or_default();
                RatedImage { round: round.index, image, rating: sum, liked, disliked, unix_ms: round.unix_ms }
            })
        });
        Self {
            prompt: session.prompt().to_owned(),
            rounds: session.rounds().len(),
            votes: session.votes().len(),
            images: images.collect(),
        }
    }

    /// The image with the best rating; of several, the newest.
    pub(crate) fn cover(&self) -> Option<ContentHash> {
        self.images.iter().max_by(|a, b| a.rating.total_cmp(&b.rating)).map(|image| image.image)
    }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
