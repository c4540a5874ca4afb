//! Changes of sessions, as the interface takes them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fabric::core::image::{ContentHash, Image, ImageError};
use fabric::core::pipeline::{Settings, Window};
use fabric::core::session::{FeedbackSession, Vote};
use fabric::core::{Aspect, ImageCondition, InitImage};
use serde::Deserialize;
use serde_json::Value;

use crate::about::{About, Parent};
use crate::error::{ApiError, ErrorCode};
use crate::ids::Id;
use crate::settings;
use crate::studio::Shared;
use crate::studio_session::StudioSession;
use crate::views::SessionView;

/// Largest length of a prompt in bytes. Text encoders read some hundred.
const MOST_PROMPT: usize = 64 << 10;

/// Largest length of a title in bytes.
const MOST_TITLE: usize = 1000;

/// Largest number of image conditions of a session. Each adds tokens to every attention of the network.
const MOST_CONDITIONS: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSession {
    prompt: String,
    negative_prompt: Option<String>,
    seed: Option<u64>,
    settings: Option<Value>,
    title: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionChanges {
    prompt: Option<String>,
    negative_prompt: Option<String>,
    settings: Option<Value>,
    title: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewVote {
    image: ContentHash,
    strength: f64,
    reason: Option<Aspect>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewConditions {
    conditions: Vec<NewCondition>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewCondition {
    image: ImageSource,
    aspect: Option<Aspect>,
    #[serde(default = "as_trained")]
    scale: f64,
    #[serde(default)]
    window: Window,
    #[serde(default)]
    away: bool,
}

/// Scale of an image condition unless it is given.
fn as_trained() -> f64 {
    1.0
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewInitImage {
    init_image: Option<InitImageSource>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InitImageSource {
    image: ImageSource,
    strength: f64,
    mask: Option<ImageSource>,
}

/// An image: one of the session, or a file in base64.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ImageSource {
    Hash(ContentHash),
    Data(String),
}

impl ImageSource {
    /// Returns the image. A file is decoded by `read`, under the limits of the library.
    fn image(&self, open: &StudioSession, read: fn(&[u8]) -> Result<Image, ImageError>) -> Result<Image, ApiError> {
        match self {
            Self::Hash(hash) => open.image(*hash),
            Self::Data(text) => {
                let file = STANDARD.decode(text).map_err(|error| {
                    let (message, expected) = ("the image cannot be read", "a PNG, JPEG or WebP file in base64");
                    let next = "send the file itself in base64, without a prefix";
                    ApiError::new(ErrorCode::BrokenImage, message, expected, error, next)
                })?;
                Ok(read(&file)?)
            }
        }
    }
}

impl NewCondition {
    fn condition(&self, open: &StudioSession) -> Result<ImageCondition, ApiError> {
        let condition = ImageCondition::new(self.image.image(open, Image::from_bytes)?);
        let (aspect, scale, window, away) = (self.aspect.clone(), self.scale, self.window, self.away);
        Ok(ImageCondition { aspect, scale, window, away, ..condition })
    }
}

impl InitImageSource {
    fn init_image(&self, open: &StudioSession) -> Result<InitImage, ApiError> {
        let image = self.image.image(open, Image::from_bytes)?;
        let mask = self.mask.as_ref().map(|mask| mask.image(open, Image::mask_from_bytes)).transpose()?;
        Ok(InitImage { image, strength: self.strength, mask })
    }
}

/// Changes of sessions. Each is saved before the session is returned.
impl Shared {
    pub(crate) fn create(&self, new: NewSession) -> Result<SessionView, ApiError> {
        check_texts(Some(&new.prompt), new.negative_prompt.as_deref(), new.title.as_deref())?;
        let about = About::new(new.title, &new.prompt, None);
        let mut session = FeedbackSession::new(new.prompt);
        if let Some(seed) = new.seed {
            session = session.with_seed(seed);
        }
        if let Some(negative_prompt) = new.negative_prompt {
            session = session.with_negative_prompt(negative_prompt);
        }
        if let Some(changes) = new.settings {
            let settings = settings::changed(self.model.pipeline.recommended_settings(), changes)?;
            session = session.with_generation_settings(&settings);
        }
        self.session(self.sessions.add(StudioSession { session, about })?)
    }

    pub(crate) fn patch(&self, id: Id, changes: SessionChanges) -> Result<SessionView, ApiError> {
        check_texts(changes.prompt.as_deref(), changes.negative_prompt.as_deref(), changes.title.as_deref())?;
        self.edit(id, |open| {
            if let Some(changes) = changes.settings {
                let settings = settings::changed(&self.settings_of(&open.session), changes)?;
                open.session.set_settings(serde_json::to_value(&settings).expect("settings are plain data"));
            }
            if let Some(prompt) = changes.prompt {
                open.session.set_prompt(prompt);
            }
            if let Some(negative_prompt) = changes.negative_prompt {
                open.session.set_negative_prompt(negative_prompt);
            }
            if let Some(title) = changes.title {
                open.about.title = title;
            }
            Ok(())
        })
    }

    pub(crate) fn vote(&self, id: Id, new: NewVote) -> Result<SessionView, ApiError> {
        self.edit(id, |open| {
            let vote = Vote::new(new.strength)?;
            let vote = new.reason.into_iter().fold(vote, Vote::because);
            let image = open.image(new.image)?;
            open.session.vote(&image, vote)?;
            Ok(())
        })
    }

    pub(crate) fn take_back_votes(&self, id: Id, image: ContentHash) -> Result<SessionView, ApiError> {
        self.edit(id, |open| {
            let image = open.image(image)?;
            open.session.neutral(&image);
            Ok(())
        })
    }

    pub(crate) fn set_conditions(&self, id: Id, new: &NewConditions) -> Result<SessionView, ApiError> {
        let count = new.conditions.len();
        if count > MOST_CONDITIONS {
            let expected = format!("at most {MOST_CONDITIONS}");
            return Err(ApiError::bad_request("number of conditions", expected, count, "leave the weakest ones out"));
        }
        self.edit(id, |open| {
            let (mut conditions, mut pixels) = (Vec::new(), 0);
            for new in &new.conditions {
                let condition = new.condition(open)?;
                if matches!(new.image, ImageSource::Data(_)) {
                    // Checked one by one, because small files can hold large images.
                    pixels += condition.image.width() * condition.image.height();
                    open.session.check_room_for(1, pixels, 1)?;
                }
                conditions.push(condition);
            }
            Ok(open.session.set_image_conditions(conditions)?)
        })
    }

    pub(crate) fn set_init_image(&self, id: Id, new: &NewInitImage) -> Result<SessionView, ApiError> {
        self.edit(id, |open| {
            let init_image = new.init_image.as_ref().map(|new| new.init_image(open)).transpose()?;
            Ok(open.session.set_init_image(init_image)?)
        })
    }

    /// Undoes the last step, if there is one.
    pub(crate) fn undo(&self, id: Id) -> Result<SessionView, ApiError> {
        self.edit(id, |open| {
            open.session.undo();
            Ok(())
        })
    }

    /// Redoes the step that was undone last, if there is one.
    pub(crate) fn redo(&self, id: Id) -> Result<SessionView, ApiError> {
        self.edit(id, |open| {
            open.session.redo();
            Ok(())
        })
    }

    /// Creates a session with the history up to a round and the votes that were cast on it before the next one.
    pub(crate) fn branch(&self, id: Id, round: usize) -> Result<SessionView, ApiError> {
        let branch = self.sessions.read(id, |open| {
            open.round(round)?;
            let mut session = open.session.clone();
            while session.rounds().len() > round + 1 {
                session.undo_round();
            }
            session.discard_undone();
            let parent = Some(Parent { session: id, round });
            let about = About::new(Some(open.about.title.clone()), session.prompt(), parent);
            Ok(StudioSession { session, about })
        })?;
        self.session(self.sessions.add(branch)?)
    }

    /// Changes and saves a session.
    fn edit(
        &self,
        id: Id,
        work: impl FnOnce(&mut StudioSession) -> Result<(), ApiError>,
    ) -> Result<SessionView, ApiError> {
        self.sessions.change(id, work)?;
        self.session(id)
    }

    /// The settings of a session, or the model's if it has none yet or unusable ones, so that they can be set anew.
    fn settings_of(&self, session: &FeedbackSession) -> Settings {
        let own = Some(session).filter(|session| !session.settings().is_null());
        let own = own.and_then(|session| session.generation_settings().ok());
        own.unwrap_or_else(|| self.model.pipeline.recommended_settings().clone())
    }
}

/// Checks the lengths of texts of a session.
pub(crate) fn check_texts(
    prompt: Option<&str>,
    negative_prompt: Option<&str>,
    title: Option<&str>,
) -> Result<(), ApiError> {
    let texts = [
        ("prompt", prompt, MOST_PROMPT),
        ("negative_prompt", negative_prompt, MOST_PROMPT),
        ("title", title, MOST_TITLE),
    ];
    for (name, text, most) in texts {
        let got = text.map_or(0, str::len);
        if got > most {
            let (expected, got) = (format!("at most {most} bytes"), format!("{got} bytes"));
            return Err(ApiError::bad_request(name, expected, got, "make it shorter"));
        }
    }
    Ok(())
}
