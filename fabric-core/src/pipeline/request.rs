//! Requests and generation settings.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::callback::{contained_conditioning, described};
use super::{Cads, Conditioning, ReasonSettings, RequestConditioning, Window};
use crate::fabric::{FabricSettings, ReferenceNoise, ReferenceScope, check_images};
use crate::guidance::{Apg, Guidance};
use crate::image::Image;
use crate::models::TextOptions;
use crate::noise::NoiseMixture;
use crate::samplers::Sampler;
use crate::schedule::SamplerKind;
use crate::{Error, ImageCondition, InitImage};

/// Generation settings: everything in a [`Request`] except prompts, seeds and images.
///
/// ```
/// use fabric_core::pipeline::Settings;
/// let settings = Settings { steps: 30, guidance_scale: 6.0, ..Settings::default() };
/// assert!(settings.validate().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Width in pixels, a multiple of the VAE's scale factor (8 for Stable Diffusion). `None` uses the model's
    /// native size.
    pub width: Option<usize>,
    /// Height in pixels; same rules as `width`.
    pub height: Option<usize>,
    /// Number of sampler steps.
    pub steps: usize,
    /// The sampler. `None` uses the model's own.
    pub sampler: Option<SamplerKind>,
    /// Scale of classifier-free guidance; 1 switches it off.
    ///
    /// diffusers also switches it off below 1, so the model cards of distilled models (SD Turbo) recommend 0. Here 0
    /// gives the unconditional branch alone (the negative prompt), with a note in
    /// [`Report::notes`](super::Report::notes). Use 1 for such models.
    pub guidance_scale: f64,
    /// Guidance rescale factor, 0 to 1: how far the prediction's standard deviation is moved back to that of the
    /// conditional branch.
    pub guidance_rescale: f64,
    /// The part of the run in which guidance acts, as shares of its evaluations. In evaluations outside of it the
    /// conditional branch runs alone, which keeps images diverse and takes half the time of two branches. The default
    /// is the whole run.
    ///
    /// "Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion Models"
    /// (2404.07724) gives the interval in noise levels instead. The negative prompt and disliked images act inside
    /// the window only.
    pub guidance_window: Window,
    /// Adaptive projected guidance (2410.02416) instead of plain classifier-free guidance; `None` switches it off. It
    /// cannot be combined with the four branches of IPAdapter-Instruct.
    pub apg: Option<Apg>,
    /// Noise in the prompt's embedding early in the run, which makes images more diverse (CADS, 2310.17347); `None`
    /// switches it off.
    pub cads: Option<Cads>,
    /// Options for encoding prompts.
    pub text: TextOptions,
    /// Probability of dropping each word of the prompt, drawn per image (FABRIC paper, section 5.4).
    pub prompt_dropout: f64,
    /// Settings for liked and disliked images (FABRIC).
    pub fabric: FabricSettings,
    /// Settings of votes with a reason, which sessions use.
    pub reasons: ReasonSettings,
    /// Batch size in images. `None` computes all images at once, or as many as the estimated memory allows.
    ///
    /// A different batch size changes the order of summation and therefore rounding: some bytes of an image
    /// differ by 1 of 255. An image does not otherwise depend on its batch, except with
    /// [`ReferenceNoise::Fresh`]; there `None` always computes all images at once.
    pub batch: Option<usize>,
    /// Whether to measure the share of each reference in the self-attention
    /// ([`Report::attention`](super::Report::attention)) and of each image condition in the cross-attention
    /// ([`Report::image_prompts`](super::Report::image_prompts)). Computes every self-attention with references and
    /// every cross-attention with image conditions twice, waits for the device after each evaluation, and reads the
    /// shares of every layer back. The images do not change.
    pub measure_attention: bool,
    /// Memory limit for a run in bytes, not counting the weights. `None` uses the free memory of the machine
    /// within the process limits, where these can be determined. A run that certainly needs more is refused
    /// before it starts.
    ///
    /// The estimate is a lower bound. A run that passes the check may still run out of memory, which is an error on a
    /// GPU and ends the process on a CPU.
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
            guidance_window: Window::default(),
            apg: None,
            cads: None,
            text: TextOptions::default(),
            prompt_dropout: 0.0,
            fabric: FabricSettings::default(),
            reasons: ReasonSettings::default(),
            batch: None,
            measure_attention: false,
            memory_limit: None,
        }
    }
}

/// Maximum number of seeds of a request, and so of its images: some days of work for a GPU, and few enough that lists
/// of them take little memory.
pub const MAX_SEEDS: usize = 1 << 16;

/// Maximum number of liked and disliked images of a request. A session hands over all of its votes, from which
/// [`FabricSettings::keep`] selects; each of them is compared with every evaluation of a run.
pub const MAX_FEEDBACK: usize = 1 << 17;

/// Largest side of an image in pixels, far beyond what any supported model can generate.
const MAX_SIDE: usize = 16384;
const MAX_STEPS: usize = 10_000;

/// Largest magnitude of the guidance scale: a thousand times what is usual. Predictions stay finite in f32.
const MAX_GUIDANCE_SCALE: f64 = 1e4;

impl Settings {
    /// Checks everything that can be checked without a model.
    ///
    /// # Errors
    ///
    /// Returns an error that names the first invalid setting.
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
        if !(-MAX_GUIDANCE_SCALE..=MAX_GUIDANCE_SCALE).contains(&self.guidance_scale) {
            let expected = format!("a number from -{MAX_GUIDANCE_SCALE} to {MAX_GUIDANCE_SCALE}");
            let got = self.guidance_scale;
            return Err(Error::settings("guidance_scale", got, expected, "5 to 9 is usual, 1 is off"));
        }
        for (name, share) in [("guidance_rescale", self.guidance_rescale), ("prompt_dropout", self.prompt_dropout)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::settings(name, share, "a number from 0 to 1", "use 0 to switch it off"));
            }
        }
        self.apg.as_ref().map_or(Ok(()), Apg::validate)?;
        self.cads.as_ref().map_or(Ok(()), Cads::validate)?;
        if self.batch == Some(0) {
            return Err(Error::settings("batch", 0, "at least 1", "leave it out to compute all images at once"));
        }
        self.reasons.validate()?;
        self.fabric.validate()
    }
}

impl Settings {
    /// Returns the guidance of a run with this conditioning. A network that reads the guidance scale itself needs no other.
    pub(super) fn guidance_with(
        &self,
        conditioning: &[RequestConditioning],
        is_read_by_network: bool,
    ) -> Result<Guidance, Error> {
        let scale = if is_read_by_network { 1.0 } else { self.guidance_scale };
        let required = conditioning.iter().map(|RequestConditioning { conditioning, .. }| {
            contained_conditioning(|| described(&**conditioning), || Ok(conditioning.guidance(scale)))
        });
        let required = required.collect::<Result<Vec<_>, _>>()?;
        let mut required = required.into_iter().flatten();
        let guidance = required.next().unwrap_or_else(|| Guidance::classifier_free(scale));
        if let Some(other) = required.find(|other| *other != guidance) {
            let got = format!("{guidance:?} and {other:?}");
            return Err(Error::settings("guidance", got, "one kind for the whole run", "give them the same scales"));
        }
        if let Some(term) = guidance.terms.iter().find(|term| !term.scale.is_finite()) {
            return Err(Error::settings("guidance", term.scale, "finite scales", "5 to 9 is usual, 1 is off"));
        }
        if self.apg.is_some() && guidance.classifier_free_scale().is_none() {
            return Err(Error::settings(
                "apg",
                format!("guidance over {:?}", guidance.branches()),
                "classifier-free guidance",
                "leave `apg` out, or use an instruction with two branches",
            ));
        }
        Ok(guidance.with_rescale(self.guidance_rescale))
    }
}

/// A liked or disliked image.
#[derive(Debug, Clone)]
pub struct FeedbackImage {
    /// The image, of any size; it is resized to the size of the result.
    pub image: Image,
    /// From -1 (disliked) to 1 (liked); an image of strength 0 is ignored.
    pub strength: f64,
    /// The part of the run and of the U-Net in which it acts.
    pub scope: ReferenceScope,
    /// The images that it acts on, as indices into the seeds of the request; `None` for all of them.
    pub images: Option<Vec<usize>>,
}

impl FeedbackImage {
    /// Creates a liked or disliked image that acts on all images, in the whole run and the whole U-Net.
    pub fn new(image: Image, strength: f64) -> Self {
        Self { image, strength, scope: ReferenceScope::default(), images: None }
    }

    /// Restricts it to some images of the request, given by their indices into the seeds.
    ///
    /// ```
    /// use fabric_core::image::Image;
    /// use fabric_core::pipeline::{FeedbackImage, Request};
    /// let [red, blue] = [[200, 20, 20], [20, 20, 200]].map(|colour| Image::filled(64, 64, colour));
    /// let mut request = Request::new("a star").with_seeds([1, 2, 3, 4]);
    /// request.feedback.push(FeedbackImage::new(red?, 1.0).only_for([0, 1]));
    /// request.feedback.push(FeedbackImage::new(blue?, 1.0).only_for([2, 3]));
    /// assert!(request.validate().is_ok());
    /// # Ok::<(), fabric_core::image::ImageError>(())
    /// ```
    #[must_use]
    pub fn only_for(self, images: impl IntoIterator<Item = usize>) -> Self {
        let mut images: Vec<usize> = images.into_iter().collect();
        images.sort_unstable();
        images.dedup();
        Self { images: Some(images), ..self }
    }
}

/// A request to generate images: prompts, seeds, images and settings.
///
/// ```
/// use fabric_core::pipeline::Request;
/// let request = Request::new("a small red star on blue").with_negative_prompt("blurry").with_seeds([1, 2, 3, 4]);
/// assert_eq!(request.seeds.len(), 4);
/// ```
#[derive(Debug, Clone)]
pub struct Request {
    /// The prompt.
    pub prompt: String,
    /// The negative prompt. `None` uses the model's default unconditional embedding.
    pub negative_prompt: Option<String>,
    /// Seeds; one image is made per seed.
    pub seeds: Vec<u64>,
    /// Initial noise of each image as a mixture of the noises of several seeds. If empty, it is the noise of the
    /// image's own seed. [`Pipeline::generate_with`](super::Pipeline::generate_with) ignores it: there all noise comes
    /// from the given source.
    pub initial_noise: Vec<NoiseMixture>,
    /// Image to start from instead of noise.
    pub init_image: Option<InitImage>,
    /// Liked and disliked images, oldest first.
    pub feedback: Vec<FeedbackImage>,
    /// Image prompts and control images; their order changes only rounding.
    pub conditioning: Vec<RequestConditioning>,
    /// Images that the pipeline's own adapter uses ([`Pipeline::with_adapter`](super::Pipeline::with_adapter)).
    pub image_conditions: Vec<ImageCondition>,
    /// Sampler of the caller's own, instead of [`Settings::sampler`].
    pub sampler: Option<Arc<dyn Sampler>>,
    /// Generation settings.
    pub settings: Settings,
}

impl Request {
    /// Creates a request for one image with seed 0 and default settings. [`Pipeline::request`](super::Pipeline::request)
    /// uses the model's recommended settings instead.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            negative_prompt: None,
            seeds: vec![0],
            initial_noise: Vec::new(),
            init_image: None,
            feedback: Vec::new(),
            conditioning: Vec::new(),
            image_conditions: Vec::new(),
            sampler: None,
            settings: Settings::default(),
        }
    }

    /// Sets a sampler of one's own, instead of [`Settings::sampler`].
    #[must_use]
    pub fn with_sampler(mut self, sampler: impl Sampler + 'static) -> Self {
        self.sampler = Some(Arc::new(sampler));
        self
    }

    /// Sets the negative prompt.
    #[must_use]
    pub fn with_negative_prompt(mut self, prompt: impl Into<String>) -> Self {
        self.negative_prompt = Some(prompt.into());
        self
    }

    /// Seeds; one image is made per seed.
    #[must_use]
    pub fn with_seeds(mut self, seeds: impl IntoIterator<Item = u64>) -> Self {
        self.seeds = seeds.into_iter().collect();
        self
    }

    /// Sets the initial noise of each image, one mixture per seed.
    #[must_use]
    pub fn with_initial_noise(mut self, mixtures: impl IntoIterator<Item = NoiseMixture>) -> Self {
        self.initial_noise = mixtures.into_iter().collect();
        self
    }

    /// Sets the generation settings.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Sets the init image; `strength` 0 keeps it, 1 starts from pure noise ([`InitImage::strength`]).
    #[must_use]
    pub fn with_init_image(mut self, image: Image, strength: f64) -> Self {
        self.init_image = Some(InitImage::new(image, strength));
        self
    }

    /// Sets the init image and an inpainting mask: regenerates the image where `mask` is light and keeps the rest.
    ///
    /// An inpainting U-Net receives the mask and the masked image as extra input channels. With any other U-Net, the
    /// kept part of the latents is restored after each step. Both are as in diffusers. At strength 1, nothing of the
    /// masked area's original content remains.
    ///
    /// A mask that selects nothing is an error: one that is dark everywhere, or too thin to be seen at latent
    /// resolution. [`Image::open_mask`] reads masks from files, including masks in an alpha channel.
    #[must_use]
    pub fn with_inpainting(mut self, image: Image, mask: Image, strength: f64) -> Self {
        self.init_image = Some(InitImage::new(image, strength).with_mask(mask));
        self
    }

    /// Adds a liked image.
    #[must_use]
    pub fn with_liked(self, image: Image) -> Self {
        self.with_feedback(image, 1.0)
    }

    /// Adds a disliked image.
    #[must_use]
    pub fn with_disliked(self, image: Image) -> Self {
        self.with_feedback(image, -1.0)
    }

    /// Adds a reference image with a strength from -1 (disliked) to 1 (liked).
    #[must_use]
    pub fn with_feedback(self, image: Image, strength: f64) -> Self {
        self.with_scoped_feedback(image, strength, ReferenceScope::default())
    }

    /// Adds a reference image with a strength from -1 (disliked) to 1 (liked) that acts in a part of the run or of the
    /// U-Net only.
    #[must_use]
    pub fn with_scoped_feedback(mut self, image: Image, strength: f64, scope: ReferenceScope) -> Self {
        self.feedback.push(FeedbackImage { scope, ..FeedbackImage::new(image, strength) });
        self
    }

    /// Adds an image prompt, a control image or another [`Conditioning`] for all images.
    #[must_use]
    pub fn with(self, conditioning: impl Conditioning + 'static) -> Self {
        self.with_shared(Arc::new(conditioning), None)
    }

    /// Adds a conditioning for some images only, given by their indices into the seeds.
    #[must_use]
    pub fn with_for(self, images: Range<usize>, conditioning: impl Conditioning + 'static) -> Self {
        self.with_shared(Arc::new(conditioning), Some(images))
    }

    /// Adds an image that the pipeline's own adapter uses ([`Pipeline::with_adapter`](super::Pipeline::with_adapter)).
    #[must_use]
    pub fn with_image_condition(mut self, condition: ImageCondition) -> Self {
        self.image_conditions.push(condition);
        self
    }

    /// Adds a conditioning that the caller keeps a handle to, for all images or for some.
    #[must_use]
    pub fn with_shared(mut self, conditioning: Arc<dyn Conditioning>, images: Option<Range<usize>>) -> Self {
        self.conditioning.push(RequestConditioning { conditioning, images });
        self
    }

    /// Returns the request for one of its images alone, given by the index into the seeds: with the seed, initial noise,
    /// references and conditioning of this image. If the index is too large, the request has no seed and is refused.
    ///
    /// It makes the same image, except for rounding. Exceptions are
    /// [`ReferenceNoise::Fresh`], with which an image depends on its batch, and [`FabricSettings::keep`], which counts
    /// references that act on other images, too.
    #[must_use]
    pub fn alone(&self, index: usize) -> Self {
        let mut request = self.clone();
        request.seeds = self.seeds.get(index).copied().into_iter().collect();
        request.initial_noise = self.initial_noise.get(index).cloned().into_iter().collect();
        request.conditioning.retain(|one| one.images.as_ref().is_none_or(|images| images.contains(&index)));
        request.conditioning.iter_mut().for_each(|one| one.images = None);
        request.feedback.retain(|one| one.images.as_ref().is_none_or(|images| images.contains(&index)));
        // They remain references of single images, which are not distributed.
        request.feedback.iter_mut().filter(|one| one.images.is_some()).for_each(|one| one.images = Some(vec![0]));
        if let Some(per_image) = &mut request.settings.fabric.liked_per_image {
            per_image.first = per_image.first.wrapping_add(index);
        }
        request
    }

    /// Returns the guidance inside of [`Settings::guidance_window`]: the one that a conditioning requires, or
    /// classifier-free guidance. Image conditions are not considered: what they require depends on the pipeline's
    /// adapter.
    ///
    /// # Errors
    ///
    /// Returns an error if two conditionings require different guidance, a scale is not finite, or [`Settings::apg`] is
    /// set and the guidance is not classifier-free guidance.
    pub fn guidance(&self) -> Result<Guidance, Error> {
        self.settings.guidance_with(&self.conditioning, false)
    }

    /// Whether an image depends on its batch: fresh noise on references is drawn once per batch.
    pub(super) fn depends_on_batch(&self) -> bool {
        self.settings.fabric.noise == ReferenceNoise::Fresh
    }

    /// Checks everything that can be checked without a model.
    ///
    /// # Errors
    ///
    /// Returns an error that names the first invalid value.
    pub fn validate(&self) -> Result<(), Error> {
        self.settings.validate()?;
        self.guidance()?;
        if self.seeds.is_empty() {
            return Err(Error::settings("seeds", "none", "one per image", "give at least one seed"));
        }
        let (seeds, feedback) = (self.seeds.len(), self.feedback.len());
        for (name, got, most) in [("seeds", seeds, MAX_SEEDS), ("feedback", feedback, MAX_FEEDBACK)] {
            if got > most {
                let expected = format!("at most {most}");
                return Err(Error::settings(name, got, expected, "use fewer, or make several requests"));
            }
        }
        if !self.initial_noise.is_empty() && self.initial_noise.len() != self.seeds.len() {
            let expected = format!("{}, one per seed, or none", self.seeds.len());
            let help = "give each image its mixture, or leave them out to use the noise of the seeds";
            return Err(Error::settings("initial_noise", self.initial_noise.len(), expected, help));
        }
        for (index, one) in self.conditioning.iter().enumerate() {
            if let Some(images) =
                one.images.as_ref().filter(|images| images.is_empty() || images.end > self.seeds.len())
            {
                return Err(Error::settings(
                    format!("conditioning[{index}].images"),
                    format!("{images:?}"),
                    format!("some of the images 0..{}", self.seeds.len()),
                    "count from 0, or leave the range out for all images",
                ));
            }
        }
        self.init_image.as_ref().map_or(Ok(()), InitImage::validate)?;
        self.image_conditions.iter().try_for_each(ImageCondition::validate)?;
        for (index, feedback) in self.feedback.iter().enumerate() {
            if !(-1.0..=1.0).contains(&feedback.strength) {
                return Err(Error::settings(
                    format!("feedback[{index}].strength"),
                    feedback.strength,
                    "a number from -1 (disliked) to 1 (liked)",
                    "use the settings' weights to make feedback stronger",
                ));
            }
            feedback.scope.validate(&format!("feedback[{index}].scope"))?;
            if let Some(images) = feedback.images.as_ref() {
                check_images(&format!("feedback[{index}].images"), images, seeds)?;
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
        let apg = |apg| Settings { apg: Some(apg), ..Settings::default() };
        let cads = |cads| Settings { cads: Some(cads), ..Settings::default() };
        let bad = [
            ("width", Settings { width: Some(0), ..good.clone() }),
            ("height", Settings { height: Some(1 << 20), ..good.clone() }),
            ("steps", Settings { steps: 0, ..good.clone() }),
            ("guidance_scale", Settings { guidance_scale: f64::NAN, ..good.clone() }),
            (
                "guidance_scale: expected a number from -10000 to 10000, got 20000",
                Settings { guidance_scale: 2e4, ..good.clone() },
            ),
            ("guidance_rescale", Settings { guidance_rescale: 1.1, ..good.clone() }),
            ("prompt_dropout", Settings { prompt_dropout: -0.1, ..good.clone() }),
            ("apg.momentum", apg(Apg { momentum: -1.1, ..Apg::default() })),
            ("apg.rescale", apg(Apg { rescale: f64::NAN, ..Apg::default() })),
            ("apg.parallel", apg(Apg { parallel: 2.0, ..Apg::default() })),
            ("cads.noise_scale", cads(Cads { noise_scale: -0.1, ..Cads::default() })),
            ("cads.prompt_only_below", cads(Cads { prompt_only_below: f64::NAN, ..Cads::default() })),
            ("cads.noise_only_above", cads(Cads { noise_only_above: 0.5, ..Cads::default() })),
            ("cads.noise_only_above", cads(Cads { noise_only_above: 1.1, ..Cads::default() })),
            ("cads.mixing", cads(Cads { mixing: 1.5, ..Cads::default() })),
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
    fn requests_of_too_many_images_or_references_are_refused() {
        let seeds = |count: usize| Request::new("x").with_seeds(0..count as u64);
        let reference = FeedbackImage::new(Image::filled(1, 1, [0; 3]).unwrap(), 1.0);
        let feedback = |count| Request { feedback: vec![reference.clone(); count], ..Request::new("x") };
        assert!(seeds(MAX_SEEDS).validate().is_ok() && feedback(MAX_FEEDBACK).validate().is_ok());
        for (request, expected) in [
            (seeds(MAX_SEEDS + 1), "seeds: expected at most 65536, got 65537"),
            (feedback(MAX_FEEDBACK + 1), "feedback: expected at most 131072, got 131073"),
        ] {
            let message = request.validate().unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn feedback_for_images_that_are_not_made_is_refused() {
        let image = Image::filled(1, 1, [0; 3]).unwrap();
        let of = |images: &[usize]| {
            let one = FeedbackImage { images: Some(images.to_vec()), ..FeedbackImage::new(image.clone(), 1.0) };
            Request { feedback: vec![one], ..Request::new("x").with_seeds([1, 2, 3]) }.validate()
        };
        assert!(of(&[0]).is_ok() && of(&[0, 2]).is_ok());
        for bad in [vec![], vec![3], vec![1, 0], vec![1, 1], vec![usize::MAX], (0..10_000).collect()] {
            let message = of(&bad).unwrap_err().to_string();
            let expected = "feedback[0].images: expected ascending indices of some of the images 0..3, got ";
            assert!(message.starts_with(expected) && message.len() < 300, "{message}");
        }
        assert_eq!(FeedbackImage::new(image, 1.0).only_for([2, 0, 2]).images, Some(vec![0, 2]));
    }

    #[test]
    fn settings_survive_json_and_unknown_ones_are_refused() {
        let settings = Settings {
            steps: 7,
            fabric: FabricSettings::web_ui(),
            guidance_window: Window::new(0.1, 0.75).unwrap(),
            apg: Some(Apg { parallel: 0.5, ..Apg::default() }),
            cads: Some(Cads { noise_scale: 0.1, ..Cads::default() }),
            ..Settings::default()
        };
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&text).unwrap(), settings);
        for unknown in [r#"{"stepz": 7}"#, r#"{"apg": {"eta": 0}}"#, r#"{"cads": {"scale": 0.1}}"#] {
            assert!(serde_json::from_str::<Settings>(unknown).is_err(), "{unknown}");
        }
        assert!(serde_json::from_str::<Settings>(r#"{"guidance_window": [0.5, 0.2]}"#).is_err());
    }

    #[test]
    fn settings_from_before_there_were_options_for_diversity_have_none() {
        let mut fields = serde_json::to_value(Settings::default()).unwrap();
        for name in ["guidance_window", "apg", "cads"] {
            assert!(fields.as_object_mut().unwrap().remove(name).is_some(), "{name}");
        }
        assert_eq!(serde_json::from_value::<Settings>(fields).unwrap(), Settings::default());
        let part: Settings = serde_json::from_str(r#"{"apg": {}, "cads": {"noise_scale": 0.1}}"#).unwrap();
        assert_eq!(part.apg, Some(Apg::default()));
        assert_eq!(part.cads, Some(Cads { noise_scale: 0.1, ..Cads::default() }));
    }
}
