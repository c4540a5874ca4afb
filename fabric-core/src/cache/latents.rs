//! LRU cache of reference latents by image content.

use std::collections::VecDeque;

use burn::tensor::Tensor;

use crate::noise::ReferenceId;

/// Maximum number of references in the cache. Each takes 64 KB at 512x512.
const MAX_ENTRIES: usize = 256;

/// LRU cache, ordered from least to most recently used. Linear search: it is far faster than encoding one reference.
#[derive(Debug, Default)]
pub(crate) struct ReferenceLatents(VecDeque<(ReferenceId, Tensor<4>)>);

impl ReferenceLatents {
    /// Returns the latents of a reference, if cached, and marks them as most recently used.
    pub(crate) fn get(&mut self, id: &ReferenceId) -> Option<Tensor<4>> {
        let at = self.0.iter().position(|(kept, _)| kept == id)?;
        let got = self.0.remove(at)?;
        let latents = got.1.clone();
        self.0.push_back(got);
        Some(latents)
    }

    /// Adds latents; evicts the least recently used entry if the cache is full.
    pub(crate) fn insert(&mut self, id: ReferenceId, latents: Tensor<4>) {
        // Another run may have added the same reference meanwhile.
        self.0.retain(|(kept, _)| *kept != id);
        if self.0.len() >= MAX_ENTRIES {
            self.0.pop_front();
        }
        self.0.push_back((id, latents));
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn the_one_not_used_for_longest_makes_room_and_no_other() {
        let id = |number: usize| ReferenceId(std::array::from_fn(|at| number.to_le_bytes()[at % 8]));
        let latents = |number: usize| Tensor::<4>::full([1, 1, 1, 1], number as f64, &Device::flex());
        let mut kept = ReferenceLatents::default();
        for number in 0..MAX_ENTRIES {
            kept.insert(id(number), latents(number));
        }
        kept.insert(id(5), latents(5));
        assert!(kept.get(&id(0)).is_some(), "what is there already takes no other's place");
        for number in [MAX_ENTRIES, MAX_ENTRIES + 1] {
            kept.insert(id(number), latents(number));
        }
        let gone: Vec<usize> = (0..MAX_ENTRIES + 2).filter(|&number| kept.get(&id(number)).is_none()).collect();
        assert_eq!(gone, [1, 2], "the first was used since");
        for number in [0, 5, MAX_ENTRIES + 1] {
            assert_eq!(kept.get(&id(number)).expect("kept").into_scalar::<f32>(), number as f32);
        }
    }
}
