//! A session in memory.

use std::path::Path;

use fabric::core::image::{ContentHash, Image};
use fabric::core::session::{FeedbackSession, Round};

use crate::about::{About, Summary};
use crate::error::ApiError;

/// A session with what the studio knows of it.
#[derive(Debug, Clone)]
pub(crate) struct StudioSession {
    pub(crate) session: FeedbackSession,
    pub(crate) about: About,
}

impl StudioSession {
    /// Loads a session folder and checks all of it. A folder without `studio.json` is a session of another program.
    pub(crate) fn load(folder: &Path) -> Result<Self, ApiError> {
        let session = FeedbackSession::load(folder).map_err(ApiError::broken_session)?;
        let about = About::read(folder)?.unwrap_or_else(|| {
            let about = About::new(None, session.prompt(), None);
            let created_unix_ms = session.rounds().first().map_or(about.created_unix_ms, |round| round.unix_ms);
            About { created_unix_ms, ..about }
        });
        let about = About { summary: Some(Summary::of(&session)), ..about };
        Ok(Self { session, about })
    }

    /// Saves the session with its summary.
    pub(crate) fn save(&mut self, folder: &Path) -> Result<(), ApiError> {
        self.about.summary = Some(Summary::of(&self.session));
        self.about.write_with(folder, || Ok(self.session.save(folder)?))
    }

    /// Returns a round by its index.
    pub(crate) fn round(&self, index: usize) -> Result<&Round, ApiError> {
        let rounds = self.session.rounds();
        rounds.get(index).ok_or_else(|| ApiError::unknown_round(index, rounds.len()))
    }

    /// Returns an image that the session shows or uses now.
    pub(crate) fn image(&self, hash: ContentHash) -> Result<Image, ApiError> {
        let session = &self.session;
        let rounds = session.rounds().iter().flat_map(|round| &round.images);
        let conditions = session.image_conditions().iter().map(|one| &one.image);
        let votes = session.votes().iter().map(|judged| &judged.image);
        let start = session.init_image().into_iter().flat_map(|init| [Some(&init.image), init.mask.as_ref()]).flatten();
        let mut all = rounds.chain(conditions).chain(votes).chain(start);
        all.find(|image| image.content_hash() == hash).cloned().ok_or_else(|| ApiError::unknown_image(hash))
    }
}
