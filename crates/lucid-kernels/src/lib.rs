//! lucid-kernels
