use std::path::{Path, PathBuf};

use burn::module::Module;
use serde_json::{Map, Value, json};

use super::sharded::is_plain_file_name;
use super::write::{Partial, write_json};
use super::{Component, LoadError, PublishedNames, SaveOptions, save_component};

/// Writes a whole model in the diffusers layout: beside its place, renamed when it is complete.
///
/// Dropping it before [`FolderWriter::finish`] removes what was written.
#[derive(Debug)]
pub struct FolderWriter {
    path: PathBuf,
    partial: Partial,
    index: Map<String, Value>,
}

impl FolderWriter {
    /// Begins a folder that must not exist yet (or be empty).
    ///
    /// `pipeline` is the class that `model_index.json` names, such as `StableDiffusionPipeline`.
    ///
    /// # Errors
    ///
    /// When something is there already, or the folder cannot be made.
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
    /// As [`save_component`].
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

    /// Adds the scheduler's settings; their `_class_name` goes into the index.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
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
    /// When a file cannot be copied.
    pub fn tokenizer(&mut self, encoder: Component, from: impl AsRef<Path>) -> Result<&mut Self, LoadError> {
        let name = if encoder == Component::TextEncoder2 { "tokenizer_2" } else { "tokenizer" };
        let folder = self.subfolder(name)?;
        let from = from.as_ref();
        let entries = std::fs::read_dir(from).map_err(|error| LoadError::io(from, "list", error))?;
        for entry in entries {
            let entry = entry.map_err(|error| LoadError::io(from, "list", error))?.path();
            if let Some(name) = entry.file_name().filter(|_| entry.is_file()) {
                std::fs::copy(&entry, folder.join(name)).map_err(|error| LoadError::io(&entry, "copy", error))?;
            }
        }
        self.list(name, ["transformers", "CLIPTokenizer"]);
        Ok(self)
    }

    /// Adds a plain setting to the index, such as `force_zeros_for_empty_prompt`.
    pub fn setting(&mut self, name: &str, value: Value) -> &mut Self {
        self.index.insert(name.to_owned(), value);
        self
    }

    /// Adds a file of one's own at the top of the folder, such as a licence or a note where the model is from.
    ///
    /// # Errors
    ///
    /// When the name is more than a file name, or the file cannot be written.
    pub fn file(&mut self, name: &str, contents: &[u8]) -> Result<&mut Self, LoadError> {
        let path = self.partial.path().join(name);
        if !is_plain_file_name(name) {
            let next = "leave folders out of it";
            return Err(LoadError::malformed(&path, "name", format!("`{name}`"), "a plain file name", next));
        }
        std::fs::write(&path, contents).map_err(|error| LoadError::io(&path, "write", error))?;
        Ok(self)
    }

    /// Writes the index and puts the folder into its place.
    ///
    /// # Errors
    ///
    /// When that fails; what was written is removed.
    pub fn finish(self) -> Result<(), LoadError> {
        write_json(&self.partial.path().join("model_index.json"), &Value::Object(self.index))?;
        self.partial.rename(&self.path)
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
