//! Matching of LoRA entries to the weights of a network.

use std::collections::BTreeMap;

use fabric_core::printable;

use super::names::{Names, underscored};
use super::{Lora, LoraEntry, LoraError, LoraMismatch, LoraReport, UnmatchedEntry};
use crate::load::{Component, Mismatch, ParameterInfo, ShapeMismatch};

/// Largest plausible change of a weight. Weights are of the order of 1; the maximum of f16 is 65504.
const LARGEST_CHANGE: f64 = 1e4;

/// Low-rank product and its scale.
#[derive(Debug, Clone, Copy)]
pub(super) struct Term<'a> {
    pub(super) entry: &'a LoraEntry,
    pub(super) scale: f32,
}

/// Low-rank products to add to each parameter, by module path.
#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    pub(super) terms: BTreeMap<String, Vec<Term<'a>>>,
}

impl<'a> Plan<'a> {
    /// Adds the products of a LoRA for the network with these parameters, after comparing all names and shapes.
    pub(super) fn add(
        &mut self,
        lora: &'a Lora,
        scale: f32,
        parameters: &[ParameterInfo],
    ) -> Result<LoraReport, LoraError> {
        let place = || lora.place.clone();
        if !scale.is_finite() {
            return Err(LoraError::Scale { place: place(), scale });
        }
        let names = Names::of(parameters);
        let (mut unmatched, mut mismatched) = (Vec::new(), Vec::new());
        let mut places: BTreeMap<&str, (&ParameterInfo, &'a LoraEntry)> = BTreeMap::new();
        for entry in lora.entries.iter() {
            let target = &entry.target;
            match names.find(target)[..] {
                [] => {
                    let nearest = if unmatched.len() < Mismatch::SHOWN { names.nearest(target) } else { None };
                    unmatched.push(UnmatchedEntry { target: target.clone(), nearest });
                }
                [parameter] if same_shape(&entry.shape, &parameter.shape) => {
                    if let Some((_, other)) = places.insert(&parameter.path, (parameter, entry)) {
                        let (first, second) = (printable(&other.target), printable(target));
                        return Err(LoraError::Duplicate { place: place(), first, second });
                    }
                }
                [parameter] => mismatched.push(ShapeMismatch {
                    name: parameter.name.clone(),
                    got: entry.shape.clone(),
                    expected: parameter.shape.clone(),
                }),
                ref several => {
                    let names = several.iter().map(|parameter| format!("`{}`", parameter.name)).collect();
                    return Err(LoraError::Ambiguous { place: place(), target: target.clone(), names });
                }
            }
        }
        if lora.strict && !(unmatched.is_empty() && mismatched.is_empty()) {
            let models = different_models(lora, parameters);
            let (part, entries) = (lora.part, lora.entries.len());
            return Err(Box::new(LoraMismatch { place: place(), part, entries, models, unmatched, mismatched }).into());
        }
        let applied = places.values().map(|(parameter, _)| parameter.name.clone()).collect();
        for (path, (_, entry)) in places {
            let got = f64::from(scale.abs()) * entry.strength();
            if got > LARGEST_CHANGE {
                let target = printable(&entry.target);
                return Err(LoraError::TooStrong { place: place(), target, scale, got, expected: LARGEST_CHANGE });
            }
            // With scale 0, weights stay bit-identical; adding 0 would change the sign of a negative zero.
            if scale != 0.0 {
                self.terms.entry(path.to_owned()).or_default().push(Term { entry, scale });
            }
        }
        Ok(LoraReport { place: place(), part: lora.part, scale, applied, unmatched, mismatched })
    }
}

/// Returns whether two shapes are equal, treating a 1x1 convolution as a linear layer.
fn same_shape(a: &[usize], b: &[usize]) -> bool {
    fn matrix(shape: &[usize]) -> &[usize] {
        shape.strip_suffix(&[1, 1]).filter(|rest| rest.len() == 2).unwrap_or(shape)
    }
    matrix(a) == matrix(b)
}

/// Describes the models of a LoRA and a network if they differ in architecture or in the width of the text embeddings.
fn different_models(lora: &Lora, parameters: &[ParameterInfo]) -> Option<String> {
    let transformer = |entry: &LoraEntry| {
        let beginnings = ["double_blocks", "single_blocks", "transformer_blocks", "transformer."];
        beginnings.iter().any(|beginning| entry.target.starts_with(beginning))
    };
    if lora.part == Component::UNet && lora.entries.iter().any(transformer) {
        return Some("the LoRA is for a model without U-Net, such as Flux or Stable Diffusion 3".to_owned());
    }
    // The input of this layer has the width of the text embeddings.
    let ending = if lora.part == Component::UNet { "attn2_to_k" } else { "self_attn_q_proj" };
    let got = lora.entries.iter().find(|entry| underscored(&entry.target).ends_with(ending))?.shape[1];
    let weight = format!("{ending}_weight");
    let expected =
        parameters.iter().find(|parameter| underscored(&parameter.name).ends_with(&weight))?.shape.get(1).copied()?;
    let describe = |width: usize| match model_with_text_width(lora.part, width) {
        Some(model) => format!("{model} (texts of width {width})"),
        None => format!("texts of width {width}"),
    };
    (got != expected).then(|| format!("the LoRA is for {}, the network for {}", describe(got), describe(expected)))
}

fn model_with_text_width(part: Component, width: usize) -> Option<&'static str> {
    Some(match (part, width) {
        (Component::UNet, 768) => "Stable Diffusion 1",
        (Component::UNet, 1024) => "Stable Diffusion 2",
        (Component::UNet, 2048) => "Stable Diffusion XL",
        (_, 768) => "the text encoder of Stable Diffusion 1 or the first of XL",
        (_, 1024) => "the text encoder of Stable Diffusion 2",
        (_, 1280) => "the second text encoder of Stable Diffusion XL",
        _ => return None,
    })
}
