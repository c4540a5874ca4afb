//! Attacks on the caches: one input at a time is changed, in random order and with repeats, on pipelines that live long.
//! Every image must be the one that a new pipeline with empty caches makes.
//!
//! The caches are: keys and values of references, in memory and on disk; latents of references; features of the image
//! encoder; keys and values of the text, within a run. Weights are packed anew by each operation, and the memory of
//! results is used again for others, so both take part in every run.
//!
//! `FABRIC_CACHE_DRAWS=2000 cargo test --release --test faults caches` draws more requests.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use fabric::core::fabric::{
    BlockWeights, FabricExecution, ReferenceNoise, ReferencePass, ReferencePosterior, ReferenceScope,
};
use fabric::core::image::{Crop, Fit, Image};
use fabric::core::pipeline::{Cads, Generation, Pipeline, Request, Window};
use fabric::ipadapter::IpAdapter;
use fabric::models::load::LoadDtype;
use fabric::models::lora::{LoraFile, attach};
use fabric::models::unet::UNet;
use fabric::models::vae::Vae;
use fabric::models::{ModelOptions, StableDiffusion};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use tempfile::TempDir;

use crate::images::{assert_same, fabric, image};
use crate::models::{adapter, device, folder, networks, options, pipeline, vision, with_networks};

/// Requests drawn from each thread, besides each input once.
const DRAWS: usize = 20;

fn draws() -> usize {
    let Ok(asked) = std::env::var("FABRIC_CACHE_DRAWS") else { return DRAWS };
    asked.parse().unwrap_or_else(|_| panic!("FABRIC_CACHE_DRAWS: expected a number, as in 2000, got {asked:?}"))
}

/// Kinds of pipelines. The first two of those that live long share their caches.
const PIPELINES: [&str; 6] = ["plain", "another schedule", "spilling", "LoRA at 0.5", "LoRA at 1", "weights in f16"];

/// Pipelines of each kind, with the adapter that they share.
struct World {
    adapter: IpAdapter,
    pipelines: Vec<Pipeline>,
    _spill: TempDir,
}

fn with_lora(scale: f32) -> Pipeline {
    let file = LoraFile::open(folder().join("lora/kohya.safetensors")).expect("a LoRA");
    // The weights are those of the other pipelines; each evaluation adds the LoRA to them.
    let (attached, _) = attach(networks().unet.clone(), &file.unet, scale).expect("a network");
    with_networks(Arc::new(attached.network()), Arc::new(networks().vae.clone()))
}

fn in_half() -> Pipeline {
    static NETWORKS: LazyLock<(UNet, Vae)> = LazyLock::new(|| {
        let options = ModelOptions { dtype: LoadDtype::F16, ..options() };
        let (model, _) = StableDiffusion::open(folder(), &device(), &options).expect("a model");
        (model.unet, model.vae)
    });
    with_networks(Arc::new(NETWORKS.0.clone()), Arc::new(NETWORKS.1.clone()))
}

/// Returns a pipeline of each kind with empty caches.
fn pipelines(spill: &Path) -> Vec<Pipeline> {
    let plain = pipeline();
    let mut schedule = plain.scheduler().clone();
    schedule.rescale_betas_zero_snr = true;
    let other = plain.clone().with_scheduler(schedule);
    let spilling = pipeline().with_spill(spill, 1 << 30).expect("room to spill");
    vec![plain, other, spilling, with_lora(0.5), with_lora(1.0), in_half()]
}

impl World {
    fn new() -> Self {
        let spill = tempfile::tempdir().expect("a folder");
        Self { adapter: adapter(vision()), pipelines: pipelines(spill.path()), _spill: spill }
    }

    fn make(&self, pipeline: usize, change: &Change) -> Generation {
        let mut request = base(self);
        if PIPELINES[pipeline] == "spilling" {
            request.settings.fabric.execution.pass = CACHED_ON_DISK;
        }
        (change.apply)(&mut request, self);
        let what = format!("{}, {}", PIPELINES[pipeline], change.name);
        self.pipelines[pipeline].generate(&request).unwrap_or_else(|error| panic!("{what}: {error}"))
    }
}

const CACHED_ON_DISK: ReferencePass = ReferencePass::Cached { chunk: 1, budget: 100_000, half: false };

/// Image for an image prompt; not square, so that it can be cropped.
fn wide(seed: usize) -> Image {
    image(seed).fit(64, 40, Fit::Squash).expect("an image")
}

/// A request that uses every cache: two references, an image prompt, guidance.
fn base(world: &World) -> Request {
    let mut request = Request::new("a photo of a cat").with_negative_prompt("blurry").with_seeds([1]);
    request.settings.width = Some(64);
    request.settings.height = Some(64);
    request.settings.steps = 2;
    request.settings.guidance_scale = 5.0;
    request.settings.fabric = fabric();
    request.with_liked(image(1)).with_disliked(image(2)).with(world.adapter.prompt(wide(3)))
}

/// Changed input of a request.
struct Change {
    name: &'static str,
    apply: fn(&mut Request, &World),
}

fn set_execution(request: &mut Request, pass: ReferencePass, token_merge_ratio: f64) {
    request.settings.fabric.execution = FabricExecution { pass, token_merge_ratio };
}

fn set_prompt_image(request: &mut Request, prompt: fabric::ipadapter::ImagePrompt) {
    request.conditioning.clear();
    *request = request.clone().with(prompt);
}

const fn change(name: &'static str, apply: fn(&mut Request, &World)) -> Change {
    Change { name, apply }
}

const CHANGES: [Change; 40] = [
    change("nothing", |_, _| {}),
    change("seed", |request, _| request.seeds = vec![9]),
    change("several images", |request, _| request.seeds = vec![1, 5]),
    change("batch", |request, _| {
        request.seeds = vec![1, 5];
        request.settings.batch = Some(1);
    }),
    change("prompt", |request, _| request.prompt = "a drawing of a house".to_owned()),
    change("negative prompt", |request, _| request.negative_prompt = Some("a dog".to_owned())),
    change("no negative prompt", |request, _| request.negative_prompt = None),
    change("a prompt of two windows", |request, _| {
        request.settings.text.long_prompts = true;
        request.prompt = ["a photo of a cat"; 40].join(", ");
    }),
    change("weights in the prompt", |request, _| {
        request.settings.text.weights = true;
        request.prompt = "a photo of a (cat:1.4)".to_owned();
    }),
    change("clip skip", |request, _| request.settings.text.clip_skip = Some(1)),
    change("words left out", |request, _| request.settings.prompt_dropout = 0.5),
    change("width", |request, _| request.settings.width = Some(48)),
    change("height", |request, _| request.settings.height = Some(72)),
    change("width and height exchanged", |request, _| {
        (request.settings.width, request.settings.height) = (Some(72), Some(48));
    }),
    change("height and width exchanged", |request, _| {
        (request.settings.width, request.settings.height) = (Some(48), Some(72));
    }),
    change("steps", |request, _| request.settings.steps = 3),
    change("sampler", |request, _| request.settings.sampler = Some("ddim".parse().expect("a sampler"))),
    change("curve of the sampler", |request, _| {
        request.settings.sampler = Some("dpmpp_2m_karras".parse().expect("a sampler"));
    }),
    change("guidance", |request, _| request.settings.guidance_scale = 2.0),
    change("no guidance", |request, _| request.settings.guidance_scale = 1.0),
    change("guidance in a part", |request, _| {
        request.settings.guidance_window = Window::new(0.0, 0.5).expect("a window");
    }),
    change("noise on the prompt", |request, _| {
        request.settings.cads =
            Some(Cads { noise_scale: 0.3, prompt_only_below: 0.0, noise_only_above: 0.5, ..Cads::default() });
    }),
    change("reference", |request, _| request.feedback[0].image = image(7)),
    change("references exchanged", |request, _| {
        request.feedback[0].image = image(2);
        request.feedback[1].image = image(1);
    }),
    change("dislike", |request, _| request.feedback[0].strength = -1.0),
    change("strength", |request, _| request.feedback[0].strength = 0.5),
    change("scope", |request, _| {
        let window = Window::new(0.0, 0.5).expect("a window");
        request.feedback[0].scope = ReferenceScope { window, ..ReferenceScope::default() };
    }),
    change("no references", |request, _| request.feedback.clear()),
    change("fresh noise on references", |request, _| {
        request.settings.fabric.noise = ReferenceNoise::Fresh;
        set_execution(request, ReferencePass::TwoPasses { chunk: 1 }, 0.0);
    }),
    change("mean of the posterior", |request, _| request.settings.fabric.posterior = ReferencePosterior::Mean),
    change("weight", |request, _| request.settings.fabric.max_weight = 0.3),
    change("weights of blocks", |request, _| {
        request.settings.fabric.block_weights = BlockWeights { mid: 0.2, ..BlockWeights::default() };
    }),
    change("half precision", |request, _| {
        set_execution(request, ReferencePass::Cached { chunk: 1, budget: 1 << 30, half: true }, 0.0);
    }),
    change("merged tokens", |request, _| {
        set_execution(request, ReferencePass::Cached { chunk: 1, budget: 1 << 30, half: false }, 0.5);
    }),
    change("no budget", |request, _| {
        set_execution(request, ReferencePass::Cached { chunk: 1, budget: 0, half: false }, 0.0);
    }),
    change("init image", |request, _| *request = request.clone().with_init_image(image(5), 0.6)),
    change("image of the prompt", |request, world| set_prompt_image(request, world.adapter.prompt(wide(1)))),
    change("crop of the image prompt", |request, world| {
        set_prompt_image(request, world.adapter.prompt(wide(3)).with_crop(Crop::Pad));
    }),
    change("scale of the image prompt", |request, world| {
        set_prompt_image(request, world.adapter.prompt(wide(3)).with_scale(0.3));
    }),
    change("an image prompt that references see", |request, world| {
        set_prompt_image(request, world.adapter.prompt(wide(3)).visible_to_references());
    }),
];

/// Results of new pipelines with empty caches, by pipeline and change.
fn expected() -> Vec<Vec<Generation>> {
    let make = |pipeline: usize, change: &Change| World::new().make(pipeline, change);
    (0..PIPELINES.len()).map(|pipeline| CHANGES.iter().map(|change| make(pipeline, change)).collect()).collect()
}

/// Makes random requests on the pipelines of a world, each change at least once.
fn attack(world: &World, expected: &[Vec<Generation>], seed: u64) {
    let mut draws = ChaCha12Rng::seed_from_u64(seed);
    let mut left: Vec<usize> = (0..CHANGES.len()).collect();
    let mut drawn = BTreeSet::new();
    for number in 0..CHANGES.len() + self::draws() {
        let pipeline = draws.random_range(0..PIPELINES.len());
        // As often as not a change that was not made yet, so that repeats come between them.
        let change = if left.is_empty() || (number > 0 && draws.random_bool(0.4)) {
            draws.random_range(0..CHANGES.len())
        } else {
            left.swap_remove(draws.random_range(0..left.len()))
        };
        drawn.insert(change);
        let what = format!("seed {seed}, request {number}: {}, {}", PIPELINES[pipeline], CHANGES[change].name);
        assert_same(&world.make(pipeline, &CHANGES[change]), &expected[pipeline][change], &what);
    }
    assert!(drawn.len() > CHANGES.len() / 2);
}

#[test]
fn no_cache_serves_an_entry_of_other_inputs_in_any_order_also_with_two_threads() {
    let expected = expected();
    for row in &expected {
        let same = |at: usize| row[at].images == row[0].images;
        // A change that does nothing would prove nothing. The budget of a cache is the only one that must not.
        let without_effect: Vec<&str> = (1..CHANGES.len()).filter(|&at| same(at)).map(|at| CHANGES[at].name).collect();
        assert_eq!(without_effect, ["no budget"]);
    }
    let world = World::new();
    attack(&world, &expected, 1);
    std::thread::scope(|scope| {
        let threads = [2, 3].map(|seed| {
            let (world, expected) = (&world, &expected);
            scope.spawn(move || attack(world, expected, seed))
        });
        threads.into_iter().for_each(|thread| thread.join().expect("the images of new pipelines"));
    });
    let stats = world.pipelines[0].cache_stats().plus(world.pipelines[2].cache_stats());
    assert!(stats.hits > 100 && stats.disk_hits > 10 && stats.disk_failures == 0, "{stats:?}");
}
