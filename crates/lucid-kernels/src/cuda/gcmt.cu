// Guided matching of a pair (spec 3) in one launch: cost, weights, marginals, masks, and Sinkhorn's iteration.
//
// Contract: `Backend::gcmt`; scalar twin: the operations it strings together (scalar/guide.rs, scalar/sinkhorn.rs), which the
// kernels of guide.cu and sinkhorn.cu do one by one where a pair does not fit here. One block a pair. In shared memory: K of
// the pair, where the global code lies first; behind it norms, weights and marginals; behind these the lists of the text's
// entries by latent, and in their place the vectors of the iteration when the costs are known.
#include "sinkhorn.cuh"

namespace {

constexpr u32 LANES = 8;  // that share a patch
constexpr u32 AHEAD = 8;  // patches that are read together

// Shared codes of the tokens of a pair: slots [tokens · k], of which the leading `kept` may be shared.
struct Tokens {
    const u32* indices;
    const float* values;
    u32 count, k, kept;
};

// The text's entries by latent: those of latent l lie in [l ? ends[l − 1] : 0, ends[l]).
struct Lists {
    u32* ends;      // [d_shared]
    u32* words;     // [columns · kept]
    float* values;  // [columns · kept]
};

// out[t] = |z_s|. One thread a token.
__device__ void norms(const Tokens& tokens, u32 d_shared, float* out) {
    for (u32 token = threadIdx.x; token < tokens.count; token += THREADS) {
        const u64 first = u64(token) * tokens.k;
        float square = 0.0f;
        for (u64 at = first; at < first + tokens.kept && tokens.indices[at] < d_shared; at++) {
            square += tokens.values[at] * tokens.values[at];
        }
        out[token] = sqrtf(square);
    }
}

// g = mean of the patches' shared codes [d_shared]; returns |g|. Each warp has a share of the latents and walks all patches,
// in order.
__device__ float global_code(const Tokens& patches, u32 d_shared, float* g, float* scratch) {
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const u32 share = (d_shared + WARPS - 1) / WARPS, begin = min(warp * share, d_shared);
    const u32 width = min(share, d_shared - begin);
    const float count = float(patches.count);
    for (u32 x = lane; x < width; x += 32) g[begin + x] = 0.0f;
    __syncwarp();
    for (u32 base = 0; base < patches.kept; base += 32) {
        for (u32 first = 0; first < patches.count; first += AHEAD) {
            u32 at[AHEAD];
            float value[AHEAD];
#pragma unroll
            for (u32 a = 0; a < AHEAD; a++) {
                const bool valid = first + a < patches.count && base + lane < patches.kept;
                const u64 slot = u64(first + a) * patches.k + base + lane;
                at[a] = valid ? patches.indices[slot] - begin : width;
                value[a] = valid ? patches.values[slot] : 0.0f;
            }
#pragma unroll
            for (u32 a = 0; a < AHEAD; a++) {
                // A patch holds a latent once.
                if (at[a] < width) g[begin + at[a]] += value[a] / count;
                __syncwarp();
            }
        }
    }
    __syncthreads();
    float square = 0.0f;
    for (u32 x = threadIdx.x; x < d_shared; x += THREADS) square += g[x] * g[x];
    return sqrtf(block_sum(square, scratch));
}

// w_j = max(0, cos(g, z_j)). One warp a word.
__device__ void mass_weights(const Tokens& words, const float* word_norms, const float* g, float norm_g, u32 d_shared,
                             float* weights) {
    const u32 lane = threadIdx.x % 32;
    for (u32 j = threadIdx.x / 32; j < words.count; j += WARPS) {
        float inner = 0.0f;
        for (u32 slot = lane; slot < words.kept; slot += 32) {
            const u64 at = u64(j) * words.k + slot;
            if (words.indices[at] < d_shared) inner += words.values[at] * g[words.indices[at]];
        }
        inner = warp_sum(inner);
        const float norms = norm_g * word_norms[j];
        if (lane == 0) weights[j] = norms > 0.0f ? fmaxf(inner / norms, 0.0f) : 0.0f;
    }
    __syncthreads();
}

// c = (w + δ) / Σ (w + δ), δ = 1e-6 · mean(w); uniform where all w are zero, and without weights.
__device__ void column_marginal(const float* weights, u32 columns, float* column, float* scratch) {
    const float count = float(columns);
    float mean = 0.0f, delta = 0.0f, sum = 1.0f;
    if (weights) {
        mean = total(weights, columns, scratch) / count;
        delta = 1e-6f * mean;
        float own = 0.0f;
        for (u32 j = threadIdx.x; j < columns; j += THREADS) own += weights[j] + delta;
        sum = block_sum(own, scratch);
    }
    for (u32 j = threadIdx.x; j < columns; j += THREADS) {
        column[j] = mean > 0.0f ? (weights[j] + delta) / sum : 1.0f / count;
    }
}

// Sorts the words' entries by latent. Which of a latent's words comes first is left to chance, and no result depends on it:
// each adds to a cell of its own.
__device__ void sort_words(const Tokens& words, u32 d_shared, const Lists& lists, u32* scratch) {
    const u32 entries = words.count * words.kept;
    for (u32 latent = threadIdx.x; latent < d_shared; latent += THREADS) lists.ends[latent] = 0;
    __syncthreads();
    for (u32 entry = threadIdx.x; entry < entries; entry += THREADS) {
        const u32 latent = words.indices[u64(entry / words.kept) * words.k + entry % words.kept];
        if (latent < d_shared) atomicAdd(&lists.ends[latent], 1u);
    }
    __syncthreads();
    // From counts to where each list begins.
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const u32 each = (d_shared + THREADS - 1) / THREADS;
    const u32 begin = min(threadIdx.x * each, d_shared), end = min(begin + each, d_shared);
    u32 own = 0;
    for (u32 latent = begin; latent < end; latent++) own += lists.ends[latent];
    u32 through = own;
#pragma unroll
    for (u32 step = 1; step < 32; step *= 2) {
        const u32 before = __shfl_up_sync(0xffffffffu, through, step);
        if (lane >= step) through += before;
    }
    if (lane == 31) scratch[warp] = through;
    __syncthreads();
    u32 at = through - own;
    for (u32 w = 0; w < warp; w++) at += scratch[w];
    for (u32 latent = begin; latent < end; latent++) {
        const u32 count = lists.ends[latent];
        lists.ends[latent] = at;
        at += count;
    }
    __syncthreads();
    // And to where it ends, when all are in their places.
    for (u32 entry = threadIdx.x; entry < entries; entry += THREADS) {
        const u32 word = entry / words.kept;
        const u64 slot = u64(word) * words.k + entry % words.kept;
        const u32 latent = words.indices[slot];
        if (latent >= d_shared) continue;
        const u32 place = atomicAdd(&lists.ends[latent], 1u);
        lists.words[place] = word;
        lists.values[place] = words.values[slot];
    }
    __syncthreads();
}

// inner[i · columns + j] = ⟨z_i, z_j⟩: LANES lanes a patch walk the words of each of its latents, in the order of its slots.
__device__ void inner_products(const Tokens& patches, u32 columns, u32 d_shared, const Lists& lists, float* inner) {
    for (u32 at = threadIdx.x; at < patches.count * columns; at += THREADS) inner[at] = 0.0f;
    __syncthreads();
    const u32 lane = threadIdx.x % LANES, group = threadIdx.x % 32 / LANES * LANES;
    const u32 mask = ((1u << LANES) - 1) << group;
    for (u32 i = threadIdx.x / LANES; i < patches.count; i += THREADS / LANES) {
        float* row = inner + u64(i) * columns;
        bool more = true;
        for (u32 base = 0; more && base < patches.kept; base += LANES) {
            const u64 slot = u64(i) * patches.k + base + lane;
            const bool valid = base + lane < patches.kept;
            const u32 own = valid ? patches.indices[slot] : 0xffffffffu;
            const float own_value = valid ? patches.values[slot] : 0.0f;
            for (u32 s = 0; s < LANES; s++) {
                const u32 latent = __shfl_sync(mask, own, int(group + s));
                const float value = __shfl_sync(mask, own_value, int(group + s));
                more = latent < d_shared;
                // Shared entries lead.
                if (!more) break;
                for (u32 e = (latent > 0 ? lists.ends[latent - 1] : 0) + lane; e < lists.ends[latent]; e += LANES) {
                    row[lists.words[e]] += value * lists.values[e];
                }
                // The next latent's words may be given to other lanes.
                __syncwarp(mask);
            }
        }
    }
    __syncthreads();
}

}  // namespace

// Everything of `Transport` for every pair: cost C, weights w, marginals r and c, guided cost C̃ and the plan. Weights are
// computed where `reweight` or lambda ≠ 0; `admissible` may be null. Errors: as sinkhorn_forward.
extern "C" __global__ void __launch_bounds__(THREADS)
gcmt_plan(const u32* __restrict__ vision_indices, const float* __restrict__ vision_values, u32 vision_k, u32 vision_kept,
          const u32* __restrict__ text_indices, const float* __restrict__ text_values, u32 text_k, u32 text_kept,
          u32 d_shared, const u64* __restrict__ vision, const u64* __restrict__ text, const u64* __restrict__ cells,
          u32 longest_rows, u32 longest_columns, u32 longest_cells, const float* __restrict__ admissible, float penalty,
          u32 reweight, float lambda, float epsilon, u32 iterations, double tolerance, float mass, float start,
          float* __restrict__ cost, float* __restrict__ guided, float* __restrict__ weights, float* __restrict__ row,
          float* __restrict__ column, float* __restrict__ plan, float* __restrict__ plan_u, float* __restrict__ plan_v,
          float* __restrict__ row_sums, float* __restrict__ column_sums, double* __restrict__ marginal_error,
          double* __restrict__ entropy, double* __restrict__ transport_cost, u32* __restrict__ made_out, u64 first_pair,
          u64* __restrict__ status) {
    DYN_SHARED(float, shared);
    __shared__ float narrow[32];
    __shared__ u32 counts[WARPS];
    const u64 pair = blockIdx.x, first_row = vision[pair], first_column = text[pair], first_cell = cells[pair];
    const u32 rows = u32(vision[pair + 1] - first_row), columns = u32(text[pair + 1] - first_column);
    const Tokens patches = {vision_indices + first_row * vision_k, vision_values + first_row * vision_k, rows, vision_k, vision_kept};
    const Tokens words = {text_indices + first_column * text_k, text_values + first_column * text_k, columns, text_k, text_kept};

    float* k = shared;
    float* row_norms = k + max(longest_cells, d_shared);
    float* row_marginal = row_norms + longest_rows;
    float* column_norms = row_marginal + longest_rows;
    float* word_weights = column_norms + longest_columns;
    float* columns_marginal = word_weights + longest_columns;
    float* rest = columns_marginal + longest_columns;
    u32* ends = reinterpret_cast<u32*>(rest);
    u32* list_words = ends + d_shared;
    const Lists lists = {ends, list_words, reinterpret_cast<float*>(list_words + u64(longest_columns) * text_kept)};

    norms(patches, d_shared, row_norms);
    norms(words, d_shared, column_norms);
    __syncthreads();
    const bool weighed = reweight || lambda != 0.0f;
    if (weighed) {
        const float norm_g = global_code(patches, d_shared, k, narrow);
        mass_weights(words, column_norms, k, norm_g, d_shared, word_weights);
        for (u32 j = threadIdx.x; j < columns; j += THREADS) weights[first_column + j] = word_weights[j];
    }
    column_marginal(reweight ? word_weights : nullptr, columns, columns_marginal, narrow);
    for (u32 i = threadIdx.x; i < rows; i += THREADS) {
        row_marginal[i] = 1.0f / float(rows);
        row[first_row + i] = row_marginal[i];
    }
    sort_words(words, d_shared, lists, counts);
    for (u32 j = threadIdx.x; j < columns; j += THREADS) column[first_column + j] = columns_marginal[j];
    inner_products(patches, columns, d_shared, lists, k);

    // C = 1 − cos, the cosine with an all-zero code 0; C̃ = C + penalty · (1 − M) + λ · (1 − w); K = exp(−C̃/ε).
    const u32 lane = threadIdx.x % 32;
    for (u32 i = threadIdx.x / 32; i < rows; i += WARPS) {
        for (u32 j = lane; j < columns; j += 32) {
            const u32 at = i * columns + j;
            const u64 cell = first_cell + at;
            const float both = row_norms[i] * column_norms[j];
            const float here = 1.0f - (both > 0.0f ? k[at] / both : 0.0f);
            float value = here;
            // Not where M = 1: an infinite penalty times 0 is NaN.
            if (admissible && admissible[cell] < 1.0f) value += penalty * (1.0f - admissible[cell]);
            if (lambda != 0.0f) value += lambda * (1.0f - word_weights[j]);
            cost[cell] = here;
            guided[cell] = value;
            k[at] = expf(-value / epsilon);
        }
    }
    __syncthreads();

    Problem p = lay_out(rest, longest_rows, longest_columns, k, rows, columns);
    const PlanOut out = {plan + first_cell,    plan_u + first_row,      plan_v + first_column,
                         row_sums + first_row, column_sums + first_column, marginal_error + pair,
                         entropy + pair,       transport_cost + pair,      made_out + pair};
    solve(p, guided + first_cell, row_marginal, columns_marginal, iterations, tolerance, mass, start, first_pair + pair, status, out);
}
