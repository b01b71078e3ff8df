//! Layer norm, softmax and the bias-adding steps between matrix products, as differentiable candle operations.
//!
//! candle composes these from one pass over memory per elementary step; each is one pass here, forward and backward. Tensors
//! that are not f32 on the CPU take candle's elementary steps instead. Rows are split over threads; no sum crosses a split
//! except the gradients of weights, whose partial sums have a fixed size and order.

use crate::config::Activation;
use crate::lanes;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, D, DType, Device, Layout, Result, Shape, Tensor, bail};
use pulp::Arch;
use rayon::prelude::*;

/// Values a task works on: enough to hide the cost of starting it, few enough to share one layer over many cores.
const TASK: usize = 1 << 15;

pub(crate) fn fused(x: &Tensor) -> bool {
    x.dtype() == DType::F32 && matches!(x.device(), Device::Cpu)
}

/// Layer norm over the last axis, `(x − mean) / √(var + eps) · weight + bias`. `x`: [.., d]; `weight`, `bias`: [d].
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    if fused(x) {
        return x.contiguous()?.apply_op3(weight, bias, LayerNorm { eps: eps as f32 });
    }
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    normed.broadcast_mul(weight)?.broadcast_add(bias)
}

/// Softmax of `x · scale` over the last axis, `scale` > 0.
pub fn softmax(x: &Tensor, scale: f64) -> Result<Tensor> {
    if fused(x) {
        return x.contiguous()?.apply_op1(Softmax { scale: scale as f32 });
    }
    let x = (x * scale)?;
    let most = x.max_keepdim(D::Minus1)?.detach();
    let exp = x.broadcast_sub(&most)?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}

/// The step after a feed-forward layer's first product: activation of `x + bias`.
pub fn bias_activation(x: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::GeluTanh if fused(x) => x.contiguous()?.apply_op2(bias, BiasCurve(GeluTanh)),
        Activation::GeluTanh => x.broadcast_add(bias)?.gelu(),
        Activation::GeluErf => bias_add(x, bias)?.gelu_erf(),
        Activation::QuickGelu if fused(x) => x.contiguous()?.apply_op2(bias, BiasCurve(QuickGelu)),
        Activation::QuickGelu => {
            let x = x.broadcast_add(bias)?;
            let decay = (&x * f64::from(-lanes::QUICK_GELU))?.exp()?;
            x / (decay + 1.0)?
        }
    }
}

/// `x + bias` over the last axis.
pub fn bias_add(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if fused(x) {
        return x.contiguous()?.apply_op2(bias, BiasAdd);
    }
    x.broadcast_add(bias)
}

/// `residual + x + bias`, the end of a transformer's branch.
pub fn bias_residual(x: &Tensor, bias: &Tensor, residual: &Tensor) -> Result<Tensor> {
    if fused(x) {
        return x.contiguous()?.apply_op3(bias, &residual.contiguous()?, BiasResidual);
    }
    x.broadcast_add(bias)? + residual
}

/// The values of a contiguous f32 tensor as candle hands it to an operation.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let all = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&all[start..end]),
        None => bail!("a fused operation needs contiguous tensors"),
    }
}

/// Runs `f` on the f32 values of a tensor, copying only when it is not contiguous.
pub(crate) fn with_values<R>(x: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        candle_core::Storage::Cpu(storage) => f(values(storage, layout)?),
        _ => bail!("a fused operation runs on the CPU"),
    }
}

fn last_axis(layout: &Layout) -> usize {
    layout.dims().last().copied().unwrap_or(1).max(1)
}

/// Fills a new [rows, d] array by rows, in parallel: `f(first row, rows of the output)` handles whole rows.
fn by_rows(len: usize, d: usize, f: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let mut out = vec![0f32; len];
    let rows = (TASK / d).max(1);
    let arch = Arch::new();
    if len <= rows * d {
        arch.dispatch(|| f(0, &mut out));
    } else {
        out.par_chunks_mut(rows * d).enumerate().for_each(|(i, part)| arch.dispatch(|| f(i * rows, part)));
    }
    out
}

/// Column sums of a [rows, d] array, in partial sums of fixed size added in order.
fn column_sums(x: &[f32], d: usize) -> Vec<f32> {
    let arch = Arch::new();
    let partial: Vec<Vec<f32>> = x
        .par_chunks((TASK / d).max(1) * d)
        .map(|part| {
            arch.dispatch(|| {
                let mut sums = vec![0f32; d];
                for row in part.chunks_exact(d) {
                    for (sum, &v) in sums.iter_mut().zip(row) {
                        *sum += v;
                    }
                }
                sums
            })
        })
        .collect();
    in_order(partial, d)
}

fn in_order(partial: Vec<Vec<f32>>, d: usize) -> Vec<f32> {
    let mut total = vec![0f32; d];
    for part in partial {
        for (total, v) in total.iter_mut().zip(part) {
            *total += v;
        }
    }
    total
}

fn done(values: Vec<f32>, layout: &Layout) -> Result<(CpuStorage, Shape)> {
    Ok((CpuStorage::F32(values), layout.shape().clone()))
}

fn like(values: Vec<f32>, x: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, x.shape(), x.device())
}

struct Softmax {
    scale: f32,
}

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, d) = (values(storage, layout)?, last_axis(layout));
        let y = by_rows(x.len(), d, |first, part| {
            for (x, y) in x[first * d..].chunks_exact(d).zip(part.chunks_exact_mut(d)) {
                lanes::softmax(x, self.scale, y);
            }
        });
        done(y, layout)
    }

    fn bwd(&self, _: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let d = res.dim(D::Minus1)?;
        let dx = with_values(res, |y| {
            with_values(grad, |g| {
                Ok(by_rows(y.len(), d, |first, part| {
                    let rows = y[first * d..].chunks_exact(d).zip(g[first * d..].chunks_exact(d));
                    for ((y, g), dx) in rows.zip(part.chunks_exact_mut(d)) {
                        lanes::softmax_gradient(y, g, self.scale, dx);
                    }
                }))
            })
        })?;
        Ok(Some(like(dx, res)?))
    }
}

struct LayerNorm {
    eps: f32,
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w, b) = (values(s1, l1)?, values(s2, l2)?, values(s3, l3)?);
        let d = last_axis(l1);
        let y = by_rows(x.len(), d, |first, part| {
            for (x, y) in x[first * d..].chunks_exact(d).zip(part.chunks_exact_mut(d)) {
                lanes::layer_norm(x, w, b, self.eps, y);
            }
        });
        done(y, l1)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let d = x.dim(D::Minus1)?;
        let chunk = (TASK / d).max(1) * d;
        let arch = Arch::new();
        let (dx, dw, db) = with_values(x, |x| {
            with_values(weight, |w| {
                with_values(grad, |g| {
                    let mut dx = vec![0f32; x.len()];
                    let partial: Vec<(Vec<f32>, Vec<f32>)> = dx
                        .par_chunks_mut(chunk)
                        .zip(x.par_chunks(chunk).zip(g.par_chunks(chunk)))
                        .map(|(dx, (x, g))| {
                            arch.dispatch(|| {
                                let (mut dw, mut db) = (vec![0f32; d], vec![0f32; d]);
                                for ((dx, x), g) in dx.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(g.chunks_exact(d))
                                {
                                    lanes::layer_norm_gradient(x, w, g, self.eps, dx, &mut dw, &mut db);
                                }
                                (dw, db)
                            })
                        })
                        .collect();
                    let (dw, db): (Vec<_>, Vec<_>) = partial.into_iter().unzip();
                    Ok((dx, in_order(dw, d), in_order(db, d)))
                })
            })
        })?;
        Ok((Some(like(dx, x)?), Some(like(dw, weight)?), Some(like(db, bias)?)))
    }
}

/// An activation function and its derivative.
trait Curve: Send + Sync {
    fn value(x: f32) -> f32;
    fn slope(x: f32) -> f32;
}

struct GeluTanh;

impl Curve for GeluTanh {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        lanes::gelu(x)
    }
    #[inline(always)]
    fn slope(x: f32) -> f32 {
        lanes::gelu_slope(x)
    }
}

struct QuickGelu;

impl Curve for QuickGelu {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        lanes::quick_gelu(x)
    }
    #[inline(always)]
    fn slope(x: f32) -> f32 {
        lanes::quick_gelu_slope(x)
    }
}

struct BiasCurve<C>(C);

impl<C: Curve> CustomOp2 for BiasCurve<C> {
    fn name(&self) -> &'static str {
        "bias-activation"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, b, d) = (values(s1, l1)?, values(s2, l2)?, last_axis(l1));
        let y = by_rows(x.len(), d, |first, part| {
            for (x, y) in x[first * d..].chunks_exact(d).zip(part.chunks_exact_mut(d)) {
                for ((y, &x), &b) in y.iter_mut().zip(x).zip(b) {
                    *y = C::value(x + b);
                }
            }
        });
        done(y, l1)
    }

    fn bwd(&self, x: &Tensor, bias: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let d = x.dim(D::Minus1)?;
        let dx = with_values(x, |x| {
            with_values(bias, |b| {
                with_values(grad, |g| {
                    Ok(by_rows(x.len(), d, |first, part| {
                        let rows = x[first * d..].chunks_exact(d).zip(g[first * d..].chunks_exact(d));
                        for ((x, g), dx) in rows.zip(part.chunks_exact_mut(d)) {
                            for (((dx, &x), &g), &b) in dx.iter_mut().zip(x).zip(g).zip(b) {
                                *dx = g * C::slope(x + b);
                            }
                        }
                    }))
                })
            })
        })?;
        let db = column_sums(&dx, d);
        Ok((Some(like(dx, x)?), Some(like(db, bias)?)))
    }
}

struct BiasAdd;

impl CustomOp2 for BiasAdd {
    fn name(&self) -> &'static str {
        "bias-add"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, b, d) = (values(s1, l1)?, values(s2, l2)?, last_axis(l1));
        let y = by_rows(x.len(), d, |first, part| {
            for (x, y) in x[first * d..].chunks_exact(d).zip(part.chunks_exact_mut(d)) {
                for ((y, &x), &b) in y.iter_mut().zip(x).zip(b) {
                    *y = x + b;
                }
            }
        });
        done(y, l1)
    }

    fn bwd(&self, x: &Tensor, bias: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let db = with_values(grad, |g| Ok(column_sums(g, x.dim(D::Minus1)?)))?;
        Ok((Some(grad.clone()), Some(like(db, bias)?)))
    }
}

struct BiasResidual;

impl CustomOp3 for BiasResidual {
    fn name(&self) -> &'static str {
        "bias-residual"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, b, r) = (values(s1, l1)?, values(s2, l2)?, values(s3, l3)?);
        let d = last_axis(l1);
        let y = by_rows(x.len(), d, |first, part| {
            let rows = x[first * d..].chunks_exact(d).zip(r[first * d..].chunks_exact(d));
            for ((x, r), y) in rows.zip(part.chunks_exact_mut(d)) {
                for (((y, &x), &b), &r) in y.iter_mut().zip(x).zip(b).zip(r) {
                    *y = r + (x + b);
                }
            }
        });
        done(y, l1)
    }

    fn bwd(
        &self,
        x: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let db = with_values(grad, |g| Ok(column_sums(g, x.dim(D::Minus1)?)))?;
        Ok((Some(grad.clone()), Some(like(db, bias)?), Some(grad.clone())))
    }
}
