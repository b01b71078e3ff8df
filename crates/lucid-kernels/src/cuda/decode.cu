// Decoder (spec 2): ĥ = W_decᵀ z + b_dec over the used slots of a block, and the gradient of the values.
//
// Contract: `Backend::decode` and the values' part of `Backend::decode_backward`; scalar twin: scalar/decode.rs. A block of
// latents is a range first .. end, which the index of an unused slot is never in.
#include "device.cuh"
#include "warp.cuh"
#include "wide.cuh"

namespace {

constexpr u32 THREADS = 128;
constexpr u32 WIDE = 2;     // groups of four columns of a thread at a time
constexpr u32 SLOTS = 128;  // of a token staged at a time
constexpr u32 HELD = 8;     // groups of four columns of a gradient that a lane holds

// The slots of the range, in their order, of slots first .. first + SLOTS of a token: one warp picks them.
__device__ inline void pick(const u32* __restrict__ indices, const float* __restrict__ values, u64 token, u32 slot, u32 k,
                            u32 first, u32 end, u32* latents, float* z, u32* used) {
    const u32 lane = threadIdx.x % 32;
    u32 kept = 0;
    for (u32 s = slot; s < min(k, slot + SLOTS); s += 32) {
        const bool valid = s + lane < k;
        const u32 latent = valid ? indices[token * k + s + lane] : end;
        const bool in = latent >= first && latent < end;
        const u32 votes = __ballot_sync(0xFFFFFFFF, in);
        if (in) {
            const u32 at = kept + __popc(votes & ((1u << lane) - 1));
            latents[at] = latent;
            z[at] = values[token * k + s + lane];
        }
        kept += __popc(votes);
    }
    if (lane == 0) *used = kept;
}

template <bool aligned>
__device__ void decode(const u32* __restrict__ indices, const float* __restrict__ values, u64 n, u32 k, u32 first, u32 end,
                       const float* __restrict__ w_dec, const float* __restrict__ bias, u32 d, float* __restrict__ out,
                       u32* latents, float* z, u32* used) {
    for (u64 token = blockIdx.x; token < n; token += gridDim.x) {
        for (u32 base = 0; base < d; base += blockDim.x * 4 * WIDE) {
            u32 x[WIDE];
            float4 sums[WIDE];
#pragma unroll
            for (u32 c = 0; c < WIDE; c++) {
                x[c] = base + (c * blockDim.x + threadIdx.x) * 4;
                sums[c] = bias ? columns<aligned>(bias, x[c], d) : float4{0.0f, 0.0f, 0.0f, 0.0f};
            }
            for (u32 slot = 0; slot < k; slot += SLOTS) {
                __syncthreads();
                if (threadIdx.x < 32) pick(indices, values, token, slot, k, first, end, latents, z, used);
                __syncthreads();
                const u32 count = *used;
#pragma unroll 4
                for (u32 s = 0; s < count; s++) {
                    const float* row = w_dec + u64(latents[s]) * d;
#pragma unroll
                    for (u32 c = 0; c < WIDE; c++) add_scaled(sums[c], z[s], columns<aligned>(row, x[c], d));
                }
            }
#pragma unroll
            for (u32 c = 0; c < WIDE; c++) store_columns<aligned>(out + token * d, x[c], d, sums[c]);
        }
    }
}

template <bool aligned>
__device__ void values_backward(const u32* __restrict__ indices, u64 n, u32 k, u32 first, u32 end,
                                const float* __restrict__ w_dec, const float* __restrict__ grad, u32 d,
                                float* __restrict__ d_values) {
    const u32 lane = threadIdx.x % 32;
    for (u64 token = blockIdx.x; token < n; token += gridDim.x) {
        for (u32 base = 0; base < d; base += 32 * 4 * HELD) {
            float4 g[HELD];
#pragma unroll
            for (u32 h = 0; h < HELD; h++) g[h] = columns<aligned>(grad + token * d, base + (h * 32 + lane) * 4, d);
            for (u32 slot = threadIdx.x / 32; slot < k; slot += THREADS / 32) {
                const u32 latent = indices[token * k + slot];
                if (latent < first || latent >= end) continue;
                float4 row[HELD];
#pragma unroll
                for (u32 h = 0; h < HELD; h++) {
                    row[h] = columns<aligned>(w_dec + u64(latent) * d, base + (h * 32 + lane) * 4, d);
                }
                float sum = 0.0f;
#pragma unroll
                for (u32 h = 0; h < HELD; h++) {
                    sum += g[h].x * row[h].x, sum += g[h].y * row[h].y, sum += g[h].z * row[h].z, sum += g[h].w * row[h].w;
                }
                sum = warp_sum(sum);
                if (lane == 0) d_values[token * k + slot] += sum;
            }
        }
    }
}

// Of rows rounded to bf16, `stride` from one to the next: eight columns a thread.
template <bool aligned>
__device__ void decode_rounded(const u32* __restrict__ indices, const float* __restrict__ values, u64 n, u32 k, u32 first,
                               u32 end, const u16* __restrict__ w_dec, u32 stride, const float* __restrict__ bias, u32 d,
                               float* __restrict__ out, u32* latents, float* z, u32* used) {
    for (u64 token = blockIdx.x; token < n; token += gridDim.x) {
        for (u32 base = 0; base < d; base += blockDim.x * 8) {
            const u32 x = base + threadIdx.x * 8;
            Eight sum = {};
            if (bias) sum = eight_columns<aligned>(bias, x, d);
            for (u32 slot = 0; slot < k; slot += SLOTS) {
                __syncthreads();
                if (threadIdx.x < 32) pick(indices, values, token, slot, k, first, end, latents, z, used);
                __syncthreads();
                const u32 count = x < d ? *used : 0;
#pragma unroll 8
                for (u32 s = 0; s < count; s++) add_scaled(sum, z[s], eight(eight_bits(w_dec + u64(latents[s]) * stride + x)));
            }
            store_eight<aligned>(out + token * d, x, d, sum);
        }
    }
}

template <bool aligned>
__device__ void rounded_values_backward(const u32* __restrict__ indices, u64 n, u32 k, u32 first, u32 end,
                                        const u16* __restrict__ w_dec, u32 stride, const float* __restrict__ grad, u32 d,
                                        float* __restrict__ d_values) {
    constexpr u32 WARPS = THREADS / 32, EIGHTS = HELD / 2;
    const u32 lane = threadIdx.x % 32;
    for (u64 token = blockIdx.x; token < n; token += gridDim.x) {
        for (u32 base = 0; base < d; base += 32 * 8 * EIGHTS) {
            Eight g[EIGHTS];
#pragma unroll
            for (u32 h = 0; h < EIGHTS; h++) g[h] = eight_columns<aligned>(grad + token * d, base + (h * 32 + lane) * 8, d);
            // Two slots at a time: their rows are on their way together.
            for (u32 slot = threadIdx.x / 32; slot < k; slot += 2 * WARPS) {
                uint4 rows[2][EIGHTS];
                bool in[2];
#pragma unroll
                for (u32 two = 0; two < 2; two++) {
                    const u32 own = slot + two * WARPS, latent = own < k ? indices[token * k + own] : end;
                    in[two] = latent >= first && latent < end;
#pragma unroll
                    for (u32 h = 0; h < EIGHTS; h++) {
                        const u32 x = base + (h * 32 + lane) * 8;
                        const bool valid = in[two] && x < d;
                        rows[two][h] = valid ? eight_bits(w_dec + u64(latent) * stride + x) : uint4{0, 0, 0, 0};
                    }
                }
                float sums[2];
#pragma unroll
                for (u32 two = 0; two < 2; two++) {
                    sums[two] = 0.0f;
#pragma unroll
                    for (u32 h = 0; h < EIGHTS; h++) {
                        const Eight row = eight(rows[two][h]);
#pragma unroll
                        for (u32 i = 0; i < 8; i++) sums[two] += g[h].v[i] * row.v[i];
                    }
                }
                sums[0] = warp_sum(sums[0]), sums[1] = warp_sum(sums[1]);
                if (lane == 0 ? in[0] : lane == 1 && in[1]) d_values[token * k + slot + lane * WARPS] += lane ? sums[1] : sums[0];
            }
        }
    }
}

}  // namespace

// out[t] = bias + Σ z w[latent] in the order of the slots; bias may be null. One block a token.
extern "C" __global__ void __launch_bounds__(THREADS)
decode_rows(const u32* __restrict__ indices, const float* __restrict__ values, u64 n, u32 k, u32 first, u32 end,
            const float* __restrict__ w_dec, const float* __restrict__ bias, u32 d, float* __restrict__ out) {
    __shared__ u32 latents[SLOTS], used;
    __shared__ float z[SLOTS];
    if (d % 4 == 0) decode<true>(indices, values, n, k, first, end, w_dec, bias, d, out, latents, z, &used);
    else decode<false>(indices, values, n, k, first, end, w_dec, bias, d, out, latents, z, &used);
}

// d_values[slot] += ⟨grad[t], w[latent]⟩ at the slots of the range. One block a token, one warp a slot.
extern "C" __global__ void __launch_bounds__(THREADS)
decode_values_backward(const u32* __restrict__ indices, u64 n, u32 k, u32 first, u32 end, const float* __restrict__ w_dec,
                       const float* __restrict__ grad, u32 d, float* __restrict__ d_values) {
    if (d % 4 == 0) values_backward<true>(indices, n, k, first, end, w_dec, grad, d, d_values);
    else values_backward<false>(indices, n, k, first, end, w_dec, grad, d, d_values);
}

// decode_rows of rows that `round_rows` made of W_dec.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
decode_rows_bf16(const u32* __restrict__ indices, const float* __restrict__ values, u64 n, u32 k, u32 first, u32 end,
                 const u16* __restrict__ w_dec, u32 stride, const float* __restrict__ bias, u32 d, float* __restrict__ out) {
    __shared__ u32 latents[SLOTS], used;
    __shared__ float z[SLOTS];
    if (d % 4 == 0) decode_rounded<true>(indices, values, n, k, first, end, w_dec, stride, bias, d, out, latents, z, &used);
    else decode_rounded<false>(indices, values, n, k, first, end, w_dec, stride, bias, d, out, latents, z, &used);
}

// decode_values_backward with such rows; the gradient is as it is.
extern "C" __global__ void __launch_bounds__(THREADS)
decode_values_backward_bf16(const u32* __restrict__ indices, u64 n, u32 k, u32 first, u32 end,
                            const u16* __restrict__ w_dec, u32 stride, const float* __restrict__ grad, u32 d,
                            float* __restrict__ d_values) {
    if (d % 4 == 0) rounded_values_backward<true>(indices, n, k, first, end, w_dec, stride, grad, d, d_values);
    else rounded_values_backward<false>(indices, n, k, first, end, w_dec, stride, grad, d, d_values);
}
