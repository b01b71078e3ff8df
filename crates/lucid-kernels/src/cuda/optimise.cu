// AdamW and the unit sphere of decoder rows (spec 5.1).
//
// Contract: `Backend::adamw`, `adamw_rows`, `project_rows`, `normalise_rows`; scalar twin: scalar/optimise.rs.
#include "device.cuh"
#include "split.cuh"
#include "tiles.cuh"
#include "warp.cuh"
#include "wide.cuh"

namespace {

constexpr u32 THREADS = 256;

// keep = 1 − lr · decay, rate = lr / (1 − β₁ᵗ), correction = √(1 − β₂ᵗ), c = 1 − β.
struct Constants {
    float scale, keep, rate, correction, eps, beta1, beta2, c1, c2;
};

// One value's update; returns the parameter.
__device__ inline float updated(float parameter, float gradient, float& first, float& second, const Constants& c) {
    const float g = c.scale * gradient;
    first = c.beta1 * first + c.c1 * g;
    second = c.beta2 * second + c.c2 * g * g;
    return c.keep * parameter - c.rate * first / (sqrtf(second) / c.correction + c.eps);
}

struct Four {
    float v[4];
};

__device__ inline Four four(float4 x) { return {{x.x, x.y, x.z, x.w}}; }
__device__ inline float4 vector(const Four& x) { return float4{x.v[0], x.v[1], x.v[2], x.v[3]}; }

// Updates a row, four columns a lane; returns the lane's sum of squares.
template <bool aligned>
__device__ float update_row(float* parameter, const float* gradient, float* first, float* second, u32 d, const Constants& c) {
    float square = 0.0f;
    for (u32 x = threadIdx.x % 32 * 4; x < d; x += 32 * 4) {
        Four p = four(columns<aligned>(parameter, x, d)), m = four(columns<aligned>(first, x, d)), s = four(columns<aligned>(second, x, d));
        const Four g = four(columns<aligned>(gradient, x, d));
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            // Behind the end 0 would be divided by eps, which may be 0.
            if (aligned || x + i < d) p.v[i] = updated(p.v[i], g.v[i], m.v[i], s.v[i], c);
            square += p.v[i] * p.v[i];
        }
        store_columns<aligned>(parameter, x, d, vector(p));
        store_columns<aligned>(first, x, d, vector(m));
        store_columns<aligned>(second, x, d, vector(s));
    }
    return square;
}

}  // namespace

// One AdamW update of `len` values. One read and one write of the four arrays.
extern "C" __global__ void __launch_bounds__(THREADS)
adamw(float* __restrict__ parameter, const float* __restrict__ gradient, float* __restrict__ first,
      float* __restrict__ second, u64 len, float scale, float keep, float rate, float correction, float eps, float beta1,
      float beta2, float c1, float c2) {
    const Constants constants = {scale, keep, rate, correction, eps, beta1, beta2, c1, c2};
    for (u64 at = u64(blockIdx.x) * THREADS + threadIdx.x; at < len; at += u64(gridDim.x) * THREADS) {
        float m = first[at], v = second[at];
        parameter[at] = updated(parameter[at], gradient[at], m, v, constants);
        first[at] = m;
        second[at] = v;
    }
}

// adamw of rows [rows · d], each then divided by its norm where `unit` (a zero row stays); and, where they are wanted, the copies
// that products read: halves in tiles as pack_rows leaves them (`hi`, without `lo` the high halves alone; `padded` columns),
// or rows rounded as round_rows leaves them (`rounded`, `stride` values each). One warp a row, four columns a lane.
extern "C" __global__ void __launch_bounds__(THREADS)
adamw_rows(float* __restrict__ parameter, const float* __restrict__ gradient, float* __restrict__ first,
           float* __restrict__ second, u64 rows, u32 d, u32 unit, float scale, float keep, float rate, float correction,
           float eps, float beta1, float beta2, float c1, float c2, u16* __restrict__ hi, u16* __restrict__ lo, u32 padded,
           u16* __restrict__ rounded, u32 stride) {
    const Constants constants = {scale, keep, rate, correction, eps, beta1, beta2, c1, c2};
    const u32 lane = threadIdx.x % 32;
    for (u64 row = u64(blockIdx.x) * (THREADS / 32) + threadIdx.x / 32; row < rows; row += u64(gridDim.x) * (THREADS / 32)) {
        const u64 start = row * d;
        float* p = parameter + start;
        const float* g = gradient + start;
        const float square = d % 4 == 0 ? update_row<true>(p, g, first + start, second + start, d, constants)
                                        : update_row<false>(p, g, first + start, second + start, d, constants);
        const float norm = unit ? sqrtf(warp_sum(square)) : 0.0f;
        const u32 columns = hi ? padded : rounded ? stride : norm > 0.0f ? d : 0;
        const u64 tiles = row / TILE_ROWS * (padded / TILE_COLUMNS);
        // Each lane reads what it has written.
        for (u32 x = lane * 4; x < columns; x += 32 * 4) {
            float v[4];
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                v[i] = x + i < d ? p[x + i] : 0.0f;
                if (norm > 0.0f && x + i < d) p[x + i] = v[i] = v[i] / norm;
            }
            const SplitPair one = split_pair(v[0], v[1]), other = split_pair(v[2], v[3]);
            const u64 at = (tiles + x / TILE_COLUMNS) * TILE + swizzled(row % TILE_ROWS, x % TILE_COLUMNS / 8) + x % 8;
            if (hi) *reinterpret_cast<uint2*>(hi + at) = uint2{one.hi, other.hi};
            if (lo) *reinterpret_cast<uint2*>(lo + at) = uint2{one.lo, other.lo};
            if (rounded && x < stride) *reinterpret_cast<uint2*>(rounded + row * stride + x) = uint2{one.hi, other.hi};
        }
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
