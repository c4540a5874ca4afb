//! Laws of whole runs: progress, cancelling, threads, samplers of one's own, weights by block.

use super::*;

/// Observer that writes down what it hears.
#[derive(Default)]
struct Heard {
    phases: Vec<(Phase, std::ops::Range<usize>)>,
    images: Vec<(usize, Image)>,
    steps: Vec<(std::ops::Range<usize>, usize, usize)>,
    stop_at_evaluation: Option<usize>,
}

impl Observer for Heard {
    fn phase(&mut self, event: &PhaseEvent) -> ControlFlow<()> {
        self.phases.push((event.phase, event.images.clone()));
        ControlFlow::Continue(())
    }

    fn image(&mut self, index: usize, image: &Image) {
        self.images.push((index, image.clone()));
    }

    fn step(&mut self, event: &StepEvent<'_>) -> ControlFlow<()> {
        self.steps.push((event.images.clone(), event.evaluation, event.evaluations));
        if self.stop_at_evaluation == Some(event.evaluation) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

#[test]
fn progress_covers_all_batches_and_finished_images_survive_a_cancel() {
    let mut request = request(FabricSettings::default()).with_seeds([1, 2, 3]);
    request.settings.batch = Some(2);
    let mut heard = Heard::default();
    let whole = pipeline().generate_observed(&request, &mut heard).expect("images");
    let steps = request.settings.steps;
    let expected: Vec<_> = (1..=2 * steps).map(|at| (if at <= steps { 0..2 } else { 2..3 }, at, 2 * steps)).collect();
    assert_eq!(heard.steps, expected);
    assert_eq!(heard.phases[0], (Phase::Conditioning, 0..3));
    let of_batch = |images: std::ops::Range<usize>| {
        [Phase::Text, Phase::Encoding, Phase::Denoising, Phase::Decoding].map(|phase| (phase, images.clone()))
    };
    assert_eq!(heard.phases[1..], [of_batch(0..2), of_batch(2..3)].concat());
    let images: Vec<_> = whole.images.iter().cloned().enumerate().collect();
    assert_eq!(heard.images, images);

    let mut heard = Heard { stop_at_evaluation: Some(steps + 1), ..Heard::default() };
    let stopped = pipeline().generate_observed(&request, &mut heard).expect_err("a cancel");
    let Error::Cancelled { step: 1, finished, .. } = stopped else { panic!("{stopped}") };
    let expected: Vec<_> = whole.images.iter().cloned().zip([1, 2]).collect();
    assert_eq!(finished, expected);

    /// Observer that cancels at the first event.
    struct Impatient;
    impl Observer for Impatient {
        fn phase(&mut self, event: &PhaseEvent) -> ControlFlow<()> {
            assert_eq!(event.phase, Phase::Conditioning, "nothing comes before it");
            ControlFlow::Break(())
        }
    }
    let stopped = pipeline().generate_observed(&request, &mut Impatient);
    assert!(matches!(stopped, Err(Error::Cancelled { step: 0, .. })), "{stopped:?}");
}

#[test]
fn threads_that_start_together_record_each_reference_once() {
    let pass = ReferencePass::Cached { chunk: 2, budget: 1 << 30, half: false };
    let request = both(everywhere().with_pass(pass));
    let fresh = fresh_pipeline();
    let passes: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| fresh.generate(&request).expect("images"))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic").report.reference_passes).sum()
    });
    let alone = fresh_pipeline().generate(&request).expect("images").report.reference_passes;
    assert_eq!(passes, alone);
}

#[test]
fn a_sampler_of_ones_own_runs_in_a_pipeline() {
    #[derive(Debug)]
    struct MyEuler {
        evaluations: usize,
        reports: usize,
    }
    impl Sampler for MyEuler {
        fn kind(&self) -> SamplerKind {
            SamplerKind::Euler(SigmaCurve::Table)
        }

        fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor<4>) -> Result<Tensor<4>, Error> {
            for step in run.schedule().boundaries().windows(2).cycle().take(self.evaluations) {
                let (sigma, next) = (step[0], step[1]);
                let denoised = run.denoise(&x)?;
                x = x.clone() + (x - denoised) / sigma * (next - sigma);
                for _ in 0..self.reports {
                    x = run.report(x)?;
                }
            }
            Ok(x)
        }
    }
    let mut request = both(everywhere());
    let steps = request.settings.steps;
    // The model's own sampler, DDIM, has another convention.
    let own = make(&request.clone().with_sampler(MyEuler { evaluations: steps, reports: 1 }));
    request.settings.sampler = Some("euler".parse().expect("a sampler"));
    assert_same(&own, &make(&request));
    for reports in [0, 2] {
        let refused = pipeline().generate(&request.clone().with_sampler(MyEuler { evaluations: steps, reports }));
        assert!(refused.expect_err("not one per evaluation").to_string().contains("reports"));
    }
    for evaluations in [0, steps - 1, steps + 1] {
        let refused = pipeline().generate(&request.clone().with_sampler(MyEuler { evaluations, reports: 1 }));
        let message = refused.expect_err("not one per level").to_string();
        assert!(message.starts_with(&format!("sampler: expected {steps} evaluations")), "{message}");
    }
}

#[test]
fn block_weights_scale_the_weight_of_each_block() {
    let steered = |block_weights| make(&both(FabricSettings { block_weights, ..everywhere() }));
    let whole = steered(BlockWeights::default());
    // The tiny U-Net has two levels.
    let levels = 2;
    let all = |factor: f64| BlockWeights { down: vec![factor; levels], mid: factor, up: vec![factor; levels] };
    assert_same(&steered(all(1.0)), &whole);
    assert_same(&steered(all(0.0)), &make(&request(FabricSettings::default())));
    let half = FabricSettings {
        max_weight: 0.5 * everywhere().max_weight,
        min_weight: 0.5 * everywhere().min_weight,
        ..everywhere()
    };
    assert_same(&steered(all(0.5)), &make(&both(half)));
    let coarse = steered(BlockWeights { down: vec![0.0; levels], up: vec![0.0; levels], mid: 1.0 });
    assert_differ(&coarse, &whole);
    for pass in
        [ReferencePass::TwoPasses { chunk: 2 }, ReferencePass::Cached { chunk: 2, budget: 1 << 30, half: false }]
    {
        let settings = FabricSettings { block_weights: all(0.5), ..everywhere() }.with_pass(pass);
        assert_same(&make(&both(settings)), &steered(all(0.5)));
    }
    let wrong =
        FabricSettings { block_weights: BlockWeights { up: vec![1.0], ..BlockWeights::default() }, ..everywhere() };
    let message = pipeline().generate(&both(wrong)).expect_err("one factor").to_string();
    assert!(message.starts_with("fabric.block_weights.up: expected") && message.contains("got 1 factors"), "{message}");
}
