// Decoder (spec 2): ĥ = W_decᵀ z + b_dec over the used slots of a block, and the gradient of the values.
//
// Contract: `Backend::decode` and the values' part of `Backend::decode_backward`; scalar twin: scalar/decode.rs. A block of
// latents is a range first .. end, which the index of an unused slot is never in.
#include "device.cuh"
#include "mma.cuh"
#include "split.cuh"
#include "warp.cuh"
#include "wide.cuh"

namespace {

constexpr u32 THREADS = 128;
constexpr u32 WIDE = 2;     // groups of four columns of a thread at a time
constexpr u32 SLOTS = 128;  // of a token staged at a time
constexpr u32 HELD = 6;     // groups of four columns of a gradient that a lane holds

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
    constexpr u32 WARPS = THREADS / 32;
    const u32 lane = threadIdx.x % 32;
    for (u64 token = blockIdx.x; token < n; token += gridDim.x) {
        for (u32 base = 0; base < d; base += 32 * 4 * HELD) {
            float4 g[HELD];
#pragma unroll
            for (u32 h = 0; h < HELD; h++) g[h] = columns<aligned>(grad + token * d, base + (h * 32 + lane) * 4, d);
            // Two slots at a time: their rows are on their way together.
            for (u32 slot = threadIdx.x / 32; slot < k; slot += 2 * WARPS) {
                float4 rows[2][HELD];
                bool in[2];
                float sums[2] = {0.0f, 0.0f};
#pragma unroll
                for (u32 two = 0; two < 2; two++) {
                    const u32 own = slot + two * WARPS, latent = own < k ? indices[token * k + own] : end;
                    in[two] = latent >= first && latent < end;
#pragma unroll
                    for (u32 h = 0; h < HELD; h++) {
                        const float* row = w_dec + u64(in[two] ? latent : first) * d;
                        rows[two][h] = columns<aligned>(row, base + (h * 32 + lane) * 4, in[two] ? d : 0);
                    }
                }
                if (!in[0] && !in[1]) continue;
#pragma unroll
                for (u32 two = 0; two < 2; two++) {
#pragma unroll
                    for (u32 h = 0; h < HELD; h++) {
                        sums[two] += g[h].x * rows[two][h].x, sums[two] += g[h].y * rows[two][h].y;
                        sums[two] += g[h].z * rows[two][h].z, sums[two] += g[h].w * rows[two][h].w;
                    }
                }
                sums[0] = warp_sum(sums[0]), sums[1] = warp_sum(sums[1]);
                if (lane == 0 ? in[0] : lane == 1 && in[1]) {
                    d_values[token * k + slot + lane * WARPS] += lane ? sums[1] : sums[0];
                }
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

// A gradient in three bf16 parts, to 24 bits: what lanes of column 0, 1 and 2 of a product's right operand hold of eight values.
__device__ inline uint4 part_of(const Eight& value, u32 column) {
    float v[8];
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
        const float first = bf16_value(bf16_round(value.v[i])), rest = value.v[i] - first;
        const float second = bf16_value(bf16_round(rest));
        v[i] = column == 0 ? first : column == 1 ? second : column == 2 ? rest - second : 0.0f;
    }
    return {rounded_pair(v[0], v[1]), rounded_pair(v[2], v[3]), rounded_pair(v[4], v[5]), rounded_pair(v[6], v[7])};
}

// Sixteen slots at a time are the rows of a tensor-core product, the gradient's parts three of its eight columns: a lane then
// holds eight neighbouring columns of two rows, in whatever order the product takes them, as long as the gradient's are in
// the same. A warp has every fourth 32 columns.
template <bool aligned>
__device__ void rounded_values_backward(const u32* __restrict__ indices, u64 n, u32 k, u32 first, u32 end,
                                        const u16* __restrict__ w_dec, u32 stride, const float* __restrict__ grad, u32 d,
                                        float* __restrict__ d_values, float (*sums)[SLOTS]) {
    constexpr u32 WARPS = THREADS / 32, PIECES = 6, WIDTH = WARPS * PIECES * 32;
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = lane / 4;
    const uint4 none = {0, 0, 0, 0};
    for (u64 token = blockIdx.x; token < n; token += gridDim.x) {
        for (u32 base = 0; base < d; base += WIDTH) {
            const u32 x = base + warp * 32 + lane % 4 * 8;
            uint4 g[PIECES];
#pragma unroll
            for (u32 p = 0; p < PIECES; p++) {
                const u32 at = x + p * WARPS * 32;
                g[p] = row < 3 ? part_of(eight_columns<aligned>(grad + token * d, at, d), row) : none;
            }
            for (u32 slot = 0; slot < k; slot += SLOTS) {
                const u32 stop = min(k, slot + SLOTS);
                for (u32 group = slot; group < stop; group += 16) {
                    const u16* rows[2];
                    bool in[2];
#pragma unroll
                    for (u32 half = 0; half < 2; half++) {
                        const u32 own = group + half * 8 + row, latent = own < stop ? indices[token * k + own] : end;
                        in[half] = latent >= first && latent < end;
                        rows[half] = w_dec + u64(in[half] ? latent : 0) * stride;
                    }
                    if (!__any_sync(0xFFFFFFFF, in[0] || in[1])) continue;
                    uint4 held[PIECES][2];
#pragma unroll
                    for (u32 p = 0; p < PIECES; p++) {
                        const u32 at = x + p * WARPS * 32;
#pragma unroll
                        for (u32 half = 0; half < 2; half++) {
                            held[p][half] = in[half] && at < d ? eight_bits(rows[half] + at) : none;
                        }
                    }
                    float c[4] = {};
#pragma unroll
                    for (u32 p = 0; p < PIECES; p++) {
                        mma_bf16(c, {held[p][0].x, held[p][1].x, held[p][0].y, held[p][1].y}, {g[p].x, g[p].y});
                        mma_bf16(c, {held[p][0].z, held[p][1].z, held[p][0].w, held[p][1].w}, {g[p].z, g[p].w});
                    }
                    // Columns 0 and 1 are in the first lane of a row, column 2 in the second. Small parts first.
                    const float third = __shfl_down_sync(0xFFFFFFFF, c[0], 1), other = __shfl_down_sync(0xFFFFFFFF, c[2], 1);
                    if (lane % 4 == 0) {
                        sums[warp][group - slot + row] = third + c[1] + c[0];
                        sums[warp][group - slot + row + 8] = other + c[3] + c[2];
                    }
                }
                __syncthreads();
                for (u32 own = slot + threadIdx.x; own < stop; own += THREADS) {
                    const u32 latent = indices[token * k + own];
                    if (latent < first || latent >= end) continue;
                    float sum = 0.0f;
#pragma unroll
                    for (u32 w = 0; w < WARPS; w++) sum += sums[w][own - slot];
                    d_values[token * k + own] += sum;
                }
                // The next slots' sums go where these are.
                __syncthreads();
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
extern "C" __global__ void __launch_bounds__(THREADS, 4)
decode_values_backward_bf16(const u32* __restrict__ indices, u64 n, u32 k, u32 first, u32 end,
                            const u16* __restrict__ w_dec, u32 stride, const float* __restrict__ grad, u32 d,
                            float* __restrict__ d_values) {
    __shared__ float sums[THREADS / 32][SLOTS];
    if (d % 4 == 0) rounded_values_backward<true>(indices, n, k, first, end, w_dec, stride, grad, d, d_values, sums);
    else rounded_values_backward<false>(indices, n, k, first, end, w_dec, stride, grad, d, d_values, sums);
}
