//! Fuzzing on stable Rust: seeded changes of good inputs, under the limits of the bad inputs.
//!
//! Each target is a function of bytes. It may accept or refuse them, but not panic, take long or much memory, or end
//! with a message that commands a terminal. A change that leads to a message of a new kind joins the inputs that are
//! changed further. Normally each target gets a few hundred inputs. For hours of it:
//!
//! ```text
//! FABRIC_FUZZ_SECONDS=3600 FABRIC_FUZZ_SEED=2 cargo test --release --features pickle --test fuzz -- --nocapture
//! ```
//!
//! `FABRIC_FUZZ_TARGET` selects the targets whose names contain its value. An input that fails is written to the folder
//! for temporary files; `FABRIC_FUZZ_INPUT` with its path runs it alone. Most inputs become files, so that `TMPDIR` in
//! memory (`/dev/shm`) makes it many times as fast.

#![allow(clippy::print_stdout, reason = "the test tells how many inputs of each target it tried")]

mod changes;
#[path = "../bad_input/memory.rs"]
mod memory;
#[path = "../bad_input/models.rs"]
#[allow(dead_code, reason = "shared with the test of bad inputs, which uses all of it")]
mod models;
#[path = "../bad_input/pickle_writer.rs"]
#[allow(dead_code, reason = "shared with the test of bad inputs, which uses all of it")]
mod pickle_writer;
#[path = "../bad_input/png_writer.rs"]
#[allow(dead_code, reason = "shared with the test of bad inputs, which uses all of it")]
mod png_writer;
mod targets;
#[path = "../bad_input/tensor_file.rs"]
#[allow(dead_code, reason = "shared with the test of bad inputs, which uses all of it")]
mod tensor_file;

use std::collections::HashSet;
use std::env;
use std::fs;
use std::time::{Duration, Instant};

use fabric::backends::catch_panic;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use changes::change;
use memory::{CountingAllocator, Growth};
use targets::{Outcome, TARGETS, Target};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Number of changed inputs of a target if no time is set.
const SMOKE: usize = 300;

/// Limits of an input, as those of the bad inputs.
const MAX_TIME: Duration = Duration::from_secs(2);
const MAX_GROWTH: usize = 64 << 20;
const MAX_MESSAGE: usize = 3000;

/// Number of tries in which an input may take long before it fails.
const TRIES: usize = 3;

/// Most bytes of an input.
const MAX_INPUT: usize = 1 << 18;

/// Most inputs that are changed further.
const MAX_POOL: usize = 4096;

/// Runs an input, and returns a key for the kind of its outcome.
///
/// # Errors
///
/// Returns what is wrong about the outcome.
fn judge(run: fn(&[u8]) -> Outcome, input: &[u8]) -> Result<String, String> {
    let mut tries = 0;
    // Where other programs keep the machine busy, an input may take long once.
    let (got, grown) = loop {
        let growth = Growth::begin();
        let clock = Instant::now();
        let got = catch_panic(|| run(input));
        let (time, grown) = (clock.elapsed(), growth.peak());
        tries += 1;
        if time <= MAX_TIME {
            break (got, grown);
        }
        if tries == TRIES {
            return Err(format!("it took {:.1} s, {TRIES} times", time.as_secs_f64()));
        }
    };
    let got = got.map_err(|message| format!("it panicked: {message}"))?;
    if grown > MAX_GROWTH {
        return Err(format!("it took {} MiB of memory", grown >> 20));
    }
    let Err(message) = got else { return Ok("accepted".to_owned()) };
    let is_plain = |line: &str| !line.contains(char::is_control);
    let mut lines = message.split('\n');
    if !lines.next().is_none_or(is_plain) || !lines.all(|line| line.starts_with("  ") && is_plain(line)) {
        return Err(format!("its message has line breaks or control characters: {message:.300?}"));
    }
    if message.len() > MAX_MESSAGE {
        return Err(format!("its message has {} bytes: {message:.300}", message.len()));
    }
    // Messages that differ in numbers and in texts of the input are of one kind.
    let own = message.split('`').step_by(2).flat_map(|text| text.split([' ', '"', '\'']));
    // Shorter ones may be bytes in base 16.
    let words = own.filter(|word| word.len() > 2 && word.chars().all(|letter| letter.is_ascii_lowercase()));
    Ok(words.take(40).collect::<Vec<_>>().join(" "))
}

/// Results of the inputs of a target.
struct Tried {
    inputs: usize,
    kinds: usize,
    time: Duration,
}

/// Changes the seeds of a target until the time is over, or as often as a smoke test does. Returns an error with the
/// path of the first input that fails.
fn fuzz(target: &Target, seed: u64, time: Option<Duration>) -> Result<Tried, String> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut pool, mut kinds) = ((target.seeds)(), HashSet::new());
    let start = Instant::now();
    let failed = |input: &[u8], why: String| {
        let path = env::temp_dir().join(format!("fabric-fuzz-{}-{seed}", target.name.replace(' ', "-")));
        fs::write(&path, input).expect("a written input");
        format!("{}: {why}; the input is {}", target.name, path.display())
    };
    for input in &pool {
        kinds.insert(judge(target.run, input).map_err(|why| failed(input, why))?);
    }
    assert!(kinds.contains("accepted"), "no seed of `{}` is accepted: {kinds:?}", target.name);
    let seeds = pool.len();
    let mut inputs = seeds;
    let is_over = |changes: usize| time.map_or(changes >= SMOKE, |time| start.elapsed() >= time);
    let mut changes = 0;
    while !is_over(changes) {
        // Many of the inputs that were found are short and fail early, so half of the changes begin with a seed.
        let choices = if random.random() { seeds } else { pool.len() };
        let mut input = pool[random.random_range(0..choices)].clone();
        let other = &pool[random.random_range(0..pool.len())];
        for _ in 0..1 << random.random_range(0..4_u32) {
            change(&mut input, other, &mut random);
        }
        input.truncate(MAX_INPUT);
        if let Some(repair) = target.repair.filter(|_| random.random_bool(0.6)) {
            input = repair(input);
        }
        let kind = judge(target.run, &input).map_err(|why| failed(&input, why))?;
        if kinds.insert(kind) && pool.len() < MAX_POOL {
            pool.push(input);
        }
        changes += 1;
        inputs += 1;
    }
    Ok(Tried { inputs, kinds: kinds.len(), time: start.elapsed() })
}

#[test]
fn no_changed_input_panics_or_takes_long_or_much_memory() {
    let variable = |name: &str| env::var(name).ok();
    let only = variable("FABRIC_FUZZ_TARGET").unwrap_or_default();
    let seed = variable("FABRIC_FUZZ_SEED").map_or(1, |seed| seed.parse().expect("a number in FABRIC_FUZZ_SEED"));
    let seconds = variable("FABRIC_FUZZ_SECONDS").map(|time| time.parse().expect("a number in FABRIC_FUZZ_SECONDS"));
    let mut failures = Vec::new();
    for target in TARGETS.iter().filter(|target| target.name.contains(&only)) {
        if let Some(path) = variable("FABRIC_FUZZ_INPUT") {
            let input = fs::read(&path).expect("the input of FABRIC_FUZZ_INPUT");
            println!("{}: {:?}, {:?}", target.name, judge(target.run, &input), catch_panic(|| (target.run)(&input)));
            continue;
        }
        match fuzz(target, seed, seconds.map(Duration::from_secs)) {
            Ok(Tried { inputs, kinds, time }) => {
                println!("{}: {inputs} inputs, {kinds} kinds of outcomes, {:.1} s", target.name, time.as_secs_f64());
            }
            Err(why) => failures.push(why),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
