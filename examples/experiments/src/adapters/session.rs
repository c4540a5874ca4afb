//! One session: the images of one arm and one case, compared with the condition image and the text.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use fabric::core::image::Image;
use fabric::core::metrics;
use fabric::core::pipeline::{Request, Settings};
use fabric_world::{Named, full_caption};

use super::case::{AdapterCase, share};
use super::{AdapterArm, AdapterCases, AdapterRecord, AdapterWorld};
use crate::run::{Sessions, run_sessions};
use crate::session::{Session, seed_of};
use crate::{ExperimentError, ImageRecord, Progress, RunFolder, Work};

/// Settings shared by all sessions of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterPlan {
    /// Hash of the configuration.
    pub config: String,
    /// The cases.
    pub cases: AdapterCases,
    /// Number of images of a case.
    pub images: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Negative prompt of all images.
    pub negative_prompt: Option<String>,
    /// Settings of generation.
    pub settings: Settings,
}

/// Runs all sessions that the folder has no records of, as [`run`](fn@crate::run) does. `work` counts condition images,
/// or for Instruct pairs of each task and each split of the wordings.
///
/// # Errors
///
/// Returns the first error of a session, or of writing. Sessions recorded before are kept.
pub fn run_adapters(
    world: &AdapterWorld<'_>,
    plan: &AdapterPlan,
    work: &Work<'_, AdapterArm>,
    folder: &mut RunFolder,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), ExperimentError> {
    let one = |arm: usize, case: usize, _is_kept: bool| {
        session(world, plan, &work.arms[arm], &AdapterCase::new(plan.cases, case))
    };
    let sessions = Sessions {
        arms: work.arms.iter().map(|arm| arm.name.as_str()).collect(),
        cases: work.cases.saturating_mul(plan.cases.multiple()),
        keep_images: work.keep_images.saturating_mul(plan.cases.multiple()),
        shard: work.shard,
        // The networks of the small world.
        is_small: true,
        run: &one,
    };
    run_sessions(&sessions, folder, progress)
}

/// Makes and measures the images of one arm and one case. The seeds do not depend on the arm, so arms are compared on
/// the same noise.
fn session(
    world: &AdapterWorld<'_>,
    plan: &AdapterPlan,
    arm: &AdapterArm,
    case: &AdapterCase,
) -> Result<Session, ExperimentError> {
    let text = if arm.uses_text { case.text.as_str() } else { "" };
    let seeds: Vec<u64> = (0..plan.images).map(|image| seed_of(plan.seed, [case.index, 0, image])).collect();
    let mut request = Request::new(text).with_seeds(seeds.iter().copied()).with_settings(plan.settings.clone());
    request.negative_prompt = plan.negative_prompt.clone();
    let condition = case.drawn()?;
    if let Some(scale) = arm.scale {
        request = request.with(world.prompt(case, &condition, scale));
    }
    let images = world.pipeline().generate(&request)?.images;

    let embedded = world.embed(&images)?;
    let measured = measured(world, case, text, &condition, (&images, &embedded))?;
    let diversity = metrics::diversity(embedded);
    let record = |(at, adapter): (usize, AdapterRecord)| ImageRecord {
        config: plan.config.clone(),
        arm: arm.name.clone(),
        case: case.index,
        prompt: text.to_owned(),
        round: 0,
        image: at,
        seed: seeds[at],
        score: None,
        liked_similarity: None,
        disliked_similarity: None,
        liked_kept: None,
        liked_copied: None,
        disliked_repeated: None,
        diversity,
        vote: None,
        file: None,
        origin: None,
        adapter: Some(adapter),
        reasons: Vec::new(),
        wanted: BTreeMap::new(),
    };
    let records = measured.into_iter().enumerate().map(record);
    Ok(Session { images: records.zip(images).collect(), attention: Vec::new(), condition: Some(condition) })
}

/// Compares images, given with their embeddings, with the condition image and the text that they were made with.
fn measured(
    world: &AdapterWorld<'_>,
    case: &AdapterCase,
    text: &str,
    condition: &Image,
    (images, embedded): (&[Image], &Tensor<2>),
) -> Result<Vec<AdapterRecord>, ExperimentError> {
    let to_condition = world.similarity_to(embedded, condition)?;
    let caption = full_caption(&case.condition.0);
    let to_caption = world.similarity_to_text(embedded, &caption)?;
    let has_text = !text.is_empty();
    let to_text = has_text.then(|| world.similarity_to_text(embedded, text)).transpose()?;
    let (asked, undetermined) = (case.asked(), case.undetermined(has_text));
    let instruction = case.instruction.as_ref();
    let beyond_texts = instruction
        .filter(|_| has_text)
        .map(|_| world.similarity_beyond_texts((embedded, text), (condition, &caption)))
        .transpose()?;
    let record = |(at, seen): (usize, Named)| AdapterRecord {
        task: instruction.map(|instruction| instruction.task),
        wordings: instruction.map(|instruction| instruction.wordings),
        instruction: instruction.map(|instruction| instruction.words.clone()),
        condition_similarity: to_condition[at],
        caption_similarity: to_caption[at],
        text_similarity: to_text.as_ref().map(|similarities| similarities[at]),
        beyond_text_similarity: beyond_texts.as_ref().map(|similarities| similarities[at]),
        asked_shown: share(&asked, &seen),
        text_shown: if has_text { share(&case.named, &seen) } else { None },
        as_condition: undetermined
            .attributes()
            .map(|attribute| (attribute, undetermined.index_of(attribute) == seen.index_of(attribute)))
            .collect(),
        condition: None,
    };
    Ok(world.read(images)?.into_iter().enumerate().map(record).collect())
}
