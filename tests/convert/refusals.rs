//! Runs that write nothing: dry runs, paths that are taken, and damaged input.

use fabric::models::ModelError;
use fabric::models::tokenizer::TokenizerError;

use super::*;

/// Commands that need no feature: name, input, and name of the output.
const COMMANDS: [(&str, &str, &str); 3] =
    [("model", MODEL, "model"), ("weights", ADAPTER, "base.safetensors"), ("tokenizer", TOKENIZER, "tokenizer")];

/// Changes the bytes of a file.
fn spoil(path: impl AsRef<Path>, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(&path).expect("a file");
    change(&mut bytes);
    fs::write(path, bytes).expect("a written file");
}

/// Makes the last f32 of a file NaN.
fn end_with_nan(bytes: &mut [u8]) {
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
}

#[test]
fn a_dry_run_lists_the_files_and_writes_nothing() {
    for (command, input, output) in COMMANDS {
        let place = Place::new();
        let out = place.named(output);
        let planned = call(&[command, input, &out, "--dry-run"]).expect("a report");
        assert!(!planned.written && place.entries().is_empty(), "{command}");
        assert!(planned.to_string().contains("would write "), "{planned}");
        let written = call(&[command, input, &out]).expect("a report");
        assert!(written.written && written.to_string().contains("wrote "), "{written}");
        let names = |report: &Report| -> Vec<(PathBuf, usize)> {
            report.files.iter().map(|file| (file.path.clone(), file.tensors)).collect()
        };
        assert_eq!(names(&planned), names(&written), "{command}");
        for (before, after) in planned.files.iter().zip(&written.files) {
            let (Some(expected), Some(bytes)) = (before.bytes, after.bytes) else { continue };
            // A file of weights has a header, too.
            let header = if after.tensors > 0 { 1..100_000 } else { 0..1 };
            assert!(header.contains(&(bytes - expected)), "{}: {expected} and {bytes}", after.path.display());
        }
        assert_eq!((planned.bytes_before, planned.unused), (written.bytes_before, written.unused), "{command}");
        assert_eq!(place.entries(), [output]);
    }
}

#[test]
fn what_exists_is_never_overwritten() {
    for (command, input, output) in COMMANDS {
        let place = Place::new();
        let out = place.named(output);
        let refused = |got: &str| {
            for words in [&[command, input, &out][..], &[command, input, &out, "--dry-run"]] {
                let said = call(words).expect_err("a taken path").to_string();
                let expected = format!("{out}: expected a path at which nothing exists, got {got}; choose another one");
                assert!(said.starts_with(&expected), "{said}");
            }
        };
        fs::write(&out, "mine").expect("a file");
        refused("a file");
        assert_eq!(fs::read_to_string(&out).expect("a file"), "mine");
        fs::remove_file(&out).expect("removed");
        fs::create_dir(&out).expect("a folder");
        refused("a folder");
        assert_eq!(place.entries(), [output]);
    }
    let place = Place::new();
    let said = call(&["weights", ADAPTER, &place.named("out.ckpt")]).expect_err("another format").to_string();
    assert!(said.contains("ends with .safetensors, got out.ckpt"), "{said}");
}

#[test]
fn damaged_input_is_a_typed_error_and_leaves_nothing() {
    let (place, damaged) = (Place::new(), Place::new());
    let [folder, out] = ["out", "out.safetensors"].map(|name| place.named(name));
    let refused = |words: &[&str]| {
        let error = call(words).expect_err("damaged input");
        assert!(place.entries().is_empty(), "{words:?} left {:?}", place.entries());
        error
    };
    // This damage is found while the new file is being written.
    let file = damaged.named("nan.safetensors");
    fs::copy(ADAPTER, &file).expect("a copied file");
    spoil(&file, |bytes| end_with_nan(bytes));
    let error = refused(&["weights", &file, &out, "--dtype", "f16"]);
    assert!(matches!(error.downcast_ref::<LoadError>(), Some(LoadError::NotFinite { .. })), "{error}");
    spoil(&file, |bytes| bytes.truncate(bytes.len() / 2));
    let error = refused(&["weights", &file, &out]);
    assert!(matches!(error.downcast_ref::<LoadError>(), Some(LoadError::Malformed { .. })), "{error}");
    let error = refused(&["weights", &damaged.named("none.safetensors"), &out]);
    assert!(matches!(error.downcast_ref::<LoadError>(), Some(LoadError::NotFound { .. })), "{error}");

    let model = damaged.named("model");
    fs::create_dir(&model).expect("a folder");
    for name in ["model_index.json", "scheduler", "text_encoder", "unet", "vae", "image_encoder"] {
        copy_all(&Path::new(MODEL).join(name), &Path::new(&model).join(name));
    }
    let unet = Path::new(&model).join("unet/diffusion_pytorch_model.safetensors");
    spoil(&unet, |bytes| end_with_nan(bytes));
    let of_model = |error: Box<dyn Error>| match *error.downcast::<ModelError>().expect("an error of a model") {
        ModelError::Load(error) => error,
        other => panic!("{other}"),
    };
    let error = of_model(refused(&["model", &model, &folder]));
    assert!(matches!(error, LoadError::NotFinite { .. }), "{error}");
    spoil(&unet, |bytes| bytes.truncate(100));
    let error = of_model(refused(&["model", &model, &folder]));
    assert!(matches!(error, LoadError::Malformed { .. }), "{error}");
    let error = of_model(refused(&["model", ADAPTER, &folder]));
    assert!(matches!(error, LoadError::WrongFamily { .. }), "{error}");

    let tokenizer = damaged.named("tokenizer.json");
    fs::write(&tokenizer, "{\"model\": {\"type\": \"Unigram\"}}").expect("a file");
    let error = refused(&["tokenizer", &tokenizer, &folder]);
    assert!(matches!(error.downcast_ref::<TokenizerError>(), Some(TokenizerError::Corrupt { .. })), "{error}");
}

/// An error with a cause, as a library may return it, with the text of a file in both.
#[derive(Debug)]
struct Foreign(String, Option<Box<Self>>);

impl std::fmt::Display for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Foreign {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.1.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

#[test]
fn texts_of_files_reach_the_terminal_on_lines_of_their_own_message() {
    let executed = |letter: char| letter != '\n' && letter.is_control();
    for text in ["\u{1b}[2J\u{9b}31m", "a\nerror: all is well", &"x\n\u{7}".repeat(1 << 20)] {
        let error = Foreign(text.to_owned(), Some(Box::new(Foreign(text.to_owned(), None))));
        let shown = convert::common::error_text(&error);
        assert!(!shown.contains(executed) && shown.len() < 1 << 18, "{} bytes: {shown:.200}", shown.len());
        assert_eq!(shown.lines().filter(|line| !line.starts_with("  ")).count(), 1, "{shown:.200}");
        assert_eq!(shown.lines().filter(|line| line.starts_with("  because: ")).count(), 1, "{shown:.200}");

        let report = Report {
            written: false,
            read: vec![format!("{text}: 2 tensors")],
            files: Vec::new(),
            unused: vec![text.to_owned(); 3],
            bytes_before: 1,
        };
        let shown = report.to_string();
        assert!(!shown.contains(executed) && shown.len() < 2000, "{} bytes: {shown:.200}", shown.len());
        assert_eq!(shown.lines().count(), 3, "{shown:.200}");
    }
}
