//! A model of what a training step costs on a GPU: computed, not measured. docs/gpu.md is made from it, and gpu_check sets
//! its measurements beside it.
//!
//! [`trace`] records the launches of the step itself, [`work`] says what each has to do, [`cards`] what a card can do, and
//! [`designs`] what changes would bring. A launch takes as long as its slowest resource, and a fixed time beside.

pub mod cards;
pub mod designs;
mod table;
#[cfg(test)]
mod tests;
pub mod trace;
pub mod work;

use lucid_kernels::KernelError;

use cards::Card;
use designs::Change;
pub use table::markdown;
use trace::Launch;
use work::Work;

/// Pairs of the paper's step.
pub const PAIRS: usize = 256;
/// Pairs of a micro-batch, as the backend chooses them.
#[must_use]
pub fn micro(card: &Card) -> usize {
    if card.mma_share < 1.0 { 256 } else { 64 }
}
/// The project's goal for a step on an H200, in seconds.
pub const GOAL: f64 = 4.5e-3;

/// Share of the tensor cores' rate (of `mma.sync`) that a two-stage pipeline at 25 % occupancy keeps busy.
pub const TENSOR: f64 = 0.75;
/// Share of the tensor cores' rate by the data sheet that `wgmma` reaches with the ends of its tiles: 668 TFLOP/s, measured on
/// an H200.
pub const WGMMA: f64 = 0.675;
/// Share of issue slots, and of passes through shared memory, that kernels with barriers fill.
pub const ISSUE: f64 = 0.7;
/// Share of the data sheet's memory rate that copies reach.
pub const MEMORY: f64 = 0.9;
/// Share of f64 slots.
pub const DOUBLE: f64 = 0.8;
/// Between the end of a kernel and the start of the next in a stream, with ramp and drain.
pub const RAMP: f64 = 1.5e-6;
/// The same within a graph.
pub const GRAPH_RAMP: f64 = 0.7e-6;
/// Host time of a launch.
pub const HOST: f64 = 2.5e-6;
/// Until the device works again after the host waited for it.
pub const WAIT: f64 = 10e-6;

/// What bounds a launch, and the seconds it takes without [`RAMP`].
#[must_use]
pub fn bound(work: &Work, card: &Card) -> (&'static str, f64) {
    // Blocks that do not fill the multiprocessors a whole number of times leave some of them idle.
    let waves = (work.blocks / card.multiprocessors).ceil().max(1.0);
    let fill = (work.blocks / (waves * card.multiprocessors)).min(1.0);
    let clocks = card.multiprocessors * card.clock * fill;
    let bounds = [
        ("tensor cores", work.tensor / (card.tensor_peak * card.mma_share * TENSOR * fill)),
        ("tensor cores", work.wgmma / (card.tensor_peak * WGMMA * fill)),
        ("issue", work.instructions / (4.0 * clocks * ISSUE)),
        ("memory", work.memory / (card.memory_peak * MEMORY)),
        ("cache", work.cache / card.cache),
        ("L1/shared", work.local / (clocks * ISSUE)),
        ("f64", work.double / (clocks * card.double_lanes * DOUBLE)),
        ("latency", work.chain / card.clock),
    ];
    bounds.into_iter().fold(("launch", 0.0), |worst, bound| if bound.1 > worst.1 { bound } else { worst })
}

/// One row of the table: the launches of a kernel for one purpose.
#[derive(Clone, Debug)]
pub struct Row {
    /// Kernel and purpose.
    pub name: String,
    /// The family of `gpu_check`'s timings that it belongs to.
    pub family: &'static str,
    /// Launches of a step.
    pub launches: f64,
    /// All work.
    pub work: Work,
    /// What bounds most of its time.
    pub bound: &'static str,
    /// Seconds of a step.
    pub seconds: f64,
}

/// A step on a card.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Kernels by their first launch.
    pub rows: Vec<Row>,
    /// Seconds of the device.
    pub device: f64,
    /// Seconds of the host for launches.
    pub host: f64,
    /// Seconds of a step.
    pub seconds: f64,
}

impl Prediction {
    /// Seconds of a family's launches in a step.
    #[must_use]
    pub fn family(&self, family: &str) -> f64 {
        self.rows.iter().filter(|row| row.family == family).map(|row| row.seconds).sum()
    }
}

/// Kernel, purpose and family of a launch.
fn purpose(launch: &Launch) -> (String, &'static str) {
    let a = |index: usize| launch.arguments.get(index).copied().unwrap_or(0.0);
    let shared = |begin: f64, end: f64| end - begin <= crate::SHAPE.d_shared as f64;
    let kernel = launch.kernel;
    let (suffix, family) = match kernel {
        "pack_rows" => ("", "encode"),
        "gemm_bf16x3" | "wgmma_bf16x3" | "topk_warps" | "count_fired" => ("", "encode"),
        "decode_rows" if shared(a(4), a(5)) => (", shared block", "decode"),
        "decode_rows" => (", all latents", "decode"),
        "decode_values_backward" if shared(a(3), a(4)) => (", shared block", "decode backward"),
        "decode_values_backward" => (", all latents", "decode backward"),
        "csc_rows" if shared(a(4), a(5)) => (", W_dec shared block", "decode backward"),
        "csc_rows" if a(9) != 0.0 => (", W_enc", "encode backward"),
        "csc_rows" => (", W_dec", "decode backward"),
        "csc_count" | "csc_scan_chunks" | "csc_scan_latents" | "csc_place" | "csc_combine" => ("", "decode backward"),
        "columns_partial" | "columns_combine" => ("", "decode backward"),
        "mix_rows" => ("", "barycentre"),
        "gcmt_plan" => ("", "transport"),
        "adamw" | "adamw_rows" => ("", "AdamW"),
        _ => ("", "rest"),
    };
    (format!("`{kernel}`{suffix}"), family)
}

/// What a training step takes on a card with `changes` made.
pub fn predict(card: &Card, changes: &[Change]) -> Result<Prediction, KernelError> {
    Ok(sum(&trace::step(card, PAIRS, micro(card))?, card, changes))
}

/// What `launches` take on a card with `changes` made.
#[must_use]
pub fn sum(launches: &[Launch], card: &Card, changes: &[Change]) -> Prediction {
    let graph = changes.contains(&Change::Graph);
    let ramp = if graph { GRAPH_RAMP } else { RAMP };
    let mut rows: Vec<Row> = Vec::new();
    let mut shares: Vec<Vec<(&'static str, f64)>> = Vec::new();
    let (mut waits, mut given) = (0.0, 0.0);
    for launch in launches {
        if launch.kernel == "wait" {
            waits += WAIT;
            continue;
        }
        let work = work::of(launch, card).unwrap_or_default();
        let work = designs::adjust(launch.kernel, work, changes);
        given += 1.0;
        let (bound, seconds) = bound(&work, card);
        let (name, family) = purpose(launch);
        let at = rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            let work = Work::default();
            rows.push(Row { name, family, launches: 0.0, work, bound: "", seconds: 0.0 });
            shares.push(Vec::new());
            rows.len() - 1
        });
        rows[at].launches += 1.0;
        rows[at].seconds += seconds + ramp;
        rows[at].work.add(&work);
        for part in [(bound, seconds), ("launch", ramp)] {
            match shares[at].iter_mut().find(|share| share.0 == part.0) {
                Some(share) => share.1 += part.1,
                None => shares[at].push(part),
            }
        }
    }
    for (row, share) in rows.iter_mut().zip(&shares) {
        let most = share.iter().fold(("", 0.0), |most, &share| if share.1 > most.1 { share } else { most });
        row.bound = most.0;
    }
    let device: f64 = rows.iter().map(|row| row.seconds).sum();
    let host = if graph { 0.0 } else { given * HOST };
    Prediction { rows, device, host, seconds: device.max(host) + waits }
}

/// The changes in the order in which each brings the most after those before it, with the step's time after it.
pub fn plan(card: &Card) -> Result<Vec<(Change, f64)>, KernelError> {
    let launches = trace::step(card, PAIRS, micro(card))?;
    let time = |changes: &[Change]| sum(&launches, card, changes).seconds;
    let (mut made, mut order, mut now) = (Vec::new(), Vec::new(), time(&[]));
    loop {
        let left = Change::ALL.into_iter().filter(|change| !made.contains(change));
        let best = left.map(|change| (change, time(&[made.as_slice(), &[change]].concat())));
        match best.min_by(|a, b| a.1.total_cmp(&b.1)) {
            // Less than 20 µs is within the error of everything here.
            Some((change, seconds)) if seconds < now - 20e-6 => {
                made.push(change);
                order.push((change, seconds));
                now = seconds;
            }
            _ => return Ok(order),
        }
    }
}
