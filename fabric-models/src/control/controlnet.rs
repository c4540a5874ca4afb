//! ControlNet (Zhang et al. 2023, 2302.05543), as implemented in diffusers.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use fabric_core::attention::NoProcessor;
use fabric_core::models::{Residuals, UNetInput};

use super::hint::HintEncoder;
use super::{ChannelOrder, ControlNetConfig, ControlNetFile};
use crate::ModelError;
use crate::layers::{Conv2d, cast, computes_in};
use crate::load::{LoadOptions, LoadReport, TensorSource, load_into};
use crate::unet::{Pass, Plan, TimeInputs, Trunk, UNetConfig};

/// ControlNet: a copy of a U-Net's down path and middle block that reads a control image and predicts residuals for
/// the U-Net.
#[derive(Module, Debug)]
pub struct ControlNet {
    trunk: Trunk,
    hint: HintEncoder,
    /// One convolution per skip connection.
    down_outputs: Vec<Conv2d>,
    mid_output: Conv2d,
    #[module(skip)]
    order: ChannelOrder,
    /// Whether the residuals are averaged over all positions.
    pooled: bool,
    /// Channels of the text embeddings.
    context: usize,
}

impl ControlNet {
    pub(super) fn new(config: &ControlNetConfig, network: &UNetConfig, plan: &Plan, device: &Device) -> Self {
        let trunk = Trunk::new(network, plan, device);
        let point = |channels| Conv2d::new(channels, channels, 1, device);
        let last = trunk.skips.last().copied().unwrap_or_default();
        let widths = &config.conditioning_embedding_out_channels;
        Self {
            hint: HintEncoder::new(config.conditioning_channels, widths, network.block_out_channels[0], device),
            down_outputs: trunk.skips.iter().map(|&channels| point(channels)).collect(),
            mid_output: point(last),
            order: config.controlnet_conditioning_channel_order,
            pooled: config.global_pool_conditions,
            context: plan.context(),
            trunk,
        }
    }

    /// Loads a folder in the diffusers layout, or a file with diffusers' or the original names.
    ///
    /// ```no_run
    /// use fabric_models::control::ControlNet;
    /// let network = ControlNet::open("control_v11p_sd15_canny", &fabric_backends::default_device()?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if a file is missing, damaged, or of another kind.
    pub fn open(path: impl AsRef<Path>, device: &Device) -> Result<Self, ModelError> {
        let file = ControlNetFile::open(path)?;
        Ok(Self::load(&file.config()?, file.weights(), &LoadOptions::default(), device)?.0)
    }

    /// Loads the weights of a network with this configuration.
    ///
    /// # Errors
    ///
    /// Returns an error if a tensor is missing, unexpected, of another shape, or not finite.
    pub fn load(
        config: &ControlNetConfig,
        source: &dyn TensorSource,
        options: &LoadOptions,
        device: &Device,
    ) -> Result<(Self, LoadReport), ModelError> {
        Ok(load_into(config.init(device)?, source, options)?)
    }

    /// Returns the pixels of the control image per latent, along each axis.
    pub fn downscale(&self) -> usize {
        self.hint.downscale()
    }

    /// Returns the channels of the control image.
    pub fn inputs(&self) -> usize {
        self.hint.inputs()
    }

    /// Returns the channels of the skip connections that receive residuals.
    pub fn skip_channels(&self) -> &[usize] {
        &self.trunk.skips
    }

    /// Channels of the text embeddings.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Returns whether the residuals are averaged over all positions; diffusers runs such a network in guess mode.
    pub fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// Returns the device of the weights.
    pub fn device(&self) -> Device {
        self.trunk.conv_in.weight.lazy_device()
    }

    /// Encodes the control image. The result does not depend on noise or text, so it can be computed once per run.
    ///
    /// # Shapes
    ///
    /// - `image`: from 0 to 1, `[images, 3, height, width]`
    /// - returns: `[images, channels, height / downscale, width / downscale]`
    pub fn read(&self, image: Tensor<4>) -> Tensor<4> {
        let image = match self.order {
            ChannelOrder::Rgb => image,
            ChannelOrder::Bgr => image.flip([1]),
        };
        self.hint.forward(cast(image, self.computes_in()))
    }

    /// Returns the residuals for a U-Net's skip connections and middle block: the published output times `scale`.
    /// With `guess`, they are also scaled from a tenth at full resolution to one in the middle block, as in
    /// diffusers' guess mode; a network that averages over positions is scaled evenly.
    ///
    /// # Shapes
    ///
    /// - `hint`: the result of [`Self::read`], one for all rows of `input` or one per row
    /// - returns: one tensor per skip connection, `[rows, channels, height, width]`; in networks that average over
    ///   positions, `[rows, channels, 1, 1]`
    pub fn forward(&self, input: &UNetInput<'_>, hint: Tensor<4>, scale: f64, guess: bool) -> Residuals {
        let rows = input.sample.dims()[0];
        let compute = self.computes_in();
        let mut pass = Pass {
            processor: &NoProcessor,
            context: cast(input.context.clone(), compute),
            // The input's cache belongs to the U-Net.
            text_kv_cache: None,
            time: self.trunk.embed_time(rows, TimeInputs::of(input), &mut None),
            skips: Vec::new(),
            kept: rows,
            last: None,
            recorded: None,
            trace: None,
        };
        let x = self.trunk.conv_in.forward(cast(input.sample.clone(), compute)) + hint;
        let ends = "a pass that does not record comes to its end";
        let x = self.trunk.down(x, &[], &mut pass).expect(ends);
        let x = self.trunk.middle(x, &mut pass).expect(ends);
        let count = pass.skips.len();
        let finish = |index: usize, x: Tensor<4>, output: &Conv2d| {
            let share = if guess && !self.pooled { 10_f64.powf(index as f64 / count as f64 - 1.0) } else { 1.0 };
            let x = output.forward(x) * (scale * share);
            if self.pooled { x.mean_dims(&[2, 3]) } else { x }
        };
        let down = pass.skips.into_iter().zip(&self.down_outputs).enumerate();
        Residuals {
            down: down.map(|(index, (x, output))| finish(index, x, output)).collect(),
            mid: Some(finish(count, x, &self.mid_output)),
            levels: Vec::new(),
        }
    }

    fn computes_in(&self) -> DType {
        computes_in(&self.trunk.conv_in.weight)
    }
}
