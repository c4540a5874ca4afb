//! The f32 kernels of the CPU, on plain slices: compiled for each generation of processors, chosen at run time.
//!
//! Nothing here knows of tensors. Work is split in the same way whatever the number of threads, and sums are added in
//! a fixed order, so that on one machine results are the same to the bit from one run to the next. Another processor may
//! have other vector lengths and caches, and with them other roundings.

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
