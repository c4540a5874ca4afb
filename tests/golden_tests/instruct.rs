//! Golden file `instruct`: the projection with an instruction, evaluations of four branches, and runs with two and
//! four.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use burn::tensor::{Device, Tensor};
use fabric::core::attention::AttnProcessor;
use fabric::core::denoise::{Denoiser, ModelCall};
use fabric::core::guidance::{Branch, Guidance};
use fabric::core::models::{ImageEncoder, TextEmbedding, TextEncoder, TextOptions, UNetInput, UNetModel};
use fabric::core::pipeline::{BatchLayout, Conditioning, PreparedConditioning, Request, RunContext};
use fabric::core::samplers::sample;
use fabric::core::schedule::Schedule;
use fabric::ipadapter::{
    Features, ImagePrompt, InstructGuidance, InstructTexts, Instruction, IpAdapter, PreparedImagePrompt,
};
use fabric::models::unet::UNet;

use super::harness::{Golden, device, folder, meaning, numbers};
use super::ip_adapter::Silent;
use super::{model, pipeline, text, vision};

/// Names of the branches in the file.
const BRANCHES: [(&str, Branch); 4] = [
    ("full", Branch::Conditional),
    ("image_only", Branch::ImageOnly),
    ("everything", Branch::Everything),
    ("uncond", Branch::Unconditional),
];

struct World {
    golden: Golden,
    device: Device,
    unet: UNet,
    adapter: IpAdapter,
    texts: InstructTexts,
    /// Tokens of the image, and of the zero image.
    images: [Tensor<3>; 2],
}

/// The texts of the golden file are encoded by hand.
struct NoTexts;

impl TextEncoder for NoTexts {
    fn encode(&self, prompts: &[String], _: &TextOptions) -> Result<TextEmbedding, fabric::core::Error> {
        panic!("the texts are given: {prompts:?}")
    }
}

impl World {
    fn open() -> Self {
        let device = device();
        let golden = Golden::open("instruct");
        let encoder = text::load("text_encoder", None, &device);
        let read = encoder.forward(&text::ids(&golden, "input_ids")).expect("encodes").last_hidden_state;
        let row = |index, name: &str| {
            let row = read.clone().narrow(0, index, 1);
            golden.compare(&format!("text/{name}"), row.clone());
            row
        };
        let texts = InstructTexts {
            prompt: row(0, "prompt"),
            negative: row(1, "negative"),
            query: row(2, "query"),
            empty: row(3, "empty"),
            everything: row(4, "everything"),
        };
        let vision = vision::load(&device);
        let pixels: Tensor<4> = golden.tensor("pixel_values", &device);
        let images = [vision.penultimate(pixels.clone()), vision.penultimate(pixels.zeros_like())];
        golden.compare("clip_penultimate", images[0].clone());
        golden.compare("clip_penultimate_zero", images[1].clone());
        let path = folder().join("models/ip_adapter/instruct.safetensors");
        let adapter = IpAdapter::open(path, &device).expect("an adapter");
        Self { golden, unet: model::unet(), adapter, texts, images, device }
    }

    fn prompt(&self, guidance: InstructGuidance, scale: f64) -> ImagePrompt {
        let [image, none] = self.images.clone().map(Features::Tokens);
        let instruction = Instruction::new("use the golden file's words").with_guidance(guidance);
        let prompt = self.adapter.prompt_from_features(image, Some(none)).with_instruction(instruction);
        prompt.with_texts(self.texts.clone()).with_scale(scale as f32)
    }

    fn prepared(&self, prompt: &ImagePrompt) -> PreparedImagePrompt {
        let request = Request::new("");
        let run = RunContext::new(&request, &self.unet, &NoTexts, [8, 8]);
        prompt.prepared(&run).expect("a prompt")
    }

    /// Returns the text context of the U-Net's cross-attention for these branches.
    fn context(&self, branches: &[Branch]) -> Tensor<3> {
        let context = |branch: &Branch| match branch {
            Branch::Conditional => self.texts.prompt.clone(),
            _ => self.texts.negative.clone(),
        };
        Tensor::cat(branches.iter().map(context).collect(), 0)
    }

    fn pass(
        &self,
        sample: Tensor<4>,
        branches: &[Branch],
        prompt: &PreparedImagePrompt,
        call: &ModelCall,
    ) -> Tensor<4> {
        let processor = prompt.attention(call, &BatchLayout::new(branches.to_vec(), 0..1));
        let (processors, timesteps): ([&dyn AttnProcessor; 1], _) = ([&*processor], [call.level.timestep]);
        let processor = processors.as_slice();
        let context = self.context(branches);
        let sample = sample.repeat_dim(0, branches.len());
        let input = UNetInput { processor: &processor, ..UNetInput::new(sample, &timesteps, context) };
        self.unet.forward(input).sample.expect("a prediction")
    }
}

#[test]
fn instruct_equals_the_reference() {
    let world = World::open();
    projection(&world);
    passes(&world);
    for (case, said, guidance) in [
        ("simple", "scale 0.8, text guidance 5.0, DDIM 6 steps", false),
        ("three_scale", "scale 0.8, text guidance 5.0, image 1.5, instruct 3.0, DDIM 6 steps", true),
    ] {
        run(&world, case, said, guidance);
    }
    world.golden.finish();
}

/// Compares the projected tokens of every branch, and the attention outputs of the projection's first layer.
fn projection(world: &World) {
    let texts = &world.texts;
    let reads: BTreeMap<&str, (&Tensor<3>, &Tensor<3>, &Tensor<3>)> = [
        ("full", (&world.images[0], &texts.prompt, &texts.query)),
        ("everything", (&world.images[0], &texts.prompt, &texts.everything)),
        ("image_only", (&world.images[0], &texts.negative, &texts.negative)),
        ("uncond", (&world.images[1], &texts.negative, &texts.empty)),
    ]
    .into();
    for (name, (tokens, prompt, instruction)) in reads {
        let [tokens, prompt, instruction] = [tokens, prompt, instruction].map(Tensor::clone);
        let features = Features::Instructed { tokens, prompt, instruction };
        world.golden.compare(&format!("tokens/{name}"), world.adapter.tokens(&features).expect("tokens"));
    }
    let [tokens, prompt, instruction] = [&world.images[0], &texts.prompt, &texts.query].map(Tensor::clone);
    let features = Features::Instructed { tokens, prompt, instruction };
    let reads = world.adapter.weights().first_reads(&features).expect("the file is an Instruct adapter");
    for (name, read) in ["image", "prompt", "instruct"].into_iter().zip(reads) {
        world.golden.compare(&format!("layer0/{name}_attn"), read);
    }
}

/// Compares single evaluations of all four branches.
fn passes(world: &World) {
    let golden = &world.golden;
    for case in golden.cases() {
        let Some(scale) = case.strip_prefix("unet_scale_").and_then(|scale| scale.parse().ok()) else { continue };
        let key = format!("{case}/out");
        let said = meaning("instruct", &key, "t=333; branches full, image_only, everything, uncond");
        let order: Vec<Branch> = {
            let listed = said.split_once("branches").map_or(said.as_str(), |(_, listed)| listed);
            let branch =
                |name: &str| BRANCHES.iter().find(|(known, _)| *known == name.trim()).map(|(_, branch)| *branch);
            listed.split(',').map(|name| branch(name).unwrap_or_else(|| panic!("{said}: {name}"))).collect()
        };
        let schedule = Schedule::new(&pipeline::scheduler("ddim", "leading", None), 1).expect("a schedule");
        let mut call = first_call(&schedule);
        call.level.timestep = numbers(&said)[0];
        let prompt = world.prepared(&world.prompt(InstructGuidance::THREE_WAY, scale));
        golden.compare(&key, world.pass(golden.tensor("sample", &world.device), &order, &prompt, &call));
    }
}

/// Returns a call at the first noise level of a schedule.
fn first_call(schedule: &Schedule) -> ModelCall {
    struct First(Option<ModelCall>);
    impl Denoiser for First {
        fn predict(&mut self, latents: Tensor<4>, call: &ModelCall) -> Result<Tensor<4>, fabric::core::Error> {
            self.0.get_or_insert(*call);
            Ok(latents)
        }
    }
    let mut first = First(None);
    let latents = Tensor::<4>::zeros([1, 1, 1, 1], &device());
    sample(schedule, latents, &mut first, &mut Silent, &mut |_| ControlFlow::Continue(())).expect("a run");
    first.0.expect("a call")
}

struct Instructed<'a> {
    world: &'a World,
    prompt: PreparedImagePrompt,
    guidance: Guidance,
}

impl Denoiser for Instructed<'_> {
    fn predict(&mut self, latents: Tensor<4>, call: &ModelCall) -> Result<Tensor<4>, fabric::core::Error> {
        let branches = self.guidance.branches();
        Ok(self.guidance.mix(self.world.pass(latents, &branches, &self.prompt, call)))
    }
}

fn run(world: &World, case: &str, said: &str, three_way: bool) {
    let key = format!("generate/{case}/steps");
    let said = meaning("instruct", &key, said);
    let number = |word: &str| {
        let (_, rest) = said.split_once(word).unwrap_or_else(|| panic!("{said}: no word on {word}"));
        numbers(rest)[0]
    };
    let guidance = if three_way {
        InstructGuidance::ThreeWay { instruction: number("instruct "), image: number("image ") }
    } else {
        InstructGuidance::Simple
    };
    let prompt = world.prompt(guidance, number("scale "));
    let guidance = prompt.guidance(number("text guidance ")).expect("Instruct has guidance of its own");
    let mut denoiser = Instructed { world, prompt: world.prepared(&prompt), guidance };
    // DDIM has one state per step.
    let steps = world.golden.shape(&key)[0];
    let schedule = Schedule::new(&pipeline::scheduler("ddim", "leading", None), steps).expect("a schedule");
    let latents: Tensor<4> = world.golden.tensor("generate/latents", &world.device) * schedule.init_noise_sigma();
    let mut states = Vec::new();
    sample(&schedule, latents, &mut denoiser, &mut Silent, &mut |step| {
        states.push(step.state.clone());
        ControlFlow::Continue(())
    })
    .expect("a run");
    world.golden.compare(&key, Tensor::stack::<5>(states, 0));
}
