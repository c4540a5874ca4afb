//! The IP-Adapter of an example, with its image encoder: by default those in the model's folder.

use std::error::Error;
use std::path::PathBuf;

use burn::tensor::Device;
use clap::Args;
use fabric::ipadapter::IpAdapter;
use fabric::models::clip::ClipVision;

use super::Common;

/// File of the adapter for images without an instruction, relative to the model's folder.
pub(crate) const PLUS: &str = "ip_adapter/plus.safetensors";

/// File of the Instruct adapter, relative to the model's folder.
pub(crate) const INSTRUCT: &str = "ip_adapter/instruct.safetensors";

/// Options for the files of an IP-Adapter and its image encoder.
#[derive(Args)]
pub(crate) struct AdapterFiles {
    /// File of the adapter. Default: in the folder `ip_adapter` of the model, `instruct.safetensors` for instructions
    /// and reasons, and `plus.safetensors` without them.
    #[arg(long)]
    adapter: Option<PathBuf>,
    /// Folder of the image encoder. Default: `image_encoder` in the model's folder.
    #[arg(long)]
    encoder: Option<PathBuf>,
}

impl AdapterFiles {
    /// Opens the adapter and its image encoder. `default` is the adapter's file in the model's folder, which is used
    /// without `--adapter`.
    pub(crate) fn open(&self, common: &Common, default: &str, device: &Device) -> Result<IpAdapter, Box<dyn Error>> {
        let model = common.model()?;
        let adapter = self.adapter.clone().unwrap_or_else(|| model.join(default));
        if self.adapter.is_none() && !adapter.is_file() {
            let (place, next) = (adapter.display(), "give a file with --adapter, or a model folder that has this one");
            return Err(format!("--adapter: expected {place}, which is the default, got no such file; {next}").into());
        }
        let encoder = self.encoder.clone().unwrap_or_else(|| model.join("image_encoder"));
        Ok(IpAdapter::open(adapter, device)?.with_encoder(ClipVision::open(encoder, device)?))
    }
}
