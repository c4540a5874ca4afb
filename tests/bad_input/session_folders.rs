//! Folders of sessions: files that were cut, edited, swapped or made by others.

use std::fs;
use std::path::{Path, PathBuf};

use fabric::core::image::Image;
use fabric::core::session::{FeedbackSession, Vote};
use fabric::core::{Aspect, ImageCondition, InitImage};
use serde_json::{Value, json};

use crate::case::{Case, Outcome, check, file, nothing, said, sparse_file};
use crate::png_writer::{chunk, header, png};

pub(crate) const COUNT: usize = 145;

const JSON: &str = "session.json";

/// An image of one colour.
fn shade(red: u8) -> Image {
    Image::filled(8, 8, [red, 0, 0]).expect("an image")
}

/// A session with a step of each kind: image conditions, an initial image, a round, two votes, prompts and settings.
fn session() -> FeedbackSession {
    let mut session = FeedbackSession::new("a small red star").with_seed(5).with_settings(json!({"steps": 2}));
    let start = InitImage::new(shade(8), 0.5).with_mask(shade(7));
    session.add_image_condition(ImageCondition::new(shade(9)).using(Aspect::Style)).expect("a condition");
    session.set_init_image(Some(start)).expect("an initial image");
    let round = session.push_round(vec![(shade(1), 1), (shade(2), 2)], json!({"seconds": 1.5})).expect("a round");
    session.vote(&round[0], Vote::LIKE.because(Aspect::Style)).expect("a vote");
    session.dislike(&round[1]).expect("a vote");
    session.set_prompt("a blue star");
    session.set_negative_prompt("blur");
    session.set_settings(json!({"steps": 3}));
    session
}

fn save(place: &Path) {
    session().save(place).expect("a saved session");
}

fn load(place: &Path) -> Outcome {
    said(FeedbackSession::load(place))
}

/// The file of an image.
fn image_file(place: &Path, red: u8) -> PathBuf {
    place.join(format!("images/{}.png", shade(red).content_hash()))
}

/// A folder that was changed after it was saved.
fn changed(name: impl Into<String>, words: &[&str], change: impl FnOnce(&Path) + 'static) -> Case {
    let prepare = move |place: &Path| {
        save(place);
        change(place);
    };
    Case::refused(name, words, prepare, load)
}

/// Changes the JSON of a session.
fn edit(place: &Path, change: impl FnOnce(&mut Value)) {
    let text = fs::read(place.join(JSON)).expect("a session");
    let mut value: Value = serde_json::from_slice(&text).expect("a session");
    change(&mut value);
    fs::write(place.join(JSON), value.to_string()).expect("a written file");
}

/// A session whose JSON was changed.
fn edited(name: impl Into<String>, words: &[&str], change: impl FnOnce(&mut Value) + 'static) -> Case {
    changed(name, &[words, &[JSON]].concat(), move |place| edit(place, change))
}

/// A session with another value at a place of its JSON.
fn set(name: impl Into<String>, at: &'static str, to: Value, words: &[&str]) -> Case {
    edited(name, words, move |value| *value.pointer_mut(at).unwrap_or_else(|| panic!("a value at {at}")) = to)
}

pub(crate) fn check_base() {
    let place = tempfile::tempdir().expect("a folder");
    save(place.path());
    assert_eq!(FeedbackSession::load(place.path()).expect("a session").step_count(), 8);
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = files();
    cases.extend(fields());
    cases.extend(steps());
    cases.extend(values());
    cases.extend(hashes());
    cases.extend(texts());
    cases.extend(images());
    cases.extend(saving());
    cases.extend(votes());
    cases
}

/// `session.json` as a file.
fn files() -> Vec<Case> {
    let text = |name: &str, text: String, words: &[&str]| {
        Case::refused(name, &[words, &[JSON, "is no session"]].concat(), file(JSON, text.into()), load)
    };
    let good = serde_json::to_string(&json!({"format": "fabric-session", "version": 5})).expect("a text");
    let rewritten = |name: &str, words: &[&str], change: fn(String) -> Vec<u8>| {
        changed(name, &[words, &[JSON]].concat(), move |place| {
            let text = fs::read_to_string(place.join(JSON)).expect("a session");
            fs::write(place.join(JSON), change(text)).expect("a written file");
        })
    };
    let no = "is no session";
    vec![
        Case::refused("an empty folder", &["session folder: cannot read", JSON], nothing, load),
        Case::refused("a missing folder", &["session folder: cannot read", "missing"], nothing, |place| {
            load(&place.join("missing"))
        }),
        Case::refused(
            "a folder in place of the JSON",
            &["session folder: cannot read", "not a file"],
            |place| fs::create_dir(place.join(JSON)).expect("a folder"),
            load,
        ),
        text("an empty file", String::new(), &["EOF"]),
        text("an object that does not end", "{".to_owned(), &["EOF"]),
        text("null", "null".to_owned(), &["invalid type: null"]),
        text("a list", "[]".to_owned(), &["invalid length 0"]),
        text("lists nested 100,000 times", "[".repeat(100_000), &[]),
        text("objects nested 100,000 times", format!("{{\"a\":{}", "{\"a\":".repeat(100_000)), &["EOF"]),
        text("a format and nothing else", good, &["missing field"]),
        text("a web page", "<!DOCTYPE html>".to_owned(), &["expected value"]),
        rewritten("a file of which half is missing", &[no, "EOF"], |text| text.as_bytes()[..text.len() / 2].to_vec()),
        rewritten("a file in UTF-16", &[no], |text| text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        rewritten("a byte-order mark", &[no, "expected value"], |text| format!("\u{feff}{text}").into()),
        rewritten("two sessions in a file", &[no, "trailing characters"], |text| text.repeat(2).into()),
        rewritten("a field twice", &[no, "duplicate field `done`"], |text| {
            text.replacen('{', "{\"done\": 0,", 1).into()
        }),
        rewritten("Python's NaN", &[no, "expected value"], |text| text.replace("0.5", "NaN").into()),
        rewritten("a number beyond f64", &[no, "number out of range"], |text| text.replace("0.5", "1e999").into()),
        rewritten("a byte that is no text", &[no], |text| {
            text.replace("star", "st\u{e9}r").chars().map(|c| c as u8).collect()
        }),
        rewritten("a zero byte at the end", &[no, "trailing characters"], |text| format!("{text}\0").into()),
        rewritten("five million numbers", &["has values that take up to", "expected at most 268435456"], |text| {
            text.replacen("\"seconds\":", &format!("\"values\": [{}0], \"seconds\":", "0,".repeat(5_000_000)), 1).into()
        }),
        rewritten("400,000 objects", &["has values that take up to", "expected at most 268435456"], |text| {
            text.replacen("\"seconds\":", &format!("\"values\": [{}0], \"seconds\":", "{\"\":0},".repeat(400_000)), 1)
                .into()
        }),
        Case::refused(
            "a file of more than 64 MB",
            &["has 67108865 bytes", "at most 67108864", JSON],
            sparse_file(JSON, b"{".to_vec(), (64 << 20) + 1),
            load,
        ),
    ]
}

/// The fields of a session: each is missing, and each has another type.
fn fields() -> Vec<Case> {
    let mut cases = Vec::new();
    let fields = ["format", "version", "prompt", "negative_prompt", "settings", "seed", "seeds_drawn", "done", "steps"];
    for field in fields {
        let word = format!("missing field `{field}`");
        cases.push(edited(format!("no field `{field}`"), &[word.as_str(), "is no session"], move |value| {
            value.as_object_mut().expect("an object").remove(field).expect("a field");
        }));
    }
    let type_of = "invalid type";
    let long = format!("\u{1b}[2J{}", "x".repeat(5000));
    cases.extend([
        set("a format of another program", "/format", json!("other-session"), &["`other-session` version 5"]),
        set("a format that clears the terminal", "/format", json!(long), &["\\u{1b}[2J", "expected `fabric-session`"]),
        set("an earlier version", "/version", json!(4), &["version 4, expected `fabric-session` version 5"]),
        set("a later version", "/version", json!(6), &["version 6, expected `fabric-session` version 5"]),
        set("a version in quotes", "/version", json!("5"), &[type_of]),
        set("a prompt that is a number", "/prompt", json!(7), &[type_of]),
        set("a negative prompt that is null", "/negative_prompt", Value::Null, &[type_of]),
        set("a seed below zero", "/seed", json!(-1), &["invalid value: integer `-1`"]),
        set("a seed that is a fraction", "/seed", json!(1.5), &[type_of]),
        set("a seed in quotes", "/seed", json!("5"), &[type_of]),
        set(
            "as many drawn seeds as there are integers",
            "/seeds_drawn",
            json!(u64::MAX),
            &["`seeds_drawn` is 18446744073709551615"],
        ),
        set("more steps done than there are", "/done", json!(9), &["`done` is 9, expected at most 8 steps"]),
        set("steps done below zero", "/done", json!(-1), &["invalid value"]),
        set("steps that are an object", "/steps", json!({}), &[type_of]),
        edited("an unknown field", &["unknown field `extra`"], |value| value["extra"] = json!(1)),
    ]);
    cases
}

/// Steps that no session has.
fn steps() -> Vec<Case> {
    let no = "is no session";
    vec![
        set("a step of an unknown kind", "/steps/3/step", json!("shout"), &[no, "unknown variant `shout`"]),
        set("a step that is null", "/steps/3", Value::Null, &[no]),
        set("a step that is a list", "/steps/3", json!(["vote"]), &[no]),
        edited("a step without a kind", &[no, "missing field `step`"], |value| {
            value["steps"][3].as_object_mut().expect("a step").remove("step");
        }),
        edited("a vote with an unknown field", &[no, "unknown field `extra`"], |value| {
            value["steps"][3]["extra"] = json!(1);
        }),
        edited("a round without images", &["images of step 2 is 0, expected at least 1"], |value| {
            value["steps"][2]["images"] = json!([]);
            value["steps"][2]["seeds"] = json!([]);
        }),
        edited("a round without a report", &[no, "missing field `report`"], |value| {
            value["steps"][2].as_object_mut().expect("a step").remove("report");
        }),
        set(
            "a round of two images and one seed",
            "/steps/2/seeds",
            json!([1]),
            &["number of seeds of step 2 is 1", "one per image, or none"],
        ),
        set("a round with a seed below zero", "/steps/2/seeds", json!([1, -2]), &[no, "invalid value: integer `-2`"]),
        set("a round with a time that is a text", "/steps/2/unix_ms", json!("now"), &[no, "invalid type"]),
        set("a round before the beginning of time", "/steps/2/unix_ms", json!(-1), &[no, "invalid value"]),
        set("conditions that are an object", "/steps/0/conditions", json!({}), &[no, "invalid type"]),
        edited("a condition without a window", &[no, "missing field `window`"], |value| {
            value["steps"][0]["conditions"][0].as_object_mut().expect("a condition").remove("window");
        }),
        edited("an initial image with an unknown field", &[no, "unknown field `noise`"], |value| {
            value["steps"][1]["init_image"]["noise"] = json!(1);
        }),
    ]
}

/// Numbers and words out of range.
fn values() -> Vec<Case> {
    let vote = "vote strength is";
    let aspect = "aspect of an image of step";
    let mut cases = vec![
        set("a vote above 1", "/steps/3/vote/strength", json!(1.5), &[vote, "1.5, expected a number from -1 to 1"]),
        set("a vote below -1", "/steps/3/vote/strength", json!(-2), &[vote, "-2, expected"]),
        set("a vote of 1e300", "/steps/3/vote/strength", json!(1e300), &[vote]),
        set("a vote of null", "/steps/3/vote/strength", Value::Null, &["invalid type: null"]),
        set("a vote with an unknown reason", "/steps/3/vote/reason", json!("taste"), &["unknown variant `taste`"]),
        set(
            "a vote with a reason of a number",
            "/steps/3/vote/reason",
            json!({"object": 7}),
            &["invalid type: integer `7`"],
        ),
        set(
            "a vote with a reason of no words",
            "/steps/3/vote/reason",
            json!({"words": ""}),
            &[aspect, "3 is 0 bytes"],
        ),
        set(
            "a vote with a reason of white space",
            "/steps/3/vote/reason",
            json!({"words": " \n"}),
            &[aspect, "3 is 2 bytes"],
        ),
        set(
            "a vote with a reason of 1001 bytes",
            "/steps/3/vote/reason",
            json!({"words": "x".repeat(1001)}),
            &[aspect, "3 is 1001 bytes"],
        ),
        set(
            "an object of 1001 bytes",
            "/steps/3/vote/reason",
            json!({"object": "x".repeat(1001)}),
            &[aspect, "3 is 1001 bytes"],
        ),
    ];
    for (of, condition, start, step) in [
        ("the session", "/steps/0/conditions/0", "/steps/1/init_image", [0, 1]),
        ("a round", "/steps/2/image_conditions/0", "/steps/2/init_image", [2, 2]),
    ] {
        let scale = format!("scale of an image condition of step {}", step[0]);
        let words = format!("aspect of an image of step {}", step[0]);
        let strength = format!("init_image.strength of step {}", step[1]);
        for (name, at, field, value, word) in [
            ("a condition with a scale below zero", condition, "scale", json!(-1), scale.as_str()),
            ("a condition with a scale of 1e300", condition, "scale", json!(1e300), scale.as_str()),
            ("a condition with a scale of null", condition, "scale", Value::Null, "invalid type: null"),
            (
                "a condition with a window that ends before it starts",
                condition,
                "window",
                json!([0.7, 0.2]),
                "got 0.7 to 0.2",
            ),
            ("a condition with a window of three numbers", condition, "window", json!([0, 0.5, 1]), "invalid length 3"),
            ("a condition with a direction in words", condition, "away", json!("yes"), "invalid type: string \"yes\""),
            ("a condition of no words", condition, "aspect", json!({"words": ""}), words.as_str()),
            ("an initial image with a strength of 5", start, "strength", json!(5), strength.as_str()),
            ("an initial image with a strength below zero", start, "strength", json!(-0.1), strength.as_str()),
            ("an initial image with a mask that is a number", start, "mask", json!(3), "invalid type: integer `3`"),
        ] {
            cases.push(edited(format!("{name}, of {of}"), &[word], move |session| {
                session.pointer_mut(at).unwrap_or_else(|| panic!("a value at {at}"))[field] = value;
            }));
        }
    }
    cases
}

/// Texts in place of hashes of images.
fn hashes() -> Vec<Case> {
    let mut cases = Vec::new();
    let digits = "expected 64 lower-case hex digits";
    for (name, text) in [
        ("a path out of the folder", "../../../../etc/passwd".to_owned()),
        ("an absolute path", "/etc/passwd".to_owned()),
        ("the folder above", "..".to_owned()),
        ("no text", String::new()),
        ("a zero byte", "a\0b".to_owned()),
        ("a text in upper case", "A".repeat(64)),
        ("65 digits", "0".repeat(65)),
        ("letters of 64 bytes", "\u{e9}".repeat(32)),
        ("a megabyte", "a".repeat(1 << 20)),
    ] {
        cases.push(set(format!("a hash that is {name}"), "/steps/3/image", json!(text), &["is no session", digits]));
    }
    for (name, at) in [
        ("vote", "/steps/3/image"),
        ("round", "/steps/2/images/1"),
        ("condition", "/steps/0/conditions/0/image"),
        ("initial image", "/steps/1/init_image/image"),
        ("mask", "/steps/1/init_image/mask"),
        ("condition of a round", "/steps/2/image_conditions/0/image"),
    ] {
        let name = format!("a {name} with an image that is missing");
        cases.push(changed(name, &["session folder", "cannot be read", "00000000.png"], move |place| {
            edit(place, |value| *value.pointer_mut(at).expect("a hash") = json!("0".repeat(64)));
        }));
    }
    cases
}

/// Prompts and settings that are too long.
fn texts() -> Vec<Case> {
    let long = || json!("x".repeat((256 << 10) + 1));
    let prompt = "is 262145 bytes, expected at most 262144 bytes";
    let settings = "is 1048597 bytes, expected at most 1048576 bytes";
    let much = || json!({ "text": "x".repeat((1 << 20) + 10) });
    vec![
        set("a long prompt", "/prompt", long(), &["prompt of the session", prompt]),
        set("a long negative prompt", "/negative_prompt", long(), &["negative prompt of the session", prompt]),
        set("long settings", "/settings", much(), &["settings of the session", settings]),
        set("a long prompt of a round", "/steps/2/prompt", long(), &["prompt of step 2", prompt]),
        set("long settings of a round", "/steps/2/settings", much(), &["settings of step 2", settings]),
        set("a long prompt of a step", "/steps/5/prompt", long(), &["prompt of step 5", prompt]),
        set(
            "a long negative prompt of a step",
            "/steps/6/negative_prompt",
            long(),
            &["negative prompt of step 6", prompt],
        ),
        set("long settings of a step", "/steps/7/settings", much(), &["settings of step 7", settings]),
    ]
}

/// Files of images.
fn images() -> Vec<Case> {
    let replaced = |name: &str, words: &[&str], bytes: fn() -> Vec<u8>| {
        changed(name, words, move |place| fs::write(image_file(place, 1), bytes()).expect("a written file"))
    };
    let shows = |name: &str, image: fn() -> Image| {
        changed(name, &["shows image", "expected the one it is named for"], move |place| {
            fs::write(image_file(place, 1), image().to_png_bytes().expect("a PNG file")).expect("a written file");
        })
    };
    vec![
        changed("no images", &["session folder", "cannot be read"], |place| {
            fs::remove_dir_all(place.join("images")).expect("removed");
        }),
        changed("a file in place of the folder of images", &["session folder", "cannot be read"], |place| {
            fs::remove_dir_all(place.join("images")).expect("removed");
            fs::write(place.join("images"), "in the way").expect("a written file");
        }),
        changed("a missing image", &["session folder", "cannot be read"], |place| {
            fs::remove_file(image_file(place, 9)).expect("removed");
        }),
        changed("a folder in place of an image", &["session folder", "is a directory, expected a file"], |place| {
            fs::remove_file(image_file(place, 1)).expect("removed");
            fs::create_dir(image_file(place, 1)).expect("a folder");
        }),
        replaced("an empty image", &["session folder", "begins with []"], Vec::new),
        replaced("a text in place of an image", &["session folder", "begins with [68 61 6c 66"], || {
            b"half a pic".to_vec()
        }),
        replaced("half of an image", &["session folder", "is a damaged PNG file"], || {
            let whole = shade(1).to_png_bytes().expect("a PNG file");
            whole[..whole.len() / 2].to_vec()
        }),
        replaced(
            "an image of 60000x60000",
            &["session folder", "60000x60000", "expected sides from 1 to 65536"],
            || png(&[chunk(b"IHDR", &header(60_000, 60_000, 8, 2))]),
        ),
        shows("another image", || shade(3)),
        shows("another image of the session", || shade(2)),
        shows("the image in another size", || Image::filled(8, 16, [1, 0, 0]).expect("an image")),
        shows("the image with one other value", || {
            let mut pixels = shade(1).rgb().to_vec();
            pixels[100] ^= 1;
            Image::from_rgb(8, 8, pixels).expect("an image")
        }),
    ]
}

/// Folders and sessions that cannot be saved.
fn saving() -> Vec<Case> {
    let nested = |levels: usize| (0..levels).fold(json!(0), |value, _| json!([value]));
    let not = "is not written, because it could not be loaded again";
    let unsaved = |name: &str, words: &[&str], change: Box<dyn FnOnce(&mut FeedbackSession)>| {
        Case::refused(name, &[words, &[not, JSON]].concat(), nothing, move |place| {
            let mut session = session();
            change(&mut session);
            said(session.save(place))
        })
    };
    let (report, settings) = (nested(126), nested(1000));
    vec![
        Case::refused(
            "a folder whose name is that of a file",
            &["session folder: cannot make the folder"],
            file("taken", vec![1]),
            |place| said(session().save(place.join("taken"))),
        ),
        Case::refused(
            "a folder in place of the JSON to be written",
            &["session folder: cannot write", JSON],
            |place| fs::create_dir(place.join(JSON)).expect("a folder"),
            |place| said(session().save(place)),
        ),
        unsaved(
            "a report nested 126 times",
            &["recursion limit"],
            Box::new(move |session: &mut FeedbackSession| {
                session.push_round(vec![(shade(4), 4)], report).expect("a round");
            }),
        ),
        unsaved(
            "settings nested 1000 times",
            &["recursion limit"],
            Box::new(move |session: &mut FeedbackSession| session.set_settings(settings)),
        ),
        unsaved(
            "a prompt that is too long",
            &["prompt of step 8 is 2000000 bytes"],
            Box::new(|session: &mut FeedbackSession| {
                session.set_prompt("x".repeat(2_000_000));
            }),
        ),
        Case::falls_back("a damaged image of an earlier save", "it is written again", save, |place| {
            fs::write(image_file(place, 1), "half a pic").map_err(|error| error.to_string())?;
            session().save(place).map_err(|error| error.to_string())?;
            load(place)
        }),
        Case::falls_back("files of others beside the images", "they are not read", save, |place| {
            fs::write(place.join("images/notes.png"), "not ours").map_err(|error| error.to_string())?;
            fs::write(place.join("images/.half.png.tmp"), "half").map_err(|error| error.to_string())?;
            load(place)
        }),
    ]
}

/// Votes and rounds that callers give.
fn votes() -> Vec<Case> {
    let case = |name: &str, words: &[&str], run: fn(&mut FeedbackSession) -> Outcome| {
        Case::refused(name, words, nothing, move |_| run(&mut session()))
    };
    let strength = "vote strength is";
    vec![
        case("a vote that is NaN", &[strength, "NaN, expected a number from -1 to 1"], |_| said(Vote::new(f64::NAN))),
        case("a vote that is infinite", &[strength, "inf, expected"], |_| said(Vote::new(f64::INFINITY))),
        case("a like below zero", &[strength, "-0.1, expected a number from 0 to 1"], |_| said(Vote::like(-0.1))),
        case("a dislike of two", &[strength, "2, expected a number from 0 to 1"], |_| said(Vote::dislike(2.0))),
        case("a reason of no words", &["aspect of an image", "got 0 bytes"], |session| {
            said(session.vote(&shade(1), Vote::LIKE.because(Aspect::Words(String::new()))))
        }),
        case("a reason of 1001 bytes after the vote", &["aspect of an image", "got 1001 bytes"], |session| {
            said(session.like(&shade(1)).expect("a vote").because(Aspect::Words("x".repeat(1001))))
        }),
        case("a round of no images", &["round has 0 images"], |session| {
            said(session.push_round(Vec::new(), Value::Null))
        }),
        case("a round with a prompt that is too long", &["prompt: expected at most 262144 bytes"], |session| {
            session.set_prompt("x".repeat((256 << 10) + 1));
            said(session.push_round(vec![(shade(1), 1)], Value::Null))
        }),
        case("a condition with a scale of NaN", &["scale of an image condition", "got NaN"], |session| {
            said(session.add_image_condition(ImageCondition::new(shade(1)).with_scale(f64::NAN)))
        }),
        case("an initial image with a strength of NaN", &["init_image.strength", "got NaN"], |session| {
            said(session.set_init_image(Some(InitImage::new(shade(1), f64::NAN))))
        }),
        case(
            "room for as many images as there are integers",
            &["session would hold 18446744073709551615 pixels"],
            |session| said(session.check_room_for(usize::MAX, usize::MAX, 2)),
        ),
        Case::falls_back("a vote of minus zero", "it is zero", nothing, |_| {
            let vote = Vote::new(-0.0).map_err(|error| error.to_string())?;
            check(vote.strength().is_sign_positive(), "minus zero")
        }),
    ]
}
