//! Adapter files, with all published naming schemes mapped to one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use fabric_core::InvalidValue;
use fabric_core::attention::{AttnKind, AttnSite};
use fabric_core::models::CrossAttention;
use fabric_models::load::{LoadError, MappedSource, Part, Renamed, TensorSource, open_weights};
use fabric_models::lora::{Lora, LoraFile};

use super::{AdapterConfig, within_unet};
use crate::{AdapterError, numbered_layers};

/// Name prefixes of training checkpoints, and the published prefixes that replace them.
const PREFIXES: [(&str, &str); 2] = [("image_proj_model.", "image_proj."), ("adapter_modules.", "ip_adapter.")];

/// Opened adapter file: names and shapes are read, no weights are loaded.
///
/// The names of a training checkpoint (`image_proj_model.`, `adapter_modules.`) are mapped to the published
/// ones (`image_proj.`, `ip_adapter.`). So are those of adapters saved within a U-Net, by diffusers or by
/// training that saves shared tensors only once. The frozen U-Net in such files is ignored. Files with 8-bit weights,
/// as [`IpAdapter::save`](crate::IpAdapter::save) can write them, are presented as floats.
#[derive(Debug, Clone)]
pub struct AdapterFile {
    weights: Arc<dyn TensorSource>,
    /// LoRA for the U-Net in FaceID files.
    lora: Arc<dyn TensorSource>,
    /// The tensors of both.
    all: Arc<dyn TensorSource>,
    ignored: Vec<String>,
}

impl AdapterFile {
    /// Opens a file: `.safetensors`, or a nested `.bin` with the feature `pickle`.
    ///
    /// # Errors
    ///
    /// Returns an error if the file does not exist or is invalid.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        Self::new(open_weights(path)?)
    }

    /// Creates an adapter file from opened tensors.
    ///
    /// # Errors
    ///
    /// Returns an error if the file mixes two naming schemes, or diffusers saved several adapters in it (see
    /// [`Self::one_of_several`]).
    pub fn new(source: Arc<dyn TensorSource>) -> Result<Self, LoadError> {
        let several = within_unet::count(source.tensors());
        if several > 1 {
            return Err(LoadError::Malformed {
                path: source.place().into(),
                value: InvalidValue::new(
                    "adapters in this file",
                    several,
                    "one",
                    "say which one with `AdapterFile::one_of_several`",
                ),
            });
        }
        if several == 1 {
            return Self::one_of_several(source, 0);
        }
        let is_training = source.tensors().keys().any(|name| PREFIXES.iter().any(|(from, _)| name.starts_with(from)));
        // Shared tensors are saved only once, so the layers may exist only under the names of the U-Net.
        let has_layers = |name: &String| name.starts_with("adapter_modules.") || name.starts_with("ip_adapter.");
        let shared = if source.tensors().keys().any(has_layers) {
            BTreeMap::new()
        } else {
            within_unet::of_training(source.tensors())
        };
        let kept = |name: &String| !is_training || !name.starts_with("unet.") || shared.contains_key(name);
        let (kept, ignored): (Vec<String>, Vec<String>) = source.tensors().keys().cloned().partition(kept);
        let renamed = kept.into_iter().map(|from| {
            let other = PREFIXES.iter().find_map(|(prefix, to)| Some(format!("{to}{}", from.strip_prefix(prefix)?)));
            let name = other.or_else(|| shared.get(&from).cloned()).unwrap_or_else(|| from.clone());
            Renamed { name, from, part: Part::Whole }
        });
        let renamed: Vec<Renamed> = renamed.collect();
        let all = MappedSource::new(source.clone(), renamed.iter().cloned())?;
        let (lora, weights): (Vec<_>, Vec<_>) =
            renamed.into_iter().partition(|renamed| renamed.name.contains("_lora."));
        Ok(Self {
            weights: Arc::new(MappedSource::new(source.clone(), weights)?),
            lora: Arc::new(MappedSource::new(source, lora)?),
            all: Arc::new(all),
            ignored,
        })
    }

    /// Returns whether tensors have the names of an adapter file, or of a training checkpoint of an adapter. Networks
    /// within which diffusers saved adapters are no adapter files.
    pub fn recognizes(source: &dyn TensorSource) -> bool {
        let [(training, published), _] = PREFIXES;
        source.tensors().keys().any(|name| name.starts_with(published) || name.starts_with(training))
    }

    /// Selects one of several adapters that diffusers saved within a U-Net, by its index.
    ///
    /// # Errors
    ///
    /// Returns an error if its tensors do not form an adapter.
    pub fn one_of_several(source: Arc<dyn TensorSource>, index: usize) -> Result<Self, LoadError> {
        let weights = Arc::new(within_unet::adapter(source.clone(), index)?);
        let lora = Arc::new(MappedSource::new(weights.clone(), [])?);
        let used = weights.origins();
        let ignored = source.tensors().keys().filter(|name| !used.contains(name.as_str())).cloned().collect();
        Ok(Self { all: weights.clone(), weights, lora, ignored })
    }

    /// Returns the tensors of the adapter, under their published names.
    pub fn weights(&self) -> &dyn TensorSource {
        &*self.weights
    }

    /// Returns all tensors under their published names: those of [`Self::weights`], and the LoRA in FaceID files.
    pub fn tensors(&self) -> &dyn TensorSource {
        &*self.all
    }

    /// Names of the tensors in the file that belong to no adapter, or to another of several, such as those of a frozen
    /// U-Net.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// Detects the configuration from the tensors. FaceID plus is detected as version 1.
    ///
    /// # Errors
    ///
    /// Returns an error if the tensors are not those of an adapter.
    pub fn config(&self) -> Result<AdapterConfig, AdapterError> {
        let rank = self.lora.tensors().iter().find(|(name, _)| name.ends_with(".down.weight"));
        let lora_rank = rank.and_then(|(_, info)| info.shape.first().copied());
        Ok(AdapterConfig { lora_rank, ..AdapterConfig::detect(&*self.weights)? })
    }

    /// Returns the LoRA that FaceID was trained with, for a U-Net with these cross-attention layers; `None` for
    /// other files.
    ///
    /// Apply it with [`merge`](fabric_models::lora::merge) or [`attach`](fabric_models::lora::attach), with a
    /// scale of 1.
    ///
    /// ```no_run
    /// # use fabric_ipadapter::AdapterFile;
    /// # use fabric_models::{StableDiffusion, lora::merge};
    /// # use fabric_core::models::UNetModel;
    /// # fn example(device: burn::tensor::Device) -> Result<(), Box<dyn std::error::Error>> {
    /// let file = AdapterFile::open("ip-adapter-faceid_sd15.safetensors")?;
    /// let (mut model, _) = StableDiffusion::open("stable-diffusion-v1-5", &device, &Default::default())?;
    /// if let Some(lora) = file.lora(&model.unet.cross_attentions())? {
    ///     (model.unet, _) = merge(model.unet, &lora, 1.0)?;
    /// }
    /// let pipeline = model.into_pipeline()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if a matrix has no place in such a U-Net, lacks its counterpart, or has the wrong
    /// shape.
    pub fn lora(&self, layers: &[CrossAttention]) -> Result<Option<Lora>, AdapterError> {
        if self.lora.tensors().is_empty() {
            return Ok(None);
        }
        let mut places = BTreeMap::new();
        for (index, layer) in numbered_layers(layers).into_iter().enumerate() {
            let own = AttnSite { kind: AttnKind::SelfAttention, ..layer.site };
            places.extend([(2 * index, own), (2 * index + 1, layer.site)]);
        }
        let renamed = self.lora.tensors().keys().map(|from| {
            let numbered = from.strip_prefix("ip_adapter.").and_then(|rest| rest.split_once('.'));
            let place = numbered.and_then(|(number, rest)| Some((places.get(&number.parse().ok()?)?, rest)));
            let (site, rest) = place.ok_or_else(|| AdapterError::NotAnAdapter {
                place: self.lora.place(),
                what: "a LoRA matrix".to_owned(),
                got: from.clone(),
                expected: format!("numbers of the U-Net's {} attention layers", places.len()),
            })?;
            Ok(Renamed { name: format!("unet.{site}.processor.{rest}"), from: from.clone(), part: Part::Whole })
        });
        let renamed = renamed.collect::<Result<Vec<_>, AdapterError>>()?;
        let source = MappedSource::new(self.lora.clone(), renamed)?;
        Ok(Some(LoraFile::read(&source, &BTreeMap::new())?.unet))
    }
}
