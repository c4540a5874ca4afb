//! Cached keys and values of references: what they serve, their size, and the disk.

use super::*;

#[test]
fn kept_tokens_serve_their_own_noise_level_only() {
    let cached = everywhere().with_pass(ReferencePass::Cached { chunk: 2, budget: 1 << 30, half: false });
    let with = |fabric: &FabricSettings, sampler: &str, steps| {
        let mut request = request(fabric.clone()).with_liked(image(1, 64));
        (request.settings.sampler, request.settings.steps) = (Some(sampler.parse().expect("a sampler")), steps);
        request
    };
    // With 50 Karras levels, the last rounded timesteps are equal, but the noise levels are not.
    let pipeline = fresh_pipeline();
    let many = pipeline.generate(&with(&cached, "dpmpp_2m_karras", 50)).expect("a generation");
    assert_same(&make(&with(&everywhere(), "dpmpp_2m_karras", 50)), &many);
    // Equal timesteps with another training schedule.
    let mut other = pipeline.scheduler().clone();
    other.rescale_betas_zero_snr = true;
    let other = pipeline.clone().with_scheduler(other);
    let first = pipeline.generate(&with(&cached, "ddim", 3)).expect("a generation");
    let second = other.generate(&with(&cached, "ddim", 3)).expect("a generation");
    assert_differ(&first, &second);
    assert_same(&other.generate(&with(&everywhere(), "ddim", 3)).expect("a generation"), &second);
}

fn has_halves() -> bool {
    let has = fabric::default_device().expect("a device").supports_dtype(DType::F16);
    if !has {
        let pass = ReferencePass::Cached { chunk: 4, budget: 1 << 30, half: true };
        let message = pipeline().generate(&both(everywhere().with_pass(pass))).unwrap_err().to_string();
        assert!(
            message.starts_with("fabric.execution.pass.half: expected") && message.contains("got true"),
            "{message}"
        );
    }
    has
}

#[test]
fn tokens_kept_in_half_precision_take_half_the_bytes() {
    if !has_halves() {
        return;
    }
    let pipeline = fresh_pipeline();
    let request = |half| both(everywhere().with_pass(ReferencePass::Cached { chunk: 4, budget: 1 << 30, half }));
    let exact = pipeline.generate(&request(false)).expect("a generation");
    // Keys and values cached in full precision are not used for a request in half precision: otherwise an image would
    // depend on earlier requests.
    let first = pipeline.generate(&request(true)).expect("a generation");
    assert_eq!((first.report.reference_passes, exact.report.reference_passes), (9, 9));
    assert_eq!(first.report.cache.bytes, exact.report.cache.bytes * 3 / 2, "both are kept");
    let second = pipeline.generate(&request(true)).expect("a generation");
    assert_eq!(second.report.reference_passes, 0);
    assert_again(&values(&first.latents), &values(&second.latents), "latents");
    let (exact, rounded) = (values(&exact.latents), values(&first.latents));
    let largest = exact.iter().fold(0.0_f32, |top, x| top.max(x.abs()));
    let apart = exact.iter().zip(&rounded).fold(0.0_f32, |top, (a, b)| top.max((a - b).abs()));
    assert!(apart > 0.0 && apart < 5e-3 * largest, "{apart} of {largest}");
}

fn spilled(place: &Path) -> Vec<std::path::PathBuf> {
    let own = std::fs::read_dir(place).expect("the folder").map(|own| own.expect("its entry").path());
    own.flat_map(|own| std::fs::read_dir(own).expect("a pipeline's folder"))
        .map(|file| file.expect("its entry").path())
        .collect()
}

#[test]
fn what_was_spilled_to_disk_makes_the_same_images() {
    // Budgets that fit nothing or some; in full precision, in half precision, and with merged tokens.
    for (budget, half, merge) in [(0, false, 0.0), (200_000, false, 0.0), (0, true, 0.0), (0, false, 0.5)] {
        if half && !has_halves() {
            continue;
        }
        let pass = ReferencePass::Cached { chunk: 2, budget, half };
        let request =
            both(FabricSettings { execution: FabricExecution { pass, token_merge_ratio: merge }, ..everywhere() });
        let unspilled = make(&request);
        let place = tempfile::tempdir().expect("a folder");
        let pipeline = fresh_pipeline().with_spill(place.path(), 1 << 30).expect("room to spill");
        let first = pipeline.generate(&request).expect("a generation");
        let second = pipeline.generate(&request).expect("a generation");
        assert_again(&values(&unspilled.latents), &values(&first.latents), "latents");
        assert_again(&values(&unspilled.latents), &values(&second.latents), "latents");
        assert_eq!((first.report.reference_passes, second.report.reference_passes), (9, 0));
        let cache = second.report.cache;
        assert_eq!((cache.hits + cache.disk_hits, cache.misses, cache.disk_failures), (9, 9, 0), "{cache:?}");
        assert!(cache.bytes <= budget && cache.disk_hits > 0 && cache.disk_bytes > 0, "{cache:?}");
        assert_eq!(spilled(place.path()).len() as u64, cache.disk_hits);
        assert_eq!(second.report.spill_error, None);
        let copy = pipeline.clone();
        drop(pipeline);
        assert_eq!(copy.generate(&request).expect("a generation").report.reference_passes, 0);
        drop(copy);
        assert_eq!(std::fs::read_dir(place.path()).expect("the folder").count(), 0, "nothing stays behind");
    }
}

#[test]
fn a_disk_that_fails_changes_no_image() {
    let pass = ReferencePass::Cached { chunk: 2, budget: 0, half: false };
    let request = both(everywhere().with_pass(pass));
    let unspilled = make(&request);
    let place = tempfile::tempdir().expect("a folder");
    let pipeline = fresh_pipeline().with_spill(place.path(), 1 << 30).expect("room to spill");
    let again = || pipeline.generate(&request).expect("a generation");
    let same = |a: &Generation, b: &Generation| assert_again(&values(&a.latents), &values(&b.latents), "latents");
    let first = again();
    same(&unspilled, &first);
    assert_eq!(first.report.reference_passes, 9);
    let files = spilled(place.path());
    std::fs::write(&files[0], "shortened").expect("a file");
    let length = std::fs::metadata(&files[1]).expect("a file").len();
    std::fs::write(&files[1], vec![7; length as usize]).expect("a file");
    std::fs::remove_file(&files[2]).expect("a file");
    // Damaged entries are recorded again in other batches, which changes the last bit on some processors.
    let mended = again();
    assert_same(&unspilled, &mended);
    let report = &mended.report;
    assert_eq!((report.reference_passes, report.cache.disk_failures), (3, 3), "what is damaged is made again");
    assert!(report.spill_error.as_ref().is_some_and(|error| error.contains("recorded again")));
    let kept = again();
    same(&mended, &kept);
    assert_eq!((kept.report.reference_passes, kept.report.spill_error), (0, None), "and spilled again");
    std::fs::remove_dir_all(files[0].parent().expect("the pipeline's folder")).expect("removed");
    for _ in 0..2 {
        let without = again();
        same(&unspilled, &without);
        assert_eq!(without.report.reference_passes, 9);
        assert!(without.report.spill_error.is_some_and(|error| error.contains("nothing more is spilled")));
    }
}

#[test]
fn merged_tokens_take_less_memory_and_change_little() {
    let pipeline = fresh_pipeline();
    let request = |merge, pass| {
        both(FabricSettings { execution: FabricExecution { pass, token_merge_ratio: merge }, ..everywhere() })
    };
    let make = |merge, pass| pipeline.generate(&request(merge, pass)).expect("a generation");
    let cached = ReferencePass::Cached { chunk: 4, budget: 1 << 30, half: false };
    let whole = make(0.0, cached);
    let merged = make(0.5, cached);
    assert_eq!(
        (merged.report.cache.misses, merged.report.cache.hits),
        (18, 0),
        "what is whole does not serve for merged"
    );
    assert_eq!(merged.report.cache.bytes, whole.report.cache.bytes * 3 / 2, "both are kept");
    let again = make(0.5, cached);
    assert_eq!(again.report.reference_passes, 0);
    assert_again(&values(&merged.latents), &values(&again.latents), "latents");
    // The other passes give nearly the same image.
    let effect = distance(&whole, &merged);
    for pass in [ReferencePass::Interleaved, ReferencePass::TwoPasses { chunk: 2 }] {
        assert!(distance(&merged, &make(0.5, pass)) < effect / 10.0, "{pass:?}");
    }
    let plain = pipeline.generate(&self::request(everywhere())).expect("a generation");
    assert!(effect > 0.0 && effect < distance(&whole, &plain), "{effect}");
}

#[test]
fn kept_tokens_serve_other_prompts_and_seeds() {
    let pipeline = fresh_pipeline();
    let fabric = everywhere().with_pass(ReferencePass::Cached { chunk: 4, budget: 1 << 30, half: false });
    pipeline.generate(&both(fabric.clone())).expect("a generation");
    let mut other = both(fabric).with_seeds([5, 6]);
    other.prompt = "a drawing of a house".to_owned();
    let kept = pipeline.generate(&other).expect("a generation");
    assert_eq!(kept.report.reference_passes, 0);
    other.settings.fabric.execution.pass = ReferencePass::Interleaved;
    assert_same(&kept, &make(&other));
}

#[test]
fn other_text_settings_do_not_get_kept_tokens() {
    let pipeline = fresh_pipeline();
    let fabric = everywhere().with_pass(ReferencePass::Cached { chunk: 4, budget: 1 << 30, half: false });
    pipeline.generate(&both(fabric.clone())).expect("a generation");
    let mut skipped = both(fabric);
    skipped.settings.text.clip_skip = Some(1);
    assert_eq!(pipeline.generate(&skipped).expect("a generation").report.reference_passes, 9);
}

/// Noise source of a caller: halves the seeded noise of references.
struct Injected(SeededNoise);

impl RunNoise for Injected {
    fn draw(&mut self, what: Draw<'_>, shape: [usize; 4]) -> Result<Tensor<4>, Error> {
        let noise = self.0.draw(what, shape)?;
        Ok(if matches!(what, Draw::Reference { .. }) { noise * 0.5 } else { noise })
    }
}

#[test]
fn keys_of_references_under_other_noise_are_neither_kept_nor_served() {
    let pass = ReferencePass::Cached { chunk: 2, budget: 1 << 30, half: false };
    let request = both(everywhere().with_pass(pass));
    let seeded = || SeededNoise::new(&request.seeds, &fabric::default_device().expect("a device"));
    let injected = || Box::new(Injected(seeded())) as Box<dyn RunNoise>;
    let fresh = || Box::new(seeded().with_fresh_references()) as Box<dyn RunNoise>;
    let expected = fresh_pipeline().generate(&request).expect("a generation");
    for other in [&injected as &dyn Fn() -> Box<dyn RunNoise>, &fresh] {
        let pipeline = fresh_pipeline();
        let with_other = || pipeline.generate_with(&request, &mut *other(), &mut ()).expect("a generation");
        let before = with_other();
        assert_differ(&before, &expected);
        assert_eq!((before.report.reference_passes, pipeline.cache_stats().bytes), (9, 0), "nothing is kept");
        let own = pipeline.generate(&request).expect("a generation");
        assert_again(&values(&own.latents), &values(&expected.latents), "a run with noise of its own");
        assert_eq!(own.report.reference_passes, 9);
        let after = with_other();
        assert_again(&values(&after.latents), &values(&before.latents), "a run that must not be served");
        assert_eq!(after.report.reference_passes, 9);
    }
    let pipeline = fresh_pipeline();
    pipeline.generate_with(&request, &mut seeded(), &mut ()).expect("a generation");
    assert_eq!(pipeline.generate(&request).expect("a generation").report.reference_passes, 0, "the same noise is");
}
