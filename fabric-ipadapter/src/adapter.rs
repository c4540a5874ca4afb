//! One adapter: a projection and, for each cross-attention layer, keys and values of its own.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fabric_models::layers::Linear;
use fabric_models::load::{
    LoadDtype, LoadOptions, LoadReport, ParameterInfo, PublishedNames, TensorSource, load_into, parameters,
    save_weights,
};

use crate::file::{AdapterConfig, AdapterFile, FaceVersion};
use crate::projection::{ImageProjection, published};
use crate::{AdapterError, Features};

/// Keys and values of image tokens in one cross-attention layer.
#[derive(Module, Debug)]
pub struct KeyValue {
    to_k: Linear,
    to_v: Linear,
}

impl KeyValue {
    /// With random weights: from tokens of `context` channels to a layer of `width`.
    pub fn new(context: usize, width: usize, device: &Device) -> Self {
        Self { to_k: Linear::new(context, width, false, device), to_v: Linear::new(context, width, false, device) }
    }

    /// Keys and values `[rows, tokens, width]` of tokens `[rows, tokens, context]`.
    pub fn forward(&self, tokens: Tensor<3>) -> [Tensor<3>; 2] {
        [self.to_k.forward(tokens.clone()), self.to_v.forward(tokens)]
    }
}

/// The weights of an adapter.
#[derive(Module, Debug)]
pub struct AdapterWeights {
    /// Makes tokens of features.
    pub projection: ImageProjection,
    /// Make keys and values of tokens, in the order of [`numbered_layers`](crate::numbered_layers).
    pub layers: Vec<KeyValue>,
}

impl PublishedNames for AdapterWeights {
    fn published_name(path: &str) -> String {
        match path.split_once('.') {
            Some(("projection", rest)) => format!("image_proj.{}", published(rest)),
            Some(("layers", rest)) => {
                let (index, rest) = rest.split_once('.').unwrap_or((rest, ""));
                let number = index.parse::<usize>().map_or(0, |index| 2 * index + 1);
                format!("ip_adapter.{number}.{}", rest.replace("to_k.", "to_k_ip.").replace("to_v.", "to_v_ip."))
            }
            _ => path.to_owned(),
        }
    }
}

/// An IP-Adapter of any published kind.
///
/// ```no_run
/// use fabric_ipadapter::IpAdapter;
///
/// let adapter = IpAdapter::open("ip-adapter_sd15.safetensors", &fabric_backends::default_device()?)?;
/// println!("it reads {}", adapter.config().reads());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct IpAdapter {
    config: AdapterConfig,
    weights: AdapterWeights,
}

impl IpAdapter {
    /// Opens an adapter's file, tells its kind, and loads it as f32.
    ///
    /// FaceID plus is taken for version 1, as files do not tell: use [`Self::open_as`] for version 2. The LoRA of FaceID
    /// files is not the adapter's but the U-Net's: [`AdapterFile::lora`].
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is no adapter, or lacks a tensor of its kind.
    pub fn open(path: impl AsRef<Path>, device: &Device) -> Result<Self, AdapterError> {
        Self::open_as(path, FaceVersion::default(), device)
    }

    /// [`Self::open`] for a version of FaceID plus; for other adapters it is the same.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_as(path: impl AsRef<Path>, version: FaceVersion, device: &Device) -> Result<Self, AdapterError> {
        let file = AdapterFile::open(path)?;
        let config = file.config()?.with_face_version(version);
        Ok(Self::load(config, file.weights(), &LoadOptions::default(), device)?.0)
    }

    /// Loads an adapter of a known kind.
    ///
    /// # Errors
    ///
    /// When a tensor is missing, unexpected, of another shape, or not finite.
    pub fn load(
        config: AdapterConfig,
        source: &dyn TensorSource,
        options: &LoadOptions,
        device: &Device,
    ) -> Result<(Self, LoadReport), AdapterError> {
        let (weights, report) = load_into(config.init(device), source, options)?;
        Ok((Self { config, weights }, report))
    }

    /// Of weights of a known kind.
    ///
    /// # Errors
    ///
    /// When they are of another kind, or of other sizes.
    pub fn new(config: AdapterConfig, weights: AdapterWeights) -> Result<Self, AdapterError> {
        let device = weights.devices().into_iter().next().unwrap_or_default();
        let (got, expected) = (parameters(&weights), parameters(&config.init(&device)));
        let named =
            |one: Option<&ParameterInfo>| one.map_or("none".to_owned(), |one| format!("{} {:?}", one.name, one.shape));
        let longest = got.len().max(expected.len());
        if let Some(at) = (0..longest).find(|&at| got.get(at) != expected.get(at)) {
            return Err(AdapterError::Setting {
                what: format!("weights of {config}"),
                got: named(got.get(at)),
                expected: named(expected.get(at)),
                next: "make them with the same configuration".to_owned(),
            });
        }
        Ok(Self { config, weights })
    }

    /// Of weights that were made with this configuration.
    #[cfg(feature = "train")]
    pub(crate) fn joined(config: AdapterConfig, weights: AdapterWeights) -> Self {
        Self { config, weights }
    }

    /// Writes it to one `.safetensors` file in the published layout.
    ///
    /// # Errors
    ///
    /// When the file cannot be written, or a weight does not fit the type.
    pub fn save(&self, path: impl AsRef<Path>, dtype: LoadDtype) -> Result<(), AdapterError> {
        Ok(save_weights(&self.weights, path, dtype)?)
    }

    /// Its kind and sizes.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// Its weights.
    pub fn weights(&self) -> &AdapterWeights {
        &self.weights
    }

    /// Tokens of images, `[images, tokens, context]`, computed in f32 as the published resamplers overflow in f16.
    ///
    /// # Errors
    ///
    /// When the features are of another kind than the adapter reads, have another number of channels, are of no image,
    /// or of different numbers of them.
    pub fn tokens(&self, features: &Features) -> Result<Tensor<3>, AdapterError> {
        self.config.check_features(features)?;
        features.check_rows()?;
        Ok(match (&self.weights.projection, features.in_f32()) {
            (ImageProjection::Pooled(projection), Features::Pooled(pooled)) => projection.forward(pooled),
            (ImageProjection::Tokens(projection), Features::Tokens(tokens)) => projection.forward(tokens),
            (ImageProjection::Resampler(projection), Features::Tokens(tokens)) => projection.forward(tokens),
            (ImageProjection::Face(projection), Features::Face(identities)) => projection.forward(identities),
            (ImageProjection::FaceResampler(projection), Features::FaceAndTokens { identities, tokens }) => {
                projection.forward(identities, tokens)
            }
            (ImageProjection::Instruct(projection), Features::Instructed { tokens, prompt, instruction }) => {
                projection.forward(tokens, prompt, instruction)
            }
            (_, features) => unreachable!("{} are not {}", self.config.reads(), features.kind()),
        })
    }
}
