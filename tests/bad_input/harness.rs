//! Runs the cases of a class and judges what they do.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fabric::backends::catch_panic;

use crate::case::{Case, Expected, Outcome};
use crate::memory::Growth;

/// Longest time of a case.
const MAX_TIME: Duration = Duration::from_secs(2);

/// Most memory in bytes by which a case may rise above what was allocated before.
const MAX_GROWTH: usize = 64 << 20;

/// Longest message of an error in bytes.
const MAX_MESSAGE: usize = 3000;

/// Kind of bad input.
pub(crate) struct Class {
    /// Name, as in `docs/reliability.md`.
    pub(crate) name: &'static str,
    /// Number of cases, as in `docs/reliability.md`.
    pub(crate) count: usize,
    /// Panics if the undamaged input that the cases begin with is not accepted. Also warms up what is made once.
    pub(crate) check_base: fn(),
    /// Creates the cases.
    pub(crate) cases: fn() -> Vec<Case>,
}

impl Class {
    /// Runs all cases, one after the other, and returns the name of each that does not hold, and what is wrong.
    pub(crate) fn run(&self) -> Vec<(String, String)> {
        (self.check_base)();
        let cases = (self.cases)();
        assert_eq!(cases.len(), self.count, "number of cases of the class `{}`", self.name);
        let mut names = BTreeSet::new();
        for case in &cases {
            assert!(names.insert(case.name.clone()), "two cases of `{}` are called `{}`", self.name, case.name);
        }
        let judged = cases.into_iter().map(|case| {
            let name = case.name.clone();
            judge(case).err().map(|fault| (format!("{}: {name}", self.name), fault))
        });
        judged.flatten().collect()
    }
}

/// Runs a case, and returns what is wrong about it.
fn judge(case: Case) -> Result<(), String> {
    let Case { expected, prepare, run, .. } = case;
    let place = tempfile::tempdir().expect("a folder");
    prepare(place.path());
    let growth = Growth::begin();
    let clock = Instant::now();
    let got = catch_panic(|| run(place.path()));
    let (time, grown) = (clock.elapsed(), growth.peak());
    let got = got.map_err(|message| format!("it panicked: {message}"))?;
    judge_outcome(&expected, &got)?;
    if time > MAX_TIME {
        return Err(format!("it took {:.1} s, expected at most {} s", time.as_secs_f64(), MAX_TIME.as_secs()));
    }
    if grown > MAX_GROWTH {
        return Err(format!("it took {} MiB of memory, expected at most {} MiB", grown >> 20, MAX_GROWTH >> 20));
    }
    Ok(())
}

fn judge_outcome(expected: &Expected, got: &Outcome) -> Result<(), String> {
    match (expected, got) {
        (Expected::FallsBack(_), Ok(())) => Ok(()),
        (Expected::FallsBack(to), Err(message)) => Err(format!("expected {to}, got: {message:.300}")),
        (Expected::Refused(words), Ok(())) => Err(format!("it was accepted, expected an error with {words:?}")),
        (Expected::Refused(words), Err(message)) => judge_message(words, message),
    }
}

/// Checks that a message has these words, and that a terminal shows it as it is, on one line or with indented further
/// lines.
fn judge_message(words: &[String], message: &str) -> Result<(), String> {
    if let Some(word) = words.iter().find(|word| !message.contains(word.as_str())) {
        return Err(format!("`{word}` is not in the message: {message:.600}"));
    }
    // A failure of the device is the last resort and says nothing about the input.
    if message.contains("the device failed") {
        return Err(format!("the input got as far as the device: {message:.300}"));
    }
    // Lists of tensors have a line for each, indented.
    let (first, rest) = message.split_once('\n').unwrap_or((message, ""));
    let ends_line = |letter: char| letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}');
    let is_plain = |line: &str| !line.contains(ends_line);
    if !is_plain(first) || !rest.lines().all(|line| line.starts_with("  ") && is_plain(line)) {
        let shown: String = message.chars().take(200).collect();
        return Err(format!("the message has line breaks or control characters: {shown:?}"));
    }
    if message.len() > MAX_MESSAGE {
        return Err(format!("the message has {} bytes, expected at most {MAX_MESSAGE}: {message:.120}", message.len()));
    }
    Ok(())
}
