//! Control network with its image, for use in a run.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Tensor};
use fabric_core::Error;
use fabric_core::denoise::ModelCall;
use fabric_core::guidance::Branch;
use fabric_core::image::{Fit, Image, control_batch, grey_batch};
use fabric_core::models::{AddedConditions, Residuals, UNetInput, UNetModel};
use fabric_core::pipeline::{Steering, Window};

use super::{ControlNet, T2IAdapter};

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
/// let control = Control::new(network, edges).with_scale(0.8)?;
/// let made = pipeline.generate(&Request::new("a red house").with_steering(control))?;
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
    /// Features of the control image, by height and width of the latents.
    read: Arc<Mutex<BTreeMap<[usize; 2], Vec<Tensor<4>>>>>,
}

impl Control {
    /// Creates a control with scale 1 in all steps. The image is stretched to the size of the result.
    pub fn new(network: impl Into<ControlNetwork>, image: Image) -> Self {
        let network = network.into();
        let guess = matches!(&network, ControlNetwork::ControlNet(network) if network.is_pooled());
        Self { network, image, scale: 1.0, window: Window::default(), guess, read: Arc::default() }
    }

    /// Sets the scale of the residuals; 1 is as trained, 0 has no effect.
    ///
    /// # Errors
    ///
    /// Returns an error if the scale is not finite.
    pub fn with_scale(self, scale: f64) -> Result<Self, Error> {
        if scale.is_finite() {
            return Ok(Self { scale, ..self });
        }
        Err(Error::settings("scale of a control network", scale, "a finite number", "1 is as trained, 0 is none"))
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

    /// Returns the features of the control image for latents of this height and width, computing them on first use.
    ///
    /// The lock is never held while the network runs. The network uses rayon's threads, and a thread waiting for them
    /// may start another request with the same control, which would wait for the lock that its own thread holds. Two
    /// concurrent requests may both run the network; the first result is kept.
    fn read(&self, latents: [usize; 2]) -> Result<Vec<Tensor<4>>, Error> {
        let kept = || self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(read) = kept().get(&latents) {
            return Ok(read.clone());
        }
        let [height, width] = self.network.image_size(latents);
        let images = std::slice::from_ref(&self.image);
        let device = self.network.device();
        let pixels = if self.network.inputs() == 1 {
            grey_batch(images, width, height, Fit::SquashLanczos, &device)?
        } else {
            control_batch(images, width, height, Fit::SquashLanczos, &device)?
        };
        let made = self.network.read(pixels);
        Ok(kept().entry(latents).or_insert(made).clone())
    }
}

impl Steering for Control {
    fn at_every_evaluation(&self) -> Option<Arc<dyn Steering>> {
        Some(Arc::new(self.clone().with_window(Window::default())))
    }

    fn check(&self, unet: &dyn UNetModel) -> Result<(), Error> {
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
                )
            }
            ControlNetwork::T2IAdapter(network) => {
                let (got, mut expected) = (network.channels(), unet.level_channels());
                // An additional level is that of the middle block.
                if got.len() == expected.len() + 1 {
                    expected.extend(expected.last().copied());
                }
                same("channels that a T2I-Adapter adds to", format!("{got:?}"), format!("{expected:?}"))
            }
        }
    }

    fn residuals(
        &self,
        call: &ModelCall,
        input: &UNetInput<'_>,
        rows: &[(Branch, Range<usize>)],
    ) -> Result<Option<Residuals>, Error> {
        if self.scale == 0.0 || !self.window.contains(call) {
            return Ok(None);
        }
        let [count, _, height, width] = input.sample.dims();
        let mut read = self.read([height, width])?;
        let network = match &self.network {
            ControlNetwork::ControlNet(network) => network,
            ControlNetwork::T2IAdapter(_) => {
                let levels = read.into_iter().map(|x| x.repeat_dim(0, count) * self.scale).collect();
                return Ok(Some(Residuals { levels, ..Residuals::default() }));
            }
        };
        let hint = read.swap_remove(0);
        if !self.guess {
            return Ok(Some(network.forward(input, hint, self.scale, false)));
        }
        // Runs on the conditional branch only; the other rows get zeros.
        let Some((_, seen)) = rows.iter().find(|(branch, _)| *branch == Branch::Conditional) else { return Ok(None) };
        let said = network.forward(&only(input, seen), hint, self.scale, true);
        let placed = |x: Tensor<4>| {
            let [_, channels, height, width] = x.dims();
            let none =
                |rows| (rows > 0).then(|| Tensor::zeros([rows, channels, height, width], (&x.device(), x.dtype())));
            let parts = [none(seen.start), Some(x.clone()), none(count - seen.end)];
            Tensor::cat(parts.into_iter().flatten().collect(), 0)
        };
        let down = said.down.into_iter().map(placed).collect();
        Ok(Some(Residuals { down, mid: said.mid.map(placed), ..Residuals::default() }))
    }
}

/// Returns an input with these rows only.
fn only<'a>(input: &UNetInput<'a>, rows: &Range<usize>) -> UNetInput<'a> {
    let (start, count) = (rows.start, rows.len());
    let added = input.added.as_ref().map(|added| AddedConditions {
        pooled: added.pooled.clone().narrow(0, start, count),
        time_ids: added.time_ids.clone().narrow(0, start, count),
    });
    let (sample, context) = (input.sample.clone(), input.context.clone());
    let input = UNetInput::new(sample.narrow(0, start, count), input.timesteps, context.narrow(0, start, count));
    UNetInput { added, ..input }
}
