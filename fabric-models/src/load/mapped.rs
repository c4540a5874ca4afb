//! Tensor sources with renamed tensors.

use std::collections::BTreeMap;

use fabric_core::printable;

use super::{HostTensor, LoadError, TensorInfo, TensorSource};

/// Derives a tensor from a stored one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The stored tensor unchanged.
    Whole,
    /// The kernel `[out, in, 1, 1]` of a 1x1 convolution as a matrix `[out, in]`.
    Squeezed,
    /// The transposed matrix.
    Transposed,
    /// One third of the rows: 0, 1 or 2 (queries, keys and values of a fused QKV projection).
    Third(usize),
}

impl Part {
    /// Shape of this part of a tensor of shape `shape`; `None` if such a tensor does not have this part.
    fn shape(self, shape: &[usize]) -> Option<Vec<usize>> {
        match (self, shape) {
            (Self::Whole, _) => Some(shape.to_vec()),
            (Self::Squeezed, [out, inputs, 1, 1]) => Some(vec![*out, *inputs]),
            (Self::Transposed, [rows, columns]) => Some(vec![*columns, *rows]),
            (Self::Third(_), [rows, rest @ ..]) if rows % 3 == 0 => {
                Some(std::iter::once(rows / 3).chain(rest.iter().copied()).collect())
            }
            _ => None,
        }
    }

    fn cut(self, tensor: HostTensor) -> Vec<u8> {
        let HostTensor { info, bytes } = tensor;
        match self {
            Self::Whole | Self::Squeezed => bytes,
            Self::Third(third) => bytes[bytes.len() / 3 * third..bytes.len() / 3 * (third + 1)].to_vec(),
            Self::Transposed => {
                let (rows, columns) = (info.shape[0], info.shape[1]);
                let size = info.dtype.bitsize() / 8;
                let mut transposed = Vec::with_capacity(bytes.len());
                for column in 0..columns {
                    for row in 0..rows {
                        let start = (row * columns + column) * size;
                        transposed.extend_from_slice(&bytes[start..start + size]);
                    }
                }
                transposed
            }
        }
    }
}

/// One tensor of a [`MappedSource`]: new name, stored name, and the part to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    /// New name.
    pub name: String,
    /// Name in the source.
    pub from: String,
    /// Part of the stored tensor.
    pub part: Part,
}

/// Tensor source that presents tensors of another source under other names, so that loading does not depend on how
/// they were stored.
#[derive(Debug)]
pub struct MappedSource<S> {
    source: S,
    origin: BTreeMap<String, (String, Part)>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl<S: TensorSource> MappedSource<S> {
    /// Creates a source with the listed tensors only.
    ///
    /// # Errors
    ///
    /// Returns an error if a listed tensor does not exist, does not have the requested part, or two tensors get the
    /// same name.
    pub fn new(source: S, renamed: impl IntoIterator<Item = Renamed>) -> Result<Self, LoadError> {
        let mut origin = BTreeMap::new();
        let mut tensors = BTreeMap::new();
        for Renamed { name, from, part } in renamed {
            let place = source.place();
            let next = "the file mixes two layouts: get another version of it";
            let malformed = |what, got, expected| LoadError::malformed(place.as_ref(), what, got, expected, next);
            let Some(info) = source.tensors().get(&from) else {
                return Err(LoadError::NoSuchTensor { place, tensor: from });
            };
            let shape = part.shape(&info.shape).ok_or_else(|| {
                let expected = match part {
                    Part::Squeezed => "[out, in, 1, 1]",
                    Part::Transposed => "[in, out]",
                    Part::Third(_) | Part::Whole => "three equal stacks of rows",
                };
                malformed(format!("shape of tensor `{}`", printable(&from)), format!("{:?}", info.shape), expected)
            })?;
            tensors.insert(name.clone(), TensorInfo { dtype: info.dtype, shape });
            if let Some((other, _)) = origin.insert(name.clone(), (from.clone(), part)) {
                let got = format!("both `{}` and `{}`", printable(other), printable(from));
                return Err(malformed(format!("tensor `{}`", printable(name)), got, "one of them"));
            }
        }
        Ok(Self { source, origin, tensors })
    }
}

impl<S: TensorSource> TensorSource for MappedSource<S> {
    fn place(&self) -> String {
        self.source.place()
    }

    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn read(&self, name: &str) -> Result<HostTensor, LoadError> {
        let Some((from, part)) = self.origin.get(name) else {
            return Err(LoadError::NoSuchTensor { place: self.place(), tensor: name.to_owned() });
        };
        let bytes = part.cut(self.source.read(from)?);
        Ok(HostTensor { info: self.tensors[name].clone(), bytes })
    }

    fn note(&self, name: &str) -> Option<String> {
        self.source.note(name)
    }

    fn notes(&self) -> BTreeMap<String, String> {
        self.source.notes()
    }
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;

    use super::*;

    fn cut(part: Part, shape: &[usize]) -> (Option<Vec<usize>>, Vec<u8>) {
        let info = TensorInfo { dtype: Dtype::U8, shape: shape.to_vec() };
        let bytes = (0..info.bytes() as u8).collect();
        (part.shape(shape), part.cut(HostTensor { info, bytes }))
    }

    #[test]
    fn parts_have_the_values_that_belong_to_them() {
        assert_eq!(cut(Part::Squeezed, &[2, 1, 1, 1]), (Some(vec![2, 1]), vec![0, 1]));
        assert_eq!(cut(Part::Transposed, &[2, 3]), (Some(vec![3, 2]), vec![0, 3, 1, 4, 2, 5]));
        assert_eq!(cut(Part::Third(1), &[6, 2]), (Some(vec![2, 2]), vec![4, 5, 6, 7]));
        assert_eq!(cut(Part::Third(2), &[3]), (Some(vec![1]), vec![2]));
        assert_eq!(Part::Third(0).shape(&[4]), None);
        assert_eq!(Part::Squeezed.shape(&[2, 2, 3, 3]), None);
    }
}
