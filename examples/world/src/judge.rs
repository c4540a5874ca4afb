//! Evaluation of generated images with the readers of this world.

use std::path::Path;

use burn::tensor::Device;
use fabric::core::image::{Fit, Image, ImageError, vae_batch};
use serde_json::json;

use super::{Attribute, Named, Readers, SIDE};
use fabric::models::ModelError;
use fabric::models::load::{
    ComponentFolder, LoadDtype, LoadError, LoadOptions, SaveDtype, SaveOptions, load_into, save_component,
};

/// [`Readers`] of a model of this world, on a device.
///
/// ```no_run
/// use fabric::core::image::Image;
/// use fabric_world::Judge;
///
/// let judge = Judge::load("models/world", &fabric::backends::default_device()?)?;
/// let seen = judge.read(&[Image::open("image.png")?])?;
/// println!("{:?} {:?}", seen[0].colour, seen[0].kind);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Judge {
    readers: Readers,
    device: Device,
}

/// Folder of the readers within a model's folder.
const FOLDER: &str = "readers";

/// Number of images per batch.
const BATCH: usize = 64;

impl Judge {
    /// Creates a judge with these readers.
    pub fn new(readers: Readers, device: &Device) -> Self {
        Self { readers, device: device.clone() }
    }

    /// Loads the readers from a model's folder.
    ///
    /// # Errors
    ///
    /// Returns an error if the readers are missing, or their weights do not fit.
    pub fn load(model: impl AsRef<Path>, device: &Device) -> Result<Self, ModelError> {
        let options = LoadOptions::default().with_dtype(LoadDtype::F32);
        let weights = ComponentFolder::open(model.as_ref().join(FOLDER), None)?.weights()?;
        let (readers, _) = load_into(Readers::new(device), &*weights, &options)?;
        Ok(Self::new(readers, device))
    }

    /// Saves readers to a model's folder, in half precision.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be written.
    pub fn save_readers(readers: &Readers, model: impl AsRef<Path>) -> Result<(), LoadError> {
        let values: Vec<_> =
            Attribute::ALL.into_iter().map(|attribute| json!({ attribute.to_string(): attribute.values() })).collect();
        let options = SaveOptions { dtype: SaveDtype::F16, max_shard_bytes: None };
        save_component(readers, model.as_ref().join(FOLDER), &json!({ "reads": values }), &options)?;
        Ok(())
    }

    /// Predicts the factors that each image shows.
    ///
    /// # Errors
    ///
    /// Returns an error if an image cannot be resized to 64x64 pixels.
    pub fn read(&self, images: &[Image]) -> Result<Vec<Named>, ImageError> {
        let mut seen = Vec::with_capacity(images.len());
        for images in images.chunks(BATCH) {
            let side = SIDE as usize;
            seen.extend(self.readers.read(vae_batch(images, side, side, Fit::Squash, &self.device)?));
        }
        Ok(seen)
    }
}
