//! Measures which factors adapters take from an image: an image prompt alone and against text, and each Instruct task.

use std::error::Error;

use fabric::core::image::Image;
use fabric::core::pipeline::Request;
use fabric::ipadapter::{InstructGuidance, Instruction, IpAdapter};
use fabric::models::clip::ClipVision;
use fabric_world::{
    Attribute, Factor, InstructTask, InstructedImage, Kind, MOST_PROMPTS, Named, Pair, Sample, SeveralPrompts, Split,
    Tally, full_caption, measure, pair, several_prompts,
};

use super::{Evaluation, SEED, print_head, print_line};

/// Prints how often images show the image prompt's factors: at scale 1 without text, and at 0.5 with a text that names
/// another kind.
pub(crate) fn measure_image_prompt(evaluation: &Evaluation<'_>) -> Result<(), Box<dyn Error>> {
    let adapters = Adapters::open(evaluation, "plus")?;
    let conditions = super::samples(Split::Train, evaluation.arguments.pairs);
    print_head(&["image prompt, percent as in the image (or the text)"]);
    let requests = (0..).zip(&conditions).map(|(seed, sample)| adapters.image_prompt(sample, "", 1.0, seed));
    let made = measure::generate_all(&evaluation.pipeline, &requests.collect::<Result<Vec<_>, _>>()?)?;
    let mut tally = Tally::default();
    for (sample, seen) in conditions.iter().zip(evaluation.judge.read(&made)?) {
        tally.add(&Named::of(&sample.scene), &seen);
    }
    print_line(&["scale 1, no text"], &tally);

    let conditions: Vec<&Sample> = conditions.iter().filter(|sample| !sample.scene.is_face()).collect();
    let other = |sample: &Sample| Kind::ALL[(sample.scene.kind.index() + 5) % (Kind::ALL.len() - 1)];
    let requests = (0..)
        .zip(&conditions)
        .map(|(seed, sample)| adapters.image_prompt(sample, &format!("a {}", other(sample).name()), 0.5, seed));
    let made = measure::generate_all(&evaluation.pipeline, &requests.collect::<Result<Vec<_>, _>>()?)?;
    let mut tally = Tally::default();
    for (sample, seen) in conditions.iter().zip(evaluation.judge.read(&made)?) {
        tally.add(&Named { kind: Some(other(sample)), ..Named::of(&sample.scene) }, &seen);
    }
    print_line(&["scale 0.5, the text names another kind"], &tally);
    Ok(())
}

/// Prints, for each task and for trained and held-out instructions, how often images show the requested factors of the
/// image prompt and the factors named in the text.
pub(crate) fn measure_instruct(evaluation: &Evaluation<'_>) -> Result<(), Box<dyn Error>> {
    let adapters = Adapters::open(evaluation, "instruct")?;
    for wordings in Split::ALL {
        print_head(&["instructions", "task", "percent as in"]);
        let mut sums = [0.0; 2];
        for task in InstructTask::ALL {
            let pairs: Vec<Pair> =
                (0..evaluation.arguments.pairs).map(|index| pair(SEED, index, task, wordings)).collect();
            let requests = (0..).zip(&pairs).map(|(seed, pair)| adapters.instructed(pair, seed));
            let made = measure::generate_all(&evaluation.pipeline, &requests.collect::<Result<Vec<_>, _>>()?)?;
            let (mut image, mut text) = (Tally::default(), Tally::default());
            for (pair, seen) in pairs.iter().zip(evaluation.judge.read(&made)?) {
                image.add(&pair.asked(), &seen);
                text.add(&pair.named, &seen);
            }
            let name = task.to_string();
            print_line(&[wordings.name(), &name, "the image, as asked"], &image);
            print_line(&[wordings.name(), &name, "the text"], &text);
            for (sum, tally) in sums.iter_mut().zip([image, text]) {
                *sum += 100.0 * mean(&tally) / InstructTask::ALL.len() as f64;
            }
        }
        println!("\nmean over tasks and their factors: asked {:.1} %, named {:.1} %", sums[0], sums[1]);
    }
    Ok(())
}

/// Prints how often images show what several image prompts at once are asked for, each a part of it, and what the text
/// names. The prompts share one softmax, as the votes of a feedback session do. They are drawings, or images that the model
/// made, as in a session.
pub(crate) fn measure_several(evaluation: &Evaluation<'_>) -> Result<(), Box<dyn Error>> {
    let adapters = Adapters::open(evaluation, "instruct")?;
    print_head(&["image prompts", "which are", "percent as in"]);
    for count in [1, 2, 4, MOST_PROMPTS] {
        let examples: Vec<SeveralPrompts> =
            (0..evaluation.arguments.pairs).map(|index| several_prompts(SEED, index, count, Split::Train)).collect();
        let asked: Vec<&InstructedImage> = examples.iter().flat_map(|example| &example.prompts).collect();
        let drawn = asked.iter().map(|prompt| measure::drawing(&prompt.image)).collect::<Result<Vec<_>, _>>()?;
        for (name, images) in [("made", evaluation.made_as(&asked, &drawn)?), ("drawn", drawn)] {
            let requests = (0..).zip(&examples).zip(images.chunks(count));
            let requests = requests.map(|((seed, example), images)| adapters.several(example, images, seed));
            let made = measure::generate_all(&evaluation.pipeline, &requests.collect::<Vec<_>>())?;
            let (mut images, mut text) = (Tally::default(), Tally::default());
            for (example, seen) in examples.iter().zip(evaluation.judge.read(&made)?) {
                images.add(&example.asked(count), &seen);
                text.add(&example.named, &seen);
            }
            print_line(&[&count.to_string(), name, "the images, as asked"], &images);
            print_line(&[&count.to_string(), name, "the text"], &text);
        }
    }
    Ok(())
}

impl Evaluation<'_> {
    /// Makes images of the scenes of image prompts. One that does not show what it is asked for is replaced by the drawing.
    fn made_as(&self, asked: &[&InstructedImage], drawn: &[Image]) -> Result<Vec<Image>, Box<dyn Error>> {
        let requests = (0..).zip(asked).map(|(seed, prompt)| self.request(&full_caption(&prompt.image.0), seed));
        let made = measure::generate_all(&self.pipeline, &requests.collect::<Vec<_>>())?;
        let seen = self.judge.read(&made)?;
        let shows = |prompt: &InstructedImage, seen: &Named| {
            let scene = Named::of(&prompt.image.0);
            prompt.task.shared().iter().all(|&asked| seen.index_of(asked) == scene.index_of(asked))
        };
        let chosen = asked.iter().zip(&seen).zip(made.into_iter().zip(drawn));
        Ok(chosen
            .map(|((prompt, seen), (made, drawn))| if shows(prompt, seen) { made } else { drawn.clone() })
            .collect())
    }
}

/// Returns the mean accuracy over the requested factors.
fn mean(tally: &Tally) -> f64 {
    let shares: Vec<f64> = Attribute::ALL.into_iter().filter_map(|attribute| tally.share(attribute)).collect();
    shares.iter().sum::<f64>() / shares.len().max(1) as f64
}

/// An adapter of the model under test, with its image encoder.
struct Adapters<'a> {
    evaluation: &'a Evaluation<'a>,
    adapter: IpAdapter,
}

impl<'a> Adapters<'a> {
    fn open(evaluation: &'a Evaluation<'a>, name: &str) -> Result<Self, Box<dyn Error>> {
        let path = evaluation.folder.join(format!("ip_adapter/{name}.safetensors"));
        let encoder = ClipVision::open(evaluation.folder.join("image_encoder"), &evaluation.device)?;
        Ok(Self { evaluation, adapter: IpAdapter::open(path, &evaluation.device)?.with_encoder(encoder) })
    }

    fn image_prompt(&self, sample: &Sample, text: &str, scale: f32, seed: u64) -> Result<Request, Box<dyn Error>> {
        let drawn = measure::drawn(std::slice::from_ref(sample))?;
        Ok(self.evaluation.request(text, seed).with(self.adapter.prompt(drawn).with_scale(scale)))
    }

    fn several(&self, example: &SeveralPrompts, images: &[Image], seed: u64) -> Request {
        let mut request = self.evaluation.request(&example.text, seed);
        for (prompt, image) in example.prompts.iter().zip(images) {
            let instruction = Instruction::new(&prompt.instruction).with_guidance(InstructGuidance::Simple);
            let prompt = self.adapter.prompt(image).without_scale_correction().with_instruction(instruction);
            request = request.with(prompt.with_shared_softmax());
        }
        request
    }

    fn instructed(&self, pair: &Pair, seed: u64) -> Result<Request, Box<dyn Error>> {
        let drawn = measure::drawing(&pair.condition)?;
        // All wordings of a task have the guidance of its usual wording; the published rule goes by words.
        let guidance = Instruction::from(pair.task.aspect()).guidance;
        let instruction = Instruction::new(&pair.instruction).with_guidance(guidance);
        let prompt = self.adapter.prompt(drawn).without_scale_correction().with_instruction(instruction);
        Ok(self.evaluation.request(&pair.text, seed).with(prompt))
    }
}
