//! Row kernels the compiler can vectorise: exp, softmax, GELU and layer norm on slices, with their derivatives.
//!
//! Every function is inlined into a closure that `pulp` compiles for the widest instruction set of the machine (see
//! [`crate::ops`]). Sums run in [`LANES`] fixed partial sums and no multiply-add is fused, so a row's result depends neither
//! on threads nor on what stands beside it.

/// Partial sums of a reduction: two AVX-512 registers, four of AVX2.
pub const LANES: usize = 32;

/// e^x to about 1e-7 relative; saturates outside ±87 instead of reaching zero or infinity. NaN stays NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = if x > 87.0 { 87.0 } else { x };
    let x = if x < -87.0 { -87.0 } else { x };
    // Adding 1.5 · 2^23 rounds to an integer, left in the low mantissa bits.
    let shifted = x * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = shifted - 12_582_912.0;
    // ln 2 in two parts, so that the remainder is exact to f32 (the constants of Cephes' expf).
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    (p * r * r + r + 1.0) * power
}

/// Sum of `f(x)` in a fixed order.
#[inline(always)]
pub fn sum(row: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let chunks = row.chunks_exact(LANES);
    let tail = chunks.remainder();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(tail) {
        *lane += f(x);
    }
    fold(lanes, |a, b| a + b)
}

/// Sum of `f(x, y)` in a fixed order.
#[inline(always)]
pub fn sum2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
        for ((lane, &x), &y) in lanes.iter_mut().zip(a).zip(b) {
            *lane += f(x, y);
        }
    }
    fold(lanes, |a, b| a + b)
}

#[inline(always)]
fn fold(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = f(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn maximum(row: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in row.chunks(LANES) {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, x);
        }
    }
    fold(lanes, larger)
}

/// y = softmax(scale · x), `scale` > 0.
#[inline(always)]
pub fn softmax(x: &[f32], scale: f32, y: &mut [f32]) {
    let most = maximum(x);
    for (y, &x) in y.iter_mut().zip(x) {
        *y = exp((x - most) * scale);
    }
    let inverse = 1.0 / sum(y, |v| v);
    for y in y.iter_mut() {
        *y *= inverse;
    }
}

/// Gradient of [`softmax`] with respect to x, from its result y and the gradient g of the result.
#[inline(always)]
pub fn softmax_gradient(y: &[f32], g: &[f32], scale: f32, dx: &mut [f32]) {
    let mean = sum2(y, g, |y, g| y * g);
    for ((dx, &y), &g) in dx.iter_mut().zip(y).zip(g) {
        *dx = scale * y * (g - mean);
    }
}

/// √(2/π) and the cubic coefficient of GELU's tanh form.
const GELU: (f32, f32) = (0.797_884_6, 0.044_715);

/// GELU, tanh form: x/2 · (1 + tanh u) = x · σ(2u) with u = √(2/π)(x + 0.044715 x³).
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    let u = GELU.0 * (x + GELU.1 * x * x * x);
    x / (1.0 + exp(-2.0 * u))
}

/// Derivative of [`gelu`].
#[inline(always)]
pub fn gelu_slope(x: f32) -> f32 {
    let u = GELU.0 * (x + GELU.1 * x * x * x);
    let s = 1.0 / (1.0 + exp(-2.0 * u));
    let du = GELU.0 * (1.0 + 3.0 * GELU.1 * x * x);
    s + 2.0 * x * s * (1.0 - s) * du
}

/// The slope within [`quick_gelu`]'s sigmoid.
pub const QUICK_GELU: f32 = 1.702;

/// OpenAI's approximation of GELU: x · σ(1.702 x).
#[inline(always)]
pub fn quick_gelu(x: f32) -> f32 {
    x / (1.0 + exp(-QUICK_GELU * x))
}

/// Derivative of [`quick_gelu`].
#[inline(always)]
pub fn quick_gelu_slope(x: f32) -> f32 {
    let s = 1.0 / (1.0 + exp(-QUICK_GELU * x));
    s + QUICK_GELU * x * s * (1.0 - s)
}

/// Mean and 1/√(variance + eps) of a row.
#[inline(always)]
pub fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum(x, |v| v) / n;
    let variance = sum(x, |v| (v - mean) * (v - mean)) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// y = (x − mean) / √(variance + eps) · weight + bias.
#[inline(always)]
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, y: &mut [f32]) {
    let (mean, inverse) = moments(x, eps);
    for (((y, &x), &w), &b) in y.iter_mut().zip(x).zip(weight).zip(bias) {
        *y = (x - mean) * inverse * w + b;
    }
}

/// Gradient of [`layer_norm`] with respect to x; adds a row's share to the gradients of weight and bias.
#[inline(always)]
pub fn layer_norm_gradient(
    x: &[f32],
    weight: &[f32],
    g: &[f32],
    eps: f32,
    dx: &mut [f32],
    d_weight: &mut [f32],
    d_bias: &mut [f32],
) {
    let (mean, inverse) = moments(x, eps);
    let n = x.len() as f32;
    // dx holds the gradient of the normalised row until its two projections are known.
    for i in 0..x.len() {
        let normed = (x[i] - mean) * inverse;
        d_weight[i] += g[i] * normed;
        d_bias[i] += g[i];
        dx[i] = g[i] * weight[i];
    }
    let along_one = sum(dx, |v| v) / n;
    let along_row = sum2(dx, x, |v, x| v * (x - mean) * inverse) / n;
    for (dx, &x) in dx.iter_mut().zip(x) {
        *dx = inverse * (*dx - along_one - (x - mean) * inverse * along_row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_three_ulp_and_keeps_nan() {
        for i in -8600..8600 {
            let x = i as f32 * 0.01;
            let exact = (x as f64).exp();
            let error = (exp(x) as f64 - exact).abs() / exact;
            assert!(error < 3.0 * f32::EPSILON as f64, "exp({x}): {error}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(1e30).is_finite() && exp(-1e30) >= 0.0);
    }

    #[test]
    fn gelu_has_its_limits() {
        assert_eq!(gelu(0.0), 0.0);
        assert_eq!(gelu(30.0), 30.0);
        assert!(gelu(-30.0).abs() < 1e-30);
    }
}
