//! Location of the demonstration model.

use std::path::{Path, PathBuf};

use super::ModelError;

/// Environment variable with the folder of the demonstration model; takes precedence over all other locations.
const VARIABLE: &str = "FABRIC_DEMO";

/// Path of the model in this library's repository.
const FOLDER: &str = "models/world";

/// Returns the folder of the demonstration model, a small model of 64x64 images trained with this library.
///
/// The folder is, in this order: the value of `FABRIC_DEMO`; `models/world` in the working directory or one of its
/// parents; `models/world` in the repository in which this crate was built.
///
/// # Errors
///
/// Returns [`ModelError::NoDemo`] if none of these folders holds a model.
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
