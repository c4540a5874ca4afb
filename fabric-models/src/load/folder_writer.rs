use std::path::{Path, PathBuf};

use burn::module::Module;
use serde_json::{Map, Value, json};

use super::sharded::is_plain_file_name;
use super::write::{Partial, write_json, write_text};
use super::{Component, LoadError, PublishedNames, SaveOptions, save_component};

/// Writer for a whole model in the diffusers layout. It writes to a temporary folder, which is renamed when complete.
///
/// Dropping the writer before [`FolderWriter::finish`] removes the temporary folder.
#[derive(Debug)]
pub struct FolderWriter {
    path: PathBuf,
    partial: Partial,
    index: Map<String, Value>,
}

impl FolderWriter {
    /// Starts writing a folder that must not exist or must be empty.
    ///
    /// `pipeline` is the `_class_name` in `model_index.json`, such as `StableDiffusionPipeline`.
    ///
    /// # Errors
    ///
    /// Returns an error if the path exists and is not an empty folder, or the temporary folder cannot be created.
    pub fn create(path: impl AsRef<Path>, pipeline: &str) -> Result<Self, LoadError> {
        let path = path.as_ref();
        let taken = match std::fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_some(),
            Err(_) => path.exists(),
        };
        if taken {
            let next = "choose another folder, or remove this one first";
            return Err(LoadError::malformed(path, "folder to write to", "something there", "nothing", next));
        }
        let partial = Partial::folder_beside(path)?;
        let index = Map::from_iter([("_class_name".to_owned(), json!(pipeline))]);
        Ok(Self { path: path.to_owned(), partial, index })
    }

    /// Adds a network.
    ///
    /// # Errors
    ///
    /// Same as [`save_component`].
    pub fn component<M: Module + PublishedNames>(
        &mut self,
        component: Component,
        module: &M,
        config: &Value,
        options: &SaveOptions,
    ) -> Result<&mut Self, LoadError> {
        save_component(module, self.partial.path().join(component.folder_name()), config, options)?;
        self.list(component.folder_name(), component.python_class());
        Ok(self)
    }

    /// Adds the scheduler configuration; its `_class_name` is written to the index.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be written.
    pub fn scheduler(&mut self, config: &Value) -> Result<&mut Self, LoadError> {
        let class = config["_class_name"].as_str().unwrap_or("PNDMScheduler").to_owned();
        let folder = self.subfolder("scheduler")?;
        write_json(&folder.join("scheduler_config.json"), config)?;
        self.list("scheduler", ["diffusers", &class]);
        Ok(self)
    }

    /// Adds the tokenizer of a text encoder by copying the files of its folder.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be copied.
    pub fn tokenizer(&mut self, encoder: Component, from: impl AsRef<Path>) -> Result<&mut Self, LoadError> {
        let folder = self.tokenizer_folder(encoder)?;
        let from = from.as_ref();
        let entries = std::fs::read_dir(from).map_err(|error| LoadError::io(from, "list", error))?;
        for entry in entries {
            let entry = entry.map_err(|error| LoadError::io(from, "list", error))?.path();
            if let Some(name) = entry.file_name().filter(|_| entry.is_file()) {
                std::fs::copy(&entry, folder.join(name)).map_err(|error| LoadError::io(&entry, "copy", error))?;
            }
        }
        Ok(self)
    }

    /// Adds the tokenizer of a text encoder from the names and texts of its files
    /// ([`ClipTokenizer::to_files`](crate::tokenizer::ClipTokenizer::to_files)).
    ///
    /// # Errors
    ///
    /// Returns an error if a name is not a plain file name, or a file cannot be written.
    pub fn tokenizer_files(&mut self, encoder: Component, files: &[(&str, String)]) -> Result<&mut Self, LoadError> {
        let folder = self.tokenizer_folder(encoder)?;
        for (name, text) in files {
            write_text(&plain_file(&folder, name)?, text)?;
        }
        Ok(self)
    }

    /// Adds a field to `model_index.json`, such as `force_zeros_for_empty_prompt`.
    pub fn setting(&mut self, name: &str, value: Value) -> &mut Self {
        self.index.insert(name.to_owned(), value);
        self
    }

    /// Adds a file at the top of the folder, such as a licence or a model card.
    ///
    /// # Errors
    ///
    /// Returns an error if the name is not a plain file name, or the file cannot be written.
    pub fn file(&mut self, name: &str, contents: &[u8]) -> Result<&mut Self, LoadError> {
        let path = plain_file(self.partial.path(), name)?;
        std::fs::write(&path, contents).map_err(|error| LoadError::io(&path, "write", error))?;
        Ok(self)
    }

    /// Writes `model_index.json` and renames the temporary folder to its target.
    ///
    /// # Errors
    ///
    /// Returns an error if writing or renaming fails; the temporary folder is removed.
    pub fn finish(self) -> Result<(), LoadError> {
        write_json(&self.partial.path().join("model_index.json"), &Value::Object(self.index))?;
        self.partial.rename(&self.path)
    }

    /// Creates the folder of a text encoder's tokenizer and lists it in the index.
    fn tokenizer_folder(&mut self, encoder: Component) -> Result<PathBuf, LoadError> {
        let name = encoder.tokenizer_folder_name().unwrap_or("tokenizer");
        self.list(name, ["transformers", "CLIPTokenizer"]);
        self.subfolder(name)
    }

    fn subfolder(&self, name: &str) -> Result<PathBuf, LoadError> {
        let folder = self.partial.path().join(name);
        std::fs::create_dir_all(&folder).map_err(|error| LoadError::io(&folder, "make the folder", error))?;
        Ok(folder)
    }

    fn list(&mut self, name: &str, class: [&str; 2]) {
        self.index.insert(name.to_owned(), json!(class));
    }
}

/// Returns the path of a file in a folder. The name must not contain other folders.
fn plain_file(folder: &Path, name: &str) -> Result<PathBuf, LoadError> {
    let path = folder.join(name);
    if is_plain_file_name(name) {
        return Ok(path);
    }
    let next = "leave folders out of it";
    Err(LoadError::malformed(&path, "name", format!("`{name}`"), "a plain file name", next))
}
