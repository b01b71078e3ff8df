//! Layer norm, softmax and GELU over candle tensors, differentiable.

use crate::config::Activation;
use candle_core::{D, Result, Tensor};

/// Layer norm over the last axis, `(x − mean) / √(var + eps) · weight + bias`. `x`: [.., d]; `weight`, `bias`: [d].
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    normed.broadcast_mul(weight)?.broadcast_add(bias)
}

/// Softmax of `x · scale` over the last axis.
pub fn softmax(x: &Tensor, scale: f64) -> Result<Tensor> {
    let x = (x * scale)?;
    let most = x.max_keepdim(D::Minus1)?.detach();
    let exp = x.broadcast_sub(&most)?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}

/// The activation of the feed-forward layers.
pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::GeluTanh => x.gelu(),
        Activation::GeluErf => x.gelu_erf(),
    }
}
