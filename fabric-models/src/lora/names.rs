//! Lookup of a network's weights by the names in LoRA files.

use std::collections::HashMap;

use crate::load::{ParameterInfo, nearest, original_unet_names};

/// Index of a network's weights by all names that LoRA files use for them.
///
/// kohya's names have underscores instead of dots. They cannot be split unambiguously (`to_out_0` is `to_out.0`,
/// `proj_in` is one word), so the index contains the network's own names with underscores.
#[derive(Debug)]
pub(super) struct Names<'a> {
    parameters: &'a [ParameterInfo],
    /// Map from name to the indices of the weights with this name.
    by_name: HashMap<String, Vec<usize>>,
}

impl<'a> Names<'a> {
    pub(super) fn of(parameters: &'a [ParameterInfo]) -> Self {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        let originals = original_unet_names(parameters.iter().map(|parameter| parameter.name.as_str()));
        for (index, (parameter, original)) in parameters.iter().zip(originals).enumerate() {
            // Norms and biases have one axis; low-rank products do not apply to them.
            if parameter.shape.len() < 2 {
                continue;
            }
            let Some(module) = module(&parameter.name) else { continue };
            let original = original.as_deref().and_then(self::module);
            let mut names = vec![module.to_owned(), underscored(module)];
            // Original names occur with dots in ComfyUI's files and with underscores in kohya's.
            names.extend(original.into_iter().flat_map(|original| [original.to_owned(), underscored(original)]));
            names.sort_unstable();
            names.dedup();
            for name in names {
                by_name.entry(name).or_default().push(index);
            }
        }
        Self { parameters, by_name }
    }

    /// Returns the weights with this name: one, none, or several if the name is ambiguous.
    pub(super) fn find(&self, target: &str) -> Vec<&'a ParameterInfo> {
        let got = self.by_name.get(target).map(Vec::as_slice).unwrap_or_default();
        got.iter().map(|index| &self.parameters[*index]).collect()
    }

    /// Returns the published name of the module with the most similar name.
    pub(super) fn nearest(&self, target: &str) -> Option<String> {
        let name = nearest(target, self.by_name.keys().map(String::as_str))?;
        let index = *self.by_name[name].first()?;
        module(&self.parameters[index].name).map(str::to_owned)
    }
}

fn module(weight: &str) -> Option<&str> {
    weight.strip_suffix(".weight")
}

pub(super) fn underscored(name: &str) -> String {
    name.replace('.', "_")
}
