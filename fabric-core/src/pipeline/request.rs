//! What to make, and how.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Steering;
use crate::Error;
use crate::fabric::{FabricSettings, ReferenceNoise};
use crate::guidance::Guidance;
use crate::image::Image;
use crate::models::TextOptions;
use crate::schedule::SamplerKind;

/// How images are made; everything but what they show.
///
/// ```
/// use fabric_core::pipeline::Settings;
/// let settings = Settings { steps: 30, guidance_scale: 6.0, ..Settings::default() };
/// assert!(settings.validate().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Width in pixels, a multiple of the model's downscaling (8 for Stable Diffusion); none is the model's own size.
    pub width: Option<usize>,
    /// Height in pixels.
    pub height: Option<usize>,
    /// Steps of the sampler.
    pub steps: usize,
    /// The sampler; none is the model's own.
    pub sampler: Option<SamplerKind>,
    /// Strength of classifier-free guidance; 1 switches it off.
    ///
    /// diffusers also switches it off at smaller scales, so the cards of distilled models (SD Turbo) ask for 0. Here 0 is
    /// the negative prompt alone, and [`Report::notes`](super::Report::notes) says so: set 1 for them.
    pub guidance_scale: f64,
    /// Share of the conditional branch's spread to restore, 0 to 1.
    pub guidance_rescale: f64,
    /// How prompts are read.
    pub text: TextOptions,
    /// Probability with which each word of the prompt is left out, per image (paper, section 5.4).
    pub prompt_dropout: f64,
    /// How references act.
    pub fabric: FabricSettings,
    /// Images computed at once; none is all of them, or as many as memory may hold.
    ///
    /// Other batches sum in another order, which changes images by rounding: in some bytes, by 1 of 255. Nothing else of
    /// an image depends on its batch, but with [`ReferenceNoise::Fresh`], where none is always all of them.
    pub batch: Option<usize>,
    /// Measures how much of the attention each reference gets, for the report. Costs every self-attention once more.
    pub measure_attention: bool,
    /// Bytes that a run may take beside the weights; none is what the machine and the limits of the process leave, where
    /// that can be known. What surely needs more is refused before it starts.
    ///
    /// The estimate is from below. A run that passes it may still run out of memory: on a GPU that is an error, on a CPU
    /// it ends the process.
    pub memory_limit: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            width: None,
            height: None,
            steps: 20,
            sampler: None,
            guidance_scale: 7.5,
            guidance_rescale: 0.0,
            text: TextOptions::default(),
            prompt_dropout: 0.0,
            fabric: FabricSettings::default(),
            batch: None,
            measure_attention: false,
            memory_limit: None,
        }
    }
}

/// No image is larger: 16384 pixels a side is far beyond what any of the models can make.
const MAX_SIDE: usize = 16384;
const MAX_STEPS: usize = 10_000;

impl Settings {
    /// Checks everything that can be checked without a model.
    ///
    /// # Errors
    ///
    /// Names the first setting that cannot be used.
    pub fn validate(&self) -> Result<(), Error> {
        for (name, side) in [("width", self.width), ("height", self.height)] {
            if side.is_some_and(|side| side == 0 || side > MAX_SIDE) {
                let got = side.unwrap_or_default();
                return Err(Error::settings(name, got, format!("1 to {MAX_SIDE} pixels"), "choose another size"));
            }
        }
        if self.steps == 0 || self.steps > MAX_STEPS {
            return Err(Error::settings("steps", self.steps, format!("1 to {MAX_STEPS}"), "20 to 50 is usual"));
        }
        if !self.guidance_scale.is_finite() || self.guidance_scale.abs() > 1e4 {
            let got = self.guidance_scale;
            return Err(Error::settings("guidance_scale", got, "a finite number", "5 to 9 is usual, 1 is off"));
        }
        for (name, share) in [("guidance_rescale", self.guidance_rescale), ("prompt_dropout", self.prompt_dropout)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::settings(name, share, "a number from 0 to 1", "use 0 to switch it off"));
            }
        }
        if self.batch == Some(0) {
            return Err(Error::settings("batch", 0, "at least 1", "leave it out to compute all images at once"));
        }
        self.fabric.validate()
    }
}

/// An image to start from instead of noise.
#[derive(Debug, Clone)]
pub struct InitImage {
    /// The image; it is resized to the size of the result.
    pub image: Image,
    /// How much of it is given up: 0 keeps it, 1 starts from noise. Of a run's steps, this share is made, rounded down. At
    /// 0 there are none, and the result is the image itself in its size; any other strength must leave one step.
    pub strength: f64,
}

/// An image that somebody judged.
#[derive(Debug, Clone)]
pub struct FeedbackImage {
    /// The image, of any size; it is resized to the size of the result.
    pub image: Image,
    /// From -1 (disliked) to 1 (liked); 0 is not used.
    pub strength: f64,
}

/// What to make.
///
/// ```
/// use fabric_core::pipeline::Request;
/// let request = Request::new("a small red star on blue").with_negative_prompt("blurry").with_seeds([1, 2, 3, 4]);
/// assert_eq!(request.seeds.len(), 4);
/// ```
#[derive(Debug, Clone)]
pub struct Request {
    /// What the images should show.
    pub prompt: String,
    /// What they should not show; none is the model's own idea of nothing.
    pub negative_prompt: Option<String>,
    /// One image per seed.
    pub seeds: Vec<u64>,
    /// Where to start.
    pub init_image: Option<InitImage>,
    /// Which part of the start image to make anew (inpainting): where this is light (128 of 255 or more). It is stretched
    /// over the image.
    pub mask: Option<Image>,
    /// Liked and disliked images, oldest first.
    pub feedback: Vec<FeedbackImage>,
    /// Images as prompts; their order changes nothing but rounding.
    pub steering: Vec<Arc<dyn Steering>>,
    /// How to make them.
    pub settings: Settings,
}

impl Request {
    /// One image, seed 0, the default settings.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            negative_prompt: None,
            seeds: vec![0],
            init_image: None,
            mask: None,
            feedback: Vec::new(),
            steering: Vec::new(),
            settings: Settings::default(),
        }
    }

    /// With a negative prompt.
    #[must_use]
    pub fn with_negative_prompt(mut self, prompt: impl Into<String>) -> Self {
        self.negative_prompt = Some(prompt.into());
        self
    }

    /// One image per seed.
    #[must_use]
    pub fn with_seeds(mut self, seeds: impl IntoIterator<Item = u64>) -> Self {
        self.seeds = seeds.into_iter().collect();
        self
    }

    /// With these settings.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Starts from an image; `strength` 0 keeps it ([`InitImage::strength`]), 1 gives it up.
    #[must_use]
    pub fn with_init_image(mut self, image: Image, strength: f64) -> Self {
        self.init_image = Some(InitImage { image, strength });
        self
    }

    /// Makes only the part of the start image anew where `mask` is light, and keeps the rest.
    ///
    /// A network that was trained for it is shown the mask and what is kept; with any other one, what is kept is put
    /// back after each step. Both as in diffusers. A start of strength 1 lets nothing of the part shine through.
    ///
    /// A mask that names no part of the result is an error: it is dark everywhere, or so thin that no latent sees it.
    /// [`Image::open_mask`] reads masks from files, also those that lie in an alpha channel.
    #[must_use]
    pub fn with_mask(mut self, mask: Image) -> Self {
        self.mask = Some(mask);
        self
    }

    /// With a liked image.
    #[must_use]
    pub fn with_liked(self, image: Image) -> Self {
        self.with_feedback(image, 1.0)
    }

    /// With a disliked image.
    #[must_use]
    pub fn with_disliked(self, image: Image) -> Self {
        self.with_feedback(image, -1.0)
    }

    /// With an image judged from -1 (disliked) to 1 (liked).
    #[must_use]
    pub fn with_feedback(mut self, image: Image, strength: f64) -> Self {
        self.feedback.push(FeedbackImage { image, strength });
        self
    }

    /// With an image as a prompt, or whatever else an adapter makes.
    #[must_use]
    pub fn with_steering(mut self, steering: impl Steering + 'static) -> Self {
        self.steering.push(Arc::new(steering));
        self
    }

    /// How branches mix: as what steers the run asks for, or by classifier-free guidance.
    ///
    /// # Errors
    ///
    /// When two ask for different things, or a scale is not finite.
    pub fn guidance(&self) -> Result<Guidance, Error> {
        let scale = self.settings.guidance_scale;
        let mut asked = self.steering.iter().filter_map(|steering| steering.guidance(scale));
        let guidance = asked.next().unwrap_or_else(|| Guidance::classifier_free(scale));
        if let Some(other) = asked.find(|other| *other != guidance) {
            let got = format!("{guidance:?} and {other:?}");
            return Err(Error::settings("guidance", got, "one kind for the whole run", "give them the same scales"));
        }
        if let Some(term) = guidance.terms.iter().find(|term| !term.scale.is_finite()) {
            return Err(Error::settings("guidance", term.scale, "finite scales", "5 to 9 is usual, 1 is off"));
        }
        Ok(guidance.with_rescale(self.settings.guidance_rescale))
    }

    /// Whether images depend on which others are computed with them: fresh noise on references is drawn for the batch.
    pub(super) fn depends_on_batch(&self) -> bool {
        self.settings.fabric.noise == ReferenceNoise::Fresh
    }

    /// Checks everything that can be checked without a model.
    ///
    /// # Errors
    ///
    /// Names the first value that cannot be used.
    pub fn validate(&self) -> Result<(), Error> {
        self.settings.validate()?;
        self.guidance()?;
        if self.seeds.is_empty() {
            return Err(Error::settings("seeds", "none", "one per image", "give at least one seed"));
        }
        if let Some(start) = &self.init_image
            && !(0.0..=1.0).contains(&start.strength)
        {
            let got = start.strength;
            return Err(Error::settings("init_image.strength", got, "a number from 0 to 1", "0.6 to 0.8 is usual"));
        }
        if self.mask.is_some() && self.init_image.is_none() {
            return Err(Error::settings(
                "mask",
                "one, but no start image",
                "both or neither",
                "give the image as well",
            ));
        }
        for (index, feedback) in self.feedback.iter().enumerate() {
            if !(-1.0..=1.0).contains(&feedback.strength) {
                return Err(Error::settings(
                    format!("feedback[{index}].strength"),
                    feedback.strength,
                    "a number from -1 (disliked) to 1 (liked)",
                    "use the settings' weights to make feedback stronger",
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_settings_are_refused_by_name() {
        let good = Settings::default();
        let bad = [
            ("width", Settings { width: Some(0), ..good.clone() }),
            ("height", Settings { height: Some(1 << 20), ..good.clone() }),
            ("steps", Settings { steps: 0, ..good.clone() }),
            ("guidance_scale", Settings { guidance_scale: f64::NAN, ..good.clone() }),
            ("guidance_rescale", Settings { guidance_rescale: 1.1, ..good.clone() }),
            ("prompt_dropout", Settings { prompt_dropout: -0.1, ..good.clone() }),
            ("batch", Settings { batch: Some(0), ..good.clone() }),
            ("fabric.end", Settings { fabric: FabricSettings { end: 2.0, ..good.fabric.clone() }, ..good.clone() }),
        ];
        for (name, settings) in bad {
            let message = settings.validate().unwrap_err().to_string();
            assert!(message.starts_with(name) && message.contains("expected"), "{message}");
        }
        assert!(Request::new("x").with_seeds([]).validate().is_err());
        assert!(good.validate().is_ok());
    }

    #[test]
    fn settings_survive_json_and_unknown_ones_are_refused() {
        let settings = Settings { steps: 7, fabric: FabricSettings::web_ui(), ..Settings::default() };
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&text).unwrap(), settings);
        assert!(serde_json::from_str::<Settings>(r#"{"stepz": 7}"#).is_err());
    }
}
