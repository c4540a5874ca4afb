//! The images on the documentation's front page, which are embedded in it because a published crate has no other files.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

#[test]
fn the_front_page_shows_the_images_of_the_readme() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let pages: Vec<_> =
        docs.join("front-page").read_dir().expect("a folder").map(|file| file.expect("a file")).collect();
    assert!(!pages.is_empty());
    for page in pages {
        let text = std::fs::read_to_string(page.path()).expect("a text");
        let (_, data) = text.split_once("](data:image/png;base64,").expect("an embedded image");
        let data = STANDARD.decode(data.trim_end().trim_end_matches(')')).expect("base64");
        let image = docs.join(page.file_name()).with_extension("png");
        let expected = std::fs::read(&image).expect("an image of the README");
        // If they differ, encode the new file: `base64 -w0 docs/NAME.png`.
        assert!(data == expected, "{} has another image than {}", page.path().display(), image.display());
    }
}
