//! Writing of a converted model.

use std::path::Path;

use burn::module::Module;
use serde_json::Value;

use super::source::{Source, TokenizerSource};
use super::{ModelError, ModelReport, NetworkStep, PlannedNetwork, with_network};
use crate::load::{Component, FolderWriter, LoadOptions, PublishedNames, SaveOptions, load_into};
use crate::lora::merge;

/// Writes the folder of a converted model.
pub(super) fn write(source: &Source, networks: &[PlannedNetwork], path: &Path) -> Result<ModelReport, ModelError> {
    let fields = source.index_fields()?;
    let class = fields.get("_class_name").and_then(Value::as_str).unwrap_or("StableDiffusionPipeline");
    let folder = FolderWriter::create(path, class)?;
    let report = ModelReport { family: source.family(), networks: Vec::new(), loras: Vec::new() };
    let mut writer = Writer { source, folder, report };
    for network in networks {
        let component = network.component;
        with_network(component, &source.config(component)?.to_string(), &source.device, &mut writer)?;
        if component.tokenizer_folder_name().is_some() {
            match source.tokenizer(component)? {
                TokenizerSource::Folder(from) => writer.folder.tokenizer(component, from)?,
                TokenizerSource::Files(files) => writer.folder.tokenizer_files(component, &files)?,
            };
        }
    }
    let Writer { mut folder, report, .. } = writer;
    folder.scheduler(&source.scheduler())?;
    for (name, value) in fields {
        folder.setting(&name, value);
    }
    folder.finish()?;
    Ok(report)
}

struct Writer<'a> {
    source: &'a Source,
    folder: FolderWriter,
    report: ModelReport,
}

impl NetworkStep for Writer<'_> {
    fn run<M: Module + PublishedNames>(&mut self, component: Component, network: M) -> Result<(), ModelError> {
        let weights = self.source.weights(component)?;
        let options = LoadOptions::default().with_dtype(self.source.load_dtype(component));
        let (mut network, report) = load_into(network, &*weights, &options)?;
        self.report.networks.push((component.folder_name().to_owned(), report));
        for (lora, scale) in self.source.loras(component) {
            let report;
            (network, report) = merge(network, lora, scale)?;
            self.report.loras.push(report);
        }
        let options = SaveOptions { dtype: self.source.dtype, max_shard_bytes: None };
        self.folder.component(component, &network, &self.source.config(component)?, &options)?;
        Ok(())
    }
}
