// AdamW and the unit sphere of decoder rows (spec 5.1).
//
// Contract: `Backend::adamw`, `project_rows`, `normalise_rows`; scalar twin: scalar/optimise.rs.
#include "device.cuh"
#include "warp.cuh"

namespace {

constexpr u32 THREADS = 256;

}  // namespace

// One AdamW update of `len` values. keep = 1 − lr · decay, rate = lr / (1 − β₁ᵗ), correction = √(1 − β₂ᵗ), c = 1 − β.
// One read and one write of the four arrays.
extern "C" __global__ void __launch_bounds__(THREADS)
adamw(float* __restrict__ parameter, const float* __restrict__ gradient, float* __restrict__ first,
      float* __restrict__ second, u64 len, float scale, float keep, float rate, float correction, float eps, float beta1,
      float beta2, float c1, float c2) {
    for (u64 at = u64(blockIdx.x) * THREADS + threadIdx.x; at < len; at += u64(gridDim.x) * THREADS) {
        const float g = scale * gradient[at];
        const float m = beta1 * first[at] + c1 * g;
        const float s = beta2 * second[at] + c2 * g * g;
        first[at] = m;
        second[at] = s;
        parameter[at] = keep * parameter[at] - rate * m / (sqrtf(s) / correction + eps);
    }
}

// g ← g − (⟨g, w⟩ / ⟨w, w⟩) w; a zero row of w changes nothing. One warp a row.
extern "C" __global__ void __launch_bounds__(THREADS)
project_rows(const float* __restrict__ weights, u64 rows, u32 d, float* __restrict__ gradient) {
    const u32 lane = threadIdx.x % 32;
    for (u64 row = u64(blockIdx.x) * (THREADS / 32) + threadIdx.x / 32; row < rows; row += u64(gridDim.x) * (THREADS / 32)) {
        const float* w = weights + row * d;
        float* g = gradient + row * d;
        float square = 0.0f, inner = 0.0f;
        for (u32 x = lane; x < d; x += 32) {
            square += w[x] * w[x];
            inner += g[x] * w[x];
        }
        square = warp_sum(square);
        inner = warp_sum(inner);
        if (!(square > 0.0f)) continue;
        const float parallel = inner / square;
        for (u32 x = lane; x < d; x += 32) g[x] -= parallel * w[x];
    }
}

// w ← w / |w|; a zero row stays. One warp a row.
extern "C" __global__ void __launch_bounds__(THREADS) normalise_rows(float* __restrict__ weights, u64 rows, u32 d) {
    const u32 lane = threadIdx.x % 32;
    for (u64 row = u64(blockIdx.x) * (THREADS / 32) + threadIdx.x / 32; row < rows; row += u64(gridDim.x) * (THREADS / 32)) {
        float* w = weights + row * d;
        float square = 0.0f;
        for (u32 x = lane; x < d; x += 32) square += w[x] * w[x];
        const float norm = sqrtf(warp_sum(square));
        if (!(norm > 0.0f)) continue;
        for (u32 x = lane; x < d; x += 32) w[x] /= norm;
    }
}
