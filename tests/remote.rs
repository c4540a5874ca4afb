//! Remote devices, served by other processes on this machine.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use burn::tensor::Tensor;
use burn::tensor::server::telemetry::{DrainStatus, TelemetryEvent, TelemetryProbe};
use burn::tensor::server::{RemoteServer, WebSocketTransport};
use fabric::core::fabric::{FabricSettings, ReferencePass};
use fabric::core::image::Image;
use fabric::core::pipeline::{DevicePool, Pipeline, Request, Settings};
use fabric::core::schedule::SamplerKind;
use fabric::models::LoadPipeline;
use fabric::{DeviceError, DeviceKind};

/// Server process, which is stopped on drop.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start() -> Self {
        Self::start_with(None)
    }

    fn start_with(token: Option<&str>) -> Self {
        let own = std::env::current_exe().expect("this program");
        let program = own.with_file_name(format!("../examples/serve_device{}", std::env::consts::EXE_SUFFIX));
        assert!(
            program.exists(),
            "{} is not built: `cargo test` builds it, `--test` alone does not",
            program.display()
        );
        let mut process = Command::new(program)
            .args(["--listen", "127.0.0.1:0"])
            .env_remove("FABRIC_REMOTE_TOKEN")
            .envs(token.map(|token| ("FABRIC_REMOTE_TOKEN", token)))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("another process");
        let lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let said = lines.map_while(Result::ok).find_map(|line| Some(line.split_once(" serves ")?.0.to_owned()));
        let Some(url) = said else {
            let _ = process.kill();
            panic!("the server ended before it served");
        };
        Self { process, url }
    }

    fn pipeline(&self) -> (String, Pipeline) {
        let device = fabric::device(self.url.parse().expect("a name")).expect("the server's device");
        (self.url.clone(), Pipeline::demo(&device).expect("the model that ships"))
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Fails if the test takes longer than five minutes, for example in a deadlock.
fn within_minutes(test: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    match wait.recv_timeout(Duration::from_secs(300)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("still at work after five minutes"),
        _ => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

fn request() -> Request {
    let settings = Settings { steps: 3, batch: Some(1), ..Settings::default() };
    Request::new("a small red star on blue").with_seeds([1, 2, 3, 4]).with_settings(settings)
}

fn values(x: &Tensor<4>) -> Vec<f32> {
    x.clone().into_data().try_to_vec().expect("f32 data")
}

/// Compares with the golden tests' tolerance: a server uses burn's operations where this process has its own kernels.
#[track_caller]
fn assert_same(got: &Tensor<4>, expected: &Tensor<4>) {
    let (got, expected) = (values(got), values(expected));
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(0.0_f32, |top, x| top.max(x.abs()));
    let error = got.iter().zip(&expected).fold(0.0_f32, |top, (a, b)| top.max((a - b).abs())) / scale;
    assert!(error < 1e-4, "{error}");
}

fn local() -> Tensor<4> {
    let device = fabric::default_device().expect("a device");
    Pipeline::demo(&device).expect("the model that ships").generate(&request()).expect("images").latents
}

#[test]
fn two_servers_make_the_images_of_one_device_and_one_goes_on_alone() {
    within_minutes(|| {
        let (one, two) = (Server::start(), Server::start());
        let pool = DevicePool::new([one.pipeline(), two.pipeline()]).expect("a pool");
        let made = pool.generate(&request()).expect("images");
        assert!(made.lost.is_empty(), "{:?}", made.lost);
        let expected = local();
        assert_same(&made.made.latents, &expected);

        // The second server is killed at its first step.
        let (url, two) = (two.url.clone(), Mutex::new(two));
        let dies = url.clone();
        let made = pool.generate_observed(&[request()], move |step| {
            if step.device == dies {
                two.lock().expect("the server").kill();
            }
            ControlFlow::Continue(())
        });
        let made = made.expect("images");
        let [(name, said)] = &made.lost[..] else { panic!("{:?}", made.lost) };
        assert!(*name == url && !said.is_empty());
        assert_same(&made.made[0].latents, &expected);
    });
}

/// A GPU executes queued kernels while the host queues more. Reading a value back stalls both.
#[test]
fn nothing_is_read_back_between_steps() {
    within_minutes(|| {
        let (probe, mut events) = TelemetryProbe::channel(1 << 20);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("ws://{}", listener.local_addr().expect("an address"));
        let server = RemoteServer::new([fabric::default_device().expect("a device")]).with_telemetry(probe);
        std::thread::spawn(move || server.serve(WebSocketTransport::from_listener(listener)));
        let device = fabric::device(url.parse().expect("a name")).expect("the server's device");
        let pipeline = Pipeline::demo(&device).expect("the model that ships");
        let mut waits = |steps, sampler, pass: ReferencePass| {
            let fabric = FabricSettings { start: 0.0, end: 1.0, execution: pass.into(), ..FabricSettings::default() };
            let settings = Settings { steps, sampler: Some(sampler), fabric, ..Settings::default() };
            let image = |shade| Image::from_rgb(8, 8, vec![shade; 8 * 8 * 3]).expect("an image");
            let request =
                Request::new("a ring").with_settings(settings).with_liked(image(40)).with_disliked(image(200));
            let mut seen = Vec::new();
            events.drain_into(&mut seen);
            pipeline.generate(&request).expect("an image");
            seen.clear();
            let status = events.drain_into(&mut seen);
            assert!(matches!(status, DrainStatus::Open { lagged: 0 }), "events were lost");
            assert!(seen.len() > 100 * steps, "{} events", seen.len());
            let waits =
                |event: &TelemetryEvent| matches!(event, TelemetryEvent::Read { .. } | TelemetryEvent::Sync { .. });
            seen.iter().filter(|event| waits(event)).count()
        };
        let cached = ReferencePass::Cached { chunk: 1, budget: 1 << 30, half: true };
        for (sampler, pass) in [
            (SamplerKind::Ddim, ReferencePass::Interleaved),
            (SamplerKind::EulerAncestral, ReferencePass::TwoPasses { chunk: 2 }),
            ("dpmpp_2m_karras".parse().expect("a sampler"), cached),
        ] {
            // The only read is that of the finished image.
            assert_eq!((waits(2, sampler, pass), waits(5, sampler, pass)), (1, 1), "{sampler}, {pass:?}");
        }
    });
}

#[test]
fn a_server_that_is_not_there_is_an_error() {
    within_minutes(|| {
        // A port that was free a moment ago may be that of another test's server by now.
        let kind = DeviceKind::Remote { url: "ws://127.0.0.1:1".to_owned(), index: 0 };
        let error = fabric::device(kind).expect_err("nobody listens there");
        assert!(matches!(error, DeviceError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains("start the server"), "{error}");
    });
}

#[test]
fn a_server_with_a_token_serves_only_clients_that_have_it() {
    within_minutes(|| {
        let server = Server::start_with(Some("open sesame"));
        for wrong in ["", "open", "open sesame "] {
            let error = fabric::backends::remote_device(&server.url, 0, wrong).expect_err("a wrong token");
            assert!(matches!(error, DeviceError::Unreachable { .. }), "{error}");
            assert!(error.to_string().contains("FABRIC_REMOTE_TOKEN") && !error.to_string().contains("sesame"));
        }
        let device = fabric::backends::remote_device(&server.url, 0, "open sesame").expect("the server's device");
        let sum = Tensor::<1>::from_floats([1.0, 2.0], &device).sum().into_data();
        assert_eq!(sum.try_to_vec::<f32>().expect("a number"), [3.0]);
    });
}
