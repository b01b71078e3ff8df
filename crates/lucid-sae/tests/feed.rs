//! How pairs and launches reach a device: pairs taken there once, or read ahead and copied while a step computes; launches one by
//! one, or as graphs. The bits are the same.
#![cfg(any(feature = "cuda-shim", feature = "cuda-gpu"))]
#![allow(clippy::unwrap_used)]

mod support;

use lucid_kernels::Backend;
use lucid_kernels::cuda::{Cuda, Driver, GraphDriver, Graphs};
use lucid_sae::params::HostParams;
use lucid_sae::trainer::train_on;
use lucid_sae::{Config, TrainOptions};
use support::{Recorder, tiny, tiny_store};

/// Too little for the activations.
const LITTLE: usize = 1000;
const PLENTY: usize = 1 << 30;

/// Eight steps: whole epochs of a store with several captions.
fn eight_steps<B: Backend<Real = f32>>(backend: &B, config: Config) -> HostParams<f32> {
    let options = TrainOptions::new(Config { steps: 8, ..config });
    train_on(backend, &tiny_store(), None, &options, &Recorder::default()).unwrap().params
}

/// In however many micro-batches: activations that are read in every step give the bits of those that lie on the device.
fn reading_changes_nothing<D: Driver>(device: impl Fn() -> Cuda<D>) {
    for micro_pairs in [0, 2] {
        let config = Config { micro_pairs, ..tiny() };
        let resident = eight_steps(&device().with_free_bytes(PLENTY), config.clone());
        let read = eight_steps(&device().with_free_bytes(LITTLE), config);
        assert!(read == resident, "{micro_pairs} pairs a micro-batch");
    }
}

/// Steps by graphs give the bits of launches one by one: where pairs are ragged, so that grids and arguments change from step to
/// step, and where they lie on the device or are read.
fn graphs_change_nothing<D: GraphDriver>(device: &Cuda<Graphs<D>>) {
    for (micro_pairs, free) in [(0, PLENTY), (2, PLENTY), (2, LITTLE)] {
        let (config, device) = (Config { micro_pairs, ..tiny() }, device.clone().with_free_bytes(free));
        device.driver().set_on(false).unwrap();
        let one_by_one = eight_steps(&device, config.clone());
        device.driver().set_on(true).unwrap();
        let before = device.driver().counts();
        let graphs = eight_steps(&device, config);
        let counts = device.driver().counts();
        assert!(graphs == one_by_one, "{micro_pairs} pairs a micro-batch, {free} bytes free");
        assert!(device.driver().on(), "the device refused graphs");
        let replayed = counts.operations - before.operations;
        println!("{replayed} operations were replayed, {} of them changed", counts.changed - before.changed);
        assert!(replayed > 500 && counts.changed > before.changed, "{counts:?} after {before:?}");
    }
}

#[cfg(feature = "cuda-shim")]
mod cuda_shim {
    use std::sync::Arc;

    use lucid_kernels::cuda::{CopiesAhead, Order, Shim};

    use super::*;

    fn device(shim: Shim) -> Cuda<Shim> {
        Cuda::new(Arc::new(shim)).unwrap()
    }

    /// Whenever a copy takes place between its beginning and the step that needs it, and in whatever memory it starts.
    #[test]
    fn reading_changes_nothing() {
        super::reading_changes_nothing(|| device(Shim::new(Order::Forward)));
        super::reading_changes_nothing(|| device(Shim::new(Order::Forward).with_copies_ahead(CopiesAhead::Early)));
        super::reading_changes_nothing(|| device(Shim::new(Order::Forward).without_locked_memory()));
    }

    #[test]
    fn graphs_change_nothing() {
        for copies in [CopiesAhead::Early, CopiesAhead::Late] {
            let shim = Shim::new(Order::Forward).with_copies_ahead(copies);
            super::graphs_change_nothing(&Cuda::new(Arc::new(Graphs::new(shim, true))).unwrap());
        }
    }

    #[test]
    fn the_next_step_is_copied_while_this_one_computes() {
        let beside = |free: usize| {
            let device = device(Shim::new(Order::Forward)).with_free_bytes(free);
            eight_steps(&device, tiny());
            device.driver().launches_beside_copies()
        };
        assert!(beside(LITTLE) > 0, "nothing was copied while a step computed");
        assert_eq!(beside(PLENTY), 0, "what lies on the device was copied again");
    }
}

#[cfg(feature = "cuda-gpu")]
mod cuda_gpu {
    #[test]
    fn reading_and_graphs_change_nothing() {
        match lucid_kernels::cuda::open(None) {
            Ok(gpu) => {
                super::reading_changes_nothing(|| gpu.clone());
                super::graphs_change_nothing(&gpu);
            }
            Err(error) => println!("SKIPPED: {error}"),
        }
    }
}
