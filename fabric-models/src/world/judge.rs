//! Eyes for this world: what pictures show, whoever made them.

use std::path::Path;

use burn::tensor::Device;
use fabric_core::picture::{Crop, Picture, PictureError, clip_batch};
use serde_json::json;

use super::{Attribute, Named, Readers};
use crate::ModelError;
use crate::clip::{ClipVision, ClipVisionConfig};
use crate::load::{ComponentFolder, LoadDtype, LoadError, LoadOptions, SaveOptions, load_into, save_component};

/// The image encoder of a model of this world, and the readers that go with it.
///
/// ```no_run
/// use fabric_core::picture::Picture;
/// use fabric_models::world::Judge;
///
/// let judge = Judge::load("models/world", &fabric_backends::default_device()?)?;
/// let seen = judge.read(&[Picture::open("picture.png")?])?;
/// println!("{:?} {:?}", seen[0].colour, seen[0].kind);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Judge {
    encoder: ClipVision,
    readers: Readers,
    device: Device,
}

/// The readers' folder beside a model's own.
const FOLDER: &str = "readers";

/// Pictures that are looked at together.
const BATCH: usize = 64;

impl Judge {
    /// From networks.
    pub fn new(encoder: ClipVision, readers: Readers, device: &Device) -> Self {
        Self { encoder, readers, device: device.clone() }
    }

    /// From a model folder with an `image_encoder` and `readers`.
    ///
    /// # Errors
    ///
    /// When one of them is missing, does not fit, or cannot be built.
    pub fn load(model: impl AsRef<Path>, device: &Device) -> Result<Self, ModelError> {
        let model = model.as_ref();
        let options = LoadOptions::default().with_dtype(LoadDtype::F32);
        let encoder = ComponentFolder::open(model.join("image_encoder"), None)?;
        let config: ClipVisionConfig = encoder.config()?;
        let (vision, _) = load_into(config.init(device)?, &*encoder.weights()?, &options)?;
        let readers = ComponentFolder::open(model.join(FOLDER), None)?.weights()?;
        let (readers, _) = load_into(Readers::new(config.hidden_size, device), &*readers, &options)?;
        Ok(Self::new(vision, readers, device))
    }

    /// Writes readers into a model's folder, in half precision.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn save_readers(readers: &Readers, model: impl AsRef<Path>) -> Result<(), LoadError> {
        let values: Vec<_> =
            Attribute::ALL.into_iter().map(|attribute| json!({ attribute.to_string(): attribute.values() })).collect();
        let options = SaveOptions { dtype: LoadDtype::F16, max_shard_bytes: None };
        save_component(readers, model.as_ref().join(FOLDER), &json!({ "reads": values }), &options)?;
        Ok(())
    }

    /// What each picture shows.
    ///
    /// # Errors
    ///
    /// When a picture cannot be brought into the encoder's size.
    pub fn read(&self, pictures: &[Picture]) -> Result<Vec<Named>, PictureError> {
        let mut seen = Vec::with_capacity(pictures.len());
        for pictures in pictures.chunks(BATCH) {
            let size = fabric_core::models::ImageEncoder::image_size(&self.encoder);
            let pixels = clip_batch(pictures, size, Crop::Centre, &self.device)?;
            seen.extend(self.readers.read(&self.encoder, pixels));
        }
        Ok(seen)
    }
}
