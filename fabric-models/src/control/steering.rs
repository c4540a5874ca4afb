//! A control network with its picture, for a run.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Tensor};
use fabric_core::Error;
use fabric_core::denoise::ModelCall;
use fabric_core::guidance::Branch;
use fabric_core::models::{AddedConditions, NoisePredictor, Residuals, UNetInput};
use fabric_core::picture::{Fit, Picture, control_batch, grey_batch};
use fabric_core::pipeline::{Steering, Window};

use super::{ControlNet, T2IAdapter};

/// A network that reads a control picture.
#[derive(Debug, Clone)]
pub enum ControlNetwork {
    /// Runs beside the U-Net in every step.
    ControlNet(Arc<ControlNet>),
    /// Runs once.
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

    /// Channels of its picture.
    fn inputs(&self) -> usize {
        match self {
            Self::ControlNet(network) => network.inputs(),
            Self::T2IAdapter(network) => network.inputs(),
        }
    }

    /// Height and width of its picture, for latents of these.
    fn picture_size(&self, latents: [usize; 2]) -> [usize; 2] {
        match self {
            Self::ControlNet(network) => latents.map(|side| side * network.downscale()),
            Self::T2IAdapter(network) => {
                latents.map(|side| (side * network.downscale()).next_multiple_of(network.factor()))
            }
        }
    }

    /// What it makes of its picture, which is the same in all steps.
    fn read(&self, pixels: Tensor<4>) -> Vec<Tensor<4>> {
        match self {
            Self::ControlNet(network) => vec![network.read(pixels)],
            Self::T2IAdapter(network) => network.forward(pixels),
        }
    }
}

/// A control network and the picture that it reads.
///
/// Several of them act together: what they say is added.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use fabric_core::{picture::Picture, pipeline::{Pipeline, Request}};
/// # use fabric_models::control::{Control, ControlNet};
/// # fn example(pipeline: &Pipeline, network: Arc<ControlNet>, edges: Picture) -> Result<(), fabric_core::Error> {
/// let control = Control::new(network, edges).with_scale(0.8)?;
/// let made = pipeline.generate(&Request::new("a red house").with_steering(control))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Control {
    network: ControlNetwork,
    picture: Picture,
    scale: f64,
    window: Window,
    guess: bool,
    /// What the network made of the picture, by the latents' height and width.
    read: Arc<Mutex<BTreeMap<[usize; 2], Vec<Tensor<4>>>>>,
}

impl Control {
    /// Of full strength, in all steps. The picture is stretched over the result.
    pub fn new(network: impl Into<ControlNetwork>, picture: Picture) -> Self {
        let network = network.into();
        let guess = matches!(&network, ControlNetwork::ControlNet(network) if network.is_pooled());
        Self { network, picture, scale: 1.0, window: Window::default(), guess, read: Arc::default() }
    }

    /// With another strength; 1 is as trained, 0 is none.
    ///
    /// # Errors
    ///
    /// When it is not finite.
    pub fn with_scale(self, scale: f64) -> Result<Self, Error> {
        if scale.is_finite() {
            return Ok(Self { scale, ..self });
        }
        Err(Error::settings("scale of a control network", scale, "a finite number", "1 is as trained, 0 is none"))
    }

    /// Only in a part of the run.
    #[must_use]
    pub fn with_window(self, window: Window) -> Self {
        Self { window, ..self }
    }

    /// A ControlNet in diffusers' guess mode: only under the prompt, and weaker at high resolutions. A T2I-Adapter has no
    /// such mode, and stays as it is.
    #[must_use]
    pub fn with_guess(self, guess: bool) -> Self {
        Self { guess, ..self }
    }

    /// What the network makes of the picture for latents of this height and width.
    ///
    /// The lock is never held while the network runs. It computes on rayon's threads, and a thread that waits for them may
    /// take up another request of the same control meanwhile, which would wait for the lock that its own thread holds. Two
    /// requests at once may both run the network; the first result stays.
    fn read(&self, latents: [usize; 2]) -> Result<Vec<Tensor<4>>, Error> {
        let kept = || self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(read) = kept().get(&latents) {
            return Ok(read.clone());
        }
        let [height, width] = self.network.picture_size(latents);
        let pictures = std::slice::from_ref(&self.picture);
        let device = self.network.device();
        let pixels = if self.network.inputs() == 1 {
            grey_batch(pictures, width, height, Fit::SquashLanczos, &device)?
        } else {
            control_batch(pictures, width, height, Fit::SquashLanczos, &device)?
        };
        let made = self.network.read(pixels);
        Ok(kept().entry(latents).or_insert(made).clone())
    }
}

impl Steering for Control {
    fn at_every_evaluation(&self) -> Option<Arc<dyn Steering>> {
        Some(Arc::new(self.clone().with_window(Window::default())))
    }

    fn check(&self, unet: &dyn NoisePredictor) -> Result<(), Error> {
        let same = |what: &str, found: String, wanted: String| {
            if found == wanted {
                return Ok(());
            }
            let wanted = format!("{wanted}, as the U-Net has");
            Err(Error::settings(what, found, wanted, "take the control network that was trained for this model"))
        };
        let inputs = self.network.inputs();
        if !matches!(inputs, 1 | 3) {
            let next = "take a network that reads grey or coloured pictures";
            return Err(Error::settings("channels of a control network's picture", inputs, "3, or 1 for grey", next));
        }
        match &self.network {
            ControlNetwork::ControlNet(network) => {
                let (found, wanted) = (network.skip_channels(), unet.skip_channels());
                same("channels that a ControlNet adds to", format!("{found:?}"), format!("{wanted:?}"))?;
                let wanted = unet.cross_attentions().first().map_or(network.context(), |layer| layer.context);
                same("channels of the text that a ControlNet reads", network.context().to_string(), wanted.to_string())
            }
            ControlNetwork::T2IAdapter(network) => {
                let (found, mut wanted) = (network.channels(), unet.level_channels());
                // One level more belongs to the middle.
                if found.len() == wanted.len() + 1 {
                    wanted.extend(wanted.last().copied());
                }
                same("channels that a T2I-Adapter adds to", format!("{found:?}"), format!("{wanted:?}"))
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
        // Only under the prompt; nothing is added elsewhere.
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

/// A few rows of an input.
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
