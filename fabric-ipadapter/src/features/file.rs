//! Storage of features, so that images are encoded only once.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use fabric_models::load::{Dtype, HostTensor, LoadDtype, SafetensorsFile, TensorInfo, TensorSource, write_safetensors};

use super::Features;
use crate::AdapterError;
use fabric_core::InvalidValue;

impl Features {
    /// Writes the features to a `.safetensors` file in f32, with the tensors `pooled`, `tokens`, `identities`,
    /// `prompt` and `instruction` as far as present. They are saved before the adapter's projection, so one
    /// file works with all adapters that expect this kind.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), AdapterError> {
        let tensors: BTreeMap<String, HostTensor> =
            self.named().into_iter().map(|(name, x)| (name.to_owned(), x)).collect();
        let listed: Vec<(String, TensorInfo)> =
            tensors.iter().map(|(name, tensor)| (name.clone(), tensor.info.clone())).collect();
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        write_safetensors(path, &metadata, &listed, |name| Ok(tensors[name].clone()))?;
        Ok(())
    }

    /// Reads a file written by [`Self::save`].
    ///
    /// # Errors
    ///
    /// Returns an error if the file does not exist or has other contents.
    pub fn open(path: impl AsRef<Path>, device: &Device) -> Result<Self, AdapterError> {
        let file = SafetensorsFile::open(path)?;
        let names: Vec<&str> = file.tensors().keys().map(String::as_str).collect();
        let features = match names[..] {
            ["pooled"] => Self::Pooled(read(&file, "pooled", device)?),
            ["tokens"] => Self::Tokens(read(&file, "tokens", device)?),
            ["identities"] => Self::Face(read(&file, "identities", device)?),
            ["identities", "tokens"] => Self::FaceAndTokens {
                identities: read(&file, "identities", device)?,
                tokens: read(&file, "tokens", device)?,
            },
            ["instruction", "prompt", "tokens"] => Self::Instructed {
                tokens: read(&file, "tokens", device)?,
                prompt: read(&file, "prompt", device)?,
                instruction: read(&file, "instruction", device)?,
            },
            _ => {
                let shown = names.iter().take(3).copied().collect::<Vec<_>>().join(", ");
                return Err(not_features(&file, "names of tensors", format!("`{shown}`"), "one set of saved features"));
            }
        };
        features.check_rows()?;
        Ok(features)
    }

    fn named(&self) -> Vec<(&'static str, HostTensor)> {
        match self {
            Self::Pooled(x) => vec![("pooled", host(x))],
            Self::Tokens(x) => vec![("tokens", host(x))],
            Self::Face(x) => vec![("identities", host(x))],
            Self::FaceAndTokens { identities, tokens } => {
                vec![("identities", host(identities)), ("tokens", host(tokens))]
            }
            Self::Instructed { tokens, prompt, instruction } => {
                vec![("tokens", host(tokens)), ("prompt", host(prompt)), ("instruction", host(instruction))]
            }
        }
    }
}

fn host<const D: usize>(x: &Tensor<D>) -> HostTensor {
    let info = TensorInfo { dtype: Dtype::F32, shape: x.dims().to_vec() };
    HostTensor { info, bytes: x.clone().into_data().iter::<f32>().flat_map(f32::to_le_bytes).collect() }
}

fn read<const D: usize>(file: &SafetensorsFile, name: &str, device: &Device) -> Result<Tensor<D>, AdapterError> {
    let shape = &file.tensors()[name].shape;
    if shape.len() != D || shape.contains(&0) {
        let expected = format!("{D} axes, none of them empty");
        return Err(not_features(file, &format!("shape of tensor `{name}`"), format!("{shape:?}"), &expected));
    }
    let data = file.read(name)?.into_data(LoadDtype::F32, true, &file.place(), name)?;
    Ok(Tensor::from_data(data, device))
}

fn not_features(file: &SafetensorsFile, what: &str, got: String, expected: &str) -> AdapterError {
    AdapterError::Setting(InvalidValue {
        what: format!("{}: {what}", file.place()),
        got,
        expected: expected.to_owned(),
        help: "save features with `Features::save`, or open an adapter with `IpAdapter::open`".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_come_back_as_they_were_and_other_files_are_refused() {
        let device = fabric_backends::default_device().expect("a device");
        let folder = std::env::temp_dir().join(format!("fabric-features-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("features.safetensors");
        let some = |shape: [usize; 3]| {
            let count = shape.iter().product::<usize>() as i64;
            Tensor::<1, burn::tensor::Int>::arange(0..count, &device).float().reshape(shape).sin()
        };
        let flat = || some([2, 5, 1]).reshape([2, 5]);
        let all = [
            Features::Pooled(flat()),
            Features::Tokens(some([2, 3, 5])),
            Features::Face(flat()),
            Features::FaceAndTokens { identities: flat(), tokens: some([2, 3, 5]) },
            Features::Instructed { tokens: some([2, 3, 5]), prompt: some([2, 4, 6]), instruction: some([2, 4, 6]) },
        ];
        for features in all {
            features.save(&path).expect("saved");
            let again = Features::open(&path, &device).expect("opened");
            assert_eq!(again.kind(), features.kind());
            assert_eq!(again.named(), features.named());
        }
        let foreign = TensorInfo { dtype: Dtype::F32, shape: vec![1] };
        let tensor = HostTensor { info: foreign.clone(), bytes: vec![0; 4] };
        for (name, word) in [("image_proj.proj.weight", "names of tensors"), ("pooled", "shape of tensor `pooled`")] {
            let listed = [(name.to_owned(), foreign.clone())];
            write_safetensors(&path, &BTreeMap::new(), &listed, |_| Ok(tensor.clone())).expect("written");
            let message = Features::open(&path, &device).expect_err("other tensors").to_string();
            assert!(message.contains(word) && message.contains("expected"), "{message}");
        }
        std::fs::remove_dir_all(folder).expect("removed");
    }
}
