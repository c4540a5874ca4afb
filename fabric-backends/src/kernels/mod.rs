//! The f32 kernels of the CPU, on plain slices: compiled for each generation of processors, chosen at run time.
//!
//! Nothing here knows of tensors. Sums are added in an order that follows from the sizes alone, and in some convolutions
//! from the number of threads as well: on one machine with as many threads, results are the same to the bit from one run
//! to the next. Another number of threads may round otherwise, and so may another processor, with other vector lengths
//! and caches.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod conv;
mod conv_gradient;
mod direct;
mod gemm;
pub(crate) mod isa;
mod lanes;
pub(crate) mod linear;
mod math;
pub(crate) mod norm;
mod panels;
mod shared;
pub(crate) mod softmax;
pub(crate) mod unfold;
mod winograd;
