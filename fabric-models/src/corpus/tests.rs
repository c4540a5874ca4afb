//! Tests with an encoder that embeds an image as its mean colour.

use std::cell::Cell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use burn::tensor::{Device, Tensor, TensorData};
use fabric_backends::{DeviceKind, device};
use fabric_core::Error;
use fabric_core::image::{Image, ImageError};
use tempfile::TempDir;

use super::fingerprint::PROBE_COUNT;
use super::*;
use crate::clip::ClipVisionConfig;

const RED: [u8; 3] = [255, 0, 0];
const ORANGE: [u8; 3] = [255, 128, 0];
const YELLOW: [u8; 3] = [255, 255, 0];
const GREEN: [u8; 3] = [0, 255, 0];
const BLUE: [u8; 3] = [0, 0, 255];

fn cpu() -> Device {
    device(DeviceKind::Flex).unwrap()
}

/// Embeds an image as its mean colour, and counts images.
#[derive(Default)]
struct MeanColour {
    embedded: Cell<usize>,
    /// Whether blue comes first.
    is_reversed: bool,
    /// Whether white images have the embedding NaN.
    fails_on_white: bool,
    /// Whether a blue image makes the encoder panic.
    panics_on_blue: bool,
    has_no_projection: bool,
}

impl MeanColour {
    /// Returns the number of images embedded since the last call, without those for the fingerprint.
    fn take_count(&self) -> usize {
        self.embedded.take().saturating_sub(PROBE_COUNT)
    }

    fn mean(&self, image: &Image) -> [f32; 3] {
        let channel = |at: usize| image.rgb().iter().skip(at).step_by(3).map(|byte| f32::from(*byte));
        let scale = 255.0 * (image.width() * image.height()) as f32;
        let mut mean = [0, 1, 2].map(|at| channel(at).sum::<f32>() / scale);
        assert!(!self.panics_on_blue || mean != [0.0, 0.0, 1.0], "out of memory");
        if self.fails_on_white && mean == [1.0; 3] {
            mean[0] = f32::NAN;
        }
        if self.is_reversed {
            mean.reverse();
        }
        mean
    }
}

impl ImageEmbedder for MeanColour {
    fn image_embeddings(&self, images: &[Image]) -> Result<Tensor<2>, Error> {
        self.embedded.set(self.embedded.get() + images.len());
        let values: Vec<f32> = images.iter().flat_map(|image| self.mean(image)).collect();
        Ok(Tensor::from_data(TensorData::new(values, [images.len(), 3]), &cpu()))
    }

    fn has_projection(&self) -> bool {
        !self.has_no_projection
    }
}

fn embedding(values: [f32; 3]) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values.to_vec(), [1, 3]), &cpu())
}

fn near_red() -> Query {
    Query::new().with_liked(embedding([1.0, 0.0, 0.0]), 1.0)
}

fn save(folder: &Path, name: &str, colour: [u8; 3]) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    Image::filled(8, 8, colour).unwrap().save(&path).unwrap();
    path
}

/// Makes a file a minute old, so that it has a stamp.
fn make_older(path: &Path) {
    set_modified(path, SystemTime::now() - Duration::from_secs(60));
}

fn set_modified(path: &Path, time: SystemTime) {
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// A folder with these images.
fn folder_of(images: &[(&str, [u8; 3])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, colour) in images {
        save(folder.path(), name, *colour);
    }
    folder
}

/// A folder with ten images of different colours.
fn ten() -> TempDir {
    let names: Vec<String> = (0..10).map(|at| format!("{at}.png")).collect();
    let images: Vec<(&str, [u8; 3])> = names.iter().zip(0..).map(|(name, at)| (name.as_str(), [200, at, 0])).collect();
    folder_of(&images)
}

/// Returns the names of the nearest images, relative to the folder.
#[track_caller]
fn names(corpus: &Corpus, query: &Query, count: usize) -> Vec<String> {
    let name = |candidate: Candidate| {
        let path = candidate.path.strip_prefix(&corpus.folder).unwrap();
        path.iter().map(|part| part.to_str().unwrap()).collect::<Vec<_>>().join("/")
    };
    corpus.nearest(query, count).unwrap().into_iter().map(name).collect()
}

fn index_of(folder: &TempDir) -> PathBuf {
    folder.path().join(INDEX_NAME)
}

#[test]
fn images_are_sorted_by_score_and_then_by_path() {
    let images = [("z.png", RED), ("a/blue.PNG", BLUE), ("a/red.png", RED), ("yellow.jpg", YELLOW), ("b.png", ORANGE)];
    let folder = folder_of(&images[..1]);
    for (name, colour) in &images[2..] {
        save(folder.path(), name, *colour);
    }
    let blue = save(folder.path(), "a/blue.png", BLUE);
    fs::rename(blue, folder.path().join(images[1].0)).unwrap();
    fs::write(folder.path().join("notes.txt"), "no image").unwrap();

    let corpus = Corpus::open(folder.path(), &MeanColour::default()).unwrap();
    assert_eq!((corpus.image_count(), corpus.skipped().len()), (5, 0));
    let expected = ["a/red.png", "z.png", "b.png", "yellow.jpg", "a/blue.PNG"];
    assert_eq!(names(&corpus, &near_red(), 10), expected);
    assert_eq!(names(&corpus, &near_red(), 3), expected[..3]);
    assert!(names(&corpus, &near_red(), 0).is_empty());
    let scores: Vec<f64> = corpus.nearest(&near_red(), 5).unwrap().iter().map(|candidate| candidate.score).collect();
    assert!((scores[0] - 1.0).abs() < 1e-6 && scores[4].abs() < 1e-6, "{scores:?}");
}

#[test]
fn the_score_is_the_weighted_mean_of_wanted_minus_that_of_disliked_similarities() {
    let folder = folder_of(&[("red.png", RED), ("green.png", GREEN), ("blue.png", BLUE)]);
    let corpus = Corpus::open(folder.path(), &MeanColour::default()).unwrap();
    // Lengths of embeddings have no effect, unlike weights.
    let query = Query::new()
        .with_text(embedding([5.0, 0.0, 0.0]), 3.0)
        .with_liked(embedding([0.0, 1.0, 0.0]), 1.0)
        .with_disliked(embedding([0.0, 0.0, 0.1]), 2.0);
    let found = corpus.nearest(&query, 3).unwrap();
    for (candidate, (name, score)) in found.iter().zip([("red.png", 0.75), ("green.png", 0.25), ("blue.png", -1.0)]) {
        assert_eq!(candidate.path, folder.path().join(name));
        assert!((candidate.score - score).abs() < 1e-6, "{candidate:?}, expected {score}");
    }
    let disliked_alone = Query::new().with_disliked(embedding([1.0, 1.0, 0.0]), 1.0);
    assert_eq!(names(&corpus, &disliked_alone, 1), ["blue.png"]);
}

#[test]
fn maximal_marginal_relevance_shows_copies_once() {
    let copies = [("1.png", RED), ("2.png", RED), ("3.png", RED)];
    let folder = folder_of(&[&copies[..], &[("yellow.png", YELLOW), ("blue.png", BLUE)]].concat());
    let corpus = Corpus::open(folder.path(), &MeanColour::default()).unwrap();
    let query = Query::new().with_liked(embedding([1.0, 0.2, 0.0]), 1.0);
    assert_eq!(names(&corpus, &query, 3), ["1.png", "2.png", "3.png"]);
    assert_eq!(names(&corpus, &query.clone().with_mmr_lambda(1.0), 3), ["1.png", "2.png", "3.png"]);
    let diverse = query.with_mmr_lambda(0.5);
    assert_eq!(names(&corpus, &diverse, 1), ["1.png"]);
    assert_eq!(names(&corpus, &diverse, 3), ["1.png", "yellow.png", "blue.png"]);
    assert_eq!(names(&corpus, &diverse, 9).len(), 5);
}

#[test]
fn excluded_images_and_their_copies_are_no_candidates() {
    let folder = folder_of(&[("red.png", RED), ("copy.png", RED), ("orange.png", ORANGE), ("blue.png", BLUE)]);
    let corpus = Corpus::open(folder.path(), &MeanColour::default()).unwrap();
    let hash = |colour| Image::filled(8, 8, colour).unwrap().content_hash();
    assert_eq!(names(&corpus, &near_red(), 2), ["copy.png", "red.png"]);
    let query = near_red().without([hash(RED)]);
    assert_eq!(names(&corpus, &query, 9), ["orange.png", "blue.png"]);
    assert_eq!(names(&corpus, &query.clone().with_mmr_lambda(0.5), 1), ["orange.png"]);
    assert!(names(&corpus, &query.without([ORANGE, BLUE].map(hash)), 9).is_empty());
    assert_eq!(names(&corpus, &near_red().without([hash(GREEN)]), 9).len(), 4);
}

#[test]
fn a_failure_of_the_device_in_a_query_is_an_error() {
    let folder = folder_of(&[("red.png", RED)]);
    let corpus = Corpus::open(folder.path(), &MeanColour::default()).unwrap();
    let query = near_red().with_wanted(|| panic!("device lost"), 1.0);
    let error = corpus.nearest(&query, 1).unwrap_err();
    assert!(matches!(error, CorpusError::Query(_)) && error.to_string().contains("device lost"), "{error}");
}

#[test]
fn queries_that_cannot_be_answered_are_errors() {
    let folder = folder_of(&[("red.png", RED)]);
    let corpus = Corpus::open(folder.path(), &MeanColour::default()).unwrap();
    let long = Tensor::from_data(TensorData::new(vec![1.0_f32; 4], [1, 4]), &cpu());
    let queries = [
        (Query::new(), "query"),
        (Query::new().with_text(embedding([1.0, 0.0, 0.0]), 0.0), "query"),
        (Query::new().with_text(embedding([1.0, 0.0, 0.0]), -1.0), "weight"),
        (Query::new().with_text(embedding([1.0, 0.0, 0.0]), f64::NAN), "weight"),
        (Query::new().with_liked(long, 1.0), "length"),
        (Query::new().with_disliked(embedding([f32::NAN, 0.0, 0.0]), 1.0), "NaN"),
        (near_red().with_mmr_lambda(1.5), "lambda"),
        (near_red().with_mmr_lambda(f64::NAN), "lambda"),
    ];
    for (query, part) in queries {
        let error = corpus.nearest(&query, 1).unwrap_err();
        assert!(matches!(error, CorpusError::Settings(_)) && error.to_string().contains(part), "{error}");
    }
}

#[test]
fn an_unchanged_corpus_embeds_nothing_the_second_time() {
    let (folder, encoder) = (ten(), MeanColour::default());
    let first = Corpus::open(folder.path(), &encoder).unwrap();
    assert_eq!((encoder.take_count(), first.embedded()), (10, 10));
    let second = Corpus::open(folder.path(), &encoder).unwrap();
    assert_eq!((encoder.take_count(), second.embedded(), second.index_note()), (0, 0, None));
    assert_eq!(first.nearest(&near_red(), 10).unwrap(), second.nearest(&near_red(), 10).unwrap());
}

#[test]
fn an_unchanged_file_is_not_read_and_an_unchanged_index_is_not_written() {
    let (folder, encoder) = (folder_of(&[("a.png", RED), ("b.png", BLUE)]), MeanColour::default());
    let path = folder.path().join("a.png");
    for name in ["a.png", "b.png"] {
        make_older(&folder.path().join(name));
    }
    Corpus::open(folder.path(), &encoder).unwrap();
    let written = fs::metadata(index_of(&folder)).unwrap();
    // No image, but of the same length and time: this shows that the file is not read.
    let metadata = fs::metadata(&path).unwrap();
    fs::write(&path, vec![0_u8; metadata.len() as usize]).unwrap();
    set_modified(&path, metadata.modified().unwrap());
    let corpus = Corpus::open(folder.path(), &encoder).unwrap();
    assert_eq!(corpus.image_count(), 2);
    assert_eq!(fs::metadata(index_of(&folder)).unwrap().modified().unwrap(), written.modified().unwrap());
    // Another time.
    set_modified(&path, metadata.modified().unwrap() - Duration::from_secs(1));
    let corpus = Corpus::open(folder.path(), &encoder).unwrap();
    assert_eq!((corpus.image_count(), corpus.skipped()[0].path.clone()), (1, path));
}

#[test]
fn changed_new_moved_and_removed_files_are_noticed() {
    let images = [("changed.png", RED), ("removed.png", RED), ("kept.png", YELLOW), ("moved.png", ORANGE)];
    let (folder, encoder) = (folder_of(&images), MeanColour::default());
    for (name, _) in images {
        make_older(&folder.path().join(name));
    }
    Corpus::open(folder.path(), &encoder).unwrap();
    assert_eq!(encoder.take_count(), 3, "two files have the same pixels");

    save(folder.path(), "changed.png", BLUE);
    save(folder.path(), "new.png", GREEN);
    fs::remove_file(folder.path().join("removed.png")).unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::rename(folder.path().join("moved.png"), folder.path().join("sub/moved.png")).unwrap();
    let corpus = Corpus::open(folder.path(), &encoder).unwrap();
    assert_eq!(encoder.take_count(), 2);
    assert_eq!(names(&corpus, &near_red(), 9), ["sub/moved.png", "kept.png", "changed.png", "new.png"]);

    let corpus = Corpus::open(folder.path(), &encoder).unwrap();
    assert_eq!((encoder.take_count(), corpus.image_count()), (0, 4));
    // The embedding of the removed image was dropped from the index.
    save(folder.path(), "removed.png", RED);
    Corpus::open(folder.path(), &encoder).unwrap();
    assert_eq!(encoder.take_count(), 1);
}

#[cfg(unix)]
#[test]
fn files_that_cannot_be_read_keep_their_embeddings_in_the_index() {
    use std::os::unix::fs::symlink;
    let (folder, encoder) = (ten(), MeanColour::default());
    let path = folder.path().join("9.png");
    Corpus::open(folder.path(), &encoder).unwrap();
    assert_eq!(encoder.take_count(), 10);

    // A link to itself cannot be read, not even by root. The new files ensure that the index is written.
    save(folder.path(), "new.png", BLUE);
    let corpus = Corpus::open_with(folder.path(), &encoder, &CorpusOptions::default(), |progress| {
        if progress.read == 4 {
            fs::remove_file(&path).unwrap();
            symlink("9.png", &path).unwrap();
        }
        ControlFlow::Continue(())
    });
    let corpus = corpus.unwrap();
    assert_eq!((encoder.take_count(), corpus.image_count(), corpus.skipped().len()), (1, 10, 1));
    assert!(matches!(corpus.skipped()[0].error, CorpusError::Image(ImageError::Read { .. })));
    save(folder.path(), "newer.png", GREEN);
    let corpus = Corpus::open(folder.path(), &encoder).unwrap();
    assert_eq!((encoder.take_count(), corpus.image_count(), corpus.skipped().len()), (1, 11, 1));

    fs::remove_file(&path).unwrap();
    save(folder.path(), "9.png", [200, 9, 0]);
    let corpus = Corpus::open(folder.path(), &encoder).unwrap();
    assert_eq!((encoder.take_count(), corpus.image_count()), (0, 12));
}

#[cfg(unix)]
#[test]
fn folders_that_cannot_be_read_keep_their_embeddings_in_the_index() {
    use std::os::unix::fs::symlink;
    let images = [("a.png", RED), ("sub/b.png", BLUE), ("sub/deep/c.png", GREEN)];
    let (folder, encoder) = (folder_of(&images), MeanColour::default());
    let (sub, aside) = (folder.path().join("sub"), tempfile::tempdir().unwrap());
    Corpus::open(folder.path(), &encoder).unwrap();
    assert_eq!(encoder.take_count(), 3);
    // A link to itself, and a link to nothing.
    for (target, red) in [("sub", 1), ("missing", 2)] {
        fs::rename(&sub, aside.path().join("sub")).unwrap();
        symlink(target, &sub).unwrap();
        save(folder.path(), &format!("{red}.png"), [red, 0, 0]);
        let corpus = Corpus::open(folder.path(), &encoder).unwrap();
        assert_eq!((encoder.take_count(), corpus.image_count()), (1, 1 + usize::from(red)));
        fs::remove_file(&sub).unwrap();
        fs::rename(aside.path().join("sub"), &sub).unwrap();
        let corpus = Corpus::open(folder.path(), &encoder).unwrap();
        assert_eq!((encoder.take_count(), corpus.image_count()), (0, 3 + usize::from(red)));
    }
}

#[test]
fn empty_folders_keep_their_embeddings_in_the_index() {
    let images = [("a.png", RED), ("sub/b.png", BLUE), ("sub/deep/c.png", GREEN), ("submarine.png", ORANGE)];
    let (folder, encoder) = (folder_of(&images), MeanColour::default());
    let (sub, aside) = (folder.path().join("sub"), tempfile::tempdir().unwrap());
    Corpus::open(folder.path(), &encoder).unwrap();
    assert_eq!(encoder.take_count(), 4);

    fs::rename(&sub, aside.path().join("sub")).unwrap();
    fs::create_dir(&sub).unwrap();
    fs::remove_file(folder.path().join("submarine.png")).unwrap();
    save(folder.path(), "new.png", YELLOW);
    let corpus = Corpus::open(folder.path(), &encoder).unwrap();
    assert_eq!((encoder.take_count(), corpus.image_count()), (1, 2));

    fs::remove_dir(&sub).unwrap();
    fs::rename(aside.path().join("sub"), &sub).unwrap();
    save(folder.path(), "submarine.png", ORANGE);
    let corpus = Corpus::open(folder.path(), &encoder).unwrap();
    assert_eq!((encoder.take_count(), corpus.image_count()), (1, 5), "the embedding of a deleted file was dropped");
}

#[test]
fn an_index_stays_if_no_image_can_be_used() {
    let (folder, encoder) = (folder_of(&[("red.png", RED)]), MeanColour::default());
    let (elsewhere, image) = (tempfile::tempdir().unwrap(), folder.path().join("red.png"));
    let options = CorpusOptions::default().with_index(elsewhere.path().join("index"));
    let open = || Corpus::open_with(folder.path(), &encoder, &options, |_| ControlFlow::Continue(()));
    open().unwrap();
    let index = || fs::read(elsewhere.path().join("index")).unwrap();
    let good = index();
    fs::remove_file(&image).unwrap();
    assert!(matches!(open(), Err(CorpusError::NoImages { .. })));
    assert!(index() == good, "an empty folder");
    fs::write(image, "not an image").unwrap();
    assert!(matches!(open(), Err(CorpusError::NoImages { .. })));
    assert!(index() == good, "a folder with a damaged file");
}

#[test]
fn equal_images_are_embedded_once() {
    let (folder, encoder) = (tempfile::tempdir().unwrap(), MeanColour::default());
    for at in 0..9 {
        save(folder.path(), &format!("{at}.png"), RED);
    }
    let options = CorpusOptions::default().with_batch(2);
    let corpus = Corpus::open_with(folder.path(), &encoder, &options, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((encoder.take_count(), corpus.embedded(), corpus.image_count()), (1, 1, 9));
}

#[test]
fn a_damaged_index_is_replaced_with_a_note() {
    let (folder, encoder) = (ten(), MeanColour::default());
    Corpus::open(folder.path(), &encoder).unwrap();
    let path = index_of(&folder);
    let good = fs::read(&path).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let mut damaged =
        vec![Vec::new(), b"not an index".to_vec(), good[..good.len() / 2].to_vec(), [&good[..], &[0]].concat()];
    // The header, the embeddings, the fingerprint and the list of files are all covered by the digest.
    damaged.extend((0..good.len()).step_by(97).map(flipped));
    for (at, bytes) in damaged.iter().enumerate() {
        encoder.take_count();
        fs::write(&path, bytes).unwrap();
        let corpus = Corpus::open(folder.path(), &encoder).unwrap();
        assert_eq!((encoder.take_count(), corpus.image_count()), (10, 10), "case {at}");
        assert!(corpus.index_note().unwrap().contains(INDEX_NAME), "case {at}");
        let again = Corpus::open(folder.path(), &encoder).unwrap();
        assert_eq!((encoder.take_count(), again.index_note()), (0, None), "case {at}");
    }
}

#[test]
fn an_index_of_another_encoder_is_not_used() {
    let (folder, encoder) = (folder_of(&[("red.png", RED), ("blue.png", BLUE)]), MeanColour::default());
    let reversed = MeanColour { is_reversed: true, ..MeanColour::default() };
    Corpus::open(folder.path(), &encoder).unwrap();
    let first = fs::read(index_of(&folder)).unwrap();
    let corpus = Corpus::open(folder.path(), &reversed).unwrap();
    assert_eq!(reversed.take_count(), 2);
    let note = corpus.index_note().unwrap();
    let old = folder.path().join(format!("{INDEX_NAME}.old"));
    assert!(note.contains("another encoder") && note.contains(old.to_str().unwrap()), "{note}");
    assert_eq!(fs::read(old).unwrap(), first, "the index of the first encoder");
    assert_eq!(names(&corpus, &near_red(), 1), ["blue.png"], "embeddings of the other encoder");

    // With a path for each encoder, none replaces the index of the other.
    let options = CorpusOptions::default().with_index(folder.path().join("first.index"));
    encoder.take_count();
    for expected in [2, 0] {
        Corpus::open_with(folder.path(), &encoder, &options, |_| ControlFlow::Continue(())).unwrap();
        Corpus::open(folder.path(), &reversed).unwrap();
        assert_eq!(encoder.take_count(), expected);
    }
    assert_eq!(reversed.embedded.get(), 2 * PROBE_COUNT);
}

#[test]
fn files_that_cannot_be_used_are_listed_with_their_errors() {
    let folder = folder_of(&[("good.png", RED), ("white.png", [255; 3])]);
    let at = |name: &str| folder.path().join(name);
    fs::write(at("empty.jpeg"), []).unwrap();
    fs::write(at("text.webp"), "not an image").unwrap();
    File::create(at("huge.png")).unwrap().set_len(1 << 30).unwrap();
    let whole = fs::read(at("good.png")).unwrap();
    fs::write(at("cut.png"), &whole[..whole.len() / 2]).unwrap();

    let encoder = MeanColour { fails_on_white: true, ..MeanColour::default() };
    let corpus = Corpus::open(folder.path(), &encoder).unwrap();
    let skipped: Vec<PathBuf> = corpus.skipped().iter().map(|skipped| skipped.path.clone()).collect();
    assert_eq!(skipped, ["cut.png", "empty.jpeg", "huge.png", "text.webp", "white.png"].map(at));
    assert!(matches!(corpus.skipped()[2].error, CorpusError::Image(ImageError::FileSize { .. })));
    assert!(matches!(corpus.skipped()[3].error, CorpusError::Image(ImageError::Format { .. })));
    assert!(matches!(corpus.skipped()[4].error, CorpusError::NotFinite { .. }));
    assert_eq!(names(&corpus, &near_red(), 9), ["good.png"]);
}

#[test]
fn a_folder_without_usable_images_is_an_error() {
    let (folder, encoder) = (tempfile::tempdir().unwrap(), MeanColour::default());
    let error = Corpus::open(folder.path(), &encoder).unwrap_err();
    assert!(matches!(error, CorpusError::NoImages { ref skipped, .. } if skipped.is_empty()), "{error}");
    for name in ["a.png", "b.png", "c.png", "d.png"] {
        fs::write(folder.path().join(name), "not an image").unwrap();
    }
    let error = Corpus::open(folder.path(), &encoder).unwrap_err().to_string();
    assert!(error.contains("4 skipped") && error.contains("a.png") && error.contains("and so on"), "{error}");

    let error = Corpus::open(folder.path().join("missing"), &encoder).unwrap_err();
    assert!(matches!(error, CorpusError::Folder { .. }), "{error}");
    let error = Corpus::open(folder.path().join("a.png"), &encoder).unwrap_err();
    assert!(matches!(error, CorpusError::NotAFolder { .. }), "{error}");
}

#[test]
fn what_cannot_succeed_fails_before_images_are_embedded() {
    let (folder, encoder) = (ten(), MeanColour::default());
    let open = |options: &CorpusOptions| {
        let opened = Corpus::open_with(folder.path(), &encoder, options, |_| ControlFlow::Continue(()));
        assert_eq!(encoder.take_count(), 0);
        opened.unwrap_err()
    };
    let options = CorpusOptions::default();
    assert!(matches!(open(&options.clone().with_batch(0)), CorpusError::Settings(_)));
    assert!(matches!(open(&options.clone().with_save_every(0)), CorpusError::Settings(_)));
    let error = open(&options.clone().with_index(folder.path().join("missing/index")));
    assert!(matches!(error, CorpusError::Index { .. }), "{error}");
    assert!(error.to_string().contains("CorpusOptions::index"), "{error}");
    assert!(matches!(open(&options.with_index(folder.path())), CorpusError::Index { .. }));

    let encoder = MeanColour { has_no_projection: true, ..MeanColour::default() };
    assert!(matches!(Corpus::open(folder.path(), &encoder), Err(CorpusError::NoProjection)));
    assert_eq!(encoder.embedded.get(), 0);
}

#[cfg(unix)]
#[test]
fn symbolic_links_are_followed_and_loops_end() {
    use std::os::unix::fs::symlink;
    let folder = folder_of(&[("sub/a.png", RED), ("sub/deep/b.png", RED)]);
    let other = folder_of(&[("c.png", RED)]);
    let at = |name: &str| folder.path().join(name);
    symlink("..", at("sub/loop")).unwrap();
    symlink("self", at("self")).unwrap();
    symlink("sub/deep", at("a link to deep")).unwrap();
    symlink(other.path(), at("other")).unwrap();
    symlink("missing.png", at("broken.png")).unwrap();
    let corpus = Corpus::open(folder.path(), &MeanColour::default()).unwrap();
    assert_eq!(names(&corpus, &near_red(), 9), ["other/c.png", "sub/a.png", "sub/deep/b.png"]);
    assert!(corpus.skipped().is_empty());
}

#[cfg(target_os = "linux")]
#[test]
fn files_with_names_that_are_not_unicode_are_embedded_once() {
    use std::os::unix::ffi::OsStrExt;
    let (folder, encoder) = (folder_of(&[("a.png", RED), ("b.png", BLUE)]), MeanColour::default());
    for (from, to) in [("a.png", b"\xfe.png"), ("b.png", b"\xff.png")] {
        fs::rename(folder.path().join(from), folder.path().join(std::ffi::OsStr::from_bytes(to))).unwrap();
    }
    for expected in [2, 0] {
        let corpus = Corpus::open(folder.path(), &encoder).unwrap();
        assert_eq!((encoder.take_count(), corpus.image_count()), (expected, 2));
        assert!(corpus.nearest(&near_red(), 1).unwrap()[0].open().is_ok());
    }
}

#[test]
fn progress_is_reported_and_a_cancelled_opening_keeps_what_was_embedded() {
    let (folder, encoder) = (ten(), MeanColour::default());
    let options = CorpusOptions::default().with_batch(2);
    let mut seen = Vec::new();
    let cancelled = Corpus::open_with(folder.path(), &encoder, &options, |progress| {
        seen.push((progress.read, progress.total, progress.embedded));
        if progress.embedded >= 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(cancelled, Err(CorpusError::Cancelled { embedded: 4, remaining: 6 })), "{cancelled:?}");
    assert_eq!(seen, [(4, 10, 4)]);
    assert_eq!(encoder.take_count(), 4);
    let corpus = Corpus::open(folder.path(), &encoder).unwrap();
    assert_eq!((encoder.take_count(), corpus.image_count()), (6, 10));
}

#[test]
fn a_failure_of_the_encoder_or_the_observer_keeps_what_was_embedded() {
    let folder = ten();
    save(folder.path(), "9.png", BLUE);
    let options = CorpusOptions::default().with_batch(1);
    let failing = MeanColour { panics_on_blue: true, ..MeanColour::default() };
    let error = Corpus::open_with(folder.path(), &failing, &options, |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(error, CorpusError::Encoder(_)) && error.to_string().contains("out of memory"), "{error}");
    let encoder = MeanColour::default();
    // The order of reading is that of the names.
    assert_eq!(Corpus::open(folder.path(), &encoder).unwrap().embedded(), 1);

    let folder = ten();
    let error = Corpus::open_with(folder.path(), &encoder, &options, |_| panic!("no terminal")).unwrap_err();
    assert!(matches!(error, CorpusError::Callback { .. }) && error.to_string().contains("no terminal"), "{error}");
    assert_eq!(Corpus::open(folder.path(), &encoder).unwrap().embedded(), 6);
}

#[test]
fn an_error_is_returned_although_saving_fails_too() {
    let (folder, encoder, elsewhere) = (ten(), MeanColour::default(), tempfile::tempdir().unwrap());
    let place = elsewhere.path().join("gone");
    fs::create_dir(&place).unwrap();
    let options = CorpusOptions::default().with_batch(1).with_index(place.join("index"));
    let opened = Corpus::open_with(folder.path(), &encoder, &options, |_| {
        fs::remove_dir_all(&place).unwrap();
        ControlFlow::Break(())
    });
    let error = opened.unwrap_err();
    let message = error.to_string();
    assert!(message.contains("cancelled") && message.contains("saving"), "{message}");
    let CorpusError::NotSaved { first, .. } = error else { panic!("{message}") };
    assert!(matches!(*first, CorpusError::Cancelled { embedded: 4, .. }), "{first}");
}

#[test]
fn a_killed_opening_loses_only_what_was_embedded_since_the_last_save() {
    let (folder, encoder) = (ten(), MeanColour::default());
    let index = index_of(&folder);
    // The index of an earlier opening, of which one file was moved.
    let elsewhere = folder.path().join("moved");
    fs::create_dir(&elsewhere).unwrap();
    save(folder.path(), "z.png", BLUE);
    Corpus::open(folder.path(), &encoder).unwrap();
    fs::rename(folder.path().join("z.png"), elsewhere.join("z.png")).unwrap();
    for at in 0..10_u8 {
        save(folder.path(), &format!("{at}.png"), [at, 200, 0]);
    }
    encoder.take_count();

    // A copy of the index in the middle is what a killed process leaves.
    let left = folder.path().join("left.index");
    let options = CorpusOptions::default().with_batch(2).with_save_every(3);
    Corpus::open_with(folder.path(), &encoder, &options, |progress| {
        if progress.read == 4 {
            fs::copy(&index, &left).unwrap();
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(encoder.take_count(), 10);
    let options = CorpusOptions::default().with_index(&left);
    let corpus = Corpus::open_with(folder.path(), &encoder, &options, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((encoder.take_count(), corpus.image_count()), (6, 11));
}

#[test]
fn a_file_that_vanishes_during_the_opening_is_dropped() {
    let (folder, encoder) = (ten(), MeanColour::default());
    let corpus = Corpus::open_with(folder.path(), &encoder, &CorpusOptions::default(), |progress| {
        if progress.read == 4 {
            fs::remove_file(folder.path().join("9.png")).unwrap();
        }
        ControlFlow::Continue(())
    });
    let corpus = corpus.unwrap();
    assert_eq!((corpus.image_count(), corpus.skipped().len()), (9, 0));
}

#[test]
fn a_candidate_that_is_gone_or_changed_is_an_error() {
    let folder = folder_of(&[("red.png", RED)]);
    let corpus = Corpus::open(folder.path(), &MeanColour::default()).unwrap();
    let candidate = corpus.nearest(&near_red(), 1).unwrap().remove(0);
    assert_eq!(candidate.open().unwrap(), Image::filled(8, 8, RED).unwrap());
    save(folder.path(), "red.png", BLUE);
    assert!(matches!(candidate.open(), Err(CorpusError::Changed { .. })));
    fs::write(&candidate.path, "not an image").unwrap();
    assert!(matches!(candidate.open(), Err(CorpusError::Image(_))));
    fs::remove_file(&candidate.path).unwrap();
    assert!(matches!(candidate.open(), Err(CorpusError::Gone { .. })));
}

#[test]
fn clip_finds_an_image_by_its_embedding_and_another_clip_has_its_own_index() {
    let config = ClipVisionConfig {
        hidden_size: 12,
        intermediate_size: 20,
        projection_dim: 7,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        image_size: 8,
        patch_size: 4,
        ..Default::default()
    };
    let folder = folder_of(&[("red.png", RED), ("green.png", GREEN), ("blue.png", BLUE)]);
    let [one, other] = [(); 2].map(|()| config.init(&cpu()).unwrap());
    let corpus = Corpus::open(folder.path(), &one).unwrap();
    let green = one.image_embeddings(&[Image::filled(8, 8, GREEN).unwrap()]).unwrap();
    let nearest = corpus.nearest(&Query::new().with_liked(green, 1.0), 1).unwrap().remove(0);
    assert_eq!(nearest.path, folder.path().join("green.png"));
    assert!((nearest.score - 1.0).abs() < 1e-4, "{nearest:?}");

    let again = Corpus::open(folder.path(), &one).unwrap();
    assert_eq!((again.embedded(), again.index_note()), (0, None));
    let corpus = Corpus::open(folder.path(), &other).unwrap();
    assert!(corpus.embedded() == 3 && corpus.index_note().is_some());
}
