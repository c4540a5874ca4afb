//! IP-Adapter weights: an image projection, and a key and value projection for each cross-attention layer.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fabric_core::image::{Crop, Image};
use fabric_core::models::ImageEncoder;
use fabric_core::{AspectKind, Error, InvalidValue};
use fabric_models::layers::Linear;
use fabric_models::load::{
    LoadOptions, LoadReport, ParameterInfo, PublishedNames, SaveDtype, TensorSource, load_into, parameters,
    save_weights,
};

use crate::features::AttachedEncoder;
use crate::file::{AdapterConfig, AdapterFile, FaceVersion};
use crate::projection::{ImageProjection, published};
use crate::{AdapterError, FeatureKind, Features, LayerScales};

/// Key and value projections of image tokens for one cross-attention layer.
#[derive(Module, Debug)]
pub(crate) struct KeyValue {
    to_k: Linear,
    to_v: Linear,
}

impl KeyValue {
    /// Creates random weights that map tokens of `context` channels to a layer of `width` channels.
    pub(crate) fn new(context: usize, width: usize, device: &Device) -> Self {
        Self { to_k: Linear::new(context, width, false, device), to_v: Linear::new(context, width, false, device) }
    }

    /// Projects tokens `[rows, tokens, context]` to keys and values `[rows, tokens, width]`.
    pub(crate) fn forward(&self, tokens: Tensor<3>) -> [Tensor<3>; 2] {
        [self.to_k.forward(tokens.clone()), self.to_v.forward(tokens)]
    }
}

/// The weights of an adapter.
#[derive(Module, Debug)]
pub struct AdapterWeights {
    /// Projects image features to tokens.
    pub(crate) projection: ImageProjection,
    /// Key and value projections, in the order of [`numbered_layers`](crate::numbered_layers).
    pub(crate) layers: Vec<KeyValue>,
}

impl AdapterWeights {
    /// Returns what the three cross-attentions of the first layer of an Instruct projection add (image, prompt,
    /// instruction), for comparison with other implementations; `None` for other projections and features.
    pub fn first_reads(&self, features: &Features) -> Option<[Tensor<3>; 3]> {
        match (&self.projection, features.clone()) {
            (ImageProjection::Instruct(projection), Features::Instructed { tokens, prompt, instruction }) => {
                Some(projection.first_reads(tokens, prompt, instruction))
            }
            _ => None,
        }
    }
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
    config: Arc<AdapterConfig>,
    weights: Arc<AdapterWeights>,
    encoder: Option<AttachedEncoder>,
    /// Layers by aspect, for an adapter without instructions.
    pub(crate) aspects: Arc<BTreeMap<AspectKind, LayerScales>>,
}

impl IpAdapter {
    /// Opens an adapter file, detects its kind, and loads it as f32.
    ///
    /// FaceID plus is loaded as version 1, because the files of both versions look alike: use [`Self::open_as`]
    /// for version 2. The LoRA in FaceID files belongs to the U-Net and is not loaded here: see
    /// [`AdapterFile::lora`].
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, is not an adapter, or lacks a tensor.
    pub fn open(path: impl AsRef<Path>, device: &Device) -> Result<Self, AdapterError> {
        Self::open_as(path, FaceVersion::default(), device)
    }

    /// Opens an adapter file as [`Self::open`] does, with a given version of FaceID plus. Other adapters ignore
    /// the version.
    ///
    /// # Errors
    ///
    /// Same as [`Self::open`].
    pub fn open_as(path: impl AsRef<Path>, version: FaceVersion, device: &Device) -> Result<Self, AdapterError> {
        let file = AdapterFile::open(path)?;
        let config = file.config()?.with_face_version(version);
        Ok(Self::load(config, file.weights(), &LoadOptions::default(), device)?.0)
    }

    /// Loads an adapter whose configuration is known.
    ///
    /// # Errors
    ///
    /// Returns an error if a tensor is missing, unexpected, of another shape, or not finite.
    pub fn load(
        config: AdapterConfig,
        source: &dyn TensorSource,
        options: &LoadOptions,
        device: &Device,
    ) -> Result<(Self, LoadReport), AdapterError> {
        let (weights, report) = load_into(config.init(device), source, options)?;
        Ok((Self::joined(config, weights), report))
    }

    /// Creates an adapter from a configuration and matching weights.
    ///
    /// # Errors
    ///
    /// Returns an error if the kind or the sizes of the weights differ from the configuration.
    pub fn new(config: AdapterConfig, weights: AdapterWeights) -> Result<Self, AdapterError> {
        let device = weights.devices().into_iter().next().unwrap_or_default();
        let (got, expected) = (parameters(&weights), parameters(&config.init(&device)));
        let named =
            |one: Option<&ParameterInfo>| one.map_or("none".to_owned(), |one| format!("{} {:?}", one.name, one.shape));
        let longest = got.len().max(expected.len());
        if let Some(at) = (0..longest).find(|&at| got.get(at) != expected.get(at)) {
            return Err(AdapterError::Setting(InvalidValue {
                what: format!("weights of {config}"),
                got: named(got.get(at)),
                expected: named(expected.get(at)),
                help: "make them with the same configuration".to_owned(),
            }));
        }
        Ok(Self::joined(config, weights))
    }

    /// Creates an adapter from weights that were made with this configuration, without checking them.
    pub(crate) fn joined(config: AdapterConfig, weights: AdapterWeights) -> Self {
        Self { config: Arc::new(config), weights: Arc::new(weights), encoder: None, aspects: Arc::default() }
    }

    /// Sets the image encoder for [`Self::prompt`]. The features of recent images are cached, up to 64 MiB, also across
    /// clones of the adapter.
    #[must_use]
    pub fn with_encoder(self, encoder: impl ImageEncoder + Send + Sync + 'static) -> Self {
        Self { encoder: Some(AttachedEncoder::new(Arc::new(encoder))), ..self }
    }

    /// Returns the encoder.
    fn encoder(&self) -> Result<&AttachedEncoder, AdapterError> {
        self.encoder.as_ref().ok_or_else(|| AdapterError::Unfit {
            adapter: self.config.to_string(),
            value: InvalidValue {
                what: "image encoder of an image prompt".to_owned(),
                got: "none".to_owned(),
                expected: format!("one that gives {}", self.config.reads()),
                help: "set it with `IpAdapter::with_encoder`, or give features".to_owned(),
            },
        })
    }

    /// Checks that there is an encoder.
    pub(crate) fn check_encoder(&self) -> Result<(), AdapterError> {
        self.encoder().map(|_| ())
    }

    /// Checks that there is an encoder that can give what the adapter reads from images.
    pub(crate) fn check_reads_images(&self) -> Result<(), AdapterError> {
        let reads = self.config.reads();
        if let FeatureKind::Face(_) | FeatureKind::FaceAndTokens(..) = reads {
            return Err(AdapterError::Unfit {
                adapter: self.config.to_string(),
                value: InvalidValue {
                    what: "images of an image prompt".to_owned(),
                    got: "images".to_owned(),
                    expected: reads.to_string(),
                    help: "find the faces with InsightFace, and use `IpAdapter::prompt_from_features`".to_owned(),
                },
            });
        }
        if matches!(reads, FeatureKind::Pooled(_)) && !self.encoder()?.has_projection() {
            return Err(AdapterError::Unfit {
                adapter: self.config.to_string(),
                value: InvalidValue {
                    what: "image encoder".to_owned(),
                    got: "one without `visual_projection`".to_owned(),
                    expected: "one that projects pooled features".to_owned(),
                    help: "take the whole encoder, with its projection".to_owned(),
                },
            });
        }
        self.check_encoder()
    }

    /// Returns the features of images as this adapter reads them; without the texts, for an Instruct adapter.
    pub(crate) fn encode(&self, images: &[Image], crop: Crop) -> Result<Features, Error> {
        self.encoder()?.encode(images, crop, self.config.reads())
    }

    /// Returns the features of "no image" beside these: a zero vector, the tokens of an image that is 0 after
    /// normalisation, or a zero identity, as published.
    pub(crate) fn features_of_no_image(&self, beside: &Features) -> Result<Features, Error> {
        Ok(match beside {
            Features::Pooled(x) => Features::Pooled(x.clone().narrow(0, 0, 1).zeros_like()),
            Features::Face(x) => Features::Face(x.clone().narrow(0, 0, 1).zeros_like()),
            Features::Tokens(_) | Features::Instructed { .. } => self.encoder()?.zero_tokens()?,
            Features::FaceAndTokens { identities, .. } => {
                let Features::Tokens(tokens) = self.encoder()?.zero_tokens()? else {
                    unreachable!("zero_tokens returns tokens")
                };
                Features::FaceAndTokens { identities: identities.clone().narrow(0, 0, 1).zeros_like(), tokens }
            }
        })
    }

    /// Writes the adapter to one `.safetensors` file in the published layout. Other programs read it if its weights are
    /// floats, but not with [`SaveDtype::Int8`].
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be written, or a weight does not fit the data type.
    pub fn save(&self, path: impl AsRef<Path>, dtype: impl Into<SaveDtype>) -> Result<(), AdapterError> {
        Ok(save_weights(&*self.weights, path, dtype)?)
    }

    /// Returns the kind and sizes of the adapter.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// Returns the weights.
    pub fn weights(&self) -> &AdapterWeights {
        &self.weights
    }

    /// Projects image features to tokens `[images, tokens, context]`, in f32 because the published resamplers
    /// overflow in f16.
    ///
    /// # Errors
    ///
    /// Returns an error if the features are not of the kind or the number of channels that the adapter expects,
    /// are empty, or contain different numbers of images.
    pub fn tokens(&self, features: &Features) -> Result<Tensor<3>, AdapterError> {
        self.config.check_features(features)?;
        features.check_rows()?;
        // The image encoder may be on another device.
        let device = self.weights.devices().into_iter().next().unwrap_or_default();
        Ok(match (&self.weights.projection, features.in_f32().moved_to(&device)) {
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
