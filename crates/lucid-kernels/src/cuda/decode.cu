// Decoder (spec 2): ĥ = W_decᵀ z + b_dec over the used slots of a block, and the gradient of the values.
//
// Contract: `Backend::decode` and the values' part of `Backend::decode_backward`; scalar twin: scalar/decode.rs. A block of
// latents is a range first .. end, which the index of an unused slot is never in.
#include "device.cuh"
#include "warp.cuh"

namespace {

constexpr u32 THREADS = 128;
constexpr u32 COLUMNS = 4;  // of a thread at a time
constexpr u32 SLOTS = 128;  // of a token staged at a time

}  // namespace

// out[t] = bias + Σ z w[latent] in the order of the slots; bias may be null. One block a token.
extern "C" __global__ void __launch_bounds__(THREADS)
decode_rows(const u32* __restrict__ indices, const float* __restrict__ values, u64 n, u32 k, u32 first, u32 end,
            const float* __restrict__ w_dec, const float* __restrict__ bias, u32 d, float* __restrict__ out) {
    __shared__ u32 latents[SLOTS];
    __shared__ float z[SLOTS];
    for (u64 token = blockIdx.x; token < n; token += gridDim.x) {
        for (u32 base = 0; base < d; base += THREADS * COLUMNS) {
            const u32 x = base + threadIdx.x;
            float sums[COLUMNS];
#pragma unroll
            for (u32 c = 0; c < COLUMNS; c++) {
                sums[c] = bias && x + c * THREADS < d ? bias[x + c * THREADS] : 0.0f;
            }
            for (u32 slot = 0; slot < k; slot += SLOTS) {
                const u32 count = min(SLOTS, k - slot);
                __syncthreads();
                if (threadIdx.x < count) {
                    latents[threadIdx.x] = indices[token * k + slot + threadIdx.x];
                    z[threadIdx.x] = values[token * k + slot + threadIdx.x];
                }
                __syncthreads();
                for (u32 s = 0; s < count; s++) {
                    const u32 latent = latents[s];
                    if (latent < first || latent >= end) continue;
                    const float* row = w_dec + u64(latent) * d;
#pragma unroll
                    for (u32 c = 0; c < COLUMNS; c++) {
                        if (x + c * THREADS < d) sums[c] += z[s] * row[x + c * THREADS];
                    }
                }
            }
#pragma unroll
            for (u32 c = 0; c < COLUMNS; c++) {
                if (x + c * THREADS < d) out[token * d + x + c * THREADS] = sums[c];
            }
        }
    }
}

// d_values[slot] += ⟨grad[t], w[latent]⟩ at the slots of the range. One block a token, one warp a slot.
extern "C" __global__ void __launch_bounds__(THREADS)
decode_values_backward(const u32* __restrict__ indices, u64 n, u32 k, u32 first, u32 end, const float* __restrict__ w_dec,
                       const float* __restrict__ grad, u32 d, float* __restrict__ d_values) {
    const u32 lane = threadIdx.x % 32;
    for (u64 token = blockIdx.x; token < n; token += gridDim.x) {
        for (u32 slot = threadIdx.x / 32; slot < k; slot += THREADS / 32) {
            const u32 latent = indices[token * k + slot];
            if (latent < first || latent >= end) continue;
            const float* row = w_dec + u64(latent) * d;
            const float* g = grad + token * d;
            float sum = 0.0f;
            for (u32 x = lane; x < d; x += 32) sum += g[x] * row[x];
            sum = warp_sum(sum);
            if (lane == 0) d_values[token * k + slot] += sum;
        }
    }
}
