//! From a request to images.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use burn::tensor::{Device, Tensor};

use super::callback::{Watched, contained};
use super::denoiser::{GuidedModel, Masses, StepNoise};
use super::latents::KeptLatents;
use super::references::Chosen;
use super::text::Conditions;
use super::{Observer, Report, Request, StepEvent, notes};
use crate::Error;
use crate::fabric::{CacheStats, FeedbackSchedule, ReferenceKvCache, ReferenceNoise};
use crate::image::{self, Image};
use crate::models::{Autoencoder, CrossAttention, TextEncoder, UNetModel};
use crate::noise::{RunNoise, SeededNoise};
use crate::samplers::{StepReport, sample_within};
use crate::schedule::SchedulerConfig;

/// Images, and what is known about how they came to be.
#[derive(Debug, Clone)]
pub struct Generation {
    /// One per seed.
    pub images: Vec<Image>,
    /// The request's seeds.
    pub seeds: Vec<u64>,
    /// Final latents, scaled, `[images, channels, height, width]`.
    pub latents: Tensor<4>,
    /// What happened.
    pub report: Report,
}

/// A latent diffusion model, ready to make images.
///
/// Shared freely: nothing but caches changes between two runs, and no run leaves a trace in a network.
#[derive(Clone)]
pub struct Pipeline {
    pub(super) unet: Arc<dyn UNetModel + Send + Sync>,
    pub(super) autoencoder: Arc<dyn Autoencoder + Send + Sync>,
    text: Arc<dyn TextEncoder + Send + Sync>,
    pub(super) scheduler: SchedulerConfig,
    pub(super) native_size: usize,
    pub(super) tokens: Arc<ReferenceKvCache>,
    pub(super) latents: Arc<Mutex<KeptLatents>>,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline")
            .field("scheduler", &self.scheduler)
            .field("native_size", &self.native_size)
            .field("attention_sites", &self.unet.attention_sites().len())
            .finish_non_exhaustive()
    }
}

impl Pipeline {
    /// Joins networks. `native_size` is the side in pixels that the model was trained on.
    ///
    /// # Errors
    ///
    /// When the networks do not fit one another.
    pub fn new(
        unet: Arc<dyn UNetModel + Send + Sync>,
        autoencoder: Arc<dyn Autoencoder + Send + Sync>,
        text: Arc<dyn TextEncoder + Send + Sync>,
        scheduler: SchedulerConfig,
        native_size: usize,
    ) -> Result<Self, Error> {
        let (takes, latents) = (unet.in_channels(), autoencoder.latent_channels());
        // An inpainting network takes a mask and the latents of what it leaves as well.
        if takes != latents && takes != 2 * latents + 1 {
            return Err(Error::settings(
                "the U-Net's input channels",
                takes,
                format!("{latents}, as the VAE's latents have, or {} for inpainting", 2 * latents + 1),
                "take both networks from one model",
            ));
        }
        let (tokens, latents) = (Arc::default(), Arc::default());
        Ok(Self { unet, autoencoder, text, scheduler, native_size, tokens, latents })
    }

    /// The cross-attention layers of its U-Net, in the order in which they run: what adapters are made for.
    pub fn cross_attentions(&self) -> Vec<CrossAttention> {
        self.unet.cross_attentions()
    }

    /// Its text encoder, for adapters that read texts of their own.
    pub fn text_encoder(&self) -> &dyn TextEncoder {
        &*self.text
    }

    /// The same to keep, for those that outlive the pipeline.
    pub fn shared_text_encoder(&self) -> Arc<dyn TextEncoder + Send + Sync> {
        self.text.clone()
    }

    /// The model's own sampler and noise schedule.
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    /// A copy (of handles, not of weights) with another sampler and noise schedule.
    #[must_use]
    pub fn with_scheduler(mut self, scheduler: SchedulerConfig) -> Self {
        self.scheduler = scheduler;
        self
    }

    /// What tells that two pipelines are not of the same model, as far as that can be told without their weights.
    pub(super) fn difference(&self, other: &Self) -> Option<&'static str> {
        let networks = |pipeline: &Self| {
            let (unet, autoencoder) = (&pipeline.unet, &pipeline.autoencoder);
            let layers = (unet.attention_sites(), unet.cross_attentions(), unet.skip_channels(), unet.in_channels());
            (layers, autoencoder.latent_channels(), autoencoder.scale_factor())
        };
        if networks(self) != networks(other) {
            return Some("the shape of their networks");
        }
        if self.scheduler != other.scheduler {
            return Some("their noise schedule");
        }
        (self.native_size != other.native_size).then_some("their native size")
    }

    /// Where its weights live.
    pub fn device(&self) -> Device {
        self.unet.device()
    }

    /// A copy whose cache of reference keys and values may also keep up to `bytes` on disk, in a folder of its own within
    /// `folder`.
    ///
    /// It serves runs with [`ReferencePass::Cached`](crate::fabric::ReferencePass::Cached): what their budget of memory
    /// does not hold is written to disk instead of being made again, and comes back bit by bit. The copy and its copies
    /// begin with an empty cache. The folder is removed when the last of them is dropped; what a killed process leaves
    /// (`fabric-spill-*`) may be deleted. Keys and values tell much of the images that they were recorded from, so other
    /// users of the machine cannot open the folder.
    ///
    /// A disk that fails never stops a run: what cannot be read is recorded again, after a failed write nothing more is
    /// written until [`Self::clear_caches`], and [`Report::spill_error`] says so.
    ///
    /// On a GPU, writing brings the numbers to the host and waits for all that the device has to do before; a fast
    /// one may record sooner than a disk can read. On another machine's device they travel here and back. A folder that
    /// lives in memory (tmpfs) spares none.
    ///
    /// ```
    /// use fabric_core::{Error, pipeline::Pipeline};
    /// fn with_twenty_gigabytes(pipeline: Pipeline, folder: &std::path::Path) -> Result<Pipeline, Error> {
    ///     pipeline.with_spill(folder, 20_000_000_000)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// When no folder can be made within `folder`.
    pub fn with_spill(mut self, folder: impl AsRef<Path>, bytes: u64) -> Result<Self, Error> {
        self.tokens = Arc::new(ReferenceKvCache::spilling(folder.as_ref(), bytes)?);
        Ok(self)
    }

    /// Side in pixels of the images that the model was trained on.
    pub fn native_size(&self) -> usize {
        self.native_size
    }

    /// How well the cache of reference keys and values serves.
    pub fn cache_stats(&self) -> CacheStats {
        self.tokens.stats()
    }

    /// Drops everything that was kept for later runs, in memory and on disk.
    pub fn clear_caches(&self) {
        self.tokens.clear();
        self.latents.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Makes images.
    ///
    /// # Errors
    ///
    /// When the request cannot be carried out; settings are checked before any long work starts. A device that fails is an
    /// error, also one that runs out of memory, but for a CPU: what surely needs more memory than there is is refused, and
    /// what needs it all the same ends the process, as in any Rust program.
    pub fn generate(&self, request: &Request) -> Result<Generation, Error> {
        self.generate_observed(request, &mut ())
    }

    /// Makes images under the eyes of an observer, which may cancel.
    ///
    /// # Errors
    ///
    /// As [`Self::generate`], [`Error::Cancelled`], and [`Error::Callback`] if the observer panics.
    pub fn generate_observed(&self, request: &Request, observer: &mut dyn Observer) -> Result<Generation, Error> {
        // Noise is made and batches are joined on the device, too.
        contained("making images", || self.run_in_batches(request, observer))
    }

    fn run_in_batches(&self, request: &Request, observer: &mut dyn Observer) -> Result<Generation, Error> {
        request.validate()?;
        let batch = self.batch(request)?;
        let mut whole: Option<Generation> = None;
        for seeds in request.seeds.chunks(batch) {
            let mut noise = SeededNoise::new(seeds, &self.unet.device());
            if request.settings.fabric.noise == ReferenceNoise::Fresh {
                noise = noise.with_fresh_references();
            }
            let part =
                self.generate_with(&Request { seeds: seeds.to_vec(), ..request.clone() }, &mut noise, observer)?;
            whole = Some(match whole {
                Some(whole) => whole.joined(part),
                None => part,
            });
        }
        whole.ok_or_else(|| Error::settings("seeds", "none", "one per image", "give at least one seed"))
    }

    /// Makes images in one batch, with noise from the given source: for reproducing published runs draw by draw.
    ///
    /// # Errors
    ///
    /// As [`Self::generate_observed`].
    pub fn generate_with(
        &self,
        request: &Request,
        noise: &mut dyn RunNoise,
        observer: &mut dyn Observer,
    ) -> Result<Generation, Error> {
        request.validate()?;
        // burn reports what a device cannot do by panicking; here is the border where that becomes an error.
        contained("making images", || self.run(request, noise, &mut Watched(observer)))
    }

    fn run(
        &self,
        request: &Request,
        noise: &mut dyn RunNoise,
        observer: &mut dyn Observer,
    ) -> Result<Generation, Error> {
        let settings = &request.settings;
        let size = self.size(request)?;
        let schedule = self.schedule(request, settings.steps)?;
        self.check_halves(request)?;
        self.check_mask(request, size)?;
        let guidance = request.guidance()?;
        let chosen = Chosen::of(request, &guidance, &schedule);
        self.check_memory(request, size, &chosen)?;
        request.steering.iter().try_for_each(|steering| steering.check(&*self.unet))?;
        if let Some(start) = request.init_image.as_ref().filter(|start| start.strength == 0.0) {
            return self.unchanged(request, start, size, noise);
        }
        let notes = notes::on_guidance(settings.guidance_scale, &guidance).into_iter().collect();
        let report = RefCell::new(Report { notes, ..Report::default() });

        let clock = Instant::now();
        let conditions = Conditions::encode(&*self.text, request, &request.seeds, size)?;
        report.borrow_mut().truncated = conditions.truncated.clone();
        report.borrow_mut().text_seconds = clock.elapsed().as_secs_f64();

        let clock = Instant::now();
        let start = self.start(request, &schedule, size, noise)?;
        let references = self.references(&chosen, request, size, noise, &mut report.borrow_mut())?;
        report.borrow_mut().encode_seconds = clock.elapsed().as_secs_f64();

        let masses = RefCell::new(Masses::default());
        let noise: RefCell<&mut dyn RunNoise> = RefCell::new(noise);
        let observer: RefCell<&mut dyn Observer> = RefCell::new(observer);
        let mut denoiser = GuidedModel {
            unet: &*self.unet,
            guidance: &guidance,
            conditions: &conditions,
            settings: &settings.fabric,
            schedule: FeedbackSchedule::new(&settings.fabric, schedule.config().num_train_timesteps),
            references: &references,
            steering: &request.steering,
            mask: start.channels.as_ref(),
            cache: &self.tokens,
            cache_conditions: digest(&(settings.text.clip_skip, conditions.tokens(), size)),
            noise: &noise,
            observer: &observer,
            report: &report,
            masses: settings.measure_attention.then_some(&masses),
        };
        self.tokens.begin_run();
        let mut clock = Instant::now();
        let mut observe = |step: StepReport<'_>| {
            report.borrow_mut().step_seconds.push(clock.elapsed().as_secs_f64());
            clock = Instant::now();
            let (state, denoised) = (step.state, step.denoised);
            let (evaluation, evaluations) = (step.call + 1, schedule.calls());
            let (step, steps) = (step.step + 1, step.steps);
            let event =
                StepEvent { step, steps, evaluation, evaluations, state, denoised, autoencoder: &*self.autoencoder };
            observer.borrow_mut().step(&event)
        };
        let (latents, mask_blend) = (start.latents, start.mask_blend.as_ref());
        let latents =
            sample_within(&schedule, latents, &mut denoiser, &mut StepNoise(&noise), &mut observe, mask_blend)?;

        let clock = Instant::now();
        let images = decode(&*self.autoencoder, &latents)?;
        let mut report = report.into_inner();
        report.decode_seconds = clock.elapsed().as_secs_f64();
        (report.cache, report.spill_error) = (self.tokens.stats(), self.tokens.spill_error());
        if settings.measure_attention {
            report.attention_mass = masses.into_inner().means(references.len());
        }
        Ok(Generation { images, seeds: request.seeds.clone(), latents, report })
    }
}

impl Generation {
    /// Joins the results of two batches of one request.
    pub(super) fn joined(mut self, other: Self) -> Self {
        let shares = [self.images.len(), other.images.len()].map(|images| images as f64);
        self.images.extend(other.images);
        self.seeds.extend(other.seeds);
        self.latents = Tensor::cat(vec![self.latents, other.latents], 0);
        let (report, more) = (&mut self.report, other.report);
        report.text_seconds += more.text_seconds;
        report.encode_seconds += more.encode_seconds;
        report.decode_seconds += more.decode_seconds;
        report.step_seconds.extend(more.step_seconds);
        for (mass, more) in report.attention_mass.iter_mut().zip(more.attention_mass) {
            *mass = (*mass * shares[0] + more * shares[1]) / (shares[0] + shares[1]);
        }
        report.calls += more.calls;
        report.calls_with_references += more.calls_with_references;
        report.reference_passes += more.reference_passes;
        for (all, more) in [(&mut report.truncated, more.truncated), (&mut report.notes, more.notes)] {
            more.into_iter().for_each(|one| {
                if !all.contains(&one) {
                    all.push(one)
                }
            });
        }
        report.cache = more.cache;
        report.spill_error = more.spill_error.or(report.spill_error.take());
        self
    }
}

/// What the caches of several pipelines hold and how well they serve, added up. Copies of one pipeline share theirs, which
/// counts once.
pub(super) fn all_caches<'a>(pipelines: impl IntoIterator<Item = &'a Pipeline>) -> CacheStats {
    let mut seen: Vec<&Arc<ReferenceKvCache>> = Vec::new();
    for Pipeline { tokens, .. } in pipelines {
        if !seen.iter().any(|one| Arc::ptr_eq(one, tokens)) {
            seen.push(tokens);
        }
    }
    seen.into_iter().map(|cache| cache.stats()).fold(CacheStats::default(), CacheStats::plus)
}

/// Decodes one image after the other, which needs the memory of one.
pub(super) fn decode(autoencoder: &dyn Autoencoder, latents: &Tensor<4>) -> Result<Vec<Image>, Error> {
    let mut images = Vec::with_capacity(latents.dims()[0]);
    for row in 0..latents.dims()[0] {
        images.extend(image::from_tensor(autoencoder.decode(latents.clone().slice_dim(0, row..row + 1)))?);
    }
    Ok(images)
}

/// Only for keys that live as long as the process.
fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
