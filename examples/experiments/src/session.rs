//! One session: the rounds of one arm on one prompt, as in FABRIC's published evaluation.

use std::collections::BTreeMap;

use fabric::core::image::Image;
use fabric::core::metrics;
use fabric::core::pipeline::{Request, Settings};
use fabric_world::Named;
use sha2::{Digest, Sha256};

use crate::round_attention::RoundAttention;
use crate::round_maker::round_maker;
use crate::small_world::scene;
use crate::wanted_factor::WantedFactors;
use crate::{Arm, Case, ExperimentError, FactorShares, Feedback, ImageRecord, Subject};

/// Settings shared by all sessions of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Hash of the configuration.
    pub config: String,
    /// Score that the feedback follows.
    pub feedback: Feedback,
    /// Number of rounds.
    pub rounds: usize,
    /// Number of images of a round.
    pub images: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Negative prompt of all prompts that have none of their own.
    pub negative_prompt: Option<String>,
    /// Settings of generation; those of FABRIC come from the arm.
    pub settings: Settings,
}

/// Images of a session, in order, and where their references and votes with a reason acted if that was measured.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) images: Vec<(ImageRecord, Image)>,
    pub(crate) attention: Vec<RoundAttention>,
    /// The condition image, in the experiments of adapters.
    pub(crate) condition: Option<Image>,
}

/// Runs the rounds of one arm on one prompt.
///
/// As published: after each round, the best image joins the liked ones and the worst the disliked ones, even if they
/// are the same image; arms without feedback track the same votes, so that their similarities can be compared. Arms
/// with reasons say of the same two images what is right and what is wrong. A search learns from the same scores or
/// votes, and a first round from a corpus is judged as any other. The seeds depend on run, prompt, round and image, not
/// on the arm, so arms are compared on the same noise.
///
/// # Errors
///
/// Returns an error if images cannot be generated or scored, or a score is not finite.
pub(crate) fn run(
    subject: &dyn Subject,
    plan: &Plan,
    arm: &Arm,
    case: &Case,
    measures_attention: bool,
) -> Result<Session, ExperimentError> {
    let (mut liked, mut disliked): (Vec<Image>, Vec<Image>) = (Vec::new(), Vec::new());
    let mut all = Vec::with_capacity(plan.rounds * plan.images);
    let mut attention = Vec::new();
    // The images of a searched round have different settings, so a reference has no one share of their attention.
    let measure_attention = measures_attention && arm.search.is_none();
    let settings = Settings { measure_attention, ..arm.settings(&plan.settings)? };
    let negative_prompt = case.negative.clone().or_else(|| plan.negative_prompt.clone());
    let base = Request { negative_prompt, ..Request::new(&case.prompt).with_settings(settings) };
    let pipeline = subject.pipeline(arm)?;
    let mut maker = round_maker(subject, plan, arm, case, &base)?;
    let mut wanted =
        subject.small_world().map(|world| (world.judge(), WantedFactors::new(Named::of(&scene(case.index).scene))));
    for round in 0..plan.rounds {
        let seeds: Vec<u64> = (0..plan.images).map(|image| seed_of(plan.seed, [case.index, round, image])).collect();
        let mut request = base.clone().with_seeds(seeds.iter().copied());
        if arm.likes && arm.has_plain_votes() {
            request = liked.iter().cloned().fold(request, Request::with_liked);
        }
        if arm.dislikes && arm.has_plain_votes() {
            request = disliked.iter().cloned().fold(request, Request::with_disliked);
        }
        let made = maker.make(pipeline, round, request)?;
        let images = &made.images;
        attention.extend(made.attention(round, arm));

        let embedded = subject.embed(images)?;
        let scores = match (plan.feedback, &case.target) {
            (Feedback::Target, Some(target)) => {
                let target = subject.embed(std::slice::from_ref(target))?;
                metrics::similarity(embedded.clone(), target).concat()
            }
            _ => subject.score(case, images)?,
        };
        if let Some((image, got)) = scores.iter().enumerate().find(|(_, score)| !score.is_finite()) {
            return Err(ExperimentError::Score { prompt: case.prompt.clone(), round, image, got: *got });
        }
        let similarity = |references: &[Image]| -> Result<Vec<Option<f64>>, ExperimentError> {
            if references.is_empty() {
                return Ok(vec![None; images.len()]);
            }
            let rows = metrics::similarity(embedded.clone(), subject.embed(references)?);
            Ok(rows.iter().map(|row| Some(row.iter().sum::<f64>() / row.len() as f64)).collect())
        };
        let (to_liked, to_disliked) = (similarity(&liked)?, similarity(&disliked)?);
        let shares = subject.factor_shares(case, images, &liked, &disliked)?;
        let shares = shares.unwrap_or_else(|| vec![FactorShares::default(); images.len()]);
        let mut factors = match &mut wanted {
            Some((judge, wanted)) => wanted.of_round(&judge.read(images).map_err(fabric::core::Error::from)?),
            None => vec![BTreeMap::new(); images.len()],
        };
        let diversity = metrics::diversity(embedded.clone());
        let (best, worst) = best_and_worst(&scores);
        let reasons = maker.judge(&made, &scores, [best, worst])?;
        for (at, image) in images.iter().enumerate() {
            let vote = f64::from(u8::from(at == best)) - f64::from(u8::from(at == worst));
            let record = ImageRecord {
                config: plan.config.clone(),
                arm: arm.name.clone(),
                case: case.index,
                prompt: case.prompt.clone(),
                round,
                image: at,
                seed: seeds[at],
                score: Some(scores[at]),
                liked_similarity: to_liked[at],
                disliked_similarity: to_disliked[at],
                liked_kept: shares[at].kept,
                liked_copied: shares[at].copied,
                disliked_repeated: shares[at].repeated,
                diversity,
                vote: (at == best || at == worst).then_some(vote),
                file: None,
                origin: made.origins.get(at).cloned(),
                adapter: None,
                reasons: reasons.iter().filter(|(image, _)| *image == at).map(|(_, vote)| vote.clone()).collect(),
                wanted: std::mem::take(&mut factors[at]),
            };
            all.push((record, image.clone()));
        }
        liked.push(images[best].clone());
        disliked.push(images[worst].clone());
    }
    Ok(Session { images: all, attention, condition: None })
}

/// Returns the indices of the highest and the lowest score; of equal scores, the first.
///
/// FABRIC's published evaluation uses one image as liked and as disliked if all scores are equal, where
/// [`BestAndWorst`](fabric::core::session::BestAndWorst) gives no vote.
fn best_and_worst(scores: &[f64]) -> (usize, usize) {
    let mut best = 0;
    let mut worst = 0;
    for (at, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = at;
        }
        if *score < scores[worst] {
            worst = at;
        }
    }
    (best, worst)
}

/// Returns a seed that depends on all of these numbers.
pub(crate) fn seed_of(run: u64, numbers: [usize; 3]) -> u64 {
    let mut digest = Sha256::new();
    digest.update(run.to_le_bytes());
    for number in numbers {
        digest.update((number as u64).to_le_bytes());
    }
    // Seeds stay below 2^53, so that every JSON reader keeps them exact.
    let bytes: [u8; 8] = digest.finalize()[..8].try_into().expect("a digest has 32 bytes");
    u64::from_le_bytes(bytes) >> 11
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_scores_the_first_is_best_and_worst() {
        assert_eq!(best_and_worst(&[1.0, 3.0, 3.0, 0.5, 0.5]), (1, 3));
        assert_eq!(best_and_worst(&[2.0, 2.0]), (0, 0));
    }

    #[test]
    fn seeds_differ_in_every_number() {
        let base = seed_of(1, [2, 3, 4]);
        for other in [seed_of(2, [2, 3, 4]), seed_of(1, [3, 3, 4]), seed_of(1, [2, 4, 4]), seed_of(1, [2, 3, 5])] {
            assert_ne!(base, other);
        }
        assert_eq!(base, seed_of(1, [2, 3, 4]));
        assert!(base < 1 << 53);
    }
}
