//! Attention on the Flex backend.

use std::sync::Arc;

use burn::backend::TensorMetadata;
use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{Bytes, DType, Shape};

use super::memory;
use super::operation::Operation;
use crate::kernels::attention::{self, Group, Tokens};

/// Softmax attention over `[rows, heads, tokens, dim]`.
#[derive(Debug, Clone)]
pub(in crate::ops) struct Attention {
    /// Bias added to the logits of each key; empty means no bias.
    pub(in crate::ops) bias: Arc<[f32]>,
    /// Whether a query sees only the keys up to its own position.
    pub(in crate::ops) causal: bool,
}

fn tokens(x: &FlexTensor) -> Tokens<'_> {
    let strides = [0, 1, 2].map(|axis| x.layout().strides()[axis].unsigned_abs());
    Tokens { numbers: &x.storage()[x.layout().start_offset()..], strides }
}

/// Returns the layout of a tensor `[rows, heads, tokens, dim]` that lies in memory as `[rows, tokens, heads,
/// dim]`, the order in which the next layer reads it.
fn turned([rows, heads, tokens, dim]: [usize; 4]) -> Layout {
    let strides = [tokens * heads * dim, dim, heads * dim, 1].map(|stride| stride as isize);
    Layout::new(Shape::from(vec![rows, heads, tokens, dim]), strides.to_vec(), 0)
}

impl Attention {
    /// Computes attention over the keys of all groups in one softmax.
    pub(super) fn of_groups(&self, query: FlexTensor, groups: Vec<[FlexTensor; 2]>) -> FlexTensor {
        let query = Self::readable(query);
        let groups: Vec<_> = groups.into_iter().map(|group| group.map(Self::readable)).collect();
        let groups: Vec<_> = groups
            .iter()
            .map(|[key, value]| Group { key: tokens(key), value: tokens(value), count: key.shape()[2] })
            .collect();
        let [rows, heads, queries, dim] = query.shape().dims();
        let keys = groups.iter().map(|group| group.count).sum();
        let sizes = attention::Attention { rows, heads, queries, keys, dim, bias: &self.bias, causal: self.causal };
        memory::filled(query.shape().num_elements(), turned(query.shape().dims()), |out| {
            sizes.forward(tokens(&query), &groups, out);
        })
    }

    fn sizes(&self, query: &FlexTensor, key: &FlexTensor) -> attention::Attention<'_> {
        let ([rows, heads, queries, dim], [_, _, keys, _]) = (query.shape().dims(), key.shape().dims());
        attention::Attention { rows, heads, queries, keys, dim, bias: &self.bias, causal: self.causal }
    }
}

impl Operation<3> for Attention {
    /// The channels of a head must be contiguous, as they nearly always are; the other axes may have any stride
    /// that is not negative.
    fn readable(x: FlexTensor) -> FlexTensor {
        let strides = x.layout().strides();
        if strides[3] == 1 && strides.iter().all(|stride| *stride >= 0) { x } else { x.to_contiguous() }
    }

    fn forward(&self, inputs: [FlexTensor; 3]) -> FlexTensor {
        let [query, key, value] = inputs;
        self.of_groups(query, vec![[key, value]])
    }

    fn backward(&self, kept: Vec<FlexTensor>, gradient: FlexTensor, _: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let [query, key, value] = &kept[..] else { unreachable!("three were kept") };
        let mut gradients = [query, key, value].map(|x| vec![0.0; x.shape().num_elements()]);
        let [to_query, to_key, to_value] = &mut gradients;
        self.sizes(query, key)
            .backward([tokens(query), tokens(key), tokens(value), tokens(&gradient)], [to_query, to_key, to_value]);
        let [of_query, of_key, of_value] = gradients;
        [(of_query, query), (of_key, key), (of_value, value)]
            .map(|(numbers, x)| Some(FlexTensor::new(Bytes::from_elems(numbers), turned(x.shape().dims()), DType::F32)))
    }
}
