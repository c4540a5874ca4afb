use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::{Activation, Conv2d, GroupNorm, Linear};

/// Resnet block: two convolutions with a residual connection, shifted by the time embedding if there is one.
#[derive(Module, Debug)]
pub struct Resnet {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    #[module(skip)]
    act: Activation,
}

/// Settings shared by all resnets of a network.
#[derive(Debug, Clone, Copy)]
pub struct ResnetConfig {
    /// Width of the time embedding; a VAE has none.
    pub time_dim: Option<usize>,
    /// Number of groups of the norms.
    pub groups: usize,
    /// Epsilon of the norms.
    pub epsilon: f64,
    /// Activation before both convolutions.
    pub act: Activation,
}

impl ResnetConfig {
    /// Creates a block with initial weights that turns `inputs` channels into `outputs` channels.
    #[must_use]
    pub fn init(&self, inputs: usize, outputs: usize, device: &Device) -> Resnet {
        Resnet {
            norm1: GroupNorm::new(self.groups, inputs, self.epsilon, device),
            conv1: Conv2d::new(inputs, outputs, 3, device),
            time_emb_proj: self.time_dim.map(|dim| Linear::new(dim, outputs, true, device)),
            norm2: GroupNorm::new(self.groups, outputs, self.epsilon, device),
            conv2: Conv2d::new(outputs, outputs, 3, device),
            conv_shortcut: (inputs != outputs).then(|| Conv2d::new(inputs, outputs, 1, device)),
            act: self.act,
        }
    }
}

impl Resnet {
    /// Applies the block.
    ///
    /// # Shapes
    ///
    /// - `x`: `[rows, in, height, width]`
    /// - `time`: `[rows, time_dim]`, after the activation
    /// - returns: `[rows, out, height, width]`
    #[must_use]
    pub fn forward(&self, x: Tensor<4>, time: Option<&Tensor<2>>) -> Tensor<4> {
        let mut hidden = self.conv1.forward(self.norm1.forward_then(x.clone(), self.act));
        if let (Some(proj), Some(time)) = (&self.time_emb_proj, time) {
            hidden = hidden + proj.forward(time.clone()).unsqueeze_dims(&[2, 3]);
        }
        let hidden = self.conv2.forward(self.norm2.forward_then(hidden, self.act));
        let shortcut = match &self.conv_shortcut {
            Some(conv) => conv.forward(x),
            None => x,
        };
        shortcut + hidden
    }
}
