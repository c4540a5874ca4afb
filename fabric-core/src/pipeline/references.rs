//! Selection and encoding of reference images.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use burn::tensor::Tensor;
use sha2::{Digest, Sha256};

use super::run_guidance::{RunGuidance, calls};
use super::{FeedbackImage, Pipeline, Report, Request, notes};
use crate::Error;
use crate::cache::ReferenceLatents;
use crate::denoise::ModelCall;
use crate::fabric::{AttendingImages, FeedbackSchedule, LikedPerImage, Reference, ReferencePosterior, Side};
use crate::image::{self, Fit, Image};
use crate::models::Posterior;
use crate::noise::{self, Draw, ReferenceId, RunNoise};
use crate::schedule::Schedule;

/// Image of a request that is selected as a reference.
#[derive(Debug)]
struct ChosenImage<'a> {
    judged: &'a FeedbackImage,
    /// The images of the request that attend to it.
    images: AttendingImages,
}

/// Images of a request that are selected as references.
#[derive(Debug)]
pub(super) struct Chosen<'a> {
    liked: Vec<ChosenImage<'a>>,
    disliked: Vec<ChosenImage<'a>>,
    /// Number left out by the keep policy, or because every image of the request attends to others.
    left_out: usize,
    /// Number left out before that because they cannot have an effect.
    without_effect: usize,
    notes: Vec<String>,
    /// See [`Self::acting`].
    acting: BTreeSet<[usize; 2]>,
}

impl<'a> Chosen<'a> {
    /// Selects references. Images without effect are removed before the keep policy counts, so that they do not
    /// displace others.
    pub(super) fn of(request: &'a Request, guidance: &RunGuidance, schedule: &Schedule) -> Self {
        let settings = &request.settings.fabric;
        let weights = FeedbackSchedule::new(settings, schedule.config().num_train_timesteps);
        let side_of = |image: &FeedbackImage| if image.strength > 0.0 { Side::Liked } else { Side::Disliked };
        let mut judged: Vec<&FeedbackImage> = request.feedback.iter().filter(|image| image.strength != 0.0).collect();
        let (all, mut notes) = (judged.len(), Vec::new());
        for side in [Side::Liked, Side::Disliked] {
            let count = judged.iter().filter(|image| side_of(image) == side).count();
            let why = notes::on_references(side, guidance, &weights, schedule);
            if let Some(why) = why.filter(|_| count > 0) {
                judged.retain(|image| side_of(image) != side);
                let kind = if side == Side::Liked { "liked" } else { "disliked" };
                notes.push(format!("{kind} images left out, as they would have no effect: {count}; {why}"));
            }
        }
        let acts = |image: &FeedbackImage, call: &ModelCall| {
            let (side, strength) = (side_of(image), image.strength.abs() * image.scope.factor(call));
            let runs = !weights.branches(side, &guidance.at(call).branches()).0.is_empty();
            runs && !weights.weights(call, side, strength, 1).is_zero()
        };
        let before = judged.len();
        judged.retain(|image| calls(schedule).any(|call| acts(image, &call)));
        if judged.len() < before {
            let count = before - judged.len();
            notes.push(format!(
                "references left out, as their scope leaves them no weight in any evaluation of their branch: {count}"
            ));
        }
        let strengths: Vec<f64> = judged.iter().map(|image| image.strength).collect();
        let kept = settings.keep.select(&strengths);
        let without_effect = all - judged.len();
        let (mut liked, disliked): (Vec<ChosenImage<'_>>, Vec<ChosenImage<'_>>) = kept
            .into_iter()
            .map(|index| {
                let judged = judged[index];
                let images = judged.images.clone().map_or(AttendingImages::All, AttendingImages::Listed);
                ChosenImage { judged, images }
            })
            .partition(|image| side_of(image.judged) == Side::Liked);
        if let Some(per_image) = settings.liked_per_image {
            distribute(&mut liked, per_image, request.seeds.len());
        }
        let left_out = judged.len() - liked.len() - disliked.len();
        let acting = |call: ModelCall| {
            let branches = guidance.at(&call).branches();
            let references = |side, images: &[ChosenImage<'_>]| {
                let has_weight = |image: &&ChosenImage<'_>| {
                    let strength = image.judged.strength.abs() * image.judged.scope.factor(&call);
                    !weights.weights(&call, side, strength, images.len()).is_zero()
                };
                if weights.branches(side, &branches).0.is_empty() {
                    0
                } else {
                    most_of_an_image(images.iter().filter(has_weight).map(|chosen| &chosen.images))
                }
            };
            [branches.len(), references(Side::Liked, &liked) + references(Side::Disliked, &disliked)]
        };
        let acting = calls(schedule).map(acting).collect();
        Self { liked, disliked, left_out, without_effect, notes, acting }
    }

    /// The numbers of branches and of references that act together on one image in an evaluation, each pair once. If images
    /// have different numbers of references, it is the largest: a batch with this image has at least as many.
    pub(super) fn acting(&self) -> &BTreeSet<[usize; 2]> {
        &self.acting
    }

    /// Number of selected references.
    pub(super) fn len(&self) -> usize {
        self.liked.len() + self.disliked.len()
    }
}

/// Returns the largest number of these references that act on the same image, given by the images of each.
fn most_of_an_image<'a>(references: impl Iterator<Item = &'a AttendingImages>) -> usize {
    let (mut of_all, mut distributed, mut most) = (0, 0, 0);
    let mut listed: BTreeMap<usize, usize> = BTreeMap::new();
    for images in references {
        match images {
            AttendingImages::All => of_all += 1,
            AttendingImages::Listed(images) => images.iter().for_each(|image| *listed.entry(*image).or_default() += 1),
            AttendingImages::Distributed { per_image, .. } => (distributed, most) = (distributed + 1, per_image.most),
        }
    }
    of_all + distributed.min(most) + listed.values().max().copied().unwrap_or(0)
}

/// Distributes the liked images that act on all images. Those to which no image of the request attends then are removed.
fn distribute(liked: &mut Vec<ChosenImage<'_>>, per_image: LikedPerImage, images: usize) {
    let is_for_all = |chosen: &ChosenImage<'_>| chosen.images == AttendingImages::All;
    let count = liked.iter().filter(|chosen| is_for_all(chosen)).count();
    if count <= per_image.most {
        return;
    }
    // The newest is last.
    for (age, chosen) in liked.iter_mut().rev().filter(|chosen| is_for_all(chosen)).enumerate() {
        chosen.images = AttendingImages::Distributed { per_image, age, count };
    }
    liked.retain(|chosen| match chosen.images {
        AttendingImages::Distributed { per_image, age, count } => per_image.attends_any(images, age, count),
        AttendingImages::All | AttendingImages::Listed(_) => true,
    });
}

impl Pipeline {
    /// Encodes the references, liked before disliked, and notes their numbers in the report.
    pub(super) fn references(
        &self,
        chosen: &Chosen<'_>,
        request: &Request,
        size: [usize; 2],
        noise: &mut dyn RunNoise,
        report: &mut Report,
    ) -> Result<Vec<Reference>, Error> {
        report.references = [chosen.liked.len(), chosen.disliked.len()];
        report.references_left_out = chosen.left_out;
        report.references_without_effect = chosen.without_effect;
        report.notes.extend_from_slice(&chosen.notes);
        let posterior = request.settings.fabric.posterior;
        let mut references = Vec::new();
        for (side, images) in [(Side::Liked, &chosen.liked), (Side::Disliked, &chosen.disliked)] {
            let latents = self.encode_references(images, side, size, posterior, noise)?;
            references.extend(images.iter().zip(latents).map(|(image, (id, latents))| Reference {
                id,
                latents,
                side,
                strength: image.judged.strength.abs(),
                scope: image.judged.scope.clone(),
                images: image.images.clone(),
            }));
        }
        Ok(references)
    }

    fn encode_references(
        &self,
        images: &[ChosenImage<'_>],
        side: Side,
        size: [usize; 2],
        posterior: ReferencePosterior,
        noise: &mut dyn RunNoise,
    ) -> Result<Vec<(ReferenceId, Tensor<4>)>, Error> {
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<ReferenceId> =
            images.iter().map(|chosen| reference_id(&chosen.judged.image, size, posterior)).collect();
        let shape = self.latent_shape(ids.len(), size);
        // Draw for all references even if some are cached: a source of recorded noise depends on the number of draws.
        let drawn = match posterior {
            ReferencePosterior::Mean => None,
            ReferencePosterior::Sample => {
                let what = Draw::ReferencePosterior { liked: side == Side::Liked, ids: &ids };
                Some(noise::drawn(noise, what, shape)?)
            }
        };
        let reusable = noise.is_seeded();
        let mut encoded = Vec::with_capacity(ids.len());
        for (row, (chosen, id)) in images.iter().zip(ids).enumerate() {
            let kept = reusable.then(|| self.lock_latents().get(&id)).flatten();
            let latents = match kept {
                Some(latents) => latents,
                None => {
                    let (images, device) = (std::slice::from_ref(&chosen.judged.image), self.unet.device());
                    let pixels = image::vae_batch(images, size[0], size[1], Fit::Squash, &device)?;
                    let posterior = match &drawn {
                        Some(drawn) => Posterior::Sample(drawn.clone().slice_dim(0, row..row + 1)),
                        None => Posterior::Mean,
                    };
                    let latents = self.autoencoder.encode(pixels, posterior);
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

    fn lock_latents(&self) -> std::sync::MutexGuard<'_, ReferenceLatents> {
        self.latents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reference_id(image: &Image, size: [usize; 2], posterior: ReferencePosterior) -> ReferenceId {
    let digest = Sha256::new()
        .chain_update(image.content_hash().as_bytes())
        .chain_update(size[0].to_le_bytes())
        .chain_update(size[1].to_le_bytes())
        .chain_update([u8::from(posterior == ReferencePosterior::Mean)])
        .finalize();
    ReferenceId(digest.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_references_of_the_image_with_the_most_are_counted() {
        let most = |references: &[AttendingImages]| most_of_an_image(references.iter());
        let listed = |images: &[usize]| AttendingImages::Listed(images.to_vec());
        let per_image = LikedPerImage::new(2);
        let distributed = |age| AttendingImages::Distributed { per_image, age, count: 3 };
        assert_eq!(most(&[]), 0);
        assert_eq!(most(&[listed(&[0]), listed(&[1]), listed(&[1, 2])]), 2);
        assert_eq!(most(&[distributed(0)]), 1);
        assert_eq!(most(&[distributed(0), distributed(1), distributed(2), AttendingImages::All, listed(&[7])]), 4);
    }
}
