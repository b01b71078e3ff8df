// Guided transport cost and marginals (spec 3), and their way back to the codes.
//
// Contract: `Backend::cosine_cost`, `mass_weights`, `uniform_marginal`, `column_marginal`, `guide_cost` and their backward
// passes; scalar twin: scalar/guide.rs. The shared entries of a code are its leading slots whose index is below d_shared.
// Pairs are ragged: token offsets `vision` and `text`, cell offsets `cells`, each [pairs + 1].
#include "block.cuh"

namespace {

constexpr u32 THREADS = 128;
constexpr u32 WARPS = THREADS / 32;

__device__ inline u32 shared_count(const u32* indices, u32 k, u32 d_shared) {
    u32 count = 0;
    while (count < k && indices[count] < d_shared) count++;
    return count;
}

}  // namespace

// norms[t] = |z_s| of every token. One thread a token.
extern "C" __global__ void __launch_bounds__(THREADS)
code_norms(const u32* __restrict__ indices, const float* __restrict__ values, u64 n, u32 k, u32 d_shared, float* __restrict__ norms) {
    for (u64 token = u64(blockIdx.x) * THREADS + threadIdx.x; token < n; token += u64(gridDim.x) * THREADS) {
        float square = 0.0f;
        for (u64 at = token * k; at < (token + 1) * k && indices[at] < d_shared; at++) square += values[at] * values[at];
        norms[token] = sqrtf(square);
    }
}

// C_ij = 1 − cos(z_i, z_j), the cosine with an all-zero code 0. Grid: (pairs, shares of the patches); one warp a patch,
// one lane a text token. The patch's entries pass through shared memory, 32 at a time.
// Without the 1, some architectures spill for an occupancy that the kernel does not need.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
cosine_cost(const u32* __restrict__ vision_indices, const float* __restrict__ vision_values,
            const float* __restrict__ vision_norms, u32 vision_k, const u32* __restrict__ text_indices,
            const float* __restrict__ text_values, const float* __restrict__ text_norms, u32 text_k, u32 d_shared,
            const u64* __restrict__ vision, const u64* __restrict__ text, const u64* __restrict__ cells,
            float* __restrict__ cost) {
    __shared__ u32 latents[WARPS][32];
    __shared__ float z[WARPS][32];
    const u64 pair = blockIdx.x, columns = text[pair + 1] - text[pair];
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (u64 i = vision[pair] + blockIdx.y * WARPS + warp; i < vision[pair + 1]; i += gridDim.y * WARPS) {
        const u32 entries = shared_count(vision_indices + i * vision_k, vision_k, d_shared);
        for (u64 base = 0; base < columns; base += 32) {
            const u64 j = text[pair] + base + lane;
            const bool valid = base + lane < columns;
            float inner = 0.0f;
            for (u32 first = 0; first < entries; first += 32) {
                const u32 count = min(32u, entries - first);
                __syncwarp();
                if (lane < count) {
                    latents[warp][lane] = vision_indices[i * vision_k + first + lane];
                    z[warp][lane] = vision_values[i * vision_k + first + lane];
                }
                __syncwarp();
                if (!valid) continue;
                const u32* word = text_indices + j * text_k;
                const float* word_values = text_values + j * text_k;
                for (u32 slot = 0; slot < text_k && word[slot] < d_shared; slot++) {
                    const u32 latent = word[slot];
                    const float value = word_values[slot];
#pragma unroll 4
                    for (u32 e = 0; e < count; e++) {
                        if (latents[warp][e] == latent) inner += value * z[warp][e];
                    }
                }
            }
            if (valid) {
                const float norms = vision_norms[i] * text_norms[j];
                cost[cells[pair] + (i - vision[pair]) * columns + base + lane] = 1.0f - (norms > 0.0f ? inner / norms : 0.0f);
            }
        }
    }
}

// Backward of cosine_cost for the codes of one side ("own"); `transposed` if own tokens are the columns of the cost.
// ∂cos/∂z_i = z_j / (|z_i||z_j|) − cos · z_i / |z_i|². Grid: (pairs, shares of the own tokens); one warp an own token.
extern "C" __global__ void __launch_bounds__(THREADS)
cosine_cost_backward(const u32* __restrict__ own_indices, const float* __restrict__ own_values,
                     const float* __restrict__ own_norms, u32 own_k, const u32* __restrict__ other_indices,
                     const float* __restrict__ other_values, const float* __restrict__ other_norms, u32 other_k,
                     u32 d_shared, const u64* __restrict__ own, const u64* __restrict__ other,
                     const u64* __restrict__ cells, u32 transposed, const float* __restrict__ cost,
                     const float* __restrict__ d_cost, float* __restrict__ d_own) {
    const u64 pair = blockIdx.x, owns = own[pair + 1] - own[pair], others = other[pair + 1] - other[pair];
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (u64 i = blockIdx.y * WARPS + warp; i < owns; i += gridDim.y * WARPS) {
        const u64 token = own[pair] + i;
        const float norm = own_norms[token];
        if (!(norm > 0.0f)) continue;
        const u32 entries = shared_count(own_indices + token * own_k, own_k, d_shared);
        auto cell = [&](u64 j) { return cells[pair] + (transposed ? j * owns + i : i * others + j); };
        // Σ_j d cos · cos, for the part along z_i.
        float along = 0.0f;
        for (u64 j = lane; j < others; j += 32) {
            if (other_norms[other[pair] + j] > 0.0f) along += -d_cost[cell(j)] * (1.0f - cost[cell(j)]);
        }
        along = warp_sum(along) / (norm * norm);
        for (u32 e = 0; e < entries; e++) {
            const u64 slot = token * own_k + e;
            const u32 latent = own_indices[slot];
            float across = 0.0f;
            for (u64 j = lane; j < others; j += 32) {
                const u64 there = other[pair] + j;
                for (u64 at = there * other_k; at < (there + 1) * other_k && other_indices[at] < d_shared; at++) {
                    if (other_indices[at] == latent) across += -d_cost[cell(j)] * other_values[at] / (norm * other_norms[there]);
                }
            }
            across = warp_sum(across);
            if (lane == 0) d_own[slot] += across - along * own_values[slot];
        }
    }
}

namespace {

// g = mean of the shared codes of a pair's patches [d_shared], gathered in `g` by one block; returns |g|.
__device__ float global_code(const u32* indices, const float* values, u32 k, u32 d_shared, u64 first, u64 end, float* g,
                             float* scratch) {
    for (u32 x = threadIdx.x; x < d_shared; x += THREADS) g[x] = 0.0f;
    __syncthreads();
    const float count = float(end - first);
    // One warp, token after token: a token holds a latent once, and the order of the sum is that of the tokens.
    if (threadIdx.x < 32) {
        for (u64 token = first; token < end; token++) {
            for (u32 slot = threadIdx.x; slot < k; slot += 32) {
                const u32 latent = indices[token * k + slot];
                if (latent < d_shared) g[latent] += values[token * k + slot] / count;
            }
            __syncwarp();
        }
    }
    __syncthreads();
    float square = 0.0f;
    for (u32 x = threadIdx.x; x < d_shared; x += THREADS) square += g[x] * g[x];
    return sqrtf(block_sum(square, scratch));
}

}  // namespace

// w_j = max(0, cos(g, z_j)). One block a pair; `room` [pairs · d_shared] holds g.
extern "C" __global__ void __launch_bounds__(THREADS)
mass_weights(const u32* __restrict__ vision_indices, const float* __restrict__ vision_values, u32 vision_k,
             const u32* __restrict__ text_indices, const float* __restrict__ text_values,
             const float* __restrict__ text_norms, u32 text_k, u32 d_shared, const u64* __restrict__ vision,
             const u64* __restrict__ text, float* __restrict__ room, float* __restrict__ weights) {
    __shared__ float scratch[32];
    const u64 pair = blockIdx.x;
    float* g = room + pair * d_shared;
    const float norm_g =
        global_code(vision_indices, vision_values, vision_k, d_shared, vision[pair], vision[pair + 1], g, scratch);
    const u32 lane = threadIdx.x % 32;
    for (u64 j = text[pair] + threadIdx.x / 32; j < text[pair + 1]; j += WARPS) {
        float inner = 0.0f;
        for (u32 slot = lane; slot < text_k; slot += 32) {
            const u32 latent = text_indices[j * text_k + slot];
            if (latent < d_shared) inner += text_values[j * text_k + slot] * g[latent];
        }
        inner = warp_sum(inner);
        const float norms = norm_g * text_norms[j];
        if (lane == 0) weights[j] = norms > 0.0f ? fmaxf(inner / norms, 0.0f) : 0.0f;
    }
}

// Backward of mass_weights: d_vision +=, d_text += at the shared slots. One block a pair; `room` [2 · pairs · d_shared]
// holds g and its gradient.
extern "C" __global__ void __launch_bounds__(THREADS)
mass_weights_backward(const u32* __restrict__ vision_indices, const float* __restrict__ vision_values, u32 vision_k,
                      const u32* __restrict__ text_indices, const float* __restrict__ text_values,
                      const float* __restrict__ text_norms, u32 text_k, u32 d_shared, const u64* __restrict__ vision,
                      const u64* __restrict__ text, const float* __restrict__ d_weights, float* __restrict__ room,
                      float* __restrict__ d_vision, float* __restrict__ d_text) {
    __shared__ float scratch[32];
    const u64 pair = blockIdx.x;
    float* g = room + pair * 2 * d_shared;
    float* d_g = g + d_shared;
    const float norm_g =
        global_code(vision_indices, vision_values, vision_k, d_shared, vision[pair], vision[pair + 1], g, scratch);
    for (u32 x = threadIdx.x; x < d_shared; x += THREADS) d_g[x] = 0.0f;
    __syncthreads();
    const u32 lane = threadIdx.x % 32;
    // Σ_j d cos · cos, for the part of d_g along g. One warp, token after token, as in global_code.
    float along = 0.0f;
    if (threadIdx.x < 32) {
        for (u64 j = text[pair]; j < text[pair + 1]; j++) {
            const u32* indices = text_indices + j * text_k;
            const float* values = text_values + j * text_k;
            float inner = 0.0f;
            for (u32 slot = lane; slot < text_k; slot += 32) {
                if (indices[slot] < d_shared) inner += values[slot] * g[indices[slot]];
            }
            inner = warp_sum(inner);
            const float norm = text_norms[j], norms = norm_g * norm;
            // At w_j = 0 the maximum is flat.
            if (norms > 0.0f && inner > 0.0f) {
                const float cosine = inner / norms, d_cosine = d_weights[j];
                along += d_cosine * cosine;
                for (u32 slot = lane; slot < text_k; slot += 32) {
                    if (indices[slot] >= d_shared) continue;
                    d_g[indices[slot]] += d_cosine * values[slot] / norms;
                    d_text[j * text_k + slot] += d_cosine * (g[indices[slot]] / norms - cosine * values[slot] / (norm * norm));
                }
            }
            __syncwarp();
        }
    }
    if (threadIdx.x == 0) scratch[0] = along;
    __syncthreads();
    along = scratch[0];
    if (!(norm_g > 0.0f)) return;
    const float count = float(vision[pair + 1] - vision[pair]);
    for (u64 at = vision[pair] * vision_k + threadIdx.x; at < vision[pair + 1] * vision_k; at += THREADS) {
        const u32 latent = vision_indices[at];
        if (latent < d_shared) d_vision[at] += (d_g[latent] - along * g[latent] / (norm_g * norm_g)) / count;
    }
}

// out = 1 / length. One block a segment.
extern "C" __global__ void __launch_bounds__(THREADS) uniform_marginal(const u64* __restrict__ offsets, float* __restrict__ out) {
    const u64 start = offsets[blockIdx.x], end = offsets[blockIdx.x + 1];
    for (u64 at = start + threadIdx.x; at < end; at += THREADS) out[at] = 1.0f / float(end - start);
}

// c = (w + δ) / Σ (w + δ), δ = 1e-6 · mean(w); uniform where all w are zero. One block a pair.
extern "C" __global__ void __launch_bounds__(THREADS)
column_marginal(const float* __restrict__ weights, const u64* __restrict__ text, float* __restrict__ column) {
    __shared__ float scratch[32];
    const u64 start = text[blockIdx.x], end = text[blockIdx.x + 1];
    const float count = float(end - start);
    float sum = 0.0f, total = 0.0f;
    for (u64 at = start + threadIdx.x; at < end; at += THREADS) sum += weights[at];
    const float mean = block_sum(sum, scratch) / count;
    const float delta = 1e-6f * mean;
    for (u64 at = start + threadIdx.x; at < end; at += THREADS) total += weights[at] + delta;
    total = block_sum(total, scratch);
    for (u64 at = start + threadIdx.x; at < end; at += THREADS) {
        column[at] = mean > 0.0f ? (weights[at] + delta) / total : 1.0f / count;
    }
}

// With s = w + δ and S = Σ s: ds_j = (dc_j − Σ dc·c) / S, and δ passes its share of mean(w) to every weight.
extern "C" __global__ void __launch_bounds__(THREADS)
column_marginal_backward(const float* __restrict__ weights, const u64* __restrict__ text,
                         const float* __restrict__ d_column, float* __restrict__ d_weights) {
    __shared__ float scratch[32];
    const u64 start = text[blockIdx.x], end = text[blockIdx.x + 1];
    const float count = float(end - start);
    float sum = 0.0f, total = 0.0f, common = 0.0f, all = 0.0f;
    for (u64 at = start + threadIdx.x; at < end; at += THREADS) sum += weights[at];
    const float mean = block_sum(sum, scratch) / count;
    if (!(mean > 0.0f)) return;
    const float delta = 1e-6f * mean;
    for (u64 at = start + threadIdx.x; at < end; at += THREADS) total += weights[at] + delta;
    total = block_sum(total, scratch);
    for (u64 at = start + threadIdx.x; at < end; at += THREADS) common += d_column[at] * (weights[at] + delta) / total;
    common = block_sum(common, scratch);
    for (u64 at = start + threadIdx.x; at < end; at += THREADS) all += (d_column[at] - common) / total;
    const float through_delta = 1e-6f / count * block_sum(all, scratch);
    for (u64 at = start + threadIdx.x; at < end; at += THREADS) d_weights[at] += (d_column[at] - common) / total + through_delta;
}

// C̃ = C + penalty (1 − M) + λ (1 − w); M and w may be null. Grid: (pairs, shares of the cells).
extern "C" __global__ void __launch_bounds__(THREADS)
guide_cost(const float* __restrict__ cost, const u64* __restrict__ text, const u64* __restrict__ cells,
           const float* __restrict__ admissible, float penalty, const float* __restrict__ weights, float lambda,
           float* __restrict__ guided) {
    const u64 pair = blockIdx.x, columns = text[pair + 1] - text[pair];
    for (u64 at = cells[pair] + blockIdx.y * THREADS + threadIdx.x; at < cells[pair + 1]; at += gridDim.y * THREADS) {
        float value = cost[at];
        // Not where M = 1: an infinite penalty times 0 is NaN.
        if (admissible && admissible[at] < 1.0f) value += penalty * (1.0f - admissible[at]);
        if (weights) value += lambda * (1.0f - weights[text[pair] + (at - cells[pair]) % columns]);
        guided[at] = value;
    }
}

// d_w_j −= λ Σ_i dC̃_ij. One block a pair, one thread a column.
extern "C" __global__ void __launch_bounds__(THREADS)
guide_cost_backward(const float* __restrict__ d_guided, const u64* __restrict__ text, const u64* __restrict__ cells,
                    float lambda, float* __restrict__ d_weights) {
    const u64 pair = blockIdx.x, columns = text[pair + 1] - text[pair];
    for (u64 j = threadIdx.x; j < columns; j += THREADS) {
        float sum = 0.0f;
        for (u64 at = cells[pair] + j; at < cells[pair + 1]; at += columns) sum += d_guided[at];
        d_weights[text[pair] + j] -= lambda * sum;
    }
}
