//! One pipeline for several threads, for workers of rayon's pools, and for tasks of an asynchronous runtime.

use std::future::Future;
use std::pin::pin;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use fabric::core::pipeline::{Generation, Pipeline, Request, StepEvent};
use rayon::prelude::*;

use crate::images::{assert_same, request};
use crate::models::pipeline;

/// Longest time of a drill that could wait for ever; they take seconds.
const PATIENCE: Duration = Duration::from_secs(300);

/// Requests with the same references, so that threads meet in the caches, but different images.
fn requests() -> Vec<Request> {
    let with = |number: u64| {
        let mut request = request().with_seeds([number, number + 1]);
        request.prompt = format!("cat number {}", number % 3);
        request.settings.guidance_scale = 3.0 + (number % 2) as f64;
        request
    };
    (0..8).map(with).collect()
}

fn serial() -> Vec<Generation> {
    let pipeline = pipeline();
    requests().iter().map(|request| pipeline.generate(request).expect("images")).collect()
}

#[track_caller]
fn assert_serial(got: &[Generation], expected: &[Generation], what: &str) {
    assert_eq!(got.len(), expected.len());
    got.iter().zip(expected).enumerate().for_each(|(at, (got, expected))| {
        assert_same(got, expected, &format!("{what}, request {at}"));
    });
}

/// Runs `work` on another thread, and fails if it does not end.
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = channel();
    let thread = thread::spawn(move || done.send(work()).expect("the test waits"));
    match result.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => panic!("{what}: nothing for {PATIENCE:?}, so threads wait for each other"),
        Err(RecvTimeoutError::Disconnected) => std::panic::resume_unwind(thread.join().expect_err("a panic")),
    }
}

#[test]
fn eight_threads_that_share_a_pipeline_get_the_serial_images() {
    let expected = serial();
    for round in 0..2 {
        let got = in_time("eight threads", move || {
            let (shared, start) = (pipeline(), Arc::new(Barrier::new(8)));
            let threads = requests().into_iter().map(|request| {
                let (pipeline, start) = (shared.clone(), start.clone());
                thread::spawn(move || {
                    start.wait();
                    pipeline.generate(&request).expect("images")
                })
            });
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
        });
        assert_serial(&got, &expected, &format!("round {round}"));
    }
}

#[test]
fn workers_of_a_rayon_pool_may_generate() {
    let expected = serial();
    // With one worker nothing can be stolen; with three, a worker that waits takes another request.
    for workers in [1, 3] {
        let got = in_time("workers of a pool", move || {
            let shared = pipeline();
            let threads = rayon::ThreadPoolBuilder::new().num_threads(workers).build().expect("threads");
            threads.install(|| generate_all(&shared))
        });
        assert_serial(&got, &expected, &format!("{workers} workers"));
    }
    // The pool on which the device itself computes.
    let got = in_time("the device's own pool", || {
        let shared = pipeline();
        rayon::join(|| generate_all(&shared), || generate_all(&shared))
    });
    assert_serial(&got.0, &expected, "one half");
    assert_serial(&got.1, &expected, "the other half");
}

fn generate_all(pipeline: &Pipeline) -> Vec<Generation> {
    requests().par_iter().map(|request| pipeline.generate(request).expect("images")).collect()
}

/// Wakes the thread that runs a future.
struct Wakes(Thread);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread, as the smallest asynchronous runtime does.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Wakes(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => return result,
            Poll::Pending => thread::park(),
        }
    }
}

/// Lets other tasks of the runtime run.
async fn give_way() {
    let mut is_second = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut is_second, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[test]
fn tasks_of_an_asynchronous_runtime_may_generate_also_within_each_other() {
    let expected = serial();
    let got = in_time("tasks", || {
        let shared = pipeline();
        block_on(async {
            let mut made = Vec::new();
            for (at, request) in requests().iter().enumerate() {
                give_way().await;
                // Every second one from a runtime within the first.
                made.push(match at % 2 {
                    0 => shared.generate(request).expect("images"),
                    _ => block_on(async { shared.generate(request).expect("images") }),
                });
            }
            made
        })
    });
    assert_serial(&got, &expected, "tasks");
}

#[test]
fn a_callback_may_generate_with_the_same_pipeline() {
    let expected = serial();
    let (outer, inner) = in_time("a run within a run", || {
        let (pipeline, requests) = (pipeline(), requests());
        let mut inner = Vec::new();
        let outer = pipeline.generate_observed(&requests[0], &mut |_: &StepEvent<'_>| {
            inner.push(pipeline.generate(&requests[1]).expect("images"));
            std::ops::ControlFlow::Continue(())
        });
        (outer.expect("images"), inner)
    });
    assert_same(&outer, &expected[0], "the outer run");
    assert_eq!(inner.len(), 4);
    inner.iter().for_each(|made| assert_same(made, &expected[1], "a run within it"));
}
