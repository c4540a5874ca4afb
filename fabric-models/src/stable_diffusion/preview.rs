//! The tiny autoencoder that decodes previews.

use std::path::Path;

use fabric_core::InvalidValue;

use super::{ModelError, name_of};
use crate::load::{Family, LoadError};
use crate::tiny_vae::{TinyAutoencoderFiles, TinyDecoder};

/// Decoder for previews, with its name for reports.
#[derive(Debug, Clone)]
pub struct PreviewDecoder {
    /// Name of its folder or file.
    pub name: String,
    /// The decoder of a tiny autoencoder.
    pub network: TinyDecoder,
}

/// Opens a tiny autoencoder for a model of this family.
pub(super) fn open(path: &Path, family: Family) -> Result<TinyAutoencoderFiles, ModelError> {
    check_name(path, family)?;
    TinyAutoencoderFiles::open(path)
}

/// Refuses the published files of another family. Those of Stable Diffusion 1 and XL have the same shapes, so only
/// their names tell them apart; a file or folder with another name is taken as it is.
fn check_name(path: &Path, family: Family) -> Result<(), LoadError> {
    let name = name_of(path).to_lowercase();
    let Some(at) = name.find("taesd") else { return Ok(()) };
    let is_xl = name[at..].starts_with("taesdxl");
    if is_xl == (family == Family::Sdxl) {
        return Ok(());
    }
    let got = if is_xl { "that of Stable Diffusion XL" } else { "that of Stable Diffusion 1 and 2" };
    let expected = if is_xl { "taesd" } else { "taesdxl" };
    Err(LoadError::WrongFamily {
        place: path.display().to_string(),
        value: InvalidValue::new(
            "tiny autoencoder",
            format!("{got}, by its name"),
            format!("one for {family}"),
            format!("give the files of `{expected}`"),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_names_of_another_family_are_refused() {
        let refused = |path: &str, family| check_name(Path::new(path), family).err().map(|error| error.to_string());
        for (path, sd1, xl) in [
            ("models/taesd", true, false),
            ("taesd_decoder.safetensors", true, false),
            ("TAESDXL_decoder.pth", false, true),
            ("models/taesdxl", false, true),
            ("models/tiny_vae", true, true),
            ("taesdxl/diffusion_pytorch_model.safetensors", true, true),
        ] {
            assert_eq!(refused(path, Family::Sd1).is_none(), sd1, "{path}");
            assert_eq!(refused(path, Family::Sd2).is_none(), sd1, "{path}");
            assert_eq!(refused(path, Family::Sdxl).is_none(), xl, "{path}");
        }
        let message = refused("taesdxl_decoder.safetensors", Family::Sd1).expect("another family");
        assert!(message.contains("expected one for Stable Diffusion 1, got that of Stable Diffusion XL"), "{message}");
    }
}
