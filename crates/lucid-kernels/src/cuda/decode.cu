// Decoder (spec 2): ĥ = W_decᵀ z + b_dec over the used slots of a block, and the gradient of the values.
//
// Contract: `Backend::decode` and the values' part of `Backend::decode_backward`; scalar twin: scalar/decode.rs. A block of
// latents is a range first .. end, which the index of an unused slot is never in.
#include "device.cuh"
#include "warp.cuh"
#include "wide.cuh"

namespace {

constexpr u32 THREADS = 128;
constexpr u32 WIDE = 2;         // groups of four columns of a thread at a time
constexpr u32 SLOTS = 128;      // of a token staged at a time
constexpr u32 GRADIENT = 1024;  // columns of a gradient staged at a time

// Of a token's slots slot .. slot + SLOTS, below `to`, those that hold latents first .. end, in their order: one warp picks them.
__device__ inline void pick(const u32* __restrict__ indices, const float* __restrict__ values, u64 token, u32 slot, u32 k,
                            u32 to, u32 first, u32 end, u32* latents, float* z, u32* used) {
    const u32 lane = threadIdx.x % 32;
    u32 kept = 0;
    for (u32 s = slot; s < min(to, slot + SLOTS); s += 32) {
        const bool valid = s + lane < to;
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
                       u32* latents, float* z, u32* used, u32 from, u32 to) {
    for (u64 token = blockIdx.x; token < n; token += gridDim.x) {
        for (u32 base = 0; base < d; base += blockDim.x * 4 * WIDE) {
            u32 x[WIDE];
            float4 sums[WIDE];
#pragma unroll
            for (u32 c = 0; c < WIDE; c++) {
                x[c] = base + (c * blockDim.x + threadIdx.x) * 4;
                sums[c] = bias ? columns<aligned>(bias, x[c], d) : float4{0.0f, 0.0f, 0.0f, 0.0f};
            }
            for (u32 slot = from; slot < to; slot += SLOTS) {
                __syncthreads();
                if (threadIdx.x < 32) pick(indices, values, token, slot, k, to, first, end, latents, z, used);
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

// Columns a lane reads at once of a row of f32 or bf16.
template <typename Row>
constexpr u32 WIDTH = 16 / sizeof(Row);

// Where a column of the gradient is kept: what eight lanes read together lies side by side.
template <typename Row>
__device__ inline u32 place(u32 x) {
    return sizeof(Row) == 4 ? x : x / 4 % 2 * (GRADIENT / 2) + x / 8 * 4 + x % 4;
}

__device__ inline float dot(float4 a, float4 b) { return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w; }

// Eight lanes a slot: a warp reads whole lines of four rows. A row of bf16 is read to its `stride`, one of f32 to d.
template <typename Row, bool aligned>
__device__ void values_backward(const u32* __restrict__ indices, u64 n, u32 k, u32 from, u32 to, u32 first, u32 end,
                                const Row* __restrict__ w_dec, u32 stride, const float* __restrict__ grad, u32 d,
                                float* __restrict__ d_values, float* g) {
    constexpr u32 EACH = 8 * WIDTH<Row>, WARPS = THREADS / 32;  // columns of eight lanes
    const u32 own = threadIdx.x / 8 % 4, lane = threadIdx.x % 8;
    for (u64 token = blockIdx.x; token < n; token += gridDim.x) {
        for (u32 base = 0; base < d; base += GRADIENT) {
            const u32 width = min(GRADIENT, d - base), steps = (width + EACH - 1) / EACH;
            __syncthreads();
            for (u32 x = threadIdx.x; x < steps * EACH; x += THREADS) {
                g[place<Row>(x)] = x < width ? grad[token * d + base + x] : 0.0f;
            }
            __syncthreads();
            for (u32 slot = from + threadIdx.x / 32 * 4; slot < to; slot += 4 * WARPS) {
                const u32 latent = slot + own < to ? indices[token * k + slot + own] : end;
                const bool in = latent >= first && latent < end;
                const Row* row = w_dec + u64(in ? latent : first) * stride + base;
                float sum = 0.0f;
#pragma unroll 6
                for (u32 step = 0; step < steps; step++) {
                    const u32 x = step * EACH + lane * WIDTH<Row>;
                    if constexpr (sizeof(Row) == 4) {
                        sum += dot(columns<aligned>(row, x, in ? width : 0), *reinterpret_cast<const float4*>(g + x));
                    } else {
                        const Eight w = eight(in && x < width ? eight_bits(row + x) : uint4{0, 0, 0, 0});
                        const float4 low = *reinterpret_cast<const float4*>(g + x / 2);
                        const float4 high = *reinterpret_cast<const float4*>(g + GRADIENT / 2 + x / 2);
                        sum += dot({w.v[0], w.v[1], w.v[2], w.v[3]}, low) + dot({w.v[4], w.v[5], w.v[6], w.v[7]}, high);
                    }
                }
#pragma unroll
                for (u32 other = 4; other > 0; other /= 2) sum += __shfl_xor_sync(0xFFFFFFFF, sum, other);
                if (in && lane == 0) d_values[token * k + slot + own] += sum;
            }
        }
    }
}

// Of rows rounded to bf16, `stride` from one to the next: eight columns a thread.
template <bool aligned>
__device__ void decode_rounded(const u32* __restrict__ indices, const float* __restrict__ values, u64 n, u32 k, u32 first,
                               u32 end, const u16* __restrict__ w_dec, u32 stride, const float* __restrict__ bias, u32 d,
                               float* __restrict__ out, u32* latents, float* z, u32* used, u32 from, u32 to) {
    for (u64 token = blockIdx.x; token < n; token += gridDim.x) {
        for (u32 base = 0; base < d; base += blockDim.x * 8) {
            const u32 x = base + threadIdx.x * 8;
            Eight sum = {};
            if (bias) sum = eight_columns<aligned>(bias, x, d);
            for (u32 slot = from; slot < to; slot += SLOTS) {
                __syncthreads();
                if (threadIdx.x < 32) pick(indices, values, token, slot, k, to, first, end, latents, z, used);
                __syncthreads();
                const u32 count = x < d ? *used : 0;
#pragma unroll 8
                for (u32 s = 0; s < count; s++) add_scaled(sum, z[s], eight(eight_bits(w_dec + u64(latents[s]) * stride + x)));
            }
            store_eight<aligned>(out + token * d, x, d, sum);
        }
    }
}

}  // namespace

// out[t] = bias + Σ z w[latent] over those slots from .. to whose latents are first .. end, in the order of the slots; bias may
// be null. One block a token.
extern "C" __global__ void __launch_bounds__(THREADS)
decode_rows(const u32* __restrict__ indices, const float* __restrict__ values, u64 n, u32 k, u32 first, u32 end,
            const float* __restrict__ w_dec, const float* __restrict__ bias, u32 d, float* __restrict__ out, u32 from, u32 to) {
    __shared__ u32 latents[SLOTS], used;
    __shared__ float z[SLOTS];
    if (d % 4 == 0) decode<true>(indices, values, n, k, first, end, w_dec, bias, d, out, latents, z, &used, from, to);
    else decode<false>(indices, values, n, k, first, end, w_dec, bias, d, out, latents, z, &used, from, to);
}

// d_values[slot] += ⟨grad[t], w[latent]⟩ at those slots from .. to whose latents are first .. end. One block a token.
extern "C" __global__ void __launch_bounds__(THREADS, 6)
decode_values_backward(const u32* __restrict__ indices, u64 n, u32 k, u32 first, u32 end, const float* __restrict__ w_dec,
                       const float* __restrict__ grad, u32 d, float* __restrict__ d_values, u32 from, u32 to) {
    __shared__ __align__(16) float g[GRADIENT];
    if (d % 4 == 0) values_backward<float, true>(indices, n, k, from, to, first, end, w_dec, d, grad, d, d_values, g);
    else values_backward<float, false>(indices, n, k, from, to, first, end, w_dec, d, grad, d, d_values, g);
}

// decode_rows of rows that `round_rows` made of W_dec.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
decode_rows_bf16(const u32* __restrict__ indices, const float* __restrict__ values, u64 n, u32 k, u32 first, u32 end,
                 const u16* __restrict__ w_dec, u32 stride, const float* __restrict__ bias, u32 d, float* __restrict__ out,
                 u32 from, u32 to) {
    __shared__ u32 latents[SLOTS], used;
    __shared__ float z[SLOTS];
    if (d % 4 == 0) decode_rounded<true>(indices, values, n, k, first, end, w_dec, stride, bias, d, out, latents, z, &used, from, to);
    else decode_rounded<false>(indices, values, n, k, first, end, w_dec, stride, bias, d, out, latents, z, &used, from, to);
}

// decode_values_backward with such rows; the gradient is as it is.
extern "C" __global__ void __launch_bounds__(THREADS, 6)
decode_values_backward_bf16(const u32* __restrict__ indices, u64 n, u32 k, u32 first, u32 end,
                            const u16* __restrict__ w_dec, u32 stride, const float* __restrict__ grad, u32 d,
                            float* __restrict__ d_values, u32 from, u32 to) {
    __shared__ __align__(16) float g[GRADIENT];
    values_backward<u16, true>(indices, n, k, from, to, first, end, w_dec, stride, grad, d, d_values, g);
}
