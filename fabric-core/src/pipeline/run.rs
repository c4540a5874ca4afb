//! The pipeline: generates images for a request.

use std::cell::{Cell, RefCell};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use burn::tensor::{Device, Tensor};

use super::cads::Annealing;
use super::callback::{Watched, WatchedNoise, contained, contained_callback};
use super::finite::{NetworkOutputs, Output};
use super::guided_model::{GuidedModel, StepNoise};
use super::image_prompt_effect::EffectCollector;
use super::plan::Plan;
use super::preview::PreviewDecoder;
use super::reference_attention::Collector;
use super::text::Conditions;
use super::{ImageAdapter, Observer, Phase, PhaseEvent, Report, Request, Settings, StepEvent, notes};
use crate::Error;
use crate::cache::{CacheStats, ReferenceKvCache, ReferenceLatents};
use crate::fabric::{FeedbackSchedule, ReferenceNoise, References};
use crate::guidance::ProjectedGuidance;
use crate::image::{self, Image, ImageError};
use crate::models::{Autoencoder, CrossAttention, LatentDecoder, TextEncoder, UNetModel};
use crate::noise::{RunNoise, SeededNoise};
use crate::samplers::{ByKind, Sampler, SamplerRun, StepReport};
use crate::schedule::SchedulerConfig;
use crate::spans::{self, Span};

/// Generated images with their latents and a report.
#[derive(Debug, Clone)]
pub struct Generation {
    /// The images, one per seed.
    pub images: Vec<Image>,
    /// The request's seeds.
    pub seeds: Vec<u64>,
    /// Final latents, scaled as the U-Net uses them, `[images, channels, height, width]`.
    pub latents: Tensor<4>,
    /// Report of the run: times, counts and notes.
    pub report: Report,
}

/// A latent diffusion model with a U-Net, VAE, text encoder and noise schedule.
///
/// Cloning copies handles, not weights. Threads may share a pipeline: runs change only its caches, never the
/// networks.
#[derive(Clone)]
pub struct Pipeline {
    pub(super) unet: Arc<dyn UNetModel + Send + Sync>,
    pub(super) autoencoder: Arc<dyn Autoencoder + Send + Sync>,
    text: Arc<dyn TextEncoder + Send + Sync>,
    preview_decoder: Option<PreviewDecoder>,
    pub(super) scheduler: SchedulerConfig,
    pub(super) native_size: usize,
    recommended_settings: Settings,
    /// The model and its LoRAs, for reports.
    origin: Vec<String>,
    /// Adapters for image conditions; of each kind the last one is used.
    pub(super) adapters: Vec<Arc<dyn ImageAdapter>>,
    pub(super) tokens: Arc<ReferenceKvCache>,
    pub(super) latents: Arc<Mutex<ReferenceLatents>>,
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
    /// Creates a pipeline from its networks. `native_size` is the side in pixels of the images that the model was
    /// trained on.
    ///
    /// # Errors
    ///
    /// Returns an error if the U-Net's input channels do not match the VAE's latent channels.
    pub fn new(
        unet: Arc<dyn UNetModel + Send + Sync>,
        autoencoder: Arc<dyn Autoencoder + Send + Sync>,
        text: Arc<dyn TextEncoder + Send + Sync>,
        scheduler: SchedulerConfig,
        native_size: usize,
    ) -> Result<Self, Error> {
        let (takes, latents) = (unet.in_channels(), autoencoder.latent_channels());
        // An inpainting U-Net also takes a mask (1 channel) and the latents of the masked image.
        if takes != latents && takes != 2 * latents + 1 {
            return Err(Error::settings(
                "the U-Net's input channels",
                takes,
                format!("{latents}, as the VAE's latents have, or {} for inpainting", 2 * latents + 1),
                "take both networks from one model",
            ));
        }
        let (tokens, latents) = (Arc::default(), Arc::default());
        Ok(Self {
            unet,
            autoencoder,
            text,
            preview_decoder: None,
            scheduler,
            native_size,
            recommended_settings: Settings::default(),
            origin: Vec::new(),
            adapters: Vec::new(),
            tokens,
            latents,
        })
    }

    /// The U-Net's cross-attention layers in the order in which they run.
    pub fn cross_attentions(&self) -> Vec<CrossAttention> {
        self.unet.cross_attentions()
    }

    /// Sets names of the model and its LoRAs, which each run writes into [`Report::origin`]. Loaders do this.
    #[must_use]
    pub fn with_origin(self, origin: Vec<String>) -> Self {
        Self { origin, ..self }
    }

    /// Settings that the model's files recommend, or the defaults.
    pub fn recommended_settings(&self) -> &Settings {
        &self.recommended_settings
    }

    /// Replaces the recommended settings.
    ///
    /// # Errors
    ///
    /// Returns an error if a setting is invalid.
    pub fn with_recommended_settings(self, settings: Settings) -> Result<Self, Error> {
        settings.validate()?;
        Ok(Self { recommended_settings: settings, ..self })
    }

    /// Creates a request for one image with seed 0 and the model's recommended settings.
    pub fn request(&self, prompt: impl Into<String>) -> Request {
        Request::new(prompt).with_settings(self.recommended_settings.clone())
    }

    /// Gives the pipeline an adapter with an image encoder, which realises the [`ImageCondition`](crate::ImageCondition)s
    /// of requests and the image prompts and reasons of sessions. A pipeline can have a plain IP-Adapter and an Instruct
    /// adapter; another one of the same kind replaces the first.
    #[must_use]
    pub fn with_adapter(mut self, adapter: impl ImageAdapter + 'static) -> Self {
        self.adapters.push(Arc::new(adapter));
        self
    }

    /// Gives the pipeline a small network that decodes previews ([`StepEvent::preview`]) instead of the VAE, which
    /// still decodes the images. `name` identifies it in reports.
    ///
    /// # Errors
    ///
    /// Returns an error if it decodes latents with another number of channels, or to another size, than the VAE.
    pub fn with_preview_decoder(
        self,
        name: impl Into<Arc<str>>,
        decoder: Arc<dyn LatentDecoder + Send + Sync>,
    ) -> Result<Self, Error> {
        let preview_decoder = Some(PreviewDecoder::new(name, decoder, &*self.autoencoder)?);
        Ok(Self { preview_decoder, ..self })
    }

    /// Name of the network that decodes previews; `None` for the VAE.
    pub fn preview_decoder(&self) -> Option<&str> {
        self.preview_decoder.as_ref().map(PreviewDecoder::name)
    }

    /// The text encoder, for adapters that encode texts of their own.
    pub fn text_encoder(&self) -> &dyn TextEncoder {
        &*self.text
    }

    /// A shared handle to the text encoder, for callers that outlive the pipeline.
    pub fn shared_text_encoder(&self) -> Arc<dyn TextEncoder + Send + Sync> {
        self.text.clone()
    }

    /// The model's own sampler and noise schedule.
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    /// Replaces the sampler and noise schedule.
    #[must_use]
    pub fn with_scheduler(mut self, scheduler: SchedulerConfig) -> Self {
        self.scheduler = scheduler;
        self
    }

    /// Returns what differs between two pipelines that should be of the same model, or `None`. Weights are not
    /// compared.
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
        let adapters =
            |pipeline: &Self| pipeline.adapters.iter().map(|adapter| adapter.reads_instructions()).collect::<Vec<_>>();
        if adapters(self) != adapters(other) {
            return Some("their adapters");
        }
        (self.native_size != other.native_size).then_some("their native size")
    }

    /// The device that holds the weights.
    pub fn device(&self) -> Device {
        self.unet.device()
    }

    /// Lets the cache of reference keys and values keep up to `bytes` on disk, in a new folder inside `folder`.
    ///
    /// Used by runs with [`ReferencePass::Cached`](crate::fabric::ReferencePass::Cached): keys and values that
    /// exceed the memory budget are written to disk instead of being recorded again, and are read back bit for
    /// bit. This pipeline and its clones start with an empty cache. The folder is removed when the last clone
    /// is dropped. On Unix, folders left by killed processes (`fabric-spill-*`) are deleted here if they are older than
    /// an hour; elsewhere they may be deleted. Keys and values reveal much about the images that they were recorded
    /// from, so other users of the machine cannot open the folder.
    ///
    /// Disk failures never stop a run: unreadable entries are recorded again. After a failed write nothing more is
    /// written until [`Self::clear_caches`], and [`Report::spill_error`] has the error.
    ///
    /// On a GPU, writing copies the tensors to the host and waits for all queued device work; a fast GPU may
    /// record again faster than a disk can read. With a device on another machine, the data crosses the network
    /// both ways. A folder in memory (tmpfs) saves no memory.
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
    /// Returns an error if no folder can be created inside `folder`.
    pub fn with_spill(mut self, folder: impl AsRef<Path>, bytes: u64) -> Result<Self, Error> {
        self.tokens = Arc::new(ReferenceKvCache::spilling(folder.as_ref(), bytes)?);
        Ok(self)
    }

    /// Side in pixels of the images that the model was trained on; the default size of results.
    pub fn native_size(&self) -> usize {
        self.native_size
    }

    /// Statistics of the cache of reference keys and values: hits, misses and bytes.
    pub fn cache_stats(&self) -> CacheStats {
        self.tokens.stats()
    }

    /// Empties the caches (reference keys and values, reference latents) in memory and on disk.
    pub fn clear_caches(&self) {
        self.tokens.clear();
        self.latents.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Generates the images of a request.
    ///
    /// # Errors
    ///
    /// Returns an error if the request is invalid (settings are checked before any long work starts) or the
    /// device fails, for instance when a GPU runs out of memory. On a CPU, requests that certainly need more
    /// memory than is free are refused; if memory runs out all the same, the process ends, as in any Rust
    /// program.
    pub fn generate(&self, request: &Request) -> Result<Generation, Error> {
        self.generate_observed(request, &mut ())
    }

    /// Generates images and calls `observer` after each evaluation; the observer may cancel the run.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Self::generate`], [`Error::Cancelled`] if the observer cancels, and
    /// [`Error::Callback`] if it panics.
    pub fn generate_observed(&self, request: &Request, observer: &mut dyn Observer) -> Result<Generation, Error> {
        self.generate_part(Part::whole(request), observer)
    }

    fn run_in_batches(&self, part: Part<'_>, observer: &mut dyn Observer) -> Result<Generation, Error> {
        let observer = &mut Watched(observer);
        let Part { request, images, is_warm_up } = part;
        let mut plan = self.plan(request, None)?;
        let _run = spans::generate(images.len(), &request.settings, plan.size);
        let phase = begin(observer, Phase::Conditioning, images.clone(), &plan)?;
        self.prepare(&mut plan, is_warm_up)?;
        phase.end();
        let batches = images.len().div_ceil(plan.batch);
        let mut whole: Option<Generation> = None;
        for batch in 0..batches {
            let first = images.start + batch * plan.batch;
            let part = first..images.end.min(first + plan.batch);
            let mut noise = SeededNoise::new(&request.seeds[part.clone()], &self.unet.device());
            if !request.initial_noise.is_empty() {
                noise = noise.with_initial_noise(&request.initial_noise[part.clone()]);
            }
            if request.settings.fabric.noise == ReferenceNoise::Fresh {
                noise = noise.with_fresh_references();
            }
            let part = Batch { images: part, number: batch, count: batches };
            let made = self.run_batch(&plan, &part, &mut noise, observer);
            whole = Some(match (whole, made) {
                (Some(whole), Ok(made)) => whole.joined(made),
                (None, Ok(made)) => made,
                (Some(whole), Err(Error::Cancelled { step, steps, .. })) => {
                    return Err(Error::Cancelled {
                        step,
                        steps,
                        finished: whole.images.into_iter().zip(whole.seeds).collect(),
                    });
                }
                (_, Err(error)) => return Err(error),
            });
        }
        whole.ok_or_else(|| Error::settings("seeds", "none", "one per image", "give at least one seed"))
    }

    /// Generates some images of a request, given by their indices.
    pub(super) fn generate_part(&self, part: Part<'_>, observer: &mut dyn Observer) -> Result<Generation, Error> {
        // burn panics when a device operation fails; the panic is turned into an error here.
        let made = contained("making images", || self.run_in_batches(part, observer));
        made.inspect_err(|error| self.forget_failed(error))
    }

    /// Generates all images in one batch with noise from the given source, to reproduce published runs draw by draw.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Self::generate_observed`].
    pub fn generate_with(
        &self,
        request: &Request,
        noise: &mut dyn RunNoise,
        observer: &mut dyn Observer,
    ) -> Result<Generation, Error> {
        let made = contained("making images", || {
            let (observer, noise) = (&mut Watched(observer), &mut WatchedNoise(noise));
            let mut plan = self.plan(request, Some(request.seeds.len()))?;
            let images = 0..request.seeds.len();
            let _run = spans::generate(images.len(), &request.settings, plan.size);
            let phase = begin(observer, Phase::Conditioning, images.clone(), &plan)?;
            self.prepare(&mut plan, false)?;
            phase.end();
            self.run_batch(&plan, &Batch { images, number: 0, count: 1 }, noise, observer)
        });
        made.inspect_err(|error| self.forget_failed(error))
    }

    /// Empties the caches if this error may have left values in them that are not valid.
    fn forget_failed(&self, error: &Error) {
        let is_failure = match error {
            // Devices work asynchronously: what was cached may be the result of the operation that failed.
            Error::Backend { .. } | Error::Conditioning { .. } | Error::Callback { .. } => true,
            Error::NotFinite { .. } | Error::Image(ImageError::NotFinite { .. }) => true,
            _ => false,
        };
        if is_failure {
            self.clear_caches();
        }
    }

    fn run_batch(
        &self,
        plan: &Plan<'_>,
        batch: &Batch,
        noise: &mut dyn RunNoise,
        observer: &mut dyn Observer,
    ) -> Result<Generation, Error> {
        let Plan { request, size, schedule, guidance, chosen, .. } = plan;
        let (settings, size, images) = (&request.settings, *size, &batch.images);
        let seeds = &request.seeds[images.clone()];
        if let Some(start) = request.init_image.as_ref().filter(|start| start.strength == 0.0) {
            let made = self.unchanged(seeds, start, size, noise)?;
            images.clone().zip(&made.images).for_each(|(index, image)| observer.image(index, image));
            return Ok(made);
        }
        let mut notes = notes::on_guidance(settings, guidance, schedule);
        notes.extend(plan.conditioning.iter().flat_map(|one| one.prepared.notes()));
        let origin = self.origin.iter().cloned().chain(plan.origin()).collect();
        let preview_decoder = self.preview_decoder().map(str::to_owned);
        let report = RefCell::new(Report { origin, preview_decoder, notes, ..Report::default() });

        let phase = begin(observer, Phase::Text, images.clone(), plan)?;
        let clock = Instant::now();
        let encode = || Conditions::encode(&*self.text, request, seeds, size, chosen.len() > 0);
        let conditions = contained("encoding the prompts", encode)?;
        let outputs = RefCell::new(NetworkOutputs::default());
        conditions.note(&mut outputs.borrow_mut());
        report.borrow_mut().truncated = conditions.truncated.clone();
        report.borrow_mut().text_seconds = clock.elapsed().as_secs_f64();
        phase.end();

        let phase = begin(observer, Phase::Encoding, images.clone(), plan)?;
        let clock = Instant::now();
        let (start, references) = contained("encoding the init image and the references", || {
            let start = self.start(request, seeds.len(), schedule, size, noise)?;
            Ok((start, self.references(chosen, request, size, noise, &mut report.borrow_mut())?))
        })?;
        outputs.borrow_mut().note(Output::Start, &start.latents);
        references.iter().for_each(|one| outputs.borrow_mut().note(Output::References, &one.latents));
        let prepared = if batch.number == 0 { plan.seconds } else { 0.0 };
        report.borrow_mut().encode_seconds = prepared + clock.elapsed().as_secs_f64();
        phase.end();

        let can_cache = noise.is_seeded() && noise.has_fixed_references() && !plan.references_are_conditioned();
        let guidance_scale = self.unet.reads_guidance_scale().then_some(settings.guidance_scale);
        let references = References {
            all: references,
            settings: &settings.fabric,
            schedule: FeedbackSchedule::new(&settings.fabric, schedule.config().num_train_timesteps),
            levels: self.unet.levels(),
            cache: can_cache.then_some(&*self.tokens),
            cache_conditions: digest(&(
                settings.text.clip_skip,
                conditions.tokens(),
                size,
                guidance_scale.map(f64::to_bits),
            )),
        };
        let phase = begin(observer, Phase::Denoising, images.clone(), plan)?;
        let attention = RefCell::new(Collector::new(images.len(), schedule.calls()));
        let effects = RefCell::new(EffectCollector::new(request.image_conditions.len(), schedule.calls()));
        let measures_effects = settings.measure_attention && !request.image_conditions.is_empty();
        let noise: RefCell<&mut dyn RunNoise> = RefCell::new(noise);
        let observer: RefCell<&mut dyn Observer> = RefCell::new(observer);
        let config = schedule.config();
        let mut model = GuidedModel {
            unet: &*self.unet,
            guidance_scale,
            guidance,
            projected: settings.apg.map(|apg| ProjectedGuidance::new(apg, config.prediction)),
            annealing: settings.cads.map(|cads| Annealing::new(cads, config.num_train_timesteps, seeds)),
            conditions: &conditions,
            references: &references,
            conditioning: &plan.conditioning,
            images: images.clone(),
            mask: start.channels.as_ref(),
            noise: &noise,
            observer: &observer,
            report: &report,
            outputs: &outputs,
            attention: settings.measure_attention.then_some(&attention),
            effects: measures_effects.then_some(&effects),
        };
        self.tokens.begin_run();
        let (mut clock, steps) = (Instant::now(), Cell::new(0));
        let mut observe = |step: StepReport<'_>| {
            report.borrow_mut().step_seconds.push(clock.elapsed().as_secs_f64());
            clock = Instant::now();
            steps.set(step.steps);
            let event = StepEvent {
                images: images.clone(),
                step: step.step + 1,
                steps: step.steps,
                evaluation: batch.number * schedule.calls() + step.call + 1,
                evaluations: batch.count * schedule.calls(),
                state: step.state,
                denoised: step.denoised,
                autoencoder: &*self.autoencoder,
                preview_decoder: self.preview_decoder.as_ref(),
            };
            observer.borrow_mut().step(&event)
        };
        let (latents, mask_blend) = (start.latents, start.mask_blend.as_ref());
        let mut noise_of_steps = StepNoise(&noise);
        let mut run = SamplerRun::new(schedule, &mut model, &mut noise_of_steps, &mut observe, mask_blend);
        let shape = latents.dims();
        let latents = match &request.sampler {
            // Failures of the network in it are errors already, so its panic is its own.
            Some(sampler) => contained_callback("sampler", || sampler.sample(&mut run, latents)),
            None => ByKind(schedule.config().kind).sample(&mut run, latents),
        }?;
        run.check_finished(latents.dims(), shape)?;
        phase.end();

        let observer = observer.into_inner();
        if observer.phase(&PhaseEvent { phase: Phase::Decoding, images: images.clone() }).is_break() {
            let steps = steps.get();
            return Err(Error::Cancelled { step: steps, steps, finished: Vec::new() });
        }
        let phase = spans::phase(Phase::Decoding);
        let clock = Instant::now();
        let mut made = Vec::with_capacity(images.len());
        let mut report = report.into_inner();
        for (row, index) in images.clone().enumerate() {
            // One at a time, so that memory for only one is needed.
            let row_of_latents = latents.clone().narrow(0, row, 1);
            let decoded = contained(format_args!("decoding image {index}"), || {
                decode(&*self.autoencoder, &row_of_latents, index)
            });
            let Decoded { images, in_f32 } = decoded.map_err(|error| match error {
                Error::Image(ImageError::NotFinite { .. }) => {
                    outputs.borrow_mut().note(Output::Latents, &latents);
                    outputs.borrow().first_error().unwrap_or(error)
                }
                error => error,
            })?;
            if in_f32 {
                report.notes.push(format!("image {index}: the VAE overflowed in half precision and decoded it in f32"));
            }
            made.extend(images);
            observer.image(index, &made[row]);
        }
        phase.end();
        report.decode_seconds = clock.elapsed().as_secs_f64();
        (report.cache, report.spill_error) = (self.tokens.stats(), self.tokens.spill_error());
        if settings.measure_attention {
            report.attention = attention.into_inner().finish(references.all.len());
            report.image_prompts =
                effects.into_inner().finish(&request.image_conditions, &self.unet.cross_attentions());
        }
        Ok(Generation { images: made, seeds: seeds.to_vec(), latents, report })
    }
}

/// Images of a request to make, given by their indices.
pub(super) struct Part<'a> {
    pub(super) request: &'a Request,
    pub(super) images: Range<usize>,
    pub(super) is_warm_up: bool,
}

impl<'a> Part<'a> {
    /// All images of a request.
    pub(super) fn whole(request: &'a Request) -> Self {
        Self { request, images: 0..request.seeds.len(), is_warm_up: false }
    }
}

/// One of the batches of a run.
struct Batch {
    images: Range<usize>,
    number: usize,
    count: usize,
}

/// Tells the observer that a phase begins, and enters its span. The observer may cancel.
fn begin(observer: &mut dyn Observer, phase: Phase, images: Range<usize>, plan: &Plan<'_>) -> Result<Span, Error> {
    match observer.phase(&PhaseEvent { phase, images }) {
        ControlFlow::Continue(()) => Ok(spans::phase(phase)),
        ControlFlow::Break(()) => {
            Err(Error::Cancelled { step: 0, steps: plan.request.settings.steps, finished: Vec::new() })
        }
    }
}

impl Generation {
    /// Concatenates the results of two batches of one request and merges their reports.
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
        for (attention, more) in report.attention.iter_mut().zip(more.attention) {
            attention.join(more);
        }
        for (effect, more) in report.image_prompts.iter_mut().zip(more.image_prompts) {
            effect.join(more, shares);
        }
        report.calls += more.calls;
        report.calls_with_references += more.calls_with_references;
        report.reference_passes += more.reference_passes;
        for (all, more) in [(&mut report.truncated, more.truncated), (&mut report.notes, more.notes)] {
            more.into_iter().for_each(|one| {
                if !all.contains(&one) {
                    all.push(one);
                }
            });
        }
        report.cache = more.cache;
        report.spill_error = more.spill_error.or(report.spill_error.take());
        self
    }
}

/// Sums the cache statistics of several pipelines. Clones of one pipeline share a cache, which is counted once.
pub(super) fn all_caches<'a>(pipelines: impl IntoIterator<Item = &'a Pipeline>) -> CacheStats {
    let mut seen: Vec<&Arc<ReferenceKvCache>> = Vec::new();
    for Pipeline { tokens, .. } in pipelines {
        if !seen.iter().any(|one| Arc::ptr_eq(one, tokens)) {
            seen.push(tokens);
        }
    }
    seen.into_iter().map(|cache| cache.stats()).fold(CacheStats::default(), CacheStats::plus)
}

/// Decoded images.
pub(super) struct Decoded {
    pub(super) images: Vec<Image>,
    /// Whether one of them was not finite in half precision and was decoded in f32.
    pub(super) in_f32: bool,
}

/// Decodes the images of a run from number `first` on, one at a time, so that memory for only one is needed.
pub(super) fn decode(autoencoder: &dyn Autoencoder, latents: &Tensor<4>, first: usize) -> Result<Decoded, Error> {
    let mut decoded = Decoded { images: Vec::with_capacity(latents.dims()[0]), in_f32: false };
    for row in 0..latents.dims()[0] {
        let latents = latents.clone().slice_dim(0, row..row + 1);
        let images = match image::from_tensor(autoencoder.decode(latents.clone())) {
            Err(error @ ImageError::NotFinite { .. }) => {
                // Not finite in f32 either: the first error is the one to return.
                let again = autoencoder.decode_in_f32(latents).and_then(|pixels| image::from_tensor(pixels).ok());
                decoded.in_f32 |= again.is_some();
                again.ok_or(error)
            }
            images => images,
        };
        decoded.images.extend(images.map_err(|error| error.of_image(first + row))?);
    }
    Ok(decoded)
}

/// Hashes a value. The hash may differ between Rust versions, so it only serves for keys within one process.
fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
