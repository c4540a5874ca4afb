//! The image encoder of an adapter, with a cache of the features of recent images.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::Tensor;
use fabric_core::Error;
use fabric_core::image::{ContentHash, Crop, Image, clip_batch};
use fabric_core::models::ImageEncoder;

use super::{FeatureKind, Features};

/// Features that are kept, in bytes: about 50 images for the tokens of CLIP ViT-H/14.
const BUDGET: usize = 64 << 20;

/// Image encoder with a cache of features. An image's features do not depend on which other images are encoded with
/// it, because images are encoded one by one.
#[derive(Clone)]
pub(crate) struct AttachedEncoder {
    encoder: Arc<dyn ImageEncoder + Send + Sync>,
    cache: Arc<Mutex<FeatureCache>>,
}

/// Key of cached features. It has all that they depend on besides the encoder; the image that is 0 after normalisation
/// has no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FeatureKey {
    image: Option<(ContentHash, Crop)>,
    pooled: bool,
}

/// Features of single images, from least to most recently used.
#[derive(Default)]
struct FeatureCache {
    entries: VecDeque<(FeatureKey, Features)>,
    bytes: usize,
}

impl fmt::Debug for AttachedEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttachedEncoder").field("image_size", &self.encoder.image_size()).finish_non_exhaustive()
    }
}

impl AttachedEncoder {
    pub(crate) fn new(encoder: Arc<dyn ImageEncoder + Send + Sync>) -> Self {
        Self { encoder, cache: Arc::default() }
    }

    pub(crate) fn has_projection(&self) -> bool {
        self.encoder.has_projection()
    }

    /// Returns the features of images, pooled or as tokens by `kind`.
    pub(crate) fn encode(&self, images: &[Image], crop: Crop, kind: FeatureKind) -> Result<Features, Error> {
        let pooled = matches!(kind, FeatureKind::Pooled(_));
        let one = |image: &Image| {
            let key = FeatureKey { image: Some((image.content_hash(), crop)), pooled };
            self.cached(key, || {
                let (size, device) = (self.encoder.image_size(), self.encoder.device());
                Ok(self.read(clip_batch(std::slice::from_ref(image), size, crop, &device)?, pooled))
            })
        };
        Ok(Features::joined(images.iter().map(one).collect::<Result<_, Error>>()?))
    }

    /// Returns the tokens of an image that is 0 after normalisation.
    pub(crate) fn zero_tokens(&self) -> Result<Features, Error> {
        let size = self.encoder.image_size();
        self.cached(FeatureKey { image: None, pooled: false }, || {
            Ok(self.read(Tensor::zeros([1, 3, size, size], &self.encoder.device()), false))
        })
    }

    fn read(&self, pixels: Tensor<4>, pooled: bool) -> Features {
        if pooled {
            Features::Pooled(self.encoder.embed(pixels))
        } else {
            Features::Tokens(self.encoder.penultimate(pixels))
        }
    }

    /// Returns cached features, or computes them. The lock is not held while the encoder runs; threads that need the same
    /// image at the same time may both encode it.
    fn cached(&self, key: FeatureKey, make: impl FnOnce() -> Result<Features, Error>) -> Result<Features, Error> {
        if let Some(features) = self.lock().get(&key) {
            return Ok(features);
        }
        let features = make()?;
        // Checked before they are kept. This waits for the device, but once per image only.
        if !features.are_finite() {
            return Err(Error::NotFinite {
                stage: "features of the image encoder".to_owned(),
                help: "the network overflowed or its weights are damaged: load it in f32 or bf16",
            });
        }
        self.lock().insert(key, features.clone());
        Ok(features)
    }

    fn lock(&self) -> MutexGuard<'_, FeatureCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FeatureCache {
    fn get(&mut self, key: &FeatureKey) -> Option<Features> {
        let at = self.entries.iter().position(|(kept, _)| kept == key)?;
        let entry = self.entries.remove(at)?;
        let features = entry.1.clone();
        self.entries.push_back(entry);
        Some(features)
    }

    fn insert(&mut self, key: FeatureKey, features: Features) {
        if self.entries.iter().any(|(kept, _)| *kept == key) {
            return;
        }
        self.bytes += features.bytes();
        self.entries.push_back((key, features));
        while self.bytes > BUDGET && self.entries.len() > 1 {
            let Some((_, oldest)) = self.entries.pop_front() else { break };
            self.bytes -= oldest.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens of about a quarter of the budget.
    fn features(value: f32) -> Features {
        let device = fabric_backends::default_device().expect("a device");
        Features::Tokens(Tensor::full([1, 4, BUDGET / 4 / 4 / 4], value, &device))
    }

    #[test]
    fn the_features_used_longest_ago_are_dropped_and_each_part_of_a_key_counts() {
        let image = |at: u8| Image::filled(8, 8, [at, 0, 0]).expect("an image").content_hash();
        let key = |at, crop, pooled| FeatureKey { image: Some((image(at), crop)), pooled };
        let mut cache = FeatureCache::default();
        for at in 0..4 {
            cache.insert(key(at, Crop::Centre, false), features(f32::from(at)));
        }
        assert!(cache.get(&key(0, Crop::Centre, false)).is_some());
        assert!(cache.get(&key(0, Crop::Pad, false)).is_none());
        assert!(cache.get(&key(0, Crop::Centre, true)).is_none());
        assert!(cache.get(&FeatureKey { image: None, pooled: false }).is_none());
        cache.insert(key(9, Crop::Centre, false), features(9.0));
        let kept: Vec<u8> = (0..10).filter(|&at| cache.get(&key(at, Crop::Centre, false)).is_some()).collect();
        assert_eq!(kept, [0, 2, 3, 9]);
        assert!(cache.bytes <= BUDGET);
    }
}
