//! Memory of long series of runs: it does not grow with their number. Each test runs in a process of its own, because
//! allocations are counted for a whole process.

use fabric::core::image::Image;
use fabric::core::pipeline::{Pipeline, Request};

use crate::callbacks::panic_once;
use crate::cancels::cancel_at;
use crate::child::{alone, figure};
use crate::images::{image, request};
use crate::memory::Growth;
use crate::models::pipeline;

/// Largest growth of allocated memory in bytes. A run of these requests has more than ten times as much at once, so a run
/// that leaks a hundredth of that each time is found.
const ALLOWED: usize = 256 << 10;

/// Events of a run at which it can be cancelled, and kinds of panics. The caches have as much after each of them as after
/// the same one before.
const EVENTS: usize = 13;
const PANICS: usize = 21;

/// Runs `work` until scratch memory and the caches are full, then `count` times, and checks the growth.
fn assert_steady(what: &str, warm_up: usize, count: usize, mut work: impl FnMut(usize)) {
    (0..warm_up).for_each(&mut work);
    let before = Growth::begin().start;
    (0..count).for_each(&mut work);
    let growth = Growth::begin().start.saturating_sub(before);
    figure(&format!("figure: {what}: {count} runs, {growth} bytes more than the {before} bytes before"));
    assert!(growth <= ALLOWED, "{what}: {growth} bytes more after {count} runs");
}

#[test]
fn hundreds_of_cancels_leave_no_memory() {
    alone("steady_memory::hundreds_of_cancels_leave_no_memory", || {
        let (pipeline, request) = (pipeline(), request());
        assert_steady("cancels", 2 * EVENTS, 16 * EVENTS, |at| {
            cancel_at(&pipeline, &request, at % EVENTS).expect("a cancel");
        });
    });
}

#[test]
fn hundreds_of_panics_of_callbacks_leave_no_memory() {
    alone("steady_memory::hundreds_of_panics_of_callbacks_leave_no_memory", || {
        // Panics are expected, and their messages would fill the output.
        std::panic::set_hook(Box::new(|_| {}));
        let (pipeline, request) = (pipeline(), request());
        assert_steady("panics", 2 * PANICS, 10 * PANICS, |at| panic_once(&pipeline, &request, at));
        drop(std::panic::take_hook());
    });
}

/// A request for one image in one step.
fn one_step(seed: usize, liked: Image) -> Request {
    let mut request = request().with_seeds([seed as u64]);
    request.settings.steps = 1;
    request.feedback.clear();
    request.with_liked(liked)
}

#[test]
fn a_thousand_images_keep_memory_steady() {
    alone("steady_memory::a_thousand_images_keep_memory_steady", || {
        let pipeline: Pipeline = pipeline();
        let liked: Vec<Image> = (0..4).map(image).collect();
        assert_steady("images", 40, 1000, |at| {
            let made = pipeline.generate(&one_step(at, liked[at % 4].clone())).expect("an image");
            assert_eq!(made.images.len(), 1);
        });
    });
}
