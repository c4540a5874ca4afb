//! The command `compare`: the arms of one run, and one arm of several runs.

use std::path::Path;
use std::process::Command;

use fabric_experiments::{ImageRecord, RunFolder, config_hash};
use serde_json::json;

/// Writes a run of ten prompts with one image each and returns the name of its folder. The arm `liked` is above `none`
/// by `gain`.
fn write_run(place: &Path, name: &str, gain: f64) -> String {
    let experiment = json!({ "name": name, "control": "none", "arms": [{ "name": "none" }, { "name": "liked" }] });
    let config = json!({ "experiment": experiment, "rounds": 1, "images": 1 });
    let mut folder = RunFolder::open(&place.join(name), &config, 1).expect("a folder");
    for case in 0..10 {
        for (arm, score) in [("none", 0.0), ("liked", gain)] {
            let record = json!({
                "config": config_hash(&config), "arm": arm, "case": case, "prompt": format!("prompt {case}"),
                "round": 0, "image": 0, "seed": 1, "score": score + case as f64, "liked_similarity": null,
                "disliked_similarity": null, "liked_kept": null, "liked_copied": null, "disliked_repeated": null,
                "diversity": null, "vote": null, "file": null,
            });
            let record: ImageRecord = serde_json::from_value(record).expect("a record");
            folder.append(&[record]).expect("a session");
        }
    }
    name.to_owned()
}

#[test]
fn arms_are_compared_with_any_of_them_and_one_arm_across_runs() {
    let place = tempfile::tempdir().expect("a folder");
    let [first, second] = [("first", 2.0), ("second", 5.0)].map(|(name, gain)| write_run(place.path(), name, gain));
    let compare = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fabric-experiments"));
        let output = command.current_dir(place.path()).arg("compare").args(arguments).output().expect("the program");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let (is_done, out, error) = compare(&[&first, &second]);
    assert!(
        is_done && out.contains("(+2.0, +2.0 to +2.0) +") && out.contains("(+5.0, +5.0 to +5.0) +"),
        "{out}{error}"
    );
    let (is_done, out, error) = compare(&[&first, "--control", "liked"]);
    assert!(is_done && out.contains("(-2.0, -2.0 to -2.0) -"), "{out}{error}");
    let (is_done, out, error) = compare(&[&first, &second, "--arm", "liked"]);
    assert!(is_done && out.contains("| measure | round | first | second |"), "{out}{error}");
    assert!(out.contains("(+3.0, +3.0 to +3.0) +"), "{out}");

    let refused = [
        (&["first", "--control", "lost"][..], "--control: first: expected one of liked; none, got lost"),
        (&["first", "second", "--arm", "lost"], "arm of first: expected one of liked; none, got lost"),
        (&["first", "--arm", "liked", "--control", "none"], "cannot be used with"),
        (&["nowhere"], "nowhere"),
    ];
    for (arguments, says) in refused {
        let (is_done, out, error) = compare(arguments);
        assert!(!is_done && out.is_empty() && error.contains(says), "{arguments:?}: {out}{error}");
    }
}
