//! Aspects of an image that an adapter without instructions takes through some of its layers only.

use std::sync::Arc;

use fabric_core::models::CrossAttention;
use fabric_core::{Aspect, AspectKind};

use crate::image_prompt::Scale;
use crate::{IpAdapter, LayerPreset, LayerScales};

/// Presets by aspect: the style layers of InstantStyle (2404.02733), and the composition layers of
/// `ComfyUI_IPAdapter_plus`.
const PRESETS: [(AspectKind, LayerPreset); 2] =
    [(AspectKind::Style, LayerPreset::InstantStyle), (AspectKind::Composition, LayerPreset::Composition)];

impl IpAdapter {
    /// Sets the layers through which an adapter without instructions takes an aspect of an image, with their scales at
    /// strength 1.
    ///
    /// Such an adapter can then use the aspect in image conditions and reasons of votes
    /// ([`Pipeline::with_adapter`](fabric_core::pipeline::Pipeline::with_adapter)). For Stable Diffusion 1, 2 and XL,
    /// style and composition have published layers. An Instruct adapter reads the aspect instead and ignores these
    /// layers.
    ///
    /// ```no_run
    /// use fabric_core::AspectKind;
    /// use fabric_core::attention::Block;
    /// use fabric_ipadapter::{IpAdapter, LayerScales};
    ///
    /// let adapter = IpAdapter::open("ip-adapter-plus_sd15.safetensors", &fabric_backends::default_device()?)?
    ///     .with_aspect(AspectKind::Colour, LayerScales::none().with_block(Block::Up(3), 1.0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_aspect(mut self, aspect: AspectKind, layers: LayerScales) -> Self {
        Arc::make_mut(&mut self.aspects).insert(aspect, layers);
        self
    }

    /// Returns the scale by layer for an aspect at this strength, if the adapter has layers for it in a U-Net with these
    /// cross-attention layers.
    pub(crate) fn scale_of_aspect(&self, aspect: &Aspect, strength: f32, layers: &[CrossAttention]) -> Option<Scale> {
        let preset = || {
            let (_, preset) = PRESETS.into_iter().find(|(kind, _)| *kind == aspect.kind())?;
            preset.scales_for(layers, strength, None).is_ok().then_some(Scale::Preset { preset, strength, other: None })
        };
        match self.aspects.get(&aspect.kind()) {
            Some(scales) => Some(Scale::Layers(scales.clone().times(strength))),
            None if *aspect == Aspect::Everything => Some(Scale::Uniform(strength)),
            None => preset(),
        }
    }
}
