// Losses, means and sums of squares (spec 4.1).
//
// Contract: `Backend::residual`, `difference`, `segment_mean`, `segment_mean_backward`, `sum_squares`, `transport_cost` and its
// backward; scalar twins: scalar/loss.rs, scalar/sinkhorn.rs. Sums are taken in f64 in two launches: a block's share in a
// fixed order, then the blocks' sums by one block. The number of blocks depends on the length alone.
#include "block.cuh"

namespace {

constexpr u32 THREADS = 256;

}  // namespace

// partial[block] = Σ (p − t)², p ← factor (p − t). factor = `constant`, or constant / sums[slot] (0 where that is 0) if
// sums is given.
extern "C" __global__ void __launch_bounds__(THREADS)
residual_partial(float* __restrict__ prediction, const float* __restrict__ target, u64 len, double constant,
                 const double* __restrict__ sums, u32 slot, double* __restrict__ partial) {
    __shared__ double scratch[32];
    double wide = constant;
    if (sums) wide = sums[slot] == 0.0 ? 0.0 : constant / sums[slot];
    const float factor = float(wide);
    double sum = 0.0;
    auto one = [&](float p, float t) {
        const float difference = p - t;
        sum += double(difference) * double(difference);
        return factor * difference;
    };
    // Four at a time, and those that are left.
    float4* four = reinterpret_cast<float4*>(prediction);
    const float4* of = reinterpret_cast<const float4*>(target);
    const u64 first = u64(blockIdx.x) * THREADS + threadIdx.x, stride = u64(gridDim.x) * THREADS;
#pragma unroll 2
    for (u64 at = first; at < len / 4; at += stride) {
        const float4 p = four[at], t = of[at];
        four[at] = float4{one(p.x, t.x), one(p.y, t.y), one(p.z, t.z), one(p.w, t.w)};
    }
    for (u64 at = len / 4 * 4 + first; at < len; at += stride) prediction[at] = one(prediction[at], target[at]);
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// partial[block] = Σ x².
extern "C" __global__ void __launch_bounds__(THREADS)
squares_partial(const float* __restrict__ values, u64 len, double* __restrict__ partial) {
    __shared__ double scratch[32];
    double sum = 0.0;
    const float4* four = reinterpret_cast<const float4*>(values);
    const u64 first = u64(blockIdx.x) * THREADS + threadIdx.x, stride = u64(gridDim.x) * THREADS;
    auto one = [&](float x) { sum += double(x) * double(x); };
#pragma unroll 4
    for (u64 at = first; at < len / 4; at += stride) {
        const float4 x = four[at];
        one(x.x), one(x.y), one(x.z), one(x.w);
    }
    for (u64 at = len / 4 * 4 + first; at < len; at += stride) one(values[at]);
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// partial[block] = Σ cost · mass where the cost is finite.
extern "C" __global__ void __launch_bounds__(THREADS)
products_partial(const float* __restrict__ cost, const float* __restrict__ mass, u64 len, double* __restrict__ partial) {
    __shared__ double scratch[32];
    double sum = 0.0;
    for (u64 at = u64(blockIdx.x) * THREADS + threadIdx.x; at < len; at += u64(gridDim.x) * THREADS) {
        if (fabsf(cost[at]) < INFINITE) sum += double(cost[at]) * double(mass[at]);
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// sums[slot] += Σ partial. One block.
extern "C" __global__ void __launch_bounds__(THREADS)
sum_partial(const double* __restrict__ partial, u32 blocks, double* __restrict__ sums, u32 slot) {
    __shared__ double scratch[32];
    double sum = 0.0;
    for (u32 at = threadIdx.x; at < blocks; at += THREADS) sum += partial[at];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) sums[slot] += sum;
}

// d_cost += scale Π, and where given d_plan += scale cost (finite ones).
extern "C" __global__ void __launch_bounds__(THREADS)
products_backward(const float* __restrict__ cost, const float* __restrict__ mass, u64 len, float scale,
                  float* __restrict__ d_cost, float* __restrict__ d_plan) {
    for (u64 at = u64(blockIdx.x) * THREADS + threadIdx.x; at < len; at += u64(gridDim.x) * THREADS) {
        d_cost[at] += scale * mass[at];
        if (d_plan && fabsf(cost[at]) < INFINITE) d_plan[at] += scale * cost[at];
    }
}

// out = a − b.
extern "C" __global__ void __launch_bounds__(THREADS)
difference(const float* __restrict__ a, const float* __restrict__ b, u64 len, float* __restrict__ out) {
    for (u64 at = u64(blockIdx.x) * THREADS + threadIdx.x; at < len; at += u64(gridDim.x) * THREADS) out[at] = a[at] - b[at];
}

// out[s] = mean of rows offsets[s] .. offsets[s + 1]. Grid: (segments, d / 256).
extern "C" __global__ void __launch_bounds__(THREADS)
segment_mean(const float* __restrict__ values, const u64* __restrict__ offsets, u32 d, float* __restrict__ out) {
    const u32 x = blockIdx.y * THREADS + threadIdx.x;
    if (x >= d) return;
    const u64 start = offsets[blockIdx.x], end = offsets[blockIdx.x + 1];
    float sum = 0.0f;
#pragma unroll 8
    for (u64 row = start; row < end; row++) sum += values[row * d + x];
    out[u64(blockIdx.x) * d + x] = sum / float(end - start);
}

// Every row of segment s gets grad[s] / length. Grid: (segments, d / 256).
extern "C" __global__ void __launch_bounds__(THREADS)
segment_mean_backward(const float* __restrict__ grad, const u64* __restrict__ offsets, u32 d, float* __restrict__ d_values) {
    const u32 x = blockIdx.y * THREADS + threadIdx.x;
    if (x >= d) return;
    const u64 start = offsets[blockIdx.x], end = offsets[blockIdx.x + 1];
    const float share = 1.0f / float(end - start) * grad[u64(blockIdx.x) * d + x];
    constexpr u32 AHEAD = 8;  // rows that a thread reads before it writes
    for (u64 row = start; row < end; row += AHEAD) {
        float values[AHEAD];
#pragma unroll
        for (u32 a = 0; a < AHEAD; a++) values[a] = row + a < end ? d_values[(row + a) * d + x] : 0.0f;
#pragma unroll
        for (u32 a = 0; a < AHEAD; a++) {
            if (row + a < end) d_values[(row + a) * d + x] = values[a] + share;
        }
    }
}
