//! Parameters of requests: every number out of its range, and settings that exclude each other.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use fabric::core::attention::Extrapolation;
use fabric::core::fabric::{
    BlockWeights, DislikesWithoutGuidance, FabricExecution, KeepPolicy, LikedPerImage, ReferenceNoise, ReferencePass,
    ReferenceScope,
};
use fabric::core::guidance::Apg;
use fabric::core::image::Image;
use fabric::core::models::TextOptions;
use fabric::core::noise::NoiseMixture;
use fabric::core::pipeline::{Cads, FeedbackImage, Request, Settings, Window};
use fabric::core::schedule::{SamplerKind, SigmaCurve};
use fabric::core::{Aspect, AspectKind, ImageCondition, InitImage};
use fabric::ipadapter::{ImagePrompt, IpAdapter, LayerPreset, LayerScales, Mask, ScaleSchedule};
use fabric::models::clip::ClipVision;
use fabric::models::control::{Control, ControlNet};
use fabric::models::{ModelOptions, load_model};
use serde_json::json;

use crate::case::{Case, Outcome, check, nothing, said};
use crate::models::{device, fixture, golden, image, pipeline, request};

pub(crate) const COUNT: usize = 311;

/// Generates an image with a request that differs from a good one.
fn generate(change: impl FnOnce(&mut Request)) -> Outcome {
    let mut request = request();
    change(&mut request);
    said(pipeline().generate(&request))
}

/// Generates an image with settings that differ from good ones.
fn with_settings(change: impl FnOnce(&mut Settings)) -> Outcome {
    generate(|request| change(&mut request.settings))
}

fn with_apg(change: impl FnOnce(&mut Apg)) -> Outcome {
    let mut apg = Apg::default();
    change(&mut apg);
    with_settings(|settings| settings.apg = Some(apg))
}

fn with_cads(change: impl FnOnce(&mut Cads)) -> Outcome {
    let mut cads = Cads::default();
    change(&mut cads);
    with_settings(|settings| settings.cads = Some(cads))
}

fn with_extrapolation(change: impl FnOnce(&mut Extrapolation)) -> Outcome {
    let mut how = Extrapolation::default();
    change(&mut how);
    with_settings(|settings| settings.fabric.dislikes_without_guidance = DislikesWithoutGuidance::Extrapolated(how))
}

fn with_blocks(change: impl FnOnce(&mut BlockWeights)) -> Outcome {
    with_settings(|settings| change(&mut settings.fabric.block_weights))
}

fn with_scope(scope: ReferenceScope) -> Outcome {
    generate(|request| request.feedback.push(FeedbackImage { scope, ..FeedbackImage::new(image(), 1.0) }))
}

fn for_images(images: &[usize]) -> Outcome {
    let feedback = FeedbackImage { images: Some(images.to_vec()), ..FeedbackImage::new(image(), 1.0) };
    generate(|request| request.feedback.push(feedback))
}

fn with_condition(condition: ImageCondition) -> Outcome {
    generate(|request| request.image_conditions.push(condition))
}

/// A prompt of one image for the small model.
fn prompt() -> ImagePrompt {
    let encoder = ClipVision::open(golden("image_encoder"), &device()).expect("an encoder");
    let adapter = IpAdapter::open(golden("ip_adapter/base.safetensors"), &device()).expect("an adapter");
    adapter.with_encoder(encoder).prompt(image())
}

fn control() -> Control {
    Control::new(Arc::new(ControlNet::open(golden("controlnet"), &device()).expect("a ControlNet")), image())
}

/// A number of a request: its name, a word of the error, the smallest that is accepted, and a run with it.
type Number = (&'static str, &'static str, f64, fn(f64) -> Outcome);

fn case(name: impl Into<String>, words: &[&str], run: impl FnOnce() -> Outcome + 'static) -> Case {
    Case::refused(name, words, nothing, move |_| run())
}

fn accepted(name: &str, to: &str, run: impl FnOnce() -> Outcome + 'static) -> Case {
    Case::falls_back(name, to, nothing, move |_| run())
}

pub(crate) fn check_base() {
    assert_eq!(generate(|request| request.seeds = vec![1, 2]), Ok(()));
    assert_eq!(generate(|request| *request = request.clone().with(prompt()).with(control())), Ok(()));
    assert_eq!(with_scope(ReferenceScope::default()), Ok(()));
    assert_eq!(with_apg(|_| ()).and(with_cads(|_| ())).and(with_extrapolation(|_| ())), Ok(()));
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, word, least, run) in numbers() {
        let values = [
            ("not a number", f64::NAN),
            ("infinite", f64::INFINITY),
            ("minus infinity", f64::NEG_INFINITY),
            ("too small", least - 0.01),
            ("1e300", 1e300),
        ];
        for (value, number) in values {
            cases.push(case(format!("{name} is {value}"), &[word, "expected"], move || run(number)));
        }
    }
    cases.extend(counts());
    cases.extend(combinations());
    cases.extend(images());
    cases.extend(mixtures());
    cases.extend(image_prompts());
    cases.extend(texts());
    cases.extend(xl());
    cases
}

/// Every number with a fraction.
fn numbers() -> [Number; 41] {
    [
        ("guidance scale", "guidance_scale", -1e4, |x| with_settings(|settings| settings.guidance_scale = x)),
        ("guidance rescale", "guidance_rescale", 0.0, |x| with_settings(|settings| settings.guidance_rescale = x)),
        ("dropout of words", "prompt_dropout", 0.0, |x| with_settings(|settings| settings.prompt_dropout = x)),
        ("start of the guidance window", "window", 0.0, |x| said(Window::new(x, 1.0))),
        ("end of the guidance window", "window", 0.0, |x| said(Window::new(0.0, x))),
        ("APG's momentum", "apg.momentum", -1.0, |x| with_apg(|apg| apg.momentum = x)),
        ("APG's rescale", "apg.rescale", 0.0, |x| with_apg(|apg| apg.rescale = x)),
        ("APG's parallel share", "apg.parallel", 0.0, |x| with_apg(|apg| apg.parallel = x)),
        ("CADS's noise", "cads.noise_scale", 0.0, |x| with_cads(|cads| cads.noise_scale = x)),
        ("CADS's lower time", "cads.prompt_only_below", 0.0, |x| with_cads(|cads| cads.prompt_only_below = x)),
        ("CADS's upper time", "cads.noise_only_above", 0.6, |x| with_cads(|cads| cads.noise_only_above = x)),
        ("CADS's mixing", "cads.mixing", 0.0, |x| with_cads(|cads| cads.mixing = x)),
        ("FABRIC's start", "fabric.start", 0.0, |x| with_settings(|settings| settings.fabric.start = x)),
        ("FABRIC's end", "fabric.end", 0.0, |x| with_settings(|settings| settings.fabric.end = x)),
        ("FABRIC's least weight", "fabric.min_weight", 0.0, |x| {
            with_settings(|settings| settings.fabric.min_weight = x)
        }),
        ("FABRIC's largest weight", "fabric.max_weight", 0.0, |x| {
            with_settings(|settings| settings.fabric.max_weight = x)
        }),
        ("factor of dislikes", "fabric.negative_scale", 0.0, |x| {
            with_settings(|settings| settings.fabric.negative_scale = x)
        }),
        ("likes at the bottleneck", "fabric.liked_bottleneck_scale", 0.0, |x| {
            with_settings(|settings| settings.fabric.liked_bottleneck_scale = x)
        }),
        ("dislikes at the bottleneck", "fabric.disliked_bottleneck_scale", 0.0, |x| {
            with_settings(|settings| settings.fabric.disliked_bottleneck_scale = x)
        }),
        ("scale of flipped dislikes", "fabric.dislikes_without_guidance.scale", 0.0, |x| {
            let dislikes = DislikesWithoutGuidance::Flipped { scale: x };
            with_settings(|settings| settings.fabric.dislikes_without_guidance = dislikes)
        }),
        ("scale of dislikes led away from", "fabric.dislikes_without_guidance.scale", 1.0, |x| {
            with_extrapolation(|how| how.scale = x)
        }),
        ("limit of dislikes led away from", "fabric.dislikes_without_guidance.limit", 1.0, |x| {
            with_extrapolation(|how| how.limit = x)
        }),
        ("share of dislikes led away from", "fabric.dislikes_without_guidance.share", 0.0, |x| {
            with_extrapolation(|how| how.share = x)
        }),
        ("weight of a down block", "fabric.block_weights", 0.0, |x| with_blocks(|blocks| blocks.down = vec![1.0, x])),
        ("weight of the middle block", "fabric.block_weights", 0.0, |x| with_blocks(|blocks| blocks.mid = x)),
        ("weight of an up block", "fabric.block_weights", 0.0, |x| with_blocks(|blocks| blocks.up = vec![x, 1.0])),
        ("share of merged tokens", "fabric.execution.token_merge_ratio", 0.0, |x| {
            with_settings(|settings| settings.fabric.execution.token_merge_ratio = x)
        }),
        ("scale of reasons", "reasons.scale", 0.0, |x| with_settings(|settings| settings.reasons.scale = x)),
        ("scale of reasons against", "reasons.away_scale", 0.0, |x| {
            with_settings(|settings| settings.reasons.away_scale = x)
        }),
        ("most of a reason", "reasons.most_per_aspect", 0.0, |x| {
            with_settings(|settings| settings.reasons.most_per_aspect = x)
        }),
        ("weight of a reason's references", "reasons.references.style.weight", 0.0, |x| {
            let scope = ReferenceScope { weight: x, ..ReferenceScope::default() };
            with_settings(|settings| settings.reasons.references = [(AspectKind::Style, scope)].into())
        }),
        ("strength of a vote", "feedback[0].strength", -1.0, |x| {
            generate(|request| request.feedback.push(FeedbackImage::new(image(), x)))
        }),
        ("weight of a reference", "feedback[0].scope.weight", 0.0, |x| {
            with_scope(ReferenceScope { weight: x, ..ReferenceScope::default() })
        }),
        ("weight of a reference's block", "feedback[0].scope.blocks", 0.0, |x| {
            let blocks = BlockWeights { mid: x, ..BlockWeights::default() };
            with_scope(ReferenceScope { blocks, ..ReferenceScope::default() })
        }),
        ("strength of the initial image", "init_image.strength", 0.0, |x| {
            generate(|request| request.init_image = Some(InitImage::new(image(), x)))
        }),
        ("scale of an image condition", "scale of an image condition", 0.0, |x| {
            with_condition(ImageCondition::new(image()).with_scale(x))
        }),
        ("scale of a ControlNet", "scale of a control network", -100.0, |x| {
            generate(|request| *request = request.clone().with(control().with_scale(x)))
        }),
        ("scale of an image prompt", "scales of an adapter", -100.0, |x| {
            generate(|request| *request = request.clone().with(prompt().with_scale(x as f32)))
        }),
        ("weight of an image", "weights of images", 0.0, |x| {
            generate(|request| *request = request.clone().with(prompt().with_weights([x as f32])))
        }),
        ("factor over a run", "factors over a run", -100.0, |x| said(ScaleSchedule::new([1.0, x as f32]))),
        ("value of a mask", "a mask", 0.0, |x| said(Mask::new(2, 1, vec![1.0, x as f32]))),
    ]
}

/// Numbers of things.
fn counts() -> Vec<Case> {
    let steps = |name: &str, steps: usize, words: &[&str]| {
        case(name, words, move || with_settings(|settings| settings.steps = steps))
    };
    let size = |name: &str, width: usize, height: usize, words: &[&str]| {
        let change = move |settings: &mut Settings| {
            (settings.width, settings.height) = (Some(width), Some(height));
        };
        case(name, words, move || with_settings(change))
    };
    let blocks = |name: &str, word: &str, down: usize, up: usize| {
        let weights = BlockWeights { down: vec![1.0; down], up: vec![1.0; up], ..BlockWeights::default() };
        case(name, &[word, "expected 2, one per"], move || with_blocks(|blocks| *blocks = weights))
    };
    let references = FeedbackImage::new(image(), 1.0);
    let conditioned = |name: &str, images: std::ops::Range<usize>, got: &str| {
        case(name, &["conditioning[0].images", "expected some of the images 0..1", got], move || {
            generate(|request| *request = request.clone().with_for(images, control()))
        })
    };
    let pass = |name: &str, pass: ReferencePass| {
        case(name, &["fabric.execution.pass.chunk: expected at least 1, got 0"], move || {
            with_settings(|settings| settings.fabric.execution = pass.into())
        })
    };
    let kept = |name: &str, keep: KeepPolicy| {
        accepted(name, "no reference is used", move || {
            let mut request = request().with_liked(image());
            request.settings.fabric.keep = keep;
            said(pipeline().generate(&request))
        })
    };
    vec![
        steps("no steps", 0, &["steps: expected 1 to 10000, got 0"]),
        steps("10,001 steps", 10_001, &["steps: expected 1 to 10000, got 10001"]),
        steps("as many steps as there are integers", usize::MAX, &["steps: expected 1 to 10000"]),
        steps("more steps than training had", 1001, &["steps of euler_a", "expected 1 to 1000", "got 1001"]),
        size("no columns", 0, 32, &["width", "expected 1 to 16384 pixels, got 0"]),
        size("no rows", 32, 0, &["height", "expected 1 to 16384 pixels, got 0"]),
        size("16,385 columns", 16_385, 32, &["width", "got 16385"]),
        size("as many rows as there are integers", 32, usize::MAX, &["height", "expected 1 to 16384 pixels"]),
        size("33 columns", 33, 32, &["width: expected a multiple of 8 pixels, got 33; use 32"]),
        size("one row", 32, 1, &["height: expected a multiple of 8 pixels, got 1; use 8"]),
        case("a batch of none", &["batch: expected at least 1, got 0"], || {
            with_settings(|settings| settings.batch = Some(0))
        }),
        accepted("a batch of more images than there are", "all images are one batch", || {
            with_settings(|settings| settings.batch = Some(usize::MAX))
        }),
        case("no seeds", &["seeds: expected one per image, got none"], || generate(|request| request.seeds.clear())),
        case("65,537 seeds", &["seeds: expected at most 65536, got 65537"], || {
            generate(|request| request.seeds = (0..65_537).collect())
        }),
        accepted("the largest seed twice", "equal seeds make equal images", || {
            let made = pipeline().generate(&request().with_seeds([u64::MAX; 2])).map_err(|error| error.to_string())?;
            check(made.images[0] == made.images[1], "two different images")
        }),
        case("131,073 references", &["feedback: expected at most 131072, got 131073"], move || {
            generate(|request| request.feedback = vec![references; 131_073])
        }),
        case("a reference for no image", &["feedback[0].images", "images 0..1, got []"], || for_images(&[])),
        case("a reference for an image that is not made", &["feedback[0].images", "got [1]"], || for_images(&[1])),
        case("a reference for a million images", &["feedback[0].images", "got 1000000 indices"], || {
            for_images(&vec![0; 1_000_000])
        }),
        case("no liked image for each image", &["fabric.liked_per_image.most: expected at least 1"], || {
            with_settings(|settings| settings.fabric.liked_per_image = Some(LikedPerImage::new(0)))
        }),
        accepted("the last of all liked images for each image", "the distribution begins again", || {
            with_settings(|settings| {
                settings.fabric.liked_per_image = Some(LikedPerImage { most: usize::MAX, first: usize::MAX });
            })
        }),
        case("four noises for one image", &["initial_noise: expected 1, one per seed, or none, got 4"], || {
            generate(|request| request.initial_noise = (0..4).map(NoiseMixture::of_seed).collect())
        }),
        conditioned("a control for no image", 0..0, "got 0..0"),
        conditioned("a control for more images than there are", 0..2, "got 0..2"),
        conditioned("a control for an image that no integer has", 0..usize::MAX, "got 0..18446744073709551615"),
        pass("no references in a pass", ReferencePass::TwoPasses { chunk: 0 }),
        pass("no references in a cached pass", ReferencePass::Cached { chunk: 0, budget: 1, half: false }),
        kept("none of the most recent references", KeepPolicy::MostRecent(0)),
        kept("none of balanced references", KeepPolicy::Balanced(0)),
        blocks("one weight for two down blocks", "fabric.block_weights.down", 1, 0),
        blocks("three weights for two up blocks", "fabric.block_weights.up", 2, 3),
        case("three weights of a reference's blocks", &["feedback[0].scope.blocks.down", "got 3 factors"], || {
            let blocks = BlockWeights { down: vec![1.0; 3], ..BlockWeights::default() };
            with_scope(ReferenceScope { blocks, ..ReferenceScope::default() })
        }),
        case("three weights of a reason's blocks", &["reasons.references.style.blocks.up", "got 3 factors"], || {
            let blocks = BlockWeights { up: vec![1.0; 3], ..BlockWeights::default() };
            let scope = ReferenceScope { blocks, ..ReferenceScope::default() };
            with_settings(|settings| settings.reasons.references = [(AspectKind::Style, scope)].into())
        }),
        case("a thousand bytes of memory", &["memory for 1 images of 32x32", "raise `memory_limit`"], || {
            with_settings(|settings| settings.memory_limit = Some(1000))
        }),
        case("a gigabyte for the largest image", &["memory for 1 images of 16384x16384", "at most 1.0 GB"], || {
            with_settings(|settings| {
                (settings.width, settings.height) = (Some(16_384), Some(16_384));
                settings.memory_limit = Some(1_000_000_000);
            })
        }),
        case(
            "all layers of the text encoder but one too many",
            &["clip_skip 18446744073709551615", "3 layers"],
            || {
                with_settings(|settings| {
                    settings.text = TextOptions { clip_skip: Some(usize::MAX), ..TextOptions::default() }
                })
            },
        ),
    ]
}

/// Settings that exclude each other.
fn combinations() -> Vec<Case> {
    let sampler = |name: &str, kind: SamplerKind, steps: usize, words: &[&str]| {
        case(name, words, move || {
            with_settings(|settings| {
                settings.sampler = Some(kind);
                settings.steps = steps;
            })
        })
    };
    vec![
        case(
            "a FABRIC window that ends before it starts",
            &["fabric.start: expected at most fabric.end, which is 0.2"],
            || {
                with_settings(|settings| {
                    settings.fabric.start = 0.7;
                    settings.fabric.end = 0.2;
                })
            },
        ),
        case("a guidance window that ends before it starts", &["window", "in order", "got 0.7 to 0.2"], || {
            said(Window::new(0.7, 0.2))
        }),
        case("cached references with fresh noise", &["fabric.execution.pass", "got cached with fresh noise"], || {
            with_settings(|settings| {
                settings.fabric.noise = ReferenceNoise::Fresh;
                settings.fabric.execution =
                    FabricExecution::from(ReferencePass::Cached { chunk: 1, budget: 1, half: false });
            })
        }),
        case(
            "reasons above their limit",
            &["reasons.scale: expected at most 1, which is reasons.most_per_aspect"],
            || with_settings(|settings| settings.reasons.scale = 2.0),
        ),
        case("reasons against above their limit", &["reasons.away_scale: expected at most 0.5"], || {
            with_settings(|settings| {
                settings.reasons.scale = 0.5;
                settings.reasons.most_per_aspect = 0.5;
            })
        }),
        sampler("more steps than LCM makes", SamplerKind::Lcm, 51, &["steps of lcm", "at most 50", "got 51"]),
        sampler(
            "as many steps as a multistep solver has levels",
            SamplerKind::DpmPlusPlus2M(SigmaCurve::Table),
            1000,
            &["steps of dpmpp_2m", "fewer than 1000 with leading spacing"],
        ),
        case("a strength that leaves no step", &["strength of 2 steps", "0.500 or more", "got 0.3"], || {
            generate(|request| request.init_image = Some(InitImage::new(image(), 0.3)))
        }),
        accepted("a strength of zero", "the initial image is kept", || {
            let start = Image::filled(32, 32, [9, 8, 7]).expect("an image");
            let made = pipeline().generate(&request().with_init_image(start.clone(), 0.0));
            check(made.map_err(|error| error.to_string())?.images == [start], "another image")
        }),
        accepted("a guidance scale of zero", "the unconditional branch runs alone, with a note", || {
            let mut request = request();
            request.settings.guidance_scale = 0.0;
            let made = pipeline().generate(&request).map_err(|error| error.to_string())?;
            check(!made.report.notes.is_empty(), "no note")
        }),
        accepted("the largest guidance scale", "all values are finite", || {
            with_settings(|settings| settings.guidance_scale = 1e4)
        }),
        accepted("a reference without strength", "the reference is ignored", || {
            generate(|request| request.feedback.push(FeedbackImage::new(image(), 0.0)))
        }),
    ]
}

/// Images of requests.
fn images() -> Vec<Case> {
    let mask = |name: &str, mask: Image, words: &[&str]| {
        let words = [words, &["light part of the mask"]].concat();
        case(name, &words, move || said(pipeline().generate(&request().with_inpainting(image(), mask, 1.0))))
    };
    let filled = |value: u8| Image::filled(32, 32, [value; 3]).expect("an image");
    let dot = |size: usize| {
        let mut rgb = vec![0; size * size * 3];
        rgb[(size + 1) * 3..(size + 1) * 3 + 3].fill(255);
        Image::from_rgb(size, size, rgb).expect("an image")
    };
    let aspect = |name: &str, words: String| {
        case(name, &["aspect of an image", "words of 1 to 1000 bytes"], move || {
            with_condition(ImageCondition::new(image()).using(Aspect::Words(words)))
        })
    };
    let thin = |name: &str, width: usize, height: usize| {
        accepted(name, "images are resized to the size of the result", move || {
            let thin = Image::filled(width, height, [200, 100, 50]).expect("an image");
            generate(|request| *request = request.clone().with_liked(thin.clone()).with_init_image(thin, 1.0))
        })
    };
    vec![
        mask("a mask that is dark", filled(0), &["its lightest pixel has 0", "make the part white"]),
        mask("a mask of zeros and ones", filled(1), &["its lightest pixel has 1", "multiply its values by 255"]),
        mask("a mask that is grey", filled(127), &["its lightest pixel has 127"]),
        mask("a mask of one pixel between the latents", dot(32), &["but none that a latent looks at"]),
        mask(
            "a mask of one pixel of a large image",
            dot(640),
            &["its lightest pixel has 255", "paint the part thicker"],
        ),
        aspect("an aspect of no words", String::new()),
        aspect("an aspect of white space", " \n\u{3000}".to_owned()),
        aspect("an aspect of 1001 bytes", "x".repeat(1001)),
        case(
            "an image prompt without an adapter",
            &["image condition an image prompt", "got a pipeline without one"],
            || with_condition(ImageCondition::new(image())),
        ),
        case("an aspect without an adapter", &["image condition `use the style`", "an Instruct adapter"], || {
            with_condition(ImageCondition::new(image()).using(Aspect::Style))
        }),
        thin("a reference of 65,536 columns", 65_536, 1),
        thin("a reference of 65,536 rows", 1, 65_536),
    ]
}

/// Mixtures of the noises of several seeds.
fn mixtures() -> Vec<Case> {
    let mixed = |name: &str, seeds: Vec<u64>, weights: Vec<f64>, words: &[&str]| {
        let words = [words, &["of a noise mixture"]].concat();
        case(name, &words, move || said(NoiseMixture::new(seeds, weights)))
    };
    let turned = |name: &str, seeds: Vec<u64>, degrees: Vec<f64>, words: &[&str]| {
        let words = [words, &["of a noise mixture"]].concat();
        case(name, &words, move || said(NoiseMixture::at_angles(&seeds, &degrees)))
    };
    let finite = "finite numbers that are not all 0";
    vec![
        mixed("a mixture of no seeds", vec![], vec![], &["1 to 16 different seeds", "got 0 seeds"]),
        mixed("a mixture of 17 seeds", (0..17).collect(), vec![1.0; 17], &["got 17 seeds"]),
        mixed("a mixture of a seed with itself", vec![3, 3], vec![1.0; 2], &["got seed 3 twice"]),
        mixed("a mixture of two seeds with one weight", vec![3, 4], vec![1.0], &["2, one per seed", "got 1 weights"]),
        mixed("a mixture with weights of zero", vec![3, 4], vec![0.0; 2], &[finite]),
        mixed("a mixture with a weight that is NaN", vec![3, 4], vec![1.0, f64::NAN], &[finite]),
        mixed("a mixture with an infinite weight", vec![3, 4], vec![1.0, f64::INFINITY], &[finite]),
        mixed("a mixture with a weight of 1e200", vec![3, 4], vec![1.0, 1e200], &[finite]),
        mixed("a mixture with weights of 1e-200", vec![3, 4], vec![1e-200; 2], &[finite]),
        turned("a mixture at no angle", vec![3, 4], vec![], &["1 finite numbers of degrees"]),
        turned("a mixture at an angle of NaN", vec![3, 4], vec![f64::NAN], &["1 finite numbers of degrees", "NaN"]),
        turned("a mixture at an infinite angle", vec![3, 4], vec![f64::INFINITY], &["got [inf]"]),
        case("a mixture in JSON with a weight of null", &["invalid type: null"], || {
            said(serde_json::from_value::<NoiseMixture>(json!({"seeds": [1], "weights": [null]})))
        }),
    ]
}

/// Settings of image prompts.
fn image_prompts() -> Vec<Case> {
    let refused = |name: &str, words: &[&str], change: fn(ImagePrompt) -> ImagePrompt| {
        case(name, words, move || generate(|request| *request = request.clone().with(change(prompt()))))
    };
    let mask = |name: &str, width: usize, height: usize, values: Vec<f32>, words: &[&str]| {
        let words = [words, &["a mask"]].concat();
        case(name, &words, move || said(Mask::new(width, height, values)))
    };
    vec![
        refused("two weights for one image", &["weights of images", "1 numbers from 0 to 100"], |prompt| {
            prompt.with_weights([1.0, 1.0])
        }),
        refused("no masks for an image", &["masks of images", "1, one for each image", "got 0"], |prompt| {
            prompt.with_masks(Vec::<(Mask, LayerScales)>::new())
        }),
        case("a mask with a scale that is infinite", &["scales of an adapter", "got inf"], || {
            let white = Mask::new(1, 1, vec![1.0]).expect("a mask");
            let masked = prompt().with_masks([(white, LayerScales::same(f32::INFINITY))]);
            generate(|request| *request = request.clone().with(masked))
        }),
        refused("a preset with a strength of NaN", &["scales of an adapter", "got NaN"], |prompt| {
            prompt.with_preset(LayerPreset::Linear, f32::NAN, None)
        }),
        refused("a preset for another U-Net", &["preset `", "a U-Net with 6 transformers"], |prompt| {
            prompt.with_preset(LayerPreset::StyleTransfer, 1.0, None)
        }),
        refused(
            "an instruction to an adapter that reads none",
            &["instruction of an image prompt", "does not fit"],
            |prompt| prompt.using(Aspect::Style),
        ),
        case("a prompt of no images", &["images of an image prompt", "got none"], || {
            let adapter = IpAdapter::open(golden("ip_adapter/base.safetensors"), &device()).expect("an adapter");
            let encoder = ClipVision::open(golden("image_encoder"), &device()).expect("an encoder");
            let none = adapter.with_encoder(encoder).prompt(Vec::<Image>::new());
            generate(|request| *request = request.clone().with(none))
        }),
        case("an adapter without an encoder", &["encoder"], || {
            let adapter = IpAdapter::open(golden("ip_adapter/base.safetensors"), &device()).expect("an adapter");
            generate(|request| *request = request.clone().with(adapter.prompt(image())))
        }),
        case("no factors over a run", &["factors over a run", "at least one number"], || said(ScaleSchedule::new([]))),
        mask("a mask of no values", 0, 0, vec![], &["got 0 values"]),
        mask("a mask of too few values", 2, 2, vec![1.0; 3], &["2 times 2", "got 3 values"]),
        mask("a mask of a size that no integer has", usize::MAX, 2, vec![1.0; 3], &["got 3 values"]),
        mask("a mask of zeros", 2, 1, vec![0.0; 2], &["no value above 0.0039"]),
        mask("a mask of ones of 255", 2, 1, vec![1.0 / 255.0; 2], &["no value above 0.0039", "as they are"]),
    ]
}

/// Settings in JSON.
fn texts() -> Vec<Case> {
    let text = |name: &str, text: &'static str, words: &[&str]| {
        case(name, words, move || said(serde_json::from_str::<Settings>(text)))
    };
    vec![
        text("an unknown setting", r#"{"stepz": 7}"#, &["unknown field `stepz`", "`steps`"]),
        text("an unknown setting of FABRIC", r#"{"fabric": {"strength": 1}}"#, &["unknown field `strength`"]),
        text("an unknown setting of APG", r#"{"apg": {"eta": 0}}"#, &["unknown field `eta`"]),
        text("an unknown setting of CADS", r#"{"cads": {"scale": 0.1}}"#, &["unknown field `scale`"]),
        text("an unknown reason", r#"{"reasons": {"references": {"taste": {}}}}"#, &["unknown variant `taste`"]),
        text("an unknown sampler", r#"{"sampler": "euler_z"}"#, &["no sampler is called `euler_z`"]),
        text("steps that are null", r#"{"steps": null}"#, &["invalid type: null"]),
        text("steps below zero", r#"{"steps": -1}"#, &["invalid value: integer `-1`"]),
        text("a fraction of a step", r#"{"steps": 1.5}"#, &["invalid type: floating point `1.5`"]),
        text("a setting twice", r#"{"steps": 1, "steps": 2}"#, &["duplicate field `steps`"]),
        text("a scale in quotes", r#"{"guidance_scale": "7.5"}"#, &["invalid type: string \"7.5\""]),
        text("a scale of NaN", r#"{"guidance_scale": NaN}"#, &["expected value"]),
        text("a scale beyond f64", r#"{"guidance_scale": 1e999}"#, &["number out of range"]),
        text(
            "a window that ends before it starts",
            r#"{"guidance_window": [0.5, 0.2]}"#,
            &["window", "got 0.5 to 0.2"],
        ),
        text("a window of one number", r#"{"guidance_window": [0.5]}"#, &["invalid length 1"]),
        text(
            "a pass of another way",
            r#"{"fabric": {"execution": {"pass": {"way": "none"}}}}"#,
            &["unknown variant `none`"],
        ),
    ]
}

/// Writes a small Stable Diffusion XL.
fn xl_folder(place: &Path) {
    let from_xl = ["unet", "text_encoder", "text_encoder_2"].map(|part| (golden("sdxl").join(part), part));
    let others = [(golden("vae"), "vae"), (golden("scheduler"), "scheduler")];
    let tokenizers = ["tokenizer", "tokenizer_2"].map(|part| (fixture("tokenizer-files"), part));
    for (from, part) in from_xl.into_iter().chain(others).chain(tokenizers) {
        fs::create_dir(place.join(part)).expect("a folder");
        for entry in fs::read_dir(from).expect("a folder") {
            let entry = entry.expect("an entry");
            fs::copy(entry.path(), place.join(part).join(entry.file_name())).expect("copied");
        }
    }
    let index = json!({
        "_class_name": "StableDiffusionXLPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    });
    fs::write(place.join("model_index.json"), index.to_string()).expect("a written file");
}

/// Layers of the text encoders of Stable Diffusion XL, which has other default layers.
fn xl() -> Vec<Case> {
    let generate = |place: &Path, skip: usize| {
        let made = load_model(place, &device(), &ModelOptions::default()).map_err(|error| error.to_string())?;
        let mut request = request();
        request.settings.text.clip_skip = Some(skip);
        said(made.0.generate(&request))
    };
    let refused = |name: &str, skip: usize, words: &[&str]| {
        let words = [words, &["clip_skip", "expected at most 2"]].concat();
        Case::refused(name, &words, xl_folder, move |place| generate(place, skip))
    };
    vec![
        Case::falls_back(
            "all layers of XL's text encoders but one",
            "the first layer is read",
            xl_folder,
            move |place| generate(place, 2),
        ),
        refused("a layer too many of XL's text encoders", 3, &["got 3"]),
        refused(
            "as many layers of XL's text encoders as there are integers",
            usize::MAX,
            &["got 18446744073709551615"],
        ),
    ]
}
