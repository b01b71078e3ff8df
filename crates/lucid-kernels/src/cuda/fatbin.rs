//! The compiled kernels: one fatbin for each `.cu` file, committed with the hash of its sources (`npm run kernels:build`;
//! tests/fatbin.rs fails when one is stale).

/// A module of kernels.
pub(super) struct Module {
    /// Name of the `.cu` file.
    pub name: &'static str,
    /// The fatbin.
    pub image: &'static [u8],
    /// Whether it holds code for sm_90a alone.
    pub hopper: bool,
    /// Kernels in it.
    pub kernels: &'static [&'static str],
}

/// The driver reads a fatbin's header as words.
#[repr(C, align(64))]
struct Aligned<T>(T);

include!(concat!(env!("OUT_DIR"), "/modules.rs"));
