//! Inputs, tolerances and the macro that runs a test on every backend.

use lucid_kernels::{Backend, Block, CodeShape, Codes, Dictionary, Pairs, Plan, Real, Selection, UNUSED};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseError, TestRng, TestRunner};

/// Runs each test body `fn name<B: Backend>(backend: &B)` of this module on every backend.
macro_rules! on_every_backend {
    ($($name:ident),+ $(,)?) => {
        mod scalar_f64 {
            $(#[test] fn $name() { super::$name(&lucid_kernels::Scalar::<f64>::new()); })+
        }
        mod scalar_f32 {
            $(#[test] fn $name() { super::$name(&lucid_kernels::Scalar::<f32>::new()); })+
        }
        mod cpu_portable {
            $(#[test] fn $name() { crate::common::on_cpu(module_path!(), stringify!($name), |cpu| super::$name(cpu)); })+
        }
        #[cfg(target_arch = "aarch64")]
        mod cpu_neon {
            $(#[test] fn $name() { crate::common::on_cpu(module_path!(), stringify!($name), |cpu| super::$name(cpu)); })+
        }
        #[cfg(target_arch = "x86_64")]
        mod cpu_avx2 {
            $(#[test] fn $name() { crate::common::on_cpu(module_path!(), stringify!($name), |cpu| super::$name(cpu)); })+
        }
        #[cfg(target_arch = "x86_64")]
        mod cpu_avx512 {
            $(#[test] fn $name() { crate::common::on_cpu(module_path!(), stringify!($name), |cpu| super::$name(cpu)); })+
        }
        #[cfg(target_arch = "x86_64")]
        mod cpu_amx {
            $(#[test] fn $name() { crate::common::on_cpu(module_path!(), stringify!($name), |cpu| super::$name(cpu)); })+
        }
        #[cfg(feature = "cuda-gpu")]
        mod cuda_gpu {
            $(#[test] fn $name() {
                match crate::common::gpu() {
                    Ok(gpu) => super::$name(&*gpu),
                    Err(reason) => println!("SKIPPED {}::{}: {reason}", module_path!(), stringify!($name)),
                }
            })+
        }
        #[cfg(feature = "cuda-shim")]
        mod cuda_shim_forward {
            $(#[test] fn $name() { super::$name(&crate::common::shim(lucid_kernels::cuda::Order::Forward)); })+
        }
        #[cfg(feature = "cuda-shim")]
        mod cuda_shim_reverse {
            $(#[test] fn $name() { super::$name(&crate::common::shim(lucid_kernels::cuda::Order::Reverse)); })+
        }
        #[cfg(feature = "cuda-shim")]
        mod cuda_shim_random {
            $(#[test] fn $name() { super::$name(&crate::common::shim(lucid_kernels::cuda::Order::Random(7))); })+
        }
    };
}

/// Runs `test`, called `name`, on the CPU with the instruction set that its module `…::cpu_SET` is named after, or says that this machine
/// does not have it.
pub fn on_cpu(module: &str, name: &str, test: impl FnOnce(&lucid_kernels::cpu::Cpu)) {
    use lucid_kernels::cpu::{Cpu, InstructionSet};

    let (_, wanted) = module.rsplit_once("cpu_").unwrap();
    let set = InstructionSet::ALL.into_iter().find(|set| set.name() == wanted).unwrap();
    match set.available() {
        true => test(&Cpu::with_instruction_set(Some(2), set).unwrap()),
        false => println!("SKIPPED {module}::{name}: this processor does not have {wanted}"),
    }
}

#[cfg(feature = "cuda-gpu")]
pub type OnGpu = lucid_kernels::cuda::Cuda<lucid_kernels::cuda::Graphs<lucid_kernels::cuda::Gpu>>;

/// The GPU, one test at a time: what a device has to report belongs to whoever asks next. Or why there is none.
#[cfg(feature = "cuda-gpu")]
pub fn gpu() -> Result<std::sync::MutexGuard<'static, OnGpu>, String> {
    use std::sync::{Mutex, OnceLock, PoisonError};

    static GPU: OnceLock<Result<Mutex<OnGpu>, String>> = OnceLock::new();
    let opened = GPU.get_or_init(|| lucid_kernels::cuda::open(None).map(Mutex::new).map_err(|error| error.to_string()));
    opened.as_ref().map(|gpu| gpu.lock().unwrap_or_else(PoisonError::into_inner)).map_err(Clone::clone)
}

/// The CUDA kernels on the CPU, the threads of a block in `order`.
#[cfg(feature = "cuda-shim")]
pub fn shim(order: lucid_kernels::cuda::Order) -> lucid_kernels::cuda::Cuda<lucid_kernels::cuda::Shim> {
    lucid_kernels::cuda::Cuda::new(std::sync::Arc::new(lucid_kernels::cuda::Shim::new(order))).unwrap()
}

/// Deterministic pseudo-random numbers (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Values in [-1, 1), rounded to f32 so that every backend sees the same numbers.
    pub fn values(&mut self, len: usize) -> Vec<f64> {
        (0..len).map(|_| round(2.0 * self.uniform() - 1.0)).collect()
    }

    /// Values in [low, high), rounded to f32.
    pub fn between(&mut self, len: usize, low: f64, high: f64) -> Vec<f64> {
        (0..len).map(|_| round(low + (high - low) * self.uniform())).collect()
    }
}

pub fn round(value: f64) -> f64 {
    f64::from(value as f32)
}

pub fn narrow<T: Real>(values: &[f64]) -> Vec<T> {
    values.iter().map(|&value| T::from_f64(value)).collect()
}

pub fn upload<B: Backend>(backend: &B, values: &[f64]) -> B::Buffer<B::Real> {
    backend.upload(&narrow::<B::Real>(values)).unwrap()
}

pub fn read<B: Backend>(backend: &B, buffer: &B::Buffer<B::Real>, len: usize) -> Vec<f64> {
    backend.read_vec(buffer, len).unwrap().into_iter().map(Real::widen).collect()
}

/// Room for `len` values that an operation must overwrite, longer than needed and full of rubbish.
pub fn rubbish<B: Backend>(backend: &B, len: usize) -> B::Buffer<B::Real> {
    upload(backend, &vec![7.5; len + 3])
}

/// Rounding error allowed for sums of about a hundred terms of size one: 200 units in the last place.
pub fn tolerance<B: Backend>() -> f64 {
    200.0 * epsilon::<B>()
}

/// As [`tolerance`], but not finer than central differences in f64 with step 1e-5 (truncation 1e-10, rounding 1e-11,
/// both times derivatives of size ten).
pub fn difference_tolerance<B: Backend>() -> f64 {
    tolerance::<B>().max(1e-8)
}

pub fn epsilon<B: Backend>() -> f64 {
    if size_of::<B::Real>() == 8 { f64::EPSILON } else { f64::from(f32::EPSILON) }
}

/// |found − expected| ≤ tolerance · (1 + max |expected|), value by value.
#[track_caller]
pub fn assert_close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let scale = 1.0 + expected.iter().fold(0.0f64, |max, value| max.max(value.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let close = (found - expected).abs() <= tolerance * scale;
        assert!(close, "{what}[{index}]: {found} instead of {expected} (tolerance {tolerance:e} × {scale})");
    }
}

/// Central differences of `f` at `x`.
pub fn central_differences(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let step = 1e-5;
    (0..x.len())
        .map(|i| {
            let mut at = x.to_vec();
            at[i] = x[i] + step;
            let above = f(&at);
            at[i] = x[i] - step;
            (above - f(&at)) / (2.0 * step)
        })
        .collect()
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Runs `test` on `cases` values of `strategy`, the same ones every time.
pub fn for_all<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(S::Value)) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(config.rng_algorithm);
    let result = TestRunner::new_with_rng(config, rng).run(strategy, |value| {
        test(value);
        Ok::<(), TestCaseError>(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// Parameters of one modality on the host; encoder latent-major like the kernels.
#[derive(Clone)]
pub struct HostDictionary {
    pub d: usize,
    pub latents: usize,
    pub w_enc_t: Vec<f64>,
    pub b_enc: Vec<f64>,
    pub w_dec: Vec<f64>,
    pub b_dec: Vec<f64>,
}

impl HostDictionary {
    pub fn random(random: &mut Random, d: usize, latents: usize) -> Self {
        Self {
            d,
            latents,
            w_enc_t: random.values(latents * d),
            b_enc: random.values(latents),
            w_dec: random.values(latents * d),
            b_dec: random.values(d),
        }
    }

    pub fn upload<B: Backend>(&self, backend: &B) -> Dictionary<B> {
        Dictionary {
            d: self.d,
            latents: self.latents,
            w_enc_t: upload(backend, &self.w_enc_t),
            b_enc: upload(backend, &self.b_enc),
            w_dec: upload(backend, &self.w_dec),
            b_dec: upload(backend, &self.b_dec),
        }
    }
}

/// Codes on the host, in the documented order.
#[derive(Clone)]
pub struct HostCodes {
    pub n: usize,
    pub shape: CodeShape,
    pub indices: Vec<u32>,
    pub values: Vec<f64>,
}

pub const SPLIT: CodeShape =
    CodeShape { d_shared: 9, d_private: 14, k_shared: 3, k_private: 4, selection: Selection::Split };
pub const GLOBAL: CodeShape = CodeShape { selection: Selection::Global, ..SPLIT };

impl HostCodes {
    /// Codes with some slots unused and now and then a token without any shared entry.
    pub fn random(random: &mut Random, n: usize, shape: CodeShape) -> Self {
        let mut codes = Self { n, shape, indices: vec![UNUSED; n * shape.k()], values: vec![0.0; n * shape.k()] };
        for token in 0..n {
            let empty = random.below(6) == 0;
            let shared = if empty { 0 } else { random.below(shape.k_shared + 1) };
            let private = random.below(shape.k_private + 1);
            let private_start = if shape.selection == Selection::Split { shape.k_shared } else { shared };
            codes.fill(random, token, 0, shared, 0, shape.d_shared);
            codes.fill(random, token, private_start, private, shape.d_shared, shape.d_private);
        }
        codes
    }

    fn fill(&mut self, random: &mut Random, token: usize, slot: usize, count: usize, first: usize, latents: usize) {
        let mut values = random.between(count, 0.2, 1.5);
        values.sort_by(|a, b| b.partial_cmp(a).unwrap());
        let mut left: Vec<usize> = (first..first + latents).collect();
        for (offset, value) in values.into_iter().enumerate() {
            let at = token * self.shape.k() + slot + offset;
            self.indices[at] = left.swap_remove(random.below(left.len())) as u32;
            self.values[at] = value;
        }
    }

    pub fn upload<B: Backend>(&self, backend: &B) -> Codes<B> {
        Codes::upload(backend, self.shape, &self.indices, &narrow::<B::Real>(&self.values)).unwrap()
    }

    /// The same codes with other values in the slots.
    pub fn with_values(&self, values: &[f64]) -> Self {
        Self { values: values.to_vec(), ..self.clone() }
    }

    /// Whether the slot holds a latent of the block.
    pub fn holds(&self, slot: usize, block: Block) -> bool {
        self.shape.contains(block, self.indices[slot])
    }

    /// `values` where the slot belongs to the block, 0 elsewhere: what a backward pass may write.
    pub fn masked(&self, values: &[f64], block: Block) -> Vec<f64> {
        values.iter().enumerate().map(|(slot, &value)| if self.holds(slot, block) { value } else { 0.0 }).collect()
    }

    /// Dense codes of a block \[n · latents\].
    pub fn dense(&self, block: Block) -> Vec<Vec<f64>> {
        let k = self.shape.k();
        (0..self.n)
            .map(|token| {
                let mut dense = vec![0.0; self.shape.latents()];
                for slot in (token * k..(token + 1) * k).filter(|&slot| self.holds(slot, block)) {
                    dense[self.indices[slot] as usize] = self.values[slot];
                }
                dense
            })
            .collect()
    }
}

/// Three pairs of unequal lengths, one of them a single cell.
pub fn some_pairs() -> Pairs {
    Pairs::new(&[4, 1, 6], &[3, 1, 2]).unwrap()
}

/// Codes of both modalities of `pairs`.
pub fn some_codes(random: &mut Random, pairs: &Pairs, shape: CodeShape) -> (HostCodes, HostCodes) {
    let vision = HostCodes::random(random, pairs.vision.total(), shape);
    let text = HostCodes::random(random, pairs.text.total(), shape);
    (vision, text)
}

/// A plan with the given cells (and sums to match); scalings and diagnostics are unset.
pub fn plan_of<B: Backend>(backend: &B, pairs: &Pairs, cells: &[f64]) -> Plan<B> {
    let (mut rows, mut columns) = (vec![0.0; pairs.vision.total()], vec![0.0; pairs.text.total()]);
    for pair in 0..pairs.len() {
        let mut cell = pairs.cells.range(pair).start;
        for i in pairs.vision.range(pair) {
            for j in pairs.text.range(pair) {
                rows[i] += cells[cell];
                columns[j] += cells[cell];
                cell += 1;
            }
        }
    }
    let mut plan = Plan::new(backend, pairs).unwrap();
    plan.plan = upload(backend, cells);
    plan.row_sums = upload(backend, &rows);
    plan.column_sums = upload(backend, &columns);
    plan
}
