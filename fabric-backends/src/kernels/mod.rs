//! The kernels for the CPU: f32 unless [`amx`] is on, on plain slices, compiled for several instruction sets, one of which is chosen
//! at run time.
//!
//! This module does not depend on tensors. The order of summation depends only on the sizes, and in some
//! convolutions also on the number of threads. On one machine with the same number of threads, results are
//! therefore bit-identical from run to run. Another number of threads may round differently, and so may another
//! processor, with other vector lengths and caches.

pub(crate) mod activation;
pub(crate) mod amx;
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
