//! What the processor can do, and what of it is used.

use crate::error::KernelError;

/// Restricts [`InstructionSet::best`] to the named set or a lesser one.
pub const VARIABLE: &str = "LUCID_CPU";

/// Instruction sets that kernels are compiled for, slowest first. Machines that have the same ones and use the same one compute the same
/// bits; where they have different ones, the barycentres still differ, whose products (`gemm`) always take the widest vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// What every machine of this architecture has.
    Portable,
    /// 128-bit vectors of ARM.
    Neon,
    /// 256-bit vectors and fused multiply-add of x86-64.
    Avx2,
    /// 512-bit vectors of x86-64.
    Avx512,
    /// The same, and matrix tiles: products of f32 matrices in bf16 parts (relative error about 4e-6; see `cpu/amx.rs`).
    Amx,
}

impl InstructionSet {
    /// Every set, slowest first.
    pub const ALL: [Self; 5] = [Self::Portable, Self::Neon, Self::Avx2, Self::Avx512, Self::Amx];

    /// The name used in [`VARIABLE`] and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
        }
    }

    /// Whether this machine has it.
    #[must_use]
    pub fn available(self) -> bool {
        self == Self::Portable || self.vectors().is_some() && (self != Self::Amx || super::amx::available())
    }

    /// The best set of this machine that [`VARIABLE`] allows; an unknown name there is an error.
    pub fn best() -> Result<Self, KernelError> {
        let limit = match std::env::var(VARIABLE) {
            Ok(name) if !name.is_empty() => Self::parse(&name)?,
            _ => Self::Amx,
        };
        Ok(Self::up_to(limit))
    }

    /// The best set of this machine that is no better than `limit`.
    #[must_use]
    pub fn up_to(limit: Self) -> Self {
        let known = Self::ALL.into_iter().rev().filter(|&set| set <= limit);
        known.into_iter().find(|set| set.available()).unwrap_or(Self::Portable)
    }

    fn parse(name: &str) -> Result<Self, KernelError> {
        Self::ALL.into_iter().find(|set| set.name() == name).ok_or_else(|| KernelError::Option {
            option: VARIABLE,
            found: name.into(),
            expected: Self::ALL.map(Self::name).join(", "),
        })
    }

    /// Vector instructions of the set, where the machine has them.
    #[cfg(target_arch = "x86_64")]
    fn vectors(self) -> Option<pulp::Arch> {
        match self {
            Self::Portable => Some(pulp::Arch::Scalar),
            Self::Neon => None,
            Self::Avx2 => pulp::x86::V3::try_new().map(pulp::Arch::V3),
            Self::Avx512 | Self::Amx => pulp::x86::V4::try_new().map(pulp::Arch::V4),
        }
    }

    /// Vector instructions of the set, where the machine has them.
    #[cfg(target_arch = "aarch64")]
    fn vectors(self) -> Option<pulp::Arch> {
        match self {
            Self::Portable => Some(pulp::Arch::Scalar),
            Self::Neon => pulp::aarch64::Neon::try_new().map(pulp::Arch::Neon),
            Self::Avx2 | Self::Avx512 | Self::Amx => None,
        }
    }

    /// Vector instructions of the set, where the machine has them.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn vectors(self) -> Option<pulp::Arch> {
        (self == Self::Portable).then(pulp::Arch::new)
    }

    /// Vector instructions of a set that the machine has.
    pub(super) fn arch(self) -> Result<pulp::Arch, KernelError> {
        match self.vectors() {
            Some(arch) if self.available() => Ok(arch),
            _ => Err(KernelError::Unavailable {
                device: "cpu",
                reason: format!("this processor does not have {}", self.name()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_set_is_one_the_machine_has() {
        for limit in InstructionSet::ALL {
            let best = InstructionSet::up_to(limit);
            assert!(best <= limit && best.available() && best.arch().is_ok(), "{limit:?}: {best:?}");
        }
        assert_eq!(InstructionSet::up_to(InstructionSet::Portable), InstructionSet::Portable);
    }

    #[test]
    fn names_are_read_back_and_others_refused() {
        for set in InstructionSet::ALL {
            assert_eq!(InstructionSet::parse(set.name()).unwrap(), set);
        }
        let error = InstructionSet::parse("avx").unwrap_err().to_string();
        assert!(error.contains("LUCID_CPU") && error.contains("avx2, avx512"), "{error}");
    }
}
