//! Laws of picture prompts, on the tiny networks of `tests/golden/models` and random features.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use burn::tensor::{DType, Int, Tensor, TensorData};
use fabric::core::attention::AttnCall;
use fabric::core::denoise::{ModelCall, NoiseLevel};
use fabric::core::fabric::{FabricSettings, ReferencePass};
use fabric::core::guidance::Branch;
use fabric::core::models::{CrossAttention, NoisePredictor, TextOptions};
use fabric::core::picture::Picture;
use fabric::core::pipeline::{Generation, Pipeline, Request, Settings, Steering, Window};
use fabric::ipadapter::projection::ResamplerConfig;
use fabric::ipadapter::{
    AdapterConfig, AdapterError, AdapterFile, Course, FaceVersion, FeatureKind, Features, InstructGuidance,
    InstructTexts, Instruction, IpAdapter, LayerScales, Mask, PicturePrompt, Preset, ProjectionConfig, numbered_layers,
    tiles,
};
use fabric::models::load::{LoadDtype, SafetensorsFile, parameters};
use fabric::models::lora::merge;
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::unet::UNetConfig;
use fabric::models::{ModelOptions, StableDiffusion, load_folder};
use safetensors::SafeTensors;
use safetensors::tensor::{TensorView, serialize_to_file};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models")
}

fn pipeline() -> &'static Pipeline {
    static PIPELINE: OnceLock<Pipeline> = OnceLock::new();
    PIPELINE.get_or_init(|| {
        let device = fabric::default_device().expect("a device");
        let options = ModelOptions { tokenizer: Some(ClipTokenizer::openai()), ..ModelOptions::default() };
        load_folder(folder(), &device, &options).expect("a pipeline").0
    })
}

fn adapter(kind: &str) -> IpAdapter {
    let path = folder().join("ip_adapter").join(format!("{kind}.safetensors"));
    IpAdapter::open(path, &fabric::default_device().expect("a device")).expect("an adapter")
}

/// Random features of so many pictures; a seed of 0 is no picture.
fn features(adapter: &IpAdapter, images: usize, seed: usize) -> Features {
    let device = fabric::default_device().expect("a device");
    let values = |count: usize| -> Vec<f32> {
        (0..count).map(|at| if seed == 0 { 0.0 } else { ((at * 7 + seed * 31) as f32 * 0.37).sin() }).collect()
    };
    match adapter.config().reads() {
        FeatureKind::Pooled(channels) => {
            Features::Pooled(Tensor::from_data(TensorData::new(values(images * channels), [images, channels]), &device))
        }
        FeatureKind::Tokens(channels) => {
            let data = TensorData::new(values(images * 5 * channels), [images, 5, channels]);
            Features::Tokens(Tensor::from_data(data, &device))
        }
        FeatureKind::Instructed(channels, text) => {
            let tensor = |tokens: usize, channels: usize, seed: usize| {
                let values =
                    (0..images * tokens * channels).map(|at| ((at * 7 + seed * 31) as f32 * 0.37).sin()).collect();
                Tensor::from_data(TensorData::new(values, [images, tokens, channels]), &device)
            };
            let [tokens, prompt, instruction] = [(5, channels, seed), (6, text, 11), (6, text, 12)]
                .map(|(tokens, channels, seed): (usize, usize, usize)| tensor(tokens, channels, seed));
            Features::Instructed { tokens, prompt, instruction }
        }
        other => panic!("not in these tests: {other}"),
    }
}

fn picture() -> Picture {
    Picture::from_rgb(64, 64, (0..64 * 64 * 3).map(|at| (at * 5 % 251) as u8).collect()).expect("a picture")
}

fn prompt(adapter: &IpAdapter, pictures: &Features) -> PicturePrompt {
    PicturePrompt::new(adapter, &pipeline().cross_attentions(), pictures, &features(adapter, 1, 0)).expect("a prompt")
}

fn request() -> Request {
    let settings = Settings { width: Some(64), height: Some(64), steps: 3, guidance_scale: 5.0, ..Settings::default() };
    Request::new("a red star").with_seeds([3, 4]).with_settings(settings)
}

fn make(request: &Request) -> Vec<f32> {
    latents(&pipeline().generate(request).expect("pictures"))
}

fn latents(made: &Generation) -> Vec<f32> {
    made.latents.clone().into_data().convert::<f32>().try_to_vec().expect("f32")
}

/// Largest difference, of values around 1.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |worst, (a, b)| worst.max((a - b).abs()))
}

const ROUNDING: f32 = 1e-4;

#[test]
fn an_adapter_of_scale_zero_is_none() {
    let plain = make(&request());
    for kind in ["base", "plus", "full-face"] {
        let adapter = adapter(kind);
        let prompt = prompt(&adapter, &features(&adapter, 1, 1));
        assert_eq!(make(&request().with_steering(prompt.clone().with_scale(0.0).expect("a scale"))), plain, "{kind}");
        assert!(distance(&make(&request().with_steering(prompt)), &plain) > 1e-3, "{kind}");
    }
}

#[test]
fn a_mask_of_ones_is_no_mask() {
    let adapter = adapter("plus");
    let prompt = prompt(&adapter, &features(&adapter, 1, 1));
    let mask = |value| Mask::new(5, 3, vec![value; 15]).expect("a mask");
    let masked = |value| {
        let prompt = prompt.clone().with_masks(&[(mask(value), LayerScales::same(1.0))]).expect("masks");
        make(&request().with_steering(prompt))
    };
    assert!(distance(&masked(1.0), &make(&request().with_steering(prompt.clone()))) < ROUNDING);
    assert!(distance(&masked(0.0), &make(&request())) < ROUNDING);
}

#[test]
fn one_picture_several_times_is_that_picture() {
    let adapter = adapter("base");
    let one = features(&adapter, 1, 1);
    let Features::Pooled(pooled) = one.clone() else { panic!("base reads pooled features") };
    let three = Features::Pooled(pooled.repeat_dim(0, 3));
    let [one, three] = [one, three].map(|pictures| make(&request().with_steering(prompt(&adapter, &pictures))));
    assert!(distance(&one, &three) < ROUNDING);
}

#[test]
fn a_weight_of_two_is_the_picture_twice() {
    let adapter = adapter("base");
    let Features::Pooled(two) = features(&adapter, 2, 1) else { panic!("base reads pooled features") };
    let row = |at| two.clone().narrow(0, at, 1);
    let made = |rows: Vec<Tensor<2>>, weights: &[f32]| {
        let pictures = Features::Pooled(Tensor::cat(rows, 0));
        let prompt = prompt(&adapter, &pictures).with_weights(weights).expect("weights");
        make(&request().with_steering(prompt))
    };
    let twice = made(vec![row(0), row(1), row(1)], &[1.0; 3]);
    assert!(distance(&made(vec![row(0), row(1)], &[1.0, 2.0]), &twice) < ROUNDING);
    let one = made(vec![row(0)], &[1.0]);
    assert!(distance(&twice, &one) > 1e-3);
    assert_eq!(made(vec![row(0), row(1)], &[1.0, 0.0]), one);
    assert_eq!(made(vec![row(0), row(1)], &[0.0, 0.0]), make(&request()));
    let two = prompt(&adapter, &Features::Pooled(two));
    for wrong in [&[1.0][..], &[1.0, -1.0], &[1.0, f32::NAN]] {
        assert!(two.clone().with_weights(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_course_and_a_preset_are_scales_over_time_and_layers() {
    let adapter = adapter("plus");
    let prompt = prompt(&adapter, &features(&adapter, 1, 1));
    let with = |prompt: PicturePrompt| make(&request().with_steering(prompt));
    let half = with(prompt.clone().with_scale(0.5).expect("a scale"));
    assert_eq!(with(prompt.clone().with_course(Course::new([0.5]).expect("a course"))), half);
    assert_eq!(with(prompt.clone().with_preset(Preset::Linear, 0.5, None).expect("a preset")), half);
    // The first of three steps alone, once as a window and once as a course.
    let first = Window::new(0.0, 0.34).expect("a window");
    let course = Course::new([1.0, 0.0, 0.0]).expect("a course");
    assert_eq!(with(prompt.clone().with_window(first)), with(prompt.clone().with_course(course)));
    let eased = with(prompt.clone().with_preset(Preset::EaseIn, 1.0, None).expect("a preset"));
    assert!(distance(&eased, &with(prompt.clone())) > 1e-3);
    let message = prompt.with_preset(Preset::StyleTransfer, 1.0, None).expect_err("a small U-Net").to_string();
    assert!(message.starts_with("preset `style transfer`: found a U-Net with 6 transformers"), "{message}");
}

#[test]
fn what_a_precise_preset_leads_away_from_is_seen_on_all_other_branches() {
    let device = fabric::default_device().expect("a device");
    // As many transformers as Stable Diffusion has, small.
    let unet = UNetConfig {
        block_out_channels: vec![8; 4],
        norm_num_groups: 4,
        attention_head_dim: 2.into(),
        cross_attention_dim: 12.into(),
        ..UNetConfig::default()
    };
    let layers = unet.init(&device).expect("a network").cross_attentions();
    let widths = numbered_layers(&layers).iter().map(|layer| layer.channels).collect();
    let projection = ProjectionConfig::Pooled { features: 6, tokens: 2 };
    let config = AdapterConfig { projection, widths, context: 12, lora_rank: None };
    let adapter = IpAdapter::new(config.clone(), config.init(&device)).expect("an adapter");
    let pooled = |value: f32| Features::Pooled(Tensor::ones([1, 6], &device) * value);
    let prompt = PicturePrompt::new(&adapter, &layers, &pooled(1.0), &pooled(0.0)).expect("a prompt");
    let prompt = prompt.with_preset(Preset::StyleTransferPrecise, 1.0, Some(0.5)).expect("a preset");
    let level = NoiseLevel { timestep: 500.0, alpha: 0.5, sigma: 0.5 };
    let call = ModelCall { index: 0, total: 1, level };
    /// Rows that see something in a layer, how strongly, and the first number of the keys.
    fn seen(
        prompt: &PicturePrompt,
        call: &ModelCall,
        branches: &[Branch],
        layer: &CrossAttention,
    ) -> Vec<(usize, f32, f32)> {
        let rows: Vec<_> = branches.iter().enumerate().map(|(at, branch)| (*branch, at..at + 1)).collect();
        let processor = prompt.processor(call, &rows);
        let device = fabric::default_device().expect("a device");
        let query = Tensor::<3>::zeros([branches.len(), 4, layer.channels], &device);
        let asked = AttnCall { site: layer.site, query: &query, key: &query, value: &query, grid: [2, 2], heads: 2 };
        let found = processor.extras(&asked).decoupled.into_iter().filter(|tokens| tokens.scale != 0.0);
        found
            .map(|tokens| {
                let key = tokens.key.flatten::<1>(0, 2).slice_dim(0, 0..1).into_scalar::<f32>();
                (tokens.rows.start, tokens.scale, key)
            })
            .collect()
    }
    let four = [Branch::Conditional, Branch::ImageOnly, Branch::Everything, Branch::Unconditional];
    for (t, layer) in layers.iter().enumerate() {
        for branches in [&[Branch::Conditional, Branch::Unconditional][..], &four] {
            let found = seen(&prompt, &call, branches, layer);
            let rows: Vec<usize> = found.iter().map(|(row, ..)| *row).collect();
            match t {
                // Transformers of composition: turned round, the same picture on all branches but the prompt's.
                4 | 5 => {
                    assert_eq!(rows, (1..branches.len()).collect::<Vec<_>>(), "{}", layer.site);
                    assert!(
                        found
                            .iter()
                            .all(|(_, scale, key)| *scale == if t == 4 { 0.125 } else { 0.5 } && *key == found[0].2)
                    );
                }
                0..=3 | 9..=15 => {
                    assert_eq!(rows, (0..branches.len()).collect::<Vec<_>>(), "{}", layer.site);
                    assert!(found[1..].iter().all(|(_, scale, key)| *scale == 1.0 && *key != found[0].2));
                }
                _ => assert!(found.is_empty(), "{}", layer.site),
            }
        }
    }
    // Plain scales instead of the preset's turn nothing round.
    let plain = prompt.with_scale(1.0).expect("a scale");
    assert_eq!(seen(&plain, &call, &four[..1], &layers[4]).len(), 1);
}

#[test]
fn tiles_of_one_colour_are_one_picture() {
    let adapter = adapter("plus");
    let tiles = tiles(&Picture::filled(60, 20, [9, 90, 200]).expect("a picture")).expect("tiles");
    let one = features(&adapter, 1, 1);
    let Features::Tokens(tokens) = one.clone() else { panic!("plus reads tokens") };
    let pictures = Features::Tokens(tokens.repeat_dim(0, tiles.len()));
    let masked: Vec<_> = tiles.into_iter().map(|tile| (tile.mask, LayerScales::same(1.0))).collect();
    let tiled = prompt(&adapter, &pictures).with_masks(&masked).expect("masks");
    let plain = make(&request().with_steering(prompt(&adapter, &one)));
    assert!(distance(&make(&request().with_steering(tiled)), &plain) < ROUNDING);
}

#[test]
fn what_diffusers_saved_is_the_adapter_that_it_loaded() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/diffusers-adapters.safetensors");
    let file = std::sync::Arc::new(SafetensorsFile::open(path).expect("a file"));
    let message = AdapterFile::new(file.clone()).expect_err("three adapters").to_string();
    assert!(message.contains("found 3, wanted one"), "{message}");
    for (index, kind) in ["base", "full-face", "plus"].into_iter().enumerate() {
        let saved = AdapterFile::one_of_several(file.clone(), index).expect("an adapter");
        let published =
            AdapterFile::open(folder().join("ip_adapter").join(format!("{kind}.safetensors"))).expect("a file");
        let (saved, published) = (saved.weights(), published.weights());
        assert_eq!(saved.tensors(), published.tensors(), "{kind}");
        for name in published.tensors().keys() {
            assert_eq!(saved.read(name).expect("a tensor"), published.read(name).expect("a tensor"), "{kind}: {name}");
        }
    }
}

#[test]
fn order_of_adapters_is_nothing() {
    let (base, plus) = (adapter("base"), adapter("plus"));
    let prompts = [prompt(&base, &features(&base, 1, 1)), prompt(&plus, &features(&plus, 2, 2))];
    let [first, second] = prompts;
    let one = make(&request().with_steering(first.clone()).with_steering(second.clone()));
    let other = make(&request().with_steering(second).with_steering(first));
    assert!(distance(&one, &other) < ROUNDING);
}

#[test]
fn a_picture_is_the_same_alone_and_in_a_batch() {
    let adapter = adapter("plus");
    let request = request().with_steering(prompt(&adapter, &features(&adapter, 1, 1)));
    let both = make(&request);
    for (seed, part) in [3, 4].into_iter().zip(both.chunks_exact(both.len() / 2)) {
        assert!(distance(&make(&request.clone().with_seeds([seed])), part) < ROUNDING);
    }
}

#[test]
fn together_with_feedback_either_can_be_switched_off() {
    let adapter = adapter("plus");
    let prompt = prompt(&adapter, &features(&adapter, 1, 1));
    let mut liked = request().with_liked(picture());
    liked.settings.fabric = FabricSettings { start: 0.0, end: 1.0, ..FabricSettings::paper_target() };
    let mut unweighted = liked.clone();
    unweighted.settings.fabric = FabricSettings { min_weight: 0.0, max_weight: 0.0, ..liked.settings.fabric.clone() };
    let [plain, with_liked] = [request(), liked.clone()].map(|request| make(&request));
    let with_prompt = make(&request().with_steering(prompt.clone()));
    assert_eq!(make(&liked.clone().with_steering(prompt.clone().with_scale(0.0).expect("a scale"))), with_liked);
    assert_eq!(make(&unweighted.with_steering(prompt.clone())), with_prompt);
    let together = make(&liked.with_steering(prompt));
    for other in [&plain, &with_liked, &with_prompt] {
        assert!(distance(&together, other) > 1e-3);
    }
}

#[test]
fn references_may_see_the_prompt_whichever_way_they_lend() {
    let [plus, instruct] = ["plus", "instruct"].map(adapter);
    let four = InstructGuidance::ThreeWay { instruction: 4.0, image: 1.5 };
    let prompts = [prompt(&plus, &features(&plus, 1, 1)), instructed(&instruct, four)];
    let made = |prompt: &PicturePrompt, pass| {
        let mut request = request().with_liked(picture()).with_steering(prompt.clone());
        let other = Picture::from_rgb(64, 64, (0..64 * 64 * 3).map(|at| (at * 3 % 199) as u8).collect());
        request = request.with_disliked(other.expect("a picture"));
        request.settings.fabric = FabricSettings { start: 0.0, end: 1.0, pass, ..FabricSettings::paper_target() };
        make(&request)
    };
    let ways = [
        ReferencePass::Interleaved,
        ReferencePass::TwoPasses { chunk: 1 },
        ReferencePass::TwoPasses { chunk: 2 },
        ReferencePass::Cached { chunk: 2, budget: 1 << 30 },
    ];
    for prompt in prompts {
        let unseen = made(&prompt, ReferencePass::Interleaved);
        let seen = prompt.clone().seen_by_references();
        let first = made(&seen, ReferencePass::Interleaved);
        assert!(distance(&first, &unseen) > 1e-3);
        // The cache, filled by a run whose references saw nothing, serves none whose references see something.
        assert!(distance(&made(&prompt, ways[3]), &unseen) < ROUNDING);
        for way in ways {
            assert!(distance(&made(&seen, way), &first) < ROUNDING, "{way:?}");
            let none = seen.clone().with_scale(0.0).expect("a scale");
            let plain = prompt.clone().with_scale(0.0).expect("a scale");
            assert!(distance(&made(&none, way), &made(&plain, way)) < ROUNDING, "{way:?}");
        }
    }
}

#[test]
fn the_lora_of_faceid_changes_the_u_net_under_the_adapter() {
    let device = fabric::default_device().expect("a device");
    let options = ModelOptions { tokenizer: Some(ClipTokenizer::openai()), ..ModelOptions::default() };
    let model = || StableDiffusion::from_folder(folder(), &device, &options).expect("a model").0;
    // A face adapter for the golden U-Net, and a LoRA of two of its layers, numbered as in the published files.
    let base = adapter("base");
    let config =
        AdapterConfig { projection: ProjectionConfig::Face { identity: 8, tokens: 2 }, ..base.config().clone() };
    let place = tempfile::tempdir().expect("a folder");
    let own = place.path().join("own.safetensors");
    IpAdapter::new(config.clone(), config.init(&device)).expect("weights").save(&own, LoadDtype::F32).expect("saved");
    let bytes = std::fs::read(&own).expect("a file");
    let tensors = SafeTensors::deserialize(&bytes).expect("tensors");
    let matrix = |shape: [usize; 2]| -> Vec<u8> {
        (0..shape[0] * shape[1]).flat_map(|at| ((at as f32 * 0.7).sin() * 0.3).to_le_bytes()).collect()
    };
    let width = config.widths[0];
    let shapes = [("down", [4, width]), ("up", [width, 4])];
    let lora: Vec<(String, [usize; 2], Vec<u8>)> = ["0.to_v_lora", "1.to_q_lora"]
        .into_iter()
        .flat_map(|name| shapes.map(|(half, shape)| (format!("ip_adapter.{name}.{half}.weight"), shape, matrix(shape))))
        .collect();
    let views = lora.iter().map(|(name, shape, values)| {
        (name.clone(), TensorView::new(safetensors::Dtype::F32, shape.to_vec(), values).expect("a matrix"))
    });
    let path = place.path().join("faceid.safetensors");
    serialize_to_file(tensors.iter().map(|(name, view)| (name.to_owned(), view)).chain(views), None, &path)
        .expect("written");

    let file = AdapterFile::open(&path).expect("a file");
    assert_eq!(file.config().expect("an adapter"), AdapterConfig { lora_rank: Some(4), ..config.clone() });
    let adapter = IpAdapter::open(&path, &device).expect("an adapter");
    let mut tuned = model();
    let lora = file.lora(&tuned.unet.cross_attentions()).expect("matrices").expect("a LoRA");
    let report;
    (tuned.unet, report) = merge(tuned.unet, &lora, 1.0).expect("places");
    assert_eq!(report.applied.len(), 2, "{report:?}");
    let identity = |value: f32| Features::Face(Tensor::<2>::ones([1, 8], &device) * value);
    let made = |pipeline: &Pipeline| {
        let layers = pipeline.cross_attentions();
        let prompt = PicturePrompt::new(&adapter, &layers, &identity(0.5), &identity(0.0)).expect("a prompt");
        latents(&pipeline.generate(&request().with_steering(prompt)).expect("pictures"))
    };
    let [with, without] = [tuned, model()].map(|model| made(&model.into_pipeline().expect("a pipeline")));
    assert!(distance(&with, &without) > 1e-3);
    assert!(distance(&without, &make(&request())) > 1e-3);
}

#[test]
fn a_window_says_when() {
    let adapter = adapter("base");
    let prompt = prompt(&adapter, &features(&adapter, 1, 1));
    let windowed = |start, end| {
        make(&request().with_steering(prompt.clone().with_window(Window::new(start, end).expect("a window"))))
    };
    assert_eq!(windowed(0.0, 1.0), make(&request().with_steering(prompt.clone())));
    // No step of three lies within a tenth.
    assert_eq!(windowed(0.0, 0.1), make(&request()));
    assert_ne!(windowed(0.0, 0.5), windowed(0.5, 1.0));
    let message = Window::new(0.7, 0.2).expect_err("no window").to_string();
    assert!(message.starts_with("window: found 0.7 to 0.2"), "{message}");
}

/// An Instruct adapter's prompt for a picture of this number, with this guidance.
fn instructed(adapter: &IpAdapter, guidance: InstructGuidance) -> PicturePrompt {
    let Features::Instructed { tokens, .. } = features(adapter, 1, 3) else { panic!("no Instruct adapter") };
    let instruction = Instruction::new("use the pose").with_guidance(guidance);
    let options = TextOptions::default();
    let texts = InstructTexts::encode(
        pipeline().text_encoder(),
        adapter.config(),
        "a red star",
        "blurry",
        &instruction,
        &options,
    );
    let none = tokens.zeros_like();
    let layers = pipeline().cross_attentions();
    PicturePrompt::instructed(adapter, &layers, [&tokens, &none], &texts.expect("texts"), guidance).expect("a prompt")
}

#[test]
fn instruct_runs_with_two_branches_and_with_four() {
    let adapter = adapter("instruct");
    let request = request().with_negative_prompt("blurry");
    let simple = make(&request.clone().with_steering(instructed(&adapter, InstructGuidance::Simple)));
    // The request's own scale three times: the branches between cancel.
    let equal = InstructGuidance::ThreeWay { instruction: 5.0, image: 5.0 };
    let three = make(&request.clone().with_steering(instructed(&adapter, equal)));
    assert!(distance(&simple, &three) < 1e-3, "{}", distance(&simple, &three));
    let published = instructed(&adapter, InstructGuidance::THREE_WAY);
    let both = make(&request.clone().with_steering(published.clone()));
    assert!(distance(&both, &simple) > 1e-2);
    for (seed, part) in [3, 4].into_iter().zip(both.chunks_exact(both.len() / 2)) {
        let alone = make(&request.clone().with_seeds([seed]).with_steering(published.clone()));
        assert!(distance(&alone, part) < 1e-3, "{}", distance(&alone, part));
    }
    // Two adapters that want different branches cannot share a run; one without a wish can join.
    let clash = request.clone().with_steering(published.clone()).with_steering(instructed(&adapter, equal));
    assert!(clash.validate().expect_err("two kinds of guidance").to_string().starts_with("guidance: found"));
    let plus = self::adapter("plus");
    let joined = request.with_steering(published).with_steering(prompt(&plus, &features(&plus, 1, 1)));
    assert!(distance(&make(&joined), &both) > 1e-3);
}

#[test]
fn disliked_pictures_act_under_four_branches() {
    let adapter = adapter("instruct");
    let mut request = request().with_steering(instructed(&adapter, InstructGuidance::THREE_WAY));
    request.settings.fabric = FabricSettings { start: 0.0, end: 1.0, ..FabricSettings::paper_target() };
    let plain = make(&request);
    for judged in [request.clone().with_disliked(picture()), request.clone().with_liked(picture())] {
        assert!(distance(&make(&judged), &plain) > 1e-3);
    }
}

#[test]
fn scales_after_masks_keep_all_pictures() {
    let adapter = adapter("base");
    let two = prompt(&adapter, &features(&adapter, 2, 1));
    let mask = || (Mask::new(1, 1, vec![1.0]).expect("a mask"), LayerScales::same(0.3));
    let masked = two.clone().with_masks(&[mask(), mask()]).expect("masks");
    let again = masked.clone().with_scale(0.3).expect("a scale");
    assert_eq!(make(&request().with_steering(masked)), make(&request().with_steering(again)));
    assert!(two.clone().with_masks(&[mask()]).is_err());
    assert!(two.with_scale(f32::NAN).is_err());
}

#[test]
fn layers_of_the_large_model_are_numbered_as_published() {
    let device = fabric::default_device().expect("a device");
    let layers = UNetConfig::sdxl().init(&device).expect("a network").cross_attentions();
    // Blocks with their transformers and the layers of each, in the order of the files.
    let blocks = [("down_blocks.1", 2, 2), ("down_blocks.2", 2, 10), ("up_blocks.0", 3, 10), ("up_blocks.1", 3, 2)];
    let path = |block: &str, attention: usize, layer: usize| {
        format!("{block}.attentions.{attention}.transformer_blocks.{layer}.attn2")
    };
    let mut wanted: Vec<String> = Vec::new();
    for (block, attentions, depth) in blocks.into_iter().chain([("mid_block", 1, 10)]) {
        wanted.extend((0..attentions * depth).map(|at| path(block, at / depth, at % depth)));
    }
    let found: Vec<String> = numbered_layers(&layers).iter().map(|layer| layer.site.to_string()).collect();
    assert_eq!(found, wanted);
    assert!(layers.iter().all(|layer| layer.context == 2048));
}

#[test]
fn an_adapter_for_another_model_is_refused_by_name() {
    let adapter = adapter("base");
    let device = fabric::default_device().expect("a device");
    let large = UNetConfig::sdxl().init(&device).expect("a network").cross_attentions();
    let picture = features(&adapter, 1, 1);
    let message = PicturePrompt::new(&adapter, &large, &picture, &picture).expect_err("SDXL").to_string();
    assert!(message.contains("the U-Net: found 70 cross-attentions, wanted 6"), "{message}");
    let none = features(&adapter, 0, 1);
    let message =
        PicturePrompt::new(&adapter, &pipeline().cross_attentions(), &none, &none).expect_err("0").to_string();
    assert!(message.starts_with("features of pictures: found [0] of them"), "{message}");
}

/// Six families of published adapters, and the U-Nets and features that each was made for; small where nothing depends on
/// it.
fn families() -> Vec<(AdapterConfig, UNetConfig, FeatureKind)> {
    let resampler = |features, context| ResamplerConfig {
        features,
        channels: 64,
        heads: 1,
        depth: 1,
        factor: 1,
        tokens: 16,
        context,
    };
    let sd: &[usize] = &[320, 320, 640, 640, 1280, 1280, 1280, 1280, 1280, 640, 640, 640, 320, 320, 320, 1280];
    let xl = [[640; 4].as_slice(), &[1280; 20], &[1280; 30], &[640; 6], &[1280; 10]].concat();
    let adapter = |projection, widths: &[usize], context| AdapterConfig {
        projection,
        widths: widths.to_vec(),
        context,
        lora_rank: None,
    };
    let pooled = |features| ProjectionConfig::Pooled { features, tokens: 4 };
    let face = ProjectionConfig::Face { identity: 512, tokens: 4 };
    let instruct = ProjectionConfig::Instruct { resampler: resampler(1280, 768), text: 768 };
    let large = UNetConfig::sdxl();
    let second = || UNetConfig::sd21();
    [
        (adapter(pooled(1024), sd, 768), UNetConfig::sd15()),
        (adapter(pooled(1280), &xl, 2048), large.clone()),
        (adapter(ProjectionConfig::Resampler(resampler(1280, 1024)), sd, 1024), second()),
        (adapter(ProjectionConfig::Resampler(resampler(1664, 2048)), &xl, 2048), large),
        (adapter(face, sd, 1024), second()),
        (adapter(instruct, sd, 768), UNetConfig::sd15()),
    ]
    .map(|(adapter, unet)| (adapter.clone(), unet, adapter.reads()))
    .to_vec()
}

/// Features of one picture, all 0.
fn zeros(kind: FeatureKind) -> Features {
    let device = fabric::default_device().expect("a device");
    let pooled = |channels| Tensor::zeros([1, channels], &device);
    let tokens = |channels| Tensor::zeros([1, 2, channels], &device);
    match kind {
        FeatureKind::Pooled(channels) => Features::Pooled(pooled(channels)),
        FeatureKind::Tokens(channels) => Features::Tokens(tokens(channels)),
        FeatureKind::Face(channels) => Features::Face(pooled(channels)),
        FeatureKind::FaceAndTokens(face, channels) => {
            Features::FaceAndTokens { identities: pooled(face), tokens: tokens(channels) }
        }
        FeatureKind::Instructed(channels, text) => {
            Features::Instructed { tokens: tokens(channels), prompt: tokens(text), instruction: tokens(text) }
        }
    }
}

#[test]
fn each_wrong_pairing_of_encoder_adapter_and_model_is_refused_by_name() {
    let device = fabric::default_device().expect("a device");
    let families = families();
    let layers: Vec<_> =
        families.iter().map(|(_, unet, _)| unet.init(&device).expect("a network").cross_attentions()).collect();
    let mut refused = 0;
    for (own, (adapter, _, reads)) in families.iter().enumerate() {
        for (other, (_, _, offered)) in families.iter().enumerate() {
            let (unet, encoder) = (adapter.check_layers(&layers[other]), adapter.check_features(&zeros(*offered)));
            assert!(own != other || (unet.is_ok() && encoder.is_ok()), "{adapter} does not fit its own");
            let same_layers =
                layers[own].len() == layers[other].len() && layers[own][0].context == layers[other][0].context;
            assert_eq!(unet.is_ok(), same_layers, "{adapter} and model {other}");
            assert_eq!(encoder.is_ok(), reads == offered, "{adapter} and {offered}");
            for error in [unet.err(), encoder.err()].into_iter().flatten() {
                assert!(matches!(error, AdapterError::Unfit { .. }), "{error}");
                let message = error.to_string();
                // The adapter, the U-Net and the encoder's features that belong to it, and what was there instead.
                assert!(message.starts_with(&format!("{adapter}, reading {reads} does not fit")), "{message}");
                assert!(message.contains("for a U-Net of context"), "{message}");
                assert!(message.contains("found") && message.contains("wanted"), "{message}");
                assert!(message.contains("take") || message.contains("give") || message.contains("make"), "{message}");
                refused += 1;
            }
        }
    }
    // 36 pairs of each kind, of which some belong together.
    assert!(refused >= 36, "{refused}");
    assert!(parameters(&families[0].0.init(&device)).len() == 36);
}

#[test]
fn an_instruction_without_a_picture_is_refused() {
    let adapter = adapter("instruct");
    let Features::Instructed { tokens, .. } = features(&adapter, 1, 3) else { panic!("no Instruct adapter") };
    let (instruction, options) = (Instruction::new("use the style"), TextOptions::default());
    let texts =
        InstructTexts::encode(pipeline().text_encoder(), adapter.config(), "a red star", "", &instruction, &options);
    let texts = texts.expect("texts");
    let (layers, none) = (pipeline().cross_attentions(), Tensor::zeros([0, 5, tokens.dims()[2]], &tokens.device()));
    let empty = InstructTexts { query: texts.query.clone().narrow(1, 0, 1), ..texts.clone() };
    let refused = PicturePrompt::instructed(&adapter, &layers, [&tokens, &tokens], &empty, instruction.guidance);
    let message = refused.expect_err("a text cut short").to_string();
    assert!(message.starts_with("texts of an Instruct adapter: found"), "{message}");
    let refused = PicturePrompt::instructed(&adapter, &layers, [&none, &tokens], &texts, instruction.guidance);
    let message = refused.expect_err("no picture").to_string();
    assert!(message.starts_with("pictures of a prompt: found none, wanted one at least"), "{message}");
}

#[test]
fn any_instruction_and_a_hundred_pictures_can_be_used() {
    let adapter = adapter("instruct");
    let Features::Instructed { tokens, .. } = features(&adapter, 1, 3) else { panic!("no Instruct adapter") };
    let (layers, none) = (pipeline().cross_attentions(), tokens.zeros_like());
    let long = "use the style ".repeat(4000);
    let mut made = Vec::new();
    for query in ["", "den Stil verwenden", "\u{4f7f}\u{7528}\u{98a8}\u{683c}", "\u{1f3a8}\0", &long] {
        let instruction = Instruction::new(query).with_guidance(InstructGuidance::Simple);
        let (encoder, options) = (pipeline().text_encoder(), TextOptions::default());
        let texts = InstructTexts::encode(encoder, adapter.config(), "a red star", "", &instruction, &options);
        let texts = texts.expect("texts");
        let guidance = instruction.guidance;
        let prompt = PicturePrompt::instructed(&adapter, &layers, [&tokens, &none], &texts, guidance);
        made.push(make(&request().with_steering(prompt.expect("a prompt"))));
    }
    // Ten megabytes are no instruction.
    let endless = Instruction::new("use the style ".repeat(10 << 16));
    let (encoder, options) = (pipeline().text_encoder(), TextOptions::default());
    let refused = InstructTexts::encode(encoder, adapter.config(), "a red star", "", &endless, &options);
    let message = refused.expect_err("ten megabytes").to_string();
    assert!(message.contains("9175040"), "{message}");
    assert!(made.iter().flatten().all(|value| value.is_finite()));
    // Words matter.
    assert!(distance(&made[0], &made[1]) > 1e-5);
    let base = self::adapter("base");
    let hundred = prompt(&base, &features(&base, 100, 1));
    assert!(make(&request().with_steering(hundred)).iter().all(|value| value.is_finite()));
}

#[test]
fn half_precision_features_are_computed_in_full() {
    for kind in ["base", "plus", "full-face", "instruct"] {
        let adapter = adapter(kind);
        let half = match features(&adapter, 1, 1) {
            Features::Pooled(x) => Features::Pooled(x.cast(DType::F16)),
            Features::Tokens(x) => Features::Tokens(x.cast(DType::F16)),
            Features::Instructed { tokens, prompt, instruction } => {
                Features::Instructed { tokens: tokens.cast(DType::F16), prompt: prompt.cast(DType::F16), instruction }
            }
            other => panic!("not in these tests: {}", other.kind()),
        };
        assert_eq!(adapter.tokens(&half).expect("tokens").dtype(), DType::F32, "{kind}");
    }
}

#[test]
fn features_of_another_encoder_are_refused_by_name() {
    let adapter = adapter("plus");
    let device = fabric::default_device().expect("a device");
    for wrong in
        [Features::Pooled(Tensor::zeros([1, 24], &device)), Features::Tokens(Tensor::zeros([1, 17, 99], &device))]
    {
        let message = adapter.tokens(&wrong).expect_err("another encoder").to_string();
        assert!(message.contains("a plus adapter (16 tokens)") && message.contains("wanted tokens of"), "{message}");
    }
}

#[test]
fn damaged_adapter_files_are_refused_by_name() {
    let device = fabric::default_device().expect("a device");
    let place = tempfile::tempdir().expect("a folder");
    let whole = std::fs::read(folder().join("ip_adapter/base.safetensors")).expect("a file");
    let nan = |bytes: &mut Vec<u8>| {
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    };
    type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
    let changes: [(&str, Change<'_>); 5] = [
        ("empty", &|bytes| bytes.clear()),
        ("short", &|bytes| bytes.truncate(100)),
        ("half", &|bytes| bytes.truncate(bytes.len() / 2)),
        ("long", &|bytes| bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes())),
        ("nan", &nan),
    ];
    for (name, change) in changes {
        let path = place.path().join(format!("{name}.safetensors"));
        let mut bytes = whole.clone();
        change(&mut bytes);
        std::fs::write(&path, bytes).expect("written");
        let message = IpAdapter::open(&path, &device).expect_err(name).to_string();
        assert!(message.contains(&format!("{name}.safetensors")), "{message}");
        assert!(message.contains("found") || message.contains("NaN"), "{message}");
    }
    let message = IpAdapter::open(place.path().join("none.safetensors"), &device).expect_err("no file").to_string();
    assert!(message.contains("none.safetensors"), "{message}");
}

#[test]
fn the_version_of_faceid_plus_is_the_callers() {
    let device = fabric::default_device().expect("a device");
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().join("plus.safetensors");
    let projection = ProjectionConfig::FaceResampler { identity: 8, features: 12, tokens: 2, version: FaceVersion::V1 };
    let config = AdapterConfig { projection, widths: vec![8], context: 64, lora_rank: None };
    let adapter = IpAdapter::new(config.clone(), config.init(&device)).expect("an adapter");
    adapter.save(&path, LoadDtype::F32).expect("saved");
    let wave = |count: usize| Tensor::<1, Int>::arange(0..count as i64, &device).float().sin();
    let identities = wave(8).reshape([1, 8]);
    let features = Features::FaceAndTokens { identities, tokens: wave(36).reshape([1, 3, 12]) };
    let tokens = |version| {
        let adapter = IpAdapter::open_as(&path, version, &device).expect("an adapter");
        adapter.tokens(&features).expect("tokens").into_data().try_to_vec::<f32>().expect("f32")
    };
    assert!(distance(&tokens(FaceVersion::V1), &tokens(FaceVersion::V2)) > 1e-2);
}
