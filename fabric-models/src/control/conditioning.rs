//! Control network with its image, for use in a run.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use fabric_core::Error;
use fabric_core::denoise::ModelCall;
use fabric_core::guidance::Branch;
use fabric_core::image::{Fit, Image, control_batch, grey_batch};
use fabric_core::models::{AddedConditions, Residuals, UNetInput, UNetModel};
use fabric_core::pipeline::{BatchLayout, Conditioning, PreparedConditioning, RunContext, Window};

use super::{ControlNet, T2IAdapter};

/// Maximum magnitude of a scale, the same as of image conditions; far beyond useful ones.
const MAX_SCALE: f64 = 100.0;

/// Network that reads a control image.
#[derive(Debug, Clone)]
pub enum ControlNetwork {
    /// ControlNet; runs before the U-Net in every evaluation.
    ControlNet(Arc<ControlNet>),
    /// T2I-Adapter; runs once.
    T2IAdapter(Arc<T2IAdapter>),
}

impl From<Arc<ControlNet>> for ControlNetwork {
    fn from(network: Arc<ControlNet>) -> Self {
        Self::ControlNet(network)
    }
}

impl From<Arc<T2IAdapter>> for ControlNetwork {
    fn from(network: Arc<T2IAdapter>) -> Self {
        Self::T2IAdapter(network)
    }
}

impl ControlNetwork {
    fn device(&self) -> Device {
        match self {
            Self::ControlNet(network) => network.device(),
            Self::T2IAdapter(network) => network.device(),
        }
    }

    /// Returns the channels of the control image.
    fn inputs(&self) -> usize {
        match self {
            Self::ControlNet(network) => network.inputs(),
            Self::T2IAdapter(network) => network.inputs(),
        }
    }

    /// Returns the height and width of the control image for latents of this height and width.
    fn image_size(&self, latents: [usize; 2]) -> [usize; 2] {
        match self {
            Self::ControlNet(network) => latents.map(|side| side * network.downscale()),
            Self::T2IAdapter(network) => {
                latents.map(|side| (side * network.downscale()).next_multiple_of(network.factor()))
            }
        }
    }

    /// Returns the features of the control image, which are the same in all steps.
    fn read(&self, pixels: Tensor<4>) -> Vec<Tensor<4>> {
        match self {
            Self::ControlNet(network) => vec![network.read(pixels)],
            Self::T2IAdapter(network) => network.forward(pixels),
        }
    }
}

/// Control network with its control image.
///
/// The residuals of several controls are added.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use fabric_core::{image::Image, pipeline::{Pipeline, Request}};
/// # use fabric_models::control::{Control, ControlNet};
/// # fn example(pipeline: &Pipeline, network: Arc<ControlNet>, edges: Image) -> Result<(), fabric_core::Error> {
/// let control = Control::new(network, edges).with_scale(0.8);
/// let made = pipeline.generate(&Request::new("a red house").with(control))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Control {
    network: ControlNetwork,
    image: Image,
    scale: f64,
    window: Window,
    guess: bool,
}

impl Control {
    /// Creates a control with scale 1 in all steps. The image is stretched to the size of the result.
    pub fn new(network: impl Into<ControlNetwork>, image: Image) -> Self {
        let network = network.into();
        let guess = matches!(&network, ControlNetwork::ControlNet(network) if network.is_pooled());
        Self { network, image, scale: 1.0, window: Window::default(), guess }
    }

    /// Sets the scale of the residuals; 1 is as trained, 0 has no effect.
    #[must_use]
    pub fn with_scale(self, scale: f64) -> Self {
        Self { scale, ..self }
    }

    /// Restricts the control to a part of the run.
    #[must_use]
    pub fn with_window(self, window: Window) -> Self {
        Self { window, ..self }
    }

    /// Sets diffusers' guess mode of a ControlNet: only on the conditional branch, and weaker at high resolutions. A
    /// T2I-Adapter has no such mode and is not changed.
    #[must_use]
    pub fn with_guess(self, guess: bool) -> Self {
        Self { guess, ..self }
    }

    /// Checks that the network was trained for this U-Net, and runs on its device.
    fn check(&self, unet: &dyn UNetModel) -> Result<(), Error> {
        check_scale(self.scale)?;
        let same = |what: &str, got: String, expected: String| {
            if got == expected {
                return Ok(());
            }
            let expected = format!("{expected}, as the U-Net has");
            Err(Error::settings(what, got, expected, "take the control network that was trained for this model"))
        };
        let inputs = self.network.inputs();
        if !matches!(inputs, 1 | 3) {
            let next = "take a network that reads grey or coloured images";
            return Err(Error::settings("channels of a control network's image", inputs, "3, or 1 for grey", next));
        }
        match &self.network {
            ControlNetwork::ControlNet(network) => {
                let (got, expected) = (network.skip_channels(), unet.skip_channels());
                same("channels that a ControlNet adds to", format!("{got:?}"), format!("{expected:?}"))?;
                let expected = unet.cross_attentions().first().map_or(network.context(), |layer| layer.context);
                same(
                    "channels of the text that a ControlNet reads",
                    network.context().to_string(),
                    expected.to_string(),
                )?;
            }
            ControlNetwork::T2IAdapter(network) => {
                let (got, mut expected) = (network.channels(), unet.level_channels());
                // An additional level is that of the middle block.
                if got.len() == expected.len() + 1 {
                    expected.extend(expected.last().copied());
                }
                same("channels that a T2I-Adapter adds to", format!("{got:?}"), format!("{expected:?}"))?;
            }
        }
        let (got, expected) = (self.network.device(), unet.device());
        if got != expected {
            let next = "load it on this device; on a pool of several devices, make a request for each device";
            let expected = format!("{expected:?}, as the U-Net");
            return Err(Error::settings("device of a control network", format!("{got:?}"), expected, next));
        }
        Ok(())
    }

    /// Returns the features of the control image for latents of this height and width.
    fn read(&self, latents: [usize; 2]) -> Result<Vec<Tensor<4>>, Error> {
        let [height, width] = self.network.image_size(latents);
        let images = std::slice::from_ref(&self.image);
        let device = self.network.device();
        let pixels = if self.network.inputs() == 1 {
            grey_batch(images, width, height, Fit::SquashLanczos, &device)?
        } else {
            control_batch(images, width, height, Fit::SquashLanczos, &device)?
        };
        Ok(self.network.read(pixels))
    }
}

impl Conditioning for Control {
    fn describe(&self) -> String {
        let kind = match self.network {
            ControlNetwork::ControlNet(_) => "ControlNet",
            ControlNetwork::T2IAdapter(_) => "T2I-Adapter",
        };
        format!("{kind} at {}", self.scale)
    }

    fn prepare(&self, run: &RunContext<'_>) -> Result<Box<dyn PreparedConditioning>, Error> {
        self.check(run.unet())?;
        let features = if self.scale == 0.0 { Vec::new() } else { self.read(run.latent_size())? };
        let (network, scale, guess) = (self.network.clone(), self.scale, self.guess);
        Ok(Box::new(PreparedControl { network, features, scale, guess, window: run.window(self.window) }))
    }
}

/// [`Control`] with the features of its image, which are the same at all evaluations of a run.
#[derive(Debug)]
struct PreparedControl {
    network: ControlNetwork,
    features: Vec<Tensor<4>>,
    scale: f64,
    guess: bool,
    window: Window,
}

impl PreparedConditioning for PreparedControl {
    fn residuals(
        &self,
        call: &ModelCall,
        input: &UNetInput<'_>,
        layout: &BatchLayout,
    ) -> Result<Option<Residuals>, Error> {
        if self.scale == 0.0 || !self.window.contains(call) {
            return Ok(None);
        }
        let is_guessing = self.guess && matches!(self.network, ControlNetwork::ControlNet(_));
        let mut groups: Vec<(Branch, Range<usize>)> = layout.groups();
        groups.retain(|(branch, _)| !is_guessing || *branch == Branch::Conditional);
        let rows = Rows { groups: groups.into_iter().map(|(_, rows)| rows).collect(), count: input.sample.dims()[0] };
        if rows.groups.is_empty() {
            return Ok(None);
        }
        Ok(Some(match &self.network {
            ControlNetwork::ControlNet(network) => {
                let made = network.forward(&rows.only(input), self.features[0].clone(), self.scale, is_guessing);
                let down = made.down.into_iter().map(|x| rows.placed(x)).collect();
                Residuals { down, mid: made.mid.map(|x| rows.placed(x)), ..Residuals::default() }
            }
            ControlNetwork::T2IAdapter(_) => {
                let level = |x: &Tensor<4>| rows.placed(x.clone().repeat_dim(0, rows.selected()) * self.scale);
                Residuals { levels: self.features.iter().map(level).collect(), ..Residuals::default() }
            }
        }))
    }
}

/// Checks that a scale is a number from -[`MAX_SCALE`] to [`MAX_SCALE`].
pub(super) fn check_scale(scale: f64) -> Result<(), Error> {
    if (-MAX_SCALE..=MAX_SCALE).contains(&scale) {
        return Ok(());
    }
    let expected = format!("a number from -{MAX_SCALE} to {MAX_SCALE}");
    Err(Error::settings("scale of a control network", scale, expected, "1 is as trained, 0 is none"))
}

/// The rows of a batch that a control acts on, as ascending ranges.
struct Rows {
    groups: Vec<Range<usize>>,
    /// Rows of the batch.
    count: usize,
}

impl Rows {
    fn selected(&self) -> usize {
        self.groups.iter().map(Range::len).sum()
    }

    /// Returns the selected rows of a tensor.
    fn of<const D: usize>(&self, x: &Tensor<D>) -> Tensor<D> {
        if self.selected() == self.count {
            return x.clone();
        }
        Tensor::cat(self.groups.iter().map(|rows| x.clone().narrow(0, rows.start, rows.len())).collect(), 0)
    }

    /// Returns an input with the selected rows.
    fn only<'a>(&self, input: &UNetInput<'a>) -> UNetInput<'a> {
        let added = input
            .added
            .as_ref()
            .map(|added| AddedConditions { pooled: self.of(&added.pooled), time_ids: self.of(&added.time_ids) });
        let own = UNetInput::new(self.of(&input.sample), input.timesteps, self.of(&input.context));
        UNetInput { added, ..own }
    }

    /// Puts the selected rows at their places in the batch, with zeros elsewhere.
    fn placed(&self, x: Tensor<4>) -> Tensor<4> {
        if self.selected() == self.count {
            return x;
        }
        let [_, channels, height, width] = x.dims();
        let zeros =
            |rows: usize| (rows > 0).then(|| Tensor::zeros([rows, channels, height, width], (&x.device(), x.dtype())));
        let (mut parts, mut row, mut taken) = (Vec::new(), 0, 0);
        for rows in &self.groups {
            parts.extend(zeros(rows.start - row));
            parts.push(x.clone().narrow(0, taken, rows.len()));
            (row, taken) = (rows.end, taken + rows.len());
        }
        parts.extend(zeros(self.count - row));
        Tensor::cat(parts, 0)
    }
}
