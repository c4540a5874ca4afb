//! A pool of several devices (here all the CPU) makes the same images as one device, however they are distributed.

mod common;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use burn::tensor::{Device, Tensor};
use common::{assert_again, on_cpu};
use fabric::core::Error;
use fabric::core::attention::AttnSite;
use fabric::core::denoise::ModelCall;
use fabric::core::fabric::{FabricSettings, ReferenceNoise, ReferencePass};
use fabric::core::image::Image;
use fabric::core::models::{Autoencoder, CrossAttention, Posterior, UNetInput, UNetModel, UNetOutput};
use fabric::core::pipeline::{DevicePool, Generation, Observer, Pipeline, Request, Settings, StepEvent};
use fabric::core::schedule::SamplerKind;
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::unet::UNet;
use fabric::models::vae::Vae;
use fabric::models::{ModelOptions, StableDiffusion};

fn model() -> StableDiffusion {
    let device = fabric::default_device().expect("a device");
    let options = ModelOptions { tokenizer: Some(ClipTokenizer::openai()), ..ModelOptions::default() };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models");
    StableDiffusion::open(folder, &device, &options).expect("a model").0
}

fn pipeline() -> Pipeline {
    model().into_pipeline().expect("a pipeline")
}

/// U-Net on a device that is lost after some evaluations.
struct Mortal {
    network: UNet,
    passes: AtomicUsize,
    end: Box<dyn Fn() + Send + Sync>,
    /// Memory of one evaluation in bytes; 0 is unknown.
    needs: u64,
}

impl UNetModel for Mortal {
    fn forward(&self, input: UNetInput<'_>) -> UNetOutput {
        let left = self.passes.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_err() {
            (self.end)();
        }
        self.network.forward(input)
    }

    fn attention_sites(&self) -> Vec<AttnSite> {
        self.network.attention_sites()
    }

    fn cross_attentions(&self) -> Vec<CrossAttention> {
        self.network.cross_attentions()
    }

    fn skip_channels(&self) -> Vec<usize> {
        self.network.skip_channels()
    }

    fn level_channels(&self) -> Vec<usize> {
        self.network.level_channels()
    }

    fn levels(&self) -> usize {
        self.network.levels()
    }

    fn in_channels(&self) -> usize {
        self.network.in_channels()
    }

    fn working_bytes(&self, _shape: [usize; 3]) -> u64 {
        self.needs
    }

    fn device(&self) -> Device {
        self.network.device()
    }
}

fn mortal(passes: usize) -> Pipeline {
    ends(passes, || panic!("the cable was pulled"))
}

fn ends(passes: usize, end: impl Fn() + Send + Sync + 'static) -> Pipeline {
    limited(passes, end, 0)
}

/// Pipeline on a device with less memory than one evaluation needs.
fn too_small() -> Pipeline {
    limited(0, || panic!("it was asked all the same"), LIMIT + 1)
}

/// Memory limit for tests of devices that are too small; more than the golden model needs.
const LIMIT: u64 = 1 << 40;

fn limited(passes: usize, end: impl Fn() + Send + Sync + 'static, needs: u64) -> Pipeline {
    let StableDiffusion { unet, vae, text, scheduler, native_size, .. } = model();
    let unet = Mortal { network: unet, passes: passes.into(), end: Box::new(end), needs };
    Pipeline::new(Arc::new(unet), Arc::new(vae), Arc::new(text), scheduler, native_size).expect("a pipeline")
}

fn pool<const N: usize>(members: [Pipeline; N]) -> DevicePool {
    DevicePool::new(members.into_iter().enumerate().map(|(at, pipeline)| (format!("device {at}"), pipeline)))
        .expect("a pool")
}

fn request(seeds: &[u64], batch: Option<usize>) -> Request {
    let settings = Settings { width: Some(64), height: Some(64), steps: 3, batch, ..Settings::default() };
    Request::new("a cat").with_seeds(seeds.iter().copied()).with_settings(settings)
}

fn values(x: &Tensor<4>) -> Vec<f32> {
    x.clone().into_data().try_to_vec().expect("f32 data")
}

#[track_caller]
fn assert_equal(got: &Generation, expected: &Generation) {
    assert_eq!(got.seeds, expected.seeds);
    assert_again(&values(&got.latents), &values(&expected.latents), "latents");
    // On a GPU, rounding may change a pixel's 8-bit value.
    assert!(!on_cpu() || got.images == expected.images, "images differ");
    assert_eq!(got.report.calls, expected.report.calls);
}

#[test]
fn images_are_those_of_one_device_in_their_order() {
    let requests = [request(&[5, 1, 4, 2, 3], Some(2)), request(&[9], Some(1))];
    let alone = pipeline();
    let made = pool([pipeline(), pipeline()]).generate_all(&requests).expect("images");
    assert!(made.lost.is_empty());
    for (got, request) in made.made.iter().zip(&requests) {
        assert_equal(got, &alone.generate(request).expect("images"));
    }
    // Without a batch size, the images are divided equally among the devices.
    let even = pool([pipeline(), pipeline()]).generate(&request(&[1, 2, 3], None)).expect("images").made;
    assert_eq!((even.seeds, even.images.len(), even.report.calls), (vec![1, 2, 3], 3, 6));
}

#[test]
fn a_report_counts_the_caches_of_all_devices() {
    let pass = ReferencePass::Cached { chunk: 1, budget: 1 << 30, half: false };
    let mut request = request(&[1, 2, 3, 4], Some(1));
    request.settings.fabric =
        FabricSettings { execution: pass.into(), start: 0.0, end: 1.0, ..FabricSettings::default() };
    let request = request.with_liked(Image::filled(64, 64, [200, 30, 60]).expect("an image"));
    let [one, two] = [pipeline(), pipeline()];
    // The first and third member are the same pipeline: their common cache is counted once.
    let made = pool([one.clone(), two.clone(), one.clone()]).generate(&request).expect("images").made;
    assert_eq!(made.report.cache, one.cache_stats().plus(two.cache_stats()));
    let cache = made.report.cache;
    assert_eq!(cache.hits + cache.misses, 4 * 3, "one reference at three steps of four images: {cache:?}");
}

#[test]
fn fresh_noise_is_that_of_one_device() {
    let mut request = request(&[1, 2, 3], None);
    request.settings.fabric = FabricSettings { noise: ReferenceNoise::Fresh, ..FabricSettings::default() };
    let grey = Image::from_rgb(8, 8, vec![90; 8 * 8 * 3]).expect("an image");
    for batch in [None, Some(2)] {
        request.settings.batch = batch;
        let request = request.clone().with_liked(grey.clone());
        let got = pool([pipeline(), pipeline()]).generate(&request).expect("images").made;
        assert_equal(&got, &pipeline().generate(&request).expect("images"));
    }
}

#[test]
fn a_lost_devices_work_goes_to_the_others() {
    let request = request(&[1, 2, 3, 4], Some(1));
    let (lost, is_lost) = channel();
    let mortal = ends(4, move || {
        lost.send(()).expect("the other device waits");
        panic!("the cable was pulled");
    });
    // The other device waits before its first evaluation, or it could make all images before the first one is lost.
    let is_lost = Mutex::new(Some(is_lost));
    let other = ends(0, move || {
        if let Some(is_lost) = is_lost.lock().expect("one pass at a time").take() {
            is_lost.recv_timeout(Duration::from_secs(300)).expect("a device that is lost");
        }
    });
    let made = pool([mortal, other]).generate(&request).expect("images");
    assert_equal(&made.made, &pipeline().generate(&request).expect("images"));
    let [(name, said)] = &made.lost[..] else { panic!("{:?}", made.lost) };
    assert_eq!(name, "device 0");
    assert!(said.contains("the cable was pulled"), "{said}");
}

#[test]
fn a_silent_devices_work_goes_to_the_others() {
    let request = request(&[1, 2, 3, 4], Some(1));
    let (wake, sleep) = channel();
    let (woke, awake) = channel();
    let sleep = Mutex::new((sleep, woke));
    // The device stops responding until the run is over, and then continues.
    let silent = ends(2, move || {
        let (sleep, woke) = &*sleep.lock().expect("one pass at a time");
        sleep.recv().expect("to be woken");
        woke.send(()).expect("somebody who waits");
    });
    // A software renderer does not respond for a long time while it compiles its kernels.
    let patience = Duration::from_secs(if on_cpu() { 5 } else { 60 });
    let made = pool([silent, pipeline()]).with_patience(patience).generate(&request).expect("images");
    assert_equal(&made.made, &pipeline().generate(&request).expect("images"));
    assert_eq!(made.lost, [("device 0".to_owned(), format!("silent for {}.0 s", patience.as_secs()))]);
    wake.send(()).expect("a device that sleeps");
    awake.recv().expect("it wakes");
}

#[test]
fn when_all_are_silent_the_run_ends() {
    let silent = || ends(0, || std::thread::sleep(Duration::from_secs(3600)));
    let pool = pool([silent(), silent()]).with_patience(Duration::from_secs(1));
    let error = pool.generate(&request(&[1, 2], None)).expect_err("no device is left").to_string();
    assert!(error.contains("device 0: silent for 1.0 s") && error.contains("device 1: silent"), "{error}");
}

#[test]
fn when_all_are_lost_each_says_why() {
    let error = pool([mortal(2), mortal(0)]).generate(&request(&[1, 2], None)).expect_err("no device is left");
    let message = error.to_string();
    assert!(matches!(error, Error::Backend { .. }));
    assert!(message.contains("device 0: ") && message.contains("device 1: "), "{message}");
    assert_eq!(message.matches("the cable was pulled").count(), 2, "{message}");
}

#[test]
fn members_are_of_one_model() {
    let StableDiffusion { unet, vae, text, scheduler, native_size, .. } = model();
    let other_size = Pipeline::new(Arc::new(unet), Arc::new(vae), Arc::new(text), scheduler.clone(), 2 * native_size);
    let other_schedule = pipeline().with_scheduler(scheduler.with_sampler(SamplerKind::EulerAncestral));
    for (other, differs) in [(other_size.expect("a pipeline"), "size"), (other_schedule, "noise schedule")] {
        let members = [("one", pipeline()), ("two", pipeline()), ("three", other)];
        let error =
            DevicePool::new(members.map(|(name, member)| (name.to_owned(), member))).expect_err("another model");
        let message = error.to_string();
        assert!(message.contains("`three` differs from `one`") && message.contains(differs), "{message}");
    }
}

#[test]
fn a_bad_request_is_no_lost_device() {
    let mut bad = request(&[1, 2], None);
    bad.settings.width = Some(60);
    let pool = pool([pipeline(), pipeline()]);
    let error = pool.generate_all(&[request(&[1], None), bad]).expect_err("a width that no model has");
    assert!(matches!(&error, Error::Settings(value) if value.what == "width"), "{error}");
}

#[test]
fn an_observer_sees_all_devices_and_cancels_them() {
    let pool = pool([pipeline(), pipeline()]);
    let steps = Arc::new(AtomicUsize::new(0));
    let count = steps.clone();
    let watch = move |step: fabric::core::pipeline::PoolStep<'_>| {
        assert!(step.device.starts_with("device ") && step.request == 0 && step.images.len() == 1);
        count.fetch_add(1, Ordering::SeqCst);
        ControlFlow::Continue(())
    };
    pool.generate_observed(&[request(&[1, 2, 3], Some(1))], watch).expect("images");
    assert_eq!(steps.load(Ordering::SeqCst), 9);
    let stopped = pool.generate_observed(&[request(&[1, 2, 3, 4], Some(1))], |step| match step.event.step {
        2 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert!(matches!(stopped, Err(Error::Cancelled { step: 2, steps: 3, .. })), "{stopped:?}");
}

#[test]
fn a_device_that_is_too_small_is_left_out() {
    let mut request = request(&[1, 2, 3, 4], Some(1));
    request.settings.memory_limit = Some(LIMIT);
    let made = pool([too_small(), pipeline(), too_small()]).generate(&request).expect("images");
    assert_equal(&made.made, &pipeline().generate(&request).expect("images"));
    // A device that made no image because the others were faster does not count as lost.
    let lost = made.lost;
    assert!(lost.iter().all(|(name, _)| ["device 0", "device 2"].contains(&&**name)), "{lost:?}");
    assert!(lost.iter().all(|(_, said)| said.starts_with("memory for 1 images of 64x64")), "{lost:?}");
}

#[test]
fn what_is_too_much_for_every_device_is_said_as_one_device_would() {
    let mut request = request(&[1, 2], Some(1));
    request.settings.memory_limit = Some(LIMIT);
    let alone = too_small().generate(&request).expect_err("too much").to_string();
    let error = pool([too_small(), too_small()]).generate(&request).expect_err("too much");
    assert!(matches!(error, Error::DeviceLimit(_)), "{error:?}");
    assert_eq!(error.to_string(), alone);
    // The error contains the reason of each device: one is too small, one fails.
    let error = pool([too_small(), mortal(0)]).generate(&request).expect_err("no device is left").to_string();
    assert!(error.contains("device 0: memory for 1") && error.contains("device 1: the cable was pulled"), "{error}");
}

/// Observer that panics in the named method.
struct Clumsy(&'static str);

impl Clumsy {
    fn called(&self, method: &str) {
        assert_ne!(self.0, method, "the window is closed");
    }
}

impl Observer for Clumsy {
    fn step(&mut self, _event: &StepEvent<'_>) -> ControlFlow<()> {
        self.called("step");
        ControlFlow::Continue(())
    }

    fn references(&mut self, _call: &ModelCall, _noised: &Tensor<4>) {
        self.called("references");
    }

    fn predictions(&mut self, _call: &ModelCall, _predictions: &Tensor<4>) {
        self.called("predictions");
    }
}

#[test]
fn an_observers_panic_is_an_error_of_its_own_and_the_next_image_is_the_same() {
    let grey = Image::filled(64, 64, [90, 90, 90]).expect("an image");
    let request = request(&[1, 2], Some(1)).with_liked(grey);
    let pipeline = pipeline();
    let expected = pipeline.generate(&request).expect("images");
    for method in ["step", "references", "predictions"] {
        let error = pipeline.generate_observed(&request, &mut Clumsy(method)).expect_err("a panic");
        assert!(matches!(error, Error::Callback { .. }), "{method}: {error:?}");
        let message = error.to_string();
        assert!(message.contains("observer panicked") && message.contains("the window is closed"), "{message}");
        assert!(!message.contains("device"), "{message}");
        assert_equal(&pipeline.generate(&request).expect("images"), &expected);
    }
}

#[test]
fn an_observers_panic_is_no_lost_device() {
    let request = request(&[1, 2, 3, 4], Some(1));
    let pool = pool([pipeline(), pipeline()]);
    let error = pool
        .generate_observed(std::slice::from_ref(&request), |step| {
            assert_ne!(step.event.step, 2, "the window is closed");
            ControlFlow::Continue(())
        })
        .expect_err("a panic");
    assert!(matches!(&error, Error::Callback { message, .. } if message.contains("the window is closed")), "{error:?}");
    let again = pool.generate(&request).expect("images");
    assert!(again.lost.is_empty());
    assert_equal(&again.made, &pipeline().generate(&request).expect("images"));
}

#[test]
fn a_device_that_fails_in_a_preview_is_no_panic_of_the_observer() {
    /// VAE on a device that runs out of memory when decoding.
    struct NoDecoder(Vae);

    impl Autoencoder for NoDecoder {
        fn encode(&self, pixels: Tensor<4>, posterior: Posterior) -> Tensor<4> {
            Autoencoder::encode(&self.0, pixels, posterior)
        }

        fn decode(&self, _latents: Tensor<4>) -> Tensor<4> {
            panic!("out of memory")
        }

        fn scale_factor(&self) -> usize {
            Autoencoder::scale_factor(&self.0)
        }

        fn latent_channels(&self) -> usize {
            Autoencoder::latent_channels(&self.0)
        }
    }

    let StableDiffusion { unet, vae, text, scheduler, native_size, .. } = model();
    let pipeline = Pipeline::new(Arc::new(unet), Arc::new(NoDecoder(vae)), Arc::new(text), scheduler, native_size);
    let mut said = None;
    let mut watch = |event: &StepEvent<'_>| {
        said = event.preview().err().map(|error| error.to_string());
        ControlFlow::Break(())
    };
    let stopped = pipeline.expect("a pipeline").generate_observed(&request(&[1], None), &mut watch);
    assert!(matches!(stopped, Err(Error::Cancelled { step: 1, .. })), "{stopped:?}");
    let said = said.expect("a failed preview");
    assert!(said.contains("the device failed while decoding a preview: out of memory"), "{said}");
}
