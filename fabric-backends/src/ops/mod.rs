//! Operations with a kernel of their own.

mod attention;

pub use attention::weighted_attention;
