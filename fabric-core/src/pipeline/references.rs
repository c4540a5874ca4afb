//! Liked and disliked pictures as latents.

use std::sync::PoisonError;

use burn::tensor::Tensor;
use sha2::{Digest, Sha256};

use super::latents::KeptLatents;
use super::{FeedbackPicture, Pipeline, Report, Request};
use crate::Error;
use crate::fabric::{Reference, ReferencePosterior, Side};
use crate::models::Posterior;
use crate::noise::{Draw, ReferenceId, RunNoise};
use crate::picture::{self, Fit, Picture};

impl Pipeline {
    /// Encodes the references, liked before disliked.
    pub(super) fn references(
        &self,
        request: &Request,
        size: [usize; 2],
        noise: &mut dyn RunNoise,
        report: &mut Report,
    ) -> Result<Vec<Reference>, Error> {
        let settings = &request.settings.fabric;
        let judged: Vec<&FeedbackPicture> = request.feedback.iter().filter(|picture| picture.strength != 0.0).collect();
        let strengths: Vec<f64> = judged.iter().map(|picture| picture.strength).collect();
        let kept = settings.keep.select(&strengths);
        report.references_left_out = judged.len() - kept.len();
        let mut references = Vec::new();
        for side in [Side::Liked, Side::Disliked] {
            let liked = side == Side::Liked;
            let pictures: Vec<&FeedbackPicture> =
                kept.iter().map(|&index| judged[index]).filter(|picture| (picture.strength > 0.0) == liked).collect();
            report.references[usize::from(!liked)] = pictures.len();
            let latents = self.encode_references(&pictures, side, size, settings.posterior, noise)?;
            references.extend(pictures.iter().zip(latents).map(|(picture, (id, latents))| Reference {
                id,
                latents,
                side,
                strength: picture.strength.abs(),
            }));
        }
        Ok(references)
    }

    fn encode_references(
        &self,
        pictures: &[&FeedbackPicture],
        side: Side,
        size: [usize; 2],
        posterior: ReferencePosterior,
        noise: &mut dyn RunNoise,
    ) -> Result<Vec<(ReferenceId, Tensor<4>)>, Error> {
        if pictures.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<ReferenceId> = pictures.iter().map(|p| reference_id(&p.picture, size, posterior)).collect();
        let shape = self.latent_shape(ids.len(), size);
        // Drawn for all of them even when some are kept: a recorded source counts its draws.
        let drawn = match posterior {
            ReferencePosterior::Mean => None,
            ReferencePosterior::Sample => {
                Some(noise.draw(Draw::ReferencePosterior { liked: side == Side::Liked, ids: &ids }, shape)?)
            }
        };
        let reusable = noise.is_seeded();
        let mut encoded = Vec::with_capacity(ids.len());
        for (row, (judged, id)) in pictures.iter().zip(ids).enumerate() {
            let kept = reusable.then(|| self.lock_latents().get(&id)).flatten();
            let latents = match kept {
                Some(latents) => latents,
                None => {
                    let (pictures, device) = (std::slice::from_ref(&judged.picture), self.unet.device());
                    let pixels = picture::vae_batch(pictures, size[0], size[1], Fit::Squash, &device)?;
                    let posterior = match &drawn {
                        Some(drawn) => Posterior::Sample(drawn.clone().slice_dim(0, row..row + 1)),
                        None => Posterior::Mean,
                    };
                    let latents = self.codec.encode(pixels, posterior);
                    if reusable {
                        self.lock_latents().insert(id, latents.clone());
                    }
                    latents
                }
            };
            encoded.push((id, latents));
        }
        Ok(encoded)
    }

    fn lock_latents(&self) -> std::sync::MutexGuard<'_, KeptLatents> {
        self.latents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reference_id(picture: &Picture, size: [usize; 2], posterior: ReferencePosterior) -> ReferenceId {
    let digest = Sha256::new()
        .chain_update(picture.content_hash().as_bytes())
        .chain_update(size[0].to_le_bytes())
        .chain_update(size[1].to_le_bytes())
        .chain_update([u8::from(posterior == ReferencePosterior::Mean)])
        .finalize();
    ReferenceId(digest.into())
}
