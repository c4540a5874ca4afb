//! Reading of LoRA files.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use fabric_core::{printable, printable_value};

use super::key::{Key, LoraKey, Role};
use super::metadata::{Found, Scaling};
use super::{Lora, LoraEntry, LoraError, LoraLayout};
use crate::load::{
    Component, Contents, Dtype, HostTensor, LoadDtype, LoadError, SafetensorsFile, TensorSource, open_weights,
};

/// Largest plausible alpha / rank; published files stay below 10.
const LARGEST_FACTOR: f64 = 1e4;

/// Contents of a LoRA file: one [`Lora`] for each network of a model.
#[derive(Debug, Clone)]
pub struct LoraFile {
    /// LoRA of the U-Net.
    pub unet: Lora,
    /// LoRA of the text encoder, or of the first of SDXL's two.
    pub text_encoder: Lora,
    /// LoRA of SDXL's second text encoder.
    pub text_encoder_2: Lora,
}

impl LoraFile {
    /// Reads a file (`.safetensors`, or with the feature `pickle` `.bin` and `.pt`), or a folder in which peft or
    /// diffusers saved a LoRA.
    ///
    /// For peft's files, whose keys begin with `base_model.model.`, the scaling is read from `adapter_config.json` in
    /// the same folder.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be opened, the folder contains no LoRA, peft's settings cannot be read, or
    /// for the reasons of [`LoraFile::read`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LoraError> {
        let path = path.as_ref();
        if path.is_dir() {
            return Self::open(file_in(path)?);
        }
        let is = |extension| path.extension().is_some_and(|got| got.eq_ignore_ascii_case(extension));
        if is("safetensors") || is("sft") {
            let file = SafetensorsFile::open(path)?;
            return Self::read_beside(&file, file.metadata(), path);
        }
        Self::read_beside(&*open_weights(path)?, &BTreeMap::new(), path)
    }

    /// Reads the tensors of a file, with peft's `adapter_config.json` from the same folder if the file is peft's.
    fn read_beside(
        source: &dyn TensorSource,
        metadata: &BTreeMap<String, String>,
        path: &Path,
    ) -> Result<Self, LoraError> {
        let is_pefts = source.tensors().keys().any(|key| key.starts_with(PEFT_PREFIX));
        let adapter_config = if is_pefts { Found::beside(path)? } else { None };
        Self::read_with(source, metadata, adapter_config.as_ref())
    }

    /// Reads a LoRA from a source that is already open. `metadata` is the free-text metadata of its header, in which
    /// newer versions of diffusers store the alphas (`lora_adapter_metadata`), and nowhere else.
    ///
    /// # Errors
    ///
    /// Returns an error if a key is not a LoRA key or belongs to another kind of adaptation, one matrix of a pair is
    /// missing or does not match the other, a value is not finite, or an alpha is out of range.
    pub fn read(source: &dyn TensorSource, metadata: &BTreeMap<String, String>) -> Result<Self, LoraError> {
        Self::read_with(source, metadata, None)
    }

    fn read_with(
        source: &dyn TensorSource,
        metadata: &BTreeMap<String, String>,
        adapter_config: Option<&Found>,
    ) -> Result<Self, LoraError> {
        let mut networks = group(source, adapter_config.and_then(Found::part))?;
        let header = Found::in_header(metadata, &source.place())?;
        let mut lora = |part| -> Result<Lora, LoraError> {
            let scaling = match (&header, adapter_config) {
                (Some(header), _) => Scaling::from_header(header, part)?,
                (None, Some(settings)) => Scaling::from_adapter_config(settings)?,
                (None, None) => Scaling::default(),
            };
            let modules = networks.remove(&part).unwrap_or_default();
            if let Some(settings) = header.as_ref().or(adapter_config) {
                scaling.check_cost(settings, modules.keys())?;
            }
            let reader = Reader { source, scaling, place: source.place() };
            let entries = modules.into_iter().map(|(target, keys)| reader.entry(target, keys));
            Ok(Lora { place: source.place(), part, entries: entries.collect::<Result<_, _>>()?, strict: true })
        };
        Ok(Self {
            unet: lora(Component::UNet)?,
            text_encoder: lora(Component::TextEncoder)?,
            text_encoder_2: lora(Component::TextEncoder2)?,
        })
    }

    /// Returns the LoRA of a network; `None` for networks that LoRA files do not change.
    pub fn part(&self, component: Component) -> Option<&Lora> {
        match component {
            Component::UNet => Some(&self.unet),
            Component::TextEncoder => Some(&self.text_encoder),
            Component::TextEncoder2 => Some(&self.text_encoder_2),
            Component::Vae | Component::ImageEncoder => None,
        }
    }

    /// Returns the LoRAs of all networks.
    pub fn parts(&self) -> [&Lora; 3] {
        [&self.unet, &self.text_encoder, &self.text_encoder_2]
    }
}

impl fmt::Display for LoraFile {
    /// Writes the path, and for each network the number of entries and their layouts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: LoRA", printable_value(&self.unet.place))?;
        for lora in self.parts().into_iter().filter(|lora| !lora.is_empty()) {
            write!(f, ", {}: {} weights", lora.part, lora.entries.len())?;
            let (first, last) =
                (lora.entries.iter().map(|e| e.layout).min(), lora.entries.iter().map(|e| e.layout).max());
            match (first, last) {
                (Some(first), Some(last)) if first != last => write!(f, " ({first} and {last} layout)")?,
                (first, _) => first.map_or(Ok(()), |first| write!(f, " ({first} layout)"))?,
            }
        }
        Ok(())
    }
}

/// Keys of one module.
#[derive(Debug, Default)]
struct ModuleKeys {
    down: Option<String>,
    up: Option<String>,
    alpha: Option<String>,
    layout: Option<LoraLayout>,
}

/// Prefix of the keys in files that peft saved.
const PEFT_PREFIX: &str = "base_model.model.";

/// Finds the file of a LoRA in a folder that peft or diffusers saved.
fn file_in(folder: &Path) -> Result<PathBuf, LoraError> {
    let stems = ["adapter_model", "pytorch_lora_weights"];
    let names = stems.map(|stem| [format!("{stem}.safetensors"), format!("{stem}.bin")]).concat();
    let got = names.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    got.ok_or_else(|| {
        let expected = format!("one of {}", names.join(", "));
        let next = "give the LoRA's file, or the folder in which peft or diffusers saved one";
        LoadError::malformed(folder, "folder of a LoRA", "none of its files", expected, next).into()
    })
}

/// Groups the keys of a file by network and module. The keys of peft's files do not name their network; `pefts` is the
/// network of these keys.
fn group(
    source: &dyn TensorSource,
    pefts: Option<Component>,
) -> Result<BTreeMap<Component, BTreeMap<String, ModuleKeys>>, LoraError> {
    let place = source.place();
    let mut networks: BTreeMap<Component, BTreeMap<String, ModuleKeys>> = BTreeMap::new();
    let mut unknown = Vec::new();
    for key in source.tensors().keys() {
        let LoraKey { part, target, role, layout } = match Key::parse(key) {
            Key::Lora(parsed) => parsed,
            Key::Unsupported(kind) => return Err(LoraError::Unsupported { place, key: printable(key), kind }),
            Key::Unknown => {
                unknown.push(key.clone());
                continue;
            }
        };
        let part = pefts.filter(|_| key.starts_with(PEFT_PREFIX)).unwrap_or(part);
        let module = networks.entry(part).or_default().entry(target).or_default();
        let slot = match role {
            Role::Down => &mut module.down,
            Role::Up => &mut module.up,
            Role::Alpha => &mut module.alpha,
        };
        if let Some(first) = slot.replace(key.clone()) {
            return Err(LoraError::Duplicate { place, first: printable(&first), second: printable(key) });
        }
        module.layout = module.layout.or(layout);
    }
    if networks.is_empty() {
        let tensors = source.tensors().iter().map(|(name, info)| (name.as_str(), info.shape.as_slice()));
        let got = match (Contents::of(tensors), unknown.first()) {
            (Some(contents), _) => contents.to_string(),
            (None, Some(first)) => format!("{} tensors such as `{}`", unknown.len(), printable(first)),
            (None, None) => "no tensors".to_owned(),
        };
        return Err(LoraError::NotALora { place, got });
    }
    if unknown.is_empty() { Ok(networks) } else { Err(LoraError::UnknownKeys { place, keys: unknown }) }
}

/// Reader for the entries of one network.
struct Reader<'a> {
    source: &'a dyn TensorSource,
    scaling: Scaling,
    place: String,
}

impl Reader<'_> {
    fn entry(&self, target: String, keys: ModuleKeys) -> Result<LoraEntry, LoraError> {
        let (down, up, layout) = match (keys.down, keys.up, keys.layout) {
            (Some(down), Some(up), Some(layout)) => (down, up, layout),
            (down, up, _) => {
                let (got, expected) = match (down, up) {
                    (Some(_), _) => ("the matrix down", "the one up"),
                    (None, Some(_)) => ("the matrix up", "the one down"),
                    (None, None) => ("an alpha", "its two matrices"),
                };
                let (place, target) = (self.place.clone(), printable(&target));
                return Err(LoraError::Incomplete { place, target, got, expected });
            }
        };
        let stored = keys.alpha.map(|key| self.number(&key)).transpose()?;
        let (rank, shape) = self.shapes(&down, &up)?;
        let (alpha, factor) = self.scaling.of(&target, rank, stored);
        // Written so that NaN fails both comparisons.
        if !(alpha > 0.0 && factor <= LARGEST_FACTOR) {
            let (place, target, limit) = (self.place.clone(), printable(&target), LARGEST_FACTOR);
            return Err(LoraError::Alpha { place, target, alpha, rank, limit });
        }
        let inputs = shape[1..].iter().product();
        let (down, down_peak) = self.matrix(&down, [rank, inputs])?;
        let (up, up_peak) = self.matrix(&up, [shape[0], rank])?;
        Ok(LoraEntry { target, layout, down, up, factor, shape, bound: rank as f64 * down_peak * up_peak })
    }

    /// Returns the rank of a product and the shape of the changed weight.
    fn shapes(&self, down: &str, up: &str) -> Result<(usize, Vec<usize>), LoraError> {
        let shape = |key: &str| self.source.tensors()[key].shape.as_slice();
        let wrong = |key: &str, expected: String| {
            Err(LoraError::Shape { place: self.place.clone(), key: printable(key), got: shape(key).to_vec(), expected })
        };
        let (rank, inputs) = match shape(down) {
            [rank, inputs @ ..] if matches!(inputs.len(), 1 | 3) && *rank > 0 && !inputs.contains(&0) => {
                (*rank, inputs)
            }
            _ => return wrong(down, "[rank, in] or [rank, in, height, width], all at least 1".into()),
        };
        let outputs = match shape(up) {
            [outputs, inner] | [outputs, inner, 1, 1] if *inner == rank && *outputs > 0 => *outputs,
            _ => {
                let down = printable(down);
                return wrong(up, format!("[out, {rank}] or [out, {rank}, 1, 1], as `{down}` has rank {rank}"));
            }
        };
        Ok((rank, std::iter::once(outputs).chain(inputs.iter().copied()).collect()))
    }

    /// Reads a tensor as a matrix, and returns it with its largest absolute value.
    fn matrix(&self, key: &str, shape: [usize; 2]) -> Result<(TensorData, f64), LoraError> {
        let data = self.source.read(key)?.into_data(LoadDtype::Keep, true, &self.place, key)?;
        let peak = data.iter::<f32>().fold(0.0_f32, |peak, x| peak.max(x.abs()));
        let (bytes, _, dtype) = data.into_parts();
        Ok((TensorData::from_bytes(bytes, shape, dtype), f64::from(peak)))
    }

    /// Reads an alpha: a float, or an integer as quantisation tools write it.
    fn number(&self, key: &str) -> Result<f64, LoraError> {
        let tensor = self.source.read(key)?;
        if let Some(integer) = integer(&tensor) {
            return Ok(integer);
        }
        let data = tensor.into_data(LoadDtype::F32, false, &self.place, key)?;
        let values: Vec<f32> = data.iter::<f32>().collect();
        match values[..] {
            [value] => Ok(f64::from(value)),
            _ => {
                let (place, got) = (self.place.clone(), data.shape().to_vec());
                Err(LoraError::Shape { place, key: printable(key), got, expected: "one number".into() })
            }
        }
    }
}

/// Returns the value of a tensor with one integer; `None` for other tensors.
fn integer(tensor: &HostTensor) -> Option<f64> {
    let signed = match tensor.info.dtype {
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => true,
        Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => false,
        _ => return None,
    };
    let bytes = (tensor.info.elements() == 1).then_some(&tensor.bytes[..])?;
    let negative = signed && bytes.last()? & 0x80 != 0;
    let mut wide = [if negative { 0xff } else { 0 }; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    Some(i128::from_le_bytes(wide) as f64)
}
