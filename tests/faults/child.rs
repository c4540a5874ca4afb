//! Tests that run in a process of their own: because they are to be killed, run under limits, or count memory.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Set in a process of a test's own.
const CHILD: &str = "FABRIC_FAULTS_CHILD";
/// The folder that such a process works in.
const PLACE: &str = "FABRIC_FAULTS_PLACE";

/// Returns the command that runs one test in a process of its own, with a folder to work in.
pub(crate) fn command(test: &str, place: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, "1").env(PLACE, place);
    command
}

/// Returns the folder to work in if this is the process of a test's own.
pub(crate) fn place() -> Option<PathBuf> {
    std::env::var_os(CHILD)?;
    Some(std::env::var_os(PLACE).expect("a folder").into())
}

/// Runs `body`, which is the test of this name, in a process of its own, and fails if it fails there.
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
    if place().is_some() {
        return body();
    }
    // With few threads, all have worked during the warm-up, and have the memory that they keep.
    let output = command(test, Path::new(".")).env("RAYON_NUM_THREADS", "2").output().expect("a process");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    // The first line of a test's output begins with its name.
    for (_, line) in said.lines().filter_map(|line| line.split_once("figure: ")) {
        figure(&format!("figure: {line}"));
    }
}

/// Runs one test in a process of its own whose files may have no more than 4 KiB, as if the disk were full, and fails if
/// it fails there.
#[cfg(unix)]
pub(crate) fn limited(test: &str, place: &Path) {
    let command = command(test, place);
    // A write beyond the limit is an error, and not the end of the process, if the signal is ignored.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$@\"", "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .output()
        .expect("a process");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Prints a figure for `docs/reliability.md`.
#[allow(clippy::print_stdout, reason = "figures are the output of a drill")]
pub(crate) fn figure(line: &str) {
    println!("{line}");
}
