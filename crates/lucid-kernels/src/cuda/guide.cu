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

namespace {

constexpr u32 RANGE = 2048;  // latents of a table
constexpr u32 SLOTS = 16;    // of a text token at a time
constexpr u32 EACH = 8;      // patches of a warp

}  // namespace

// C_ij = 1 − cos(z_i, z_j), the cosine with an all-zero code 0. Grid: (pairs, patches / 32); a warp EACH patches, one lane a
// text token. A patch's code lies in a table by latent, where the text's entries are looked up.
extern "C" __global__ void __launch_bounds__(THREADS)
cosine_cost(const u32* __restrict__ vision_indices, const float* __restrict__ vision_values,
            const float* __restrict__ vision_norms, u32 vision_k, const u32* __restrict__ text_indices,
            const float* __restrict__ text_values, const float* __restrict__ text_norms, u32 text_k, u32 d_shared,
            const u64* __restrict__ vision, const u64* __restrict__ text, const u64* __restrict__ cells,
            float* __restrict__ cost) {
    __shared__ float tables[WARPS][RANGE];
    __shared__ u32 words[SLOTS][32];
    __shared__ float word_values[SLOTS][32];
    const u64 pair = blockIdx.x;
    const u32 columns = u32(text[pair + 1] - text[pair]), patches = u32(vision[pair + 1] - vision[pair]);
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const u32 first = (blockIdx.y * WARPS + warp) * EACH;
    if (blockIdx.y * WARPS * EACH >= patches) return;
    float* table = tables[warp];
    for (u32 x = lane; x < RANGE; x += 32) table[x] = 0.0f;
    for (u32 base = 0; base < columns; base += 32) {
        float inner[EACH] = {};
        for (u32 slot = 0; slot < text_k; slot += SLOTS) {
            __syncthreads();
            bool any = false;
            for (u32 at = threadIdx.x; at < SLOTS * 32; at += THREADS) {
                // Neighbouring threads take neighbouring slots.
                const u32 s = at % SLOTS, word = at / SLOTS;
                const bool valid = base + word < columns && slot + s < text_k;
                const u64 from = (text[pair] + base + word) * text_k + slot + s;
                words[s][word] = valid ? text_indices[from] : 0xFFFFFFFF;
                word_values[s][word] = valid ? text_values[from] : 0.0f;
                any |= words[s][word] < d_shared;
            }
            // Shared entries lead.
            if (!__syncthreads_or(any)) break;
            for (u32 begin = 0; begin < d_shared; begin += RANGE) {
                const u32 width = min(RANGE, d_shared - begin);
#pragma unroll
                for (u32 p = 0; p < EACH; p++) {
                    if (first + p >= patches) continue;
                    const u64 patch = (vision[pair] + first + p) * vision_k;
                    for (u32 e = lane; e < vision_k; e += 32) {
                        const u32 at = vision_indices[patch + e] - begin;
                        if (at < width) table[at] = vision_values[patch + e];
                    }
                    __syncwarp();
#pragma unroll
                    for (u32 s = 0; s < SLOTS; s++) {
                        const u32 at = words[s][lane] - begin;
                        if (at < width) inner[p] += word_values[s][lane] * table[at];
                    }
                    __syncwarp();
                    for (u32 e = lane; e < vision_k; e += 32) {
                        const u32 at = vision_indices[patch + e] - begin;
                        if (at < width) table[at] = 0.0f;
                    }
                    __syncwarp();
                }
            }
        }
        if (base + lane >= columns) continue;
#pragma unroll
        for (u32 p = 0; p < EACH; p++) {
            if (first + p >= patches) continue;
            const float norms = vision_norms[vision[pair] + first + p] * text_norms[text[pair] + base + lane];
            cost[cells[pair] + u64(first + p) * columns + base + lane] = 1.0f - (norms > 0.0f ? inner[p] / norms : 0.0f);
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

constexpr u32 PART = 1024;  // latents of a warp's table

// g = mean of the shared codes of a pair's patches [d_shared], gathered in `g` by one block; returns |g|. `tables`: WARPS tables
// of PART in shared memory.
__device__ float global_code(const u32* indices, const float* values, u32 k, u32 d_shared, u64 first, u64 end, float* g,
                             float* tables, float* scratch) {
    constexpr u32 AHEAD = 4;  // tokens that are read together
    const float count = float(end - first);
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const u64 share = (end - first + WARPS - 1) / WARPS, from = first + warp * share, to = min(from + share, end);
    float* table = tables + warp * PART;
    for (u32 begin = 0; begin < d_shared; begin += PART) {
        const u32 width = min(PART, d_shared - begin);
        for (u32 x = threadIdx.x; x < WARPS * PART; x += THREADS) tables[x] = 0.0f;
        __syncthreads();
        // Each warp its share, token after token: a token holds a latent once, and the order of the sum is fixed.
        for (u32 base = 0; base < k; base += 32) {
            for (u64 token = from; token < to; token += AHEAD) {
                u32 at[AHEAD];
                float value[AHEAD];
#pragma unroll
                for (u32 a = 0; a < AHEAD; a++) {
                    const bool valid = token + a < to && base + lane < k;
                    const u64 slot = (token + a) * k + base + lane;
                    at[a] = valid ? indices[slot] - begin : width;
                    value[a] = valid ? values[slot] : 0.0f;
                }
#pragma unroll
                for (u32 a = 0; a < AHEAD; a++) {
                    if (at[a] < width) table[at[a]] += value[a] / count;
                    __syncwarp();
                }
            }
        }
        __syncthreads();
        for (u32 x = threadIdx.x; x < width; x += THREADS) {
            float sum = 0.0f;
            for (u32 w = 0; w < WARPS; w++) sum += tables[w * PART + x];
            g[begin + x] = sum;
        }
        __syncthreads();
    }
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
    __shared__ float scratch[32], tables[WARPS * PART];
    const u64 pair = blockIdx.x;
    float* g = room + pair * d_shared;
    const float norm_g =
        global_code(vision_indices, vision_values, vision_k, d_shared, vision[pair], vision[pair + 1], g, tables, scratch);
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
    __shared__ float scratch[32], tables[WARPS * PART];
    const u64 pair = blockIdx.x;
    float* g = room + pair * 2 * d_shared;
    float* d_g = g + d_shared;
    const float norm_g =
        global_code(vision_indices, vision_values, vision_k, d_shared, vision[pair], vision[pair + 1], g, tables, scratch);
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
