//! Where the demonstration model lies.

use std::path::{Path, PathBuf};

use super::ModelError;

/// Names the folder of the demonstration model, before all other places.
const VARIABLE: &str = "FABRIC_DEMO";

/// Where it lies in the library's repository.
const FOLDER: &str = "models/world";

/// The folder of the demonstration model, a small world of 64x64 images that this library's own trainer made.
///
/// It is what `FABRIC_DEMO` names; or `models/world` beneath the working directory or one of its parents; or where this
/// crate was built.
///
/// # Errors
///
/// [`ModelError::NoDemo`] when it is nowhere.
pub fn demo_folder() -> Result<PathBuf, ModelError> {
    if let Some(named) = std::env::var_os(VARIABLE) {
        return first_model(vec![named.into()]);
    }
    let here = std::env::current_dir().unwrap_or_default();
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).parent().filter(|built| !here.starts_with(built));
    first_model(here.ancestors().chain(built).map(|place| place.join(FOLDER)).collect())
}

fn first_model(places: Vec<PathBuf>) -> Result<PathBuf, ModelError> {
    let got = places.iter().find(|place| place.join("model_index.json").is_file()).cloned();
    got.ok_or(ModelError::NoDemo { places })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_with_a_model_counts() {
        let place = tempfile::tempdir().expect("a folder");
        let folders = ["a", "b", "c"].map(|name| place.path().join(name));
        folders.iter().for_each(|folder| std::fs::create_dir(folder).expect("a folder"));
        let message = first_model(folders.to_vec()).expect_err("no model").to_string();
        assert!(message.contains("model_index.json") && message.contains(VARIABLE), "{message}");
        folders[1..].iter().for_each(|folder| std::fs::write(folder.join("model_index.json"), "{}").expect("a file"));
        assert_eq!(first_model(folders.to_vec()).expect("a model"), folders[1]);
    }
}
