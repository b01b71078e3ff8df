//! The backend that models and training use.

use std::sync::OnceLock;

use lucid_kernels::KernelError;
pub use lucid_kernels::cpu::Cpu;

/// The CPU backend that everything outside a training run shares: one thread for every core.
pub fn cpu() -> Result<Cpu, KernelError> {
    static SHARED: OnceLock<Cpu> = OnceLock::new();
    if let Some(cpu) = SHARED.get() {
        return Ok(cpu.clone());
    }
    let made = Cpu::new(None)?;
    Ok(SHARED.get_or_init(|| made).clone())
}
