//! Times of the CUDA kernels and of the training step at the paper's shape; without a GPU it says why it was not run.

#[path = "../src/bin/gpu_check/work.rs"]
#[allow(dead_code)]
mod work;

use lucid_kernels::KernelError;
use lucid_kernels::cuda;

fn main() {
    let gpu = match cuda::open(None) {
        Ok(gpu) => gpu,
        Err(KernelError::Unavailable { reason, .. }) => return println!("gpu: not run: no CUDA device ({reason})"),
        Err(error) => return println!("gpu: not run: {error}"),
    };
    match work::times(&gpu, work::Shape::PAPER, || {}) {
        Ok(times) => {
            for time in times {
                let rate = time.tokens / time.seconds;
                println!("gpu/{}: {:.1} µs, {rate:.3e} tokens/s", time.name, time.seconds * 1e6);
            }
        }
        Err(error) => println!("gpu: stopped: {error}"),
    }
}
