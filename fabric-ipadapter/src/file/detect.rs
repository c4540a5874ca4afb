//! Detection of an adapter's configuration from the names and shapes in its file.

use std::collections::BTreeMap;

use fabric_models::load::TensorSource;

use super::config::{AdapterConfig, FaceVersion, ProjectionConfig};
use crate::AdapterError;
use crate::projection::{HEAD_DIM, ResamplerConfig};

impl AdapterConfig {
    /// Detects the kind and sizes of an adapter from the names and shapes of its tensors; no weights are
    /// loaded.
    ///
    /// File names are ignored, so FaceID plus is detected as version 1; [`Self::with_face_version`] changes it.
    ///
    /// # Errors
    ///
    /// Returns an error if the tensors are not those of an adapter.
    pub(super) fn detect(source: &dyn TensorSource) -> Result<Self, AdapterError> {
        let shapes = Shapes::of(source);
        let (widths, context) = shapes.layers()?;
        let projection = shapes.projection(context)?;
        Ok(Self { projection, widths, context, lora_rank: None })
    }

    /// Sets the version of FaceID plus; has no effect on other adapters.
    #[must_use]
    pub fn with_face_version(mut self, expected: FaceVersion) -> Self {
        if let ProjectionConfig::FaceResampler { version, .. } = &mut self.projection {
            *version = expected;
        }
        self
    }
}

/// Maximum number of cross-attention layers of a U-Net; that of Stable Diffusion XL has 70.
const MAX_LAYERS: usize = 2048;

/// Tensor shapes of a file.
struct Shapes<'a> {
    place: String,
    shapes: BTreeMap<&'a str, &'a [usize]>,
}

impl<'a> Shapes<'a> {
    fn of(source: &'a dyn TensorSource) -> Self {
        let shapes = source.tensors().iter().map(|(name, info)| (name.as_str(), info.shape.as_slice()));
        Self { place: source.place(), shapes: shapes.collect() }
    }

    /// Returns the shape of a tensor if it has this number of axes, none of them empty.
    fn find(&self, name: &str, axes: usize) -> Option<&'a [usize]> {
        self.shapes.get(name).copied().filter(|shape| shape.len() == axes && !shape.contains(&0))
    }

    fn get(&self, name: &str, axes: usize) -> Result<&'a [usize], AdapterError> {
        let got = || self.shapes.get(name).map_or_else(|| "none".to_owned(), |shape| format!("{shape:?}"));
        self.find(name, axes).ok_or_else(|| {
            let expected = format!("a tensor with {axes} axes, as in every adapter of its kind");
            self.broken(format!("tensor `{name}`"), got(), expected)
        })
    }

    fn broken(&self, what: impl Into<String>, got: impl Into<String>, expected: impl Into<String>) -> AdapterError {
        AdapterError::NotAnAdapter {
            place: self.place.clone(),
            what: what.into(),
            got: got.into(),
            expected: expected.into(),
        }
    }

    /// Returns the widths of the cross-attention layers in order of their number, and the channels of a token.
    fn layers(&self) -> Result<(Vec<usize>, usize), AdapterError> {
        let number = |name: &str| name.strip_prefix("ip_adapter.")?.strip_suffix(".to_k_ip.weight")?.parse().ok();
        let mut numbers: Vec<usize> = self.shapes.keys().filter_map(|name| number(name)).collect();
        numbers.sort_unstable();
        if numbers.is_empty() {
            let expected = "image_proj.* and ip_adapter.N.to_k_ip.weight";
            let first: Vec<&str> = self.shapes.keys().take(3).copied().collect();
            let got = if first.is_empty() { "none".to_owned() } else { first.join(", ") };
            return Err(self.broken("names of tensors", got, expected));
        }
        if numbers.len() > MAX_LAYERS {
            let got = format!("{} layers", numbers.len());
            return Err(self.broken("numbers of layers", got, format!("at most {MAX_LAYERS} layers")));
        }
        if let Some((index, number)) = numbers.iter().enumerate().find(|(index, number)| **number != 2 * index + 1) {
            let expected = format!("number {}: cross-attentions have the odd ones, without a gap", 2 * index + 1);
            return Err(self.broken("numbers of layers", format!("number {number}"), expected));
        }
        let mut widths = Vec::with_capacity(numbers.len());
        let mut context = None;
        for number in numbers {
            for name in ["to_k_ip", "to_v_ip"] {
                let name = format!("ip_adapter.{number}.{name}.weight");
                let shape = self.get(&name, 2)?;
                if name.contains("to_k_ip") {
                    widths.push(shape[0]);
                }
                let context = *context.get_or_insert(shape[1]);
                if shape[1] != context || widths.last() != Some(&shape[0]) {
                    let expected = format!("[{}, {context}]", widths.last().copied().unwrap_or_default());
                    return Err(self.broken(format!("shape of tensor `{name}`"), format!("{shape:?}"), expected));
                }
            }
        }
        Ok((widths, context.unwrap_or_default()))
    }

    fn projection(&self, context: usize) -> Result<ProjectionConfig, AdapterError> {
        let has = |name: &str| self.shapes.contains_key(format!("image_proj.{name}").as_str());
        if has("proj.weight") {
            let shape = self.get("image_proj.proj.weight", 2)?;
            return Ok(ProjectionConfig::Pooled { features: shape[1], tokens: self.tokens(shape[0], context)? });
        }
        if has("proj.3.weight") {
            return Ok(ProjectionConfig::Tokens { features: self.get("image_proj.proj.0.weight", 2)?[1] });
        }
        if has("perceiver_resampler.proj_in.weight") {
            return Ok(ProjectionConfig::FaceResampler {
                identity: self.get("image_proj.proj.0.weight", 2)?[1],
                features: self.get("image_proj.perceiver_resampler.proj_in.weight", 2)?[1],
                tokens: self.tokens(self.get("image_proj.proj.2.weight", 2)?[0], context)?,
                version: FaceVersion::default(),
            });
        }
        if has("norm.weight") {
            return Ok(ProjectionConfig::Face {
                identity: self.get("image_proj.proj.0.weight", 2)?[1],
                tokens: self.tokens(self.get("image_proj.proj.2.weight", 2)?[0], context)?,
            });
        }
        if !has("latents") {
            let of: Vec<&str> =
                self.shapes.keys().filter(|name| name.starts_with("image_proj.")).take(3).copied().collect();
            return Err(self.broken("the projection", of.join(", "), "one of the published projections"));
        }
        let resampler = self.resampler()?;
        if resampler.context != context {
            let expected = format!("{context}, the channels of a token in its layers");
            return Err(self.broken(
                "outputs of `image_proj.proj_out.weight`",
                resampler.context.to_string(),
                expected,
            ));
        }
        if has("proj_new_input.weight") {
            let text = self.get("image_proj.proj_new_input.weight", 2)?[1];
            return Ok(ProjectionConfig::Instruct { resampler, text });
        }
        Ok(ProjectionConfig::Resampler(resampler))
    }

    /// Returns how many tokens this number of outputs makes.
    fn tokens(&self, outputs: usize, context: usize) -> Result<usize, AdapterError> {
        if outputs.is_multiple_of(context) {
            return Ok(outputs / context);
        }
        let expected = format!("a multiple of {context}, the channels of a token in its layers");
        Err(self.broken("outputs of the projection", outputs.to_string(), expected))
    }

    fn resampler(&self) -> Result<ResamplerConfig, AdapterError> {
        let latents = self.get("image_proj.latents", 3)?;
        let query = self.get("image_proj.layers.0.0.to_q.weight", 2)?;
        if !query[0].is_multiple_of(HEAD_DIM) {
            let expected = format!("a multiple of {HEAD_DIM}, the channels of a head");
            return Err(self.broken("outputs of `image_proj.layers.0.0.to_q.weight`", query[0].to_string(), expected));
        }
        let depth = (0..)
            .take_while(|index| self.shapes.contains_key(format!("image_proj.layers.{index}.0.to_q.weight").as_str()));
        Ok(ResamplerConfig {
            features: self.get("image_proj.proj_in.weight", 2)?[1],
            channels: latents[2],
            heads: query[0] / HEAD_DIM,
            depth: depth.count(),
            factor: (self.get("image_proj.layers.0.1.1.weight", 2)?[0] / latents[2]).max(1),
            tokens: latents[1],
            context: self.get("image_proj.proj_out.weight", 2)?[0],
        })
    }
}
