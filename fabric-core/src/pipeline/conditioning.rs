//! Interface of image prompts (IP-Adapter, Instruct) and ControlNets.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Device;

use super::{Request, Window};
use crate::attention::{AttnProcessor, AttnSite, NoProcessor};
use crate::denoise::ModelCall;
use crate::guidance::{Branch, Guidance};
use crate::layout::BatchLayout;
use crate::models::{CrossAttention, Residuals, TextEncoder, TextOptions, UNetInput, UNetModel};
use crate::{Aspect, Error, ImageCondition};

/// Additional condition of a run besides text and references, such as an image prompt or a control image.
///
/// A conditioning is a description, which any number of requests and pipelines can share. A run prepares it once, for
/// its own prompt, size and network (a pool of devices for each batch), and then uses the [`PreparedConditioning`] at every evaluation.
pub trait Conditioning: fmt::Debug + Send + Sync {
    /// Checks that it fits this run, and computes everything that is the same at every evaluation: image features, keys
    /// and values. Called once per run, before the first evaluation.
    ///
    /// # Errors
    ///
    /// Returns an error if it was made for another network, or one of its settings is invalid. These checks come before
    /// any long work.
    fn prepare(&self, run: &RunContext<'_>) -> Result<Box<dyn PreparedConditioning>, Error>;

    /// Returns a short description for [`Report::origin`](super::Report::origin): what it is, and the name of its file.
    fn describe(&self) -> String {
        "a conditioning".to_owned()
    }

    /// Returns the guidance that it requires instead of classifier-free guidance at this scale, if any.
    fn guidance(&self, scale: f64) -> Option<Guidance> {
        let _ = scale;
        None
    }
}

/// A [`Conditioning`] that is ready for one run.
///
/// It acts on the U-Net only through attention and skip connections. The default implementations change nothing.
pub trait PreparedConditioning: fmt::Debug {
    /// Whether it also acts on the rows of reference images. Their keys and values then become specific to this run and
    /// are not cached.
    fn visible_to_references(&self) -> bool {
        false
    }

    /// Returns notes for [`Report::notes`](super::Report::notes), for instance that it has no effect in this run.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns the attention processor of one evaluation, which acts on the rows in [`BatchLayout::groups`]. The layout
    /// may have only some of the run's branches ([`RunContext::branches`]). It is also called for the batches that record
    /// references; these have groups only if [`Self::visible_to_references`] is true.
    fn attention<'a>(&'a self, call: &ModelCall, layout: &BatchLayout) -> Box<dyn AttnProcessor + 'a> {
        let _ = (call, layout);
        Box::new(NoProcessor)
    }

    /// Whether the rows of this branch attend to the image itself in this layer, and not to "no image". Used only in
    /// [`Report::image_prompts`](super::Report::image_prompts); it does not affect the result.
    fn attends_to_image(&self, branch: Branch, site: &AttnSite) -> bool {
        let _ = (branch, site);
        true
    }

    /// Returns the residuals to add to the skip connections, if any. `input` has the rows of the images in all branches,
    /// without references; the residuals must have as many rows, zero where `layout` has no group.
    ///
    /// # Errors
    ///
    /// Returns an error if they cannot be computed.
    fn residuals(
        &self,
        call: &ModelCall,
        input: &UNetInput<'_>,
        layout: &BatchLayout,
    ) -> Result<Option<Residuals>, Error> {
        let _ = (call, input, layout);
        Ok(None)
    }
}

/// An adapter that realises the [`ImageCondition`]s of requests and sessions: an IP-Adapter or an Instruct adapter.
pub trait ImageAdapter: fmt::Debug + Send + Sync {
    /// Whether it reads an instruction, and can therefore use any aspect of an image.
    fn reads_instructions(&self) -> bool;

    /// Whether it can use this aspect of an image in a U-Net with these cross-attention layers, given in the order in
    /// which they run. By default, only adapters that read instructions can.
    fn supports(&self, aspect: &Aspect, layers: &[CrossAttention]) -> bool {
        let _ = (aspect, layers);
        self.reads_instructions()
    }

    /// Returns a conditioning for each of these images, in their order, in a U-Net with these cross-attention layers.
    /// It gets all images of a request at once, because they must agree on the guidance, and only aspects that it
    /// [supports](Self::supports).
    fn conditioning(&self, images: &[ImageCondition], layers: &[CrossAttention]) -> Vec<Arc<dyn Conditioning>>;
}

/// A conditioning of a request and the images that it acts on.
#[derive(Debug, Clone)]
pub struct RequestConditioning {
    /// The conditioning.
    pub conditioning: Arc<dyn Conditioning>,
    /// Images that it acts on, as indices into the request's seeds. `None` is all of them.
    pub images: Option<Range<usize>>,
}

/// Description of a run, for the [`Conditioning`] that is prepared for it.
#[derive(Clone)]
pub struct RunContext<'a> {
    request: &'a Request,
    unet: &'a dyn UNetModel,
    text_encoder: &'a dyn TextEncoder,
    latent_size: [usize; 2],
    branches: Vec<Branch>,
    is_warm_up: bool,
}

impl fmt::Debug for RunContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunContext").field("request", self.request).finish_non_exhaustive()
    }
}

impl<'a> RunContext<'a> {
    /// Creates the context of a run of this request with these networks, for latents of this height and width.
    pub fn new(
        request: &'a Request,
        unet: &'a dyn UNetModel,
        text_encoder: &'a dyn TextEncoder,
        latent_size: [usize; 2],
    ) -> Self {
        let branches = vec![Branch::Conditional, Branch::Unconditional];
        Self { request, unet, text_encoder, latent_size, branches, is_warm_up: false }
    }

    /// Sets the branches of the run ([`Self::branches`]); a new context has those of classifier-free guidance.
    #[must_use]
    pub fn with_branches(self, branches: Vec<Branch>) -> Self {
        Self { branches, ..self }
    }

    /// The branches that run in any evaluation, each once, in batch order. An evaluation may run only some of them
    /// ([`Settings::guidance_window`](super::Settings::guidance_window)).
    pub fn branches(&self) -> &[Branch] {
        &self.branches
    }

    /// Returns the context of a warm-up, which runs as few steps as possible and must cover the work of all steps.
    #[must_use]
    pub fn warming_up(self) -> Self {
        Self { is_warm_up: true, ..self }
    }

    /// The prompt.
    pub fn prompt(&self) -> &str {
        &self.request.prompt
    }

    /// The negative prompt; empty if the request has none.
    pub fn negative_prompt(&self) -> &str {
        self.request.negative_prompt.as_deref().unwrap_or_default()
    }

    /// Options for encoding texts.
    pub fn text_options(&self) -> &TextOptions {
        &self.request.settings.text
    }

    /// The model's text encoder.
    pub fn text_encoder(&self) -> &dyn TextEncoder {
        self.text_encoder
    }

    /// The U-Net, for its layers and channels.
    pub fn unet(&self) -> &dyn UNetModel {
        self.unet
    }

    /// The cross-attention layers of the U-Net, in the order in which they run.
    pub fn cross_attentions(&self) -> Vec<CrossAttention> {
        self.unet.cross_attentions()
    }

    /// The device of the U-Net: everything that is prepared for the run must be there.
    pub fn device(&self) -> Device {
        self.unet.device()
    }

    /// Height and width of the latents.
    pub fn latent_size(&self) -> [usize; 2] {
        self.latent_size
    }

    /// Height and width of the feature maps of the U-Net, from full resolution to the bottleneck.
    pub fn grids(&self) -> Vec<[usize; 2]> {
        (0..self.unet.levels()).map(|level| self.latent_size.map(|side| side.div_ceil(1 << level))).collect()
    }

    /// Number of images of the run.
    pub fn images(&self) -> usize {
        self.request.seeds.len()
    }

    /// Returns the window in which to act: the given one, or the whole run during a warm-up.
    pub fn window(&self, window: Window) -> Window {
        if self.is_warm_up { Window::default() } else { window }
    }

    /// Whether this is a warm-up, in which a conditioning must act at every evaluation ([`Self::window`]).
    pub fn is_warm_up(&self) -> bool {
        self.is_warm_up
    }
}
