// Gradients of dictionary rows without float atomics: the slots of a micro-batch sorted by latent (the transpose of the
// codes, CSC), then one block a latent that adds its tokens' rows in token order.
//
// Contract: the dictionary's part of `Backend::decode_backward` and `Backend::encode_backward`; scalar twins: scalar/decode.rs
// and scalar/encode.rs. A counting sort in four launches: count, scan over chunks of tokens, scan over latents, place.
// A latent with more than SEGMENT entries is cut into segments whose sums are added in order, so that one that fires
// for every token does not hold up the rest.
#include "block.cuh"
#include "wide.cuh"

namespace {

constexpr u32 UNUSED = 0xFFFFFFFF;
constexpr u32 SEGMENT = 1024;
constexpr u32 THREADS = 128;
constexpr u32 WIDE = 2;      // groups of four columns of a thread at a time
constexpr u32 STAGED = 128;  // entries at a time

}  // namespace

// counts[chunk · latents + latent] += slots of the chunk that hold the latent. One warp a chunk of `chunk` tokens; counts
// are 0 before.
extern "C" __global__ void __launch_bounds__(32)
csc_count(const u32* __restrict__ indices, u64 n, u32 k, u32 chunk, u32 latents, u32* __restrict__ counts) {
    const u64 start = u64(blockIdx.x) * chunk * k;
    const u64 end = min(start + u64(chunk) * k, n * k);
    u32* mine = counts + u64(blockIdx.x) * latents;
    constexpr u32 AHEAD = 8;  // indices that a lane reads together
    for (u64 at = start + threadIdx.x; at < end; at += 32 * AHEAD) {
        u32 found[AHEAD];
#pragma unroll
        for (u32 a = 0; a < AHEAD; a++) found[a] = at + 32 * a < end ? indices[at + 32 * a] : UNUSED;
#pragma unroll
        for (u32 a = 0; a < AHEAD; a++) {
            if (found[a] != UNUSED) atomicAdd(&mine[found[a]], 1u);
        }
    }
}

// counts becomes the number of entries in earlier chunks, totals[latent] the number in all. One lane a latent; each of eight
// warps walks its share of the chunks, first to count, then to write. Grid: latents / 32.
extern "C" __global__ void __launch_bounds__(256)
csc_scan_chunks(u32* __restrict__ counts, u32 chunks, u32 latents, u32* __restrict__ totals) {
    constexpr u32 WARPS = 8, AHEAD = 8;  // AHEAD: counts that a lane reads together
    __shared__ u32 sums[WARPS][32];
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, latent = blockIdx.x * 32 + lane;
    const u32 each = (chunks + WARPS - 1) / WARPS;
    const u32 begin = latent < latents ? min(warp * each, chunks) : 0, end = latent < latents ? min(begin + each, chunks) : 0;
    u32 own = 0;
#pragma unroll 8
    for (u32 c = begin; c < end; c++) own += counts[u64(c) * latents + latent];
    sums[warp][lane] = own;
    __syncthreads();
    u32 before = 0;
    for (u32 w = 0; w < warp; w++) before += sums[w][lane];
    for (u32 c = begin; c < end; c += AHEAD) {
        u32 here[AHEAD];
#pragma unroll
        for (u32 a = 0; a < AHEAD; a++) here[a] = c + a < end ? counts[u64(c + a) * latents + latent] : 0;
#pragma unroll
        for (u32 a = 0; a < AHEAD; a++) {
            if (c + a < end) counts[u64(c + a) * latents + latent] = before;
            before += here[a];
        }
    }
    if (warp == WARPS - 1 && latent < latents) totals[latent] = before;
}

// offsets[latents + 1]: where each latent's entries start. cuts[latents + 1]: where the segments of each latent with more than
// SEGMENT entries start among all such segments. One block.
extern "C" __global__ void __launch_bounds__(1024)
csc_scan_latents(const u32* __restrict__ totals, u32 latents, u32* __restrict__ offsets, u32* __restrict__ cuts) {
    __shared__ u32 entries[1024], segments[1024];
    const u32 each = (latents + 1023) / 1024;
    const u32 begin = min(threadIdx.x * each, latents), end = min(begin + each, latents);
    auto pieces = [&](u32 latent) { return totals[latent] > SEGMENT ? (totals[latent] + SEGMENT - 1) / SEGMENT : 0u; };
    u32 own_entries = 0, own_segments = 0;
    for (u32 latent = begin; latent < end; latent++) {
        own_entries += totals[latent];
        own_segments += pieces(latent);
    }
    entries[threadIdx.x] = own_entries;
    segments[threadIdx.x] = own_segments;
    for (u32 step = 1; step < 1024; step *= 2) {
        __syncthreads();
        const bool far = threadIdx.x >= step;
        const u32 e = far ? entries[threadIdx.x - step] : 0, s = far ? segments[threadIdx.x - step] : 0;
        __syncthreads();
        entries[threadIdx.x] += e;
        segments[threadIdx.x] += s;
    }
    u32 at = entries[threadIdx.x] - own_entries, cut = segments[threadIdx.x] - own_segments;
    for (u32 latent = begin; latent < end; latent++) {
        offsets[latent] = at;
        cuts[latent] = cut;
        at += totals[latent];
        cut += pieces(latent);
    }
    if (threadIdx.x == 1023) offsets[latents] = at, cuts[latents] = cut;
}

// entries[…] = slots (token · k + slot) by latent, tokens rising. One warp a chunk; `counts` as csc_scan_chunks leaves it may be
// used up. Where the next places of all latents fit into shared memory (`inside`: 4 bytes a latent), they are kept there. A token
// never holds a latent twice, so the lanes of a token write to different places.
extern "C" __global__ void __launch_bounds__(32)
csc_place(const u32* __restrict__ indices, u64 n, u32 k, u32 chunk, u32 latents, u32 inside, const u32* __restrict__ offsets,
          u32* __restrict__ counts, u32* __restrict__ entries) {
    DYN_SHARED(u32, places);
    const u64 first = u64(blockIdx.x) * chunk, end = min(first + chunk, n);
    u32* mine = counts + u64(blockIdx.x) * latents;
    if (inside) {
        constexpr u32 READ = 8;  // latents of a lane that are read together
        for (u32 base = threadIdx.x; base < latents; base += 32 * READ) {
            u32 at[READ];
#pragma unroll
            for (u32 r = 0; r < READ; r++) {
                const u32 latent = base + 32 * r;
                at[r] = latent < latents ? offsets[latent] + mine[latent] : 0;
            }
#pragma unroll
            for (u32 r = 0; r < READ; r++) {
                if (base + 32 * r < latents) places[base + 32 * r] = at[r];
            }
        }
        __syncwarp();
    }
    auto place = [&](u32 latent, u64 token, u32 slot) {
        if (latent == UNUSED) return;
        const u32 at = inside ? places[latent]++ : offsets[latent] + mine[latent]++;
        entries[at] = u32(token * k + slot);
    };
    constexpr u32 AHEAD = 4, HELD = 2;  // tokens, and slots of a lane, that are read together
    for (u64 base = first; base < end; base += AHEAD) {
        u32 held[AHEAD][HELD];
#pragma unroll
        for (u32 a = 0; a < AHEAD; a++) {
#pragma unroll
            for (u32 h = 0; h < HELD; h++) {
                const u32 slot = threadIdx.x + 32 * h;
                held[a][h] = base + a < end && slot < k ? indices[(base + a) * k + slot] : UNUSED;
            }
        }
#pragma unroll
        for (u32 a = 0; a < AHEAD; a++) {
            const u64 token = base + a;
#pragma unroll
            for (u32 h = 0; h < HELD; h++) place(held[a][h], token, threadIdx.x + 32 * h);
            for (u32 slot = threadIdx.x + 32 * HELD; slot < k && token < end; slot += 32) {
                place(indices[token * k + slot], token, slot);
            }
            // The next token's lanes read what these wrote.
            __syncwarp();
        }
    }
}

namespace {

// `to` [d] gets Σ weight (row − subtract) of entries start .. stop, added to what is there if `add`; returns this thread's share
// of Σ weight.
template <bool aligned>
__device__ float gather_rows(const u32* __restrict__ entries, u32 start, u32 stop, u32 k, const float* __restrict__ weights,
                             const float* __restrict__ rows, const float* __restrict__ subtract, u32 d, float* to, bool add,
                             u32* tokens, float* scales) {
    const float4 zero = {0.0f, 0.0f, 0.0f, 0.0f};
    float weight_sum = 0.0f;
    for (u32 base = 0; base < d; base += blockDim.x * 4 * WIDE) {
        u32 x[WIDE];
        float4 sums[WIDE], less[WIDE];
#pragma unroll
        for (u32 c = 0; c < WIDE; c++) {
            x[c] = base + (c * blockDim.x + threadIdx.x) * 4;
            sums[c] = zero;
            less[c] = subtract ? columns<aligned>(subtract, x[c], d) : zero;
        }
        for (u32 at = start; at < stop; at += STAGED) {
            const u32 count = min(STAGED, stop - at);
            __syncthreads();
            for (u32 e = threadIdx.x; e < count; e += blockDim.x) {
                const u32 entry = entries[at + e];
                tokens[e] = entry / k;
                scales[e] = weights[entry];
                if (base == 0) weight_sum += weights[entry];
            }
            __syncthreads();
#pragma unroll 4
            for (u32 e = 0; e < count; e++) {
                const float* row = rows + u64(tokens[e]) * d;
                const float scale = scales[e];
#pragma unroll
                for (u32 c = 0; c < WIDE; c++) {
                    const float4 value = columns<aligned>(row, x[c], d);
                    add_scaled(sums[c], scale,
                               {value.x - less[c].x, value.y - less[c].y, value.z - less[c].z, value.w - less[c].w});
                }
            }
        }
#pragma unroll
        for (u32 c = 0; c < WIDE; c++) {
            if (add) add_scaled(sums[c], 1.0f, columns<aligned>(to, x[c], d));
            store_columns<aligned>(to, x[c], d, sums[c]);
        }
    }
    return weight_sum;
}

// The same of rows rounded to bf16, `stride` from one to the next, from which nothing more is subtracted: eight columns a thread.
template <bool aligned>
__device__ float gather_rounded(const u32* __restrict__ entries, u32 start, u32 stop, u32 k,
                                const float* __restrict__ weights, const u16* __restrict__ rows, u32 stride, u32 d, float* to,
                                bool add, u32* tokens, float* scales) {
    float weight_sum = 0.0f;
    for (u32 base = 0; base < d; base += blockDim.x * 8) {
        const u32 x = base + threadIdx.x * 8;
        Eight sum = {};
        for (u32 at = start; at < stop; at += STAGED) {
            const u32 count = min(STAGED, stop - at);
            __syncthreads();
            for (u32 e = threadIdx.x; e < count; e += blockDim.x) {
                const u32 entry = entries[at + e];
                tokens[e] = entry / k;
                scales[e] = weights[entry];
                if (base == 0) weight_sum += weights[entry];
            }
            __syncthreads();
            if (x >= d) continue;
#pragma unroll 8
            for (u32 e = 0; e < count; e++) add_scaled(sum, scales[e], eight(eight_bits(rows + u64(tokens[e]) * stride + x)));
        }
        if (add) add_scaled(sum, 1.0f, eight_columns<aligned>(to, x, d));
        store_eight<aligned>(to, x, d, sum);
    }
    return weight_sum;
}

// What a block of csc_rows adds.
struct Piece {
    u32 latent, start, stop;
    bool whole;  // and not a segment
};

// Blocks 0 .. latents are the latents of up to SEGMENT entries; the blocks behind them are the segments of the others. False
// where there is nothing to add.
__device__ inline bool piece_of(u32 block, const u32* __restrict__ offsets, const u32* __restrict__ cuts, u32 latents,
                                u32 first, u32 end, Piece& piece) {
    piece.latent = block;
    piece.whole = block < latents;
    if (piece.whole) {
        piece.start = offsets[block], piece.stop = offsets[block + 1];
        if (piece.start == piece.stop || piece.stop - piece.start > SEGMENT) return false;
    } else {
        const u32 segment = block - latents;
        if (segment >= cuts[latents]) return false;
        // The last latent whose first segment is not behind this one.
        u32 low = 0, high = latents - 1;
        while (low < high) {
            const u32 middle = (low + high + 1) / 2;
            if (cuts[middle] <= segment) low = middle;
            else high = middle - 1;
        }
        piece.latent = low;
        piece.start = offsets[low] + (segment - cuts[low]) * SEGMENT;
        piece.stop = min(piece.start + SEGMENT, offsets[low + 1]);
    }
    return piece.latent >= first && piece.latent < end;
}

// Σ weight of a piece, from its threads' shares.
__device__ inline void add_bias(const Piece& piece, u32 segment, float weight_sum, float* bias, float* partial_bias,
                                float* scratch) {
    weight_sum = block_sum(weight_sum, scratch);
    if (threadIdx.x > 0) return;
    if (piece.whole) bias[piece.latent] += weight_sum;
    else partial_bias[segment] = weight_sum;
}

}  // namespace

// For latents first .. end: out[latent] += Σ weight (row − subtract), and bias[latent] += Σ weight where given, over the
// latent's entries, row = rows[entry / k], weight = weights[entry]. Segments (piece_of) leave their sums in partial [· d] and
// partial_bias.
extern "C" __global__ void __launch_bounds__(THREADS, 6)
csc_rows(const u32* __restrict__ entries, const u32* __restrict__ offsets, const u32* __restrict__ cuts, u32 latents,
         u32 first, u32 end, u32 k, const float* __restrict__ weights, const float* __restrict__ rows,
         const float* __restrict__ subtract, u32 d, float* __restrict__ out, float* __restrict__ bias,
         float* __restrict__ partial, float* __restrict__ partial_bias) {
    __shared__ u32 tokens[STAGED];
    __shared__ float scales[STAGED];
    __shared__ float scratch[32];
    Piece piece;
    if (!piece_of(blockIdx.x, offsets, cuts, latents, first, end, piece)) return;
    const u32 segment = blockIdx.x - latents;
    float* to = piece.whole ? out + u64(piece.latent) * d : partial + u64(segment) * d;
    const float weight_sum = d % 4 == 0 ? gather_rows<true>(entries, piece.start, piece.stop, k, weights, rows, subtract, d, to,
                                                            piece.whole, tokens, scales)
                                        : gather_rows<false>(entries, piece.start, piece.stop, k, weights, rows, subtract, d, to,
                                                             piece.whole, tokens, scales);
    if (bias) add_bias(piece, segment, weight_sum, bias, partial_bias, scratch);
}

// csc_rows of rows that `round_rows` made, less what is to be subtracted.
extern "C" __global__ void __launch_bounds__(THREADS, 8)
csc_rows_bf16(const u32* __restrict__ entries, const u32* __restrict__ offsets, const u32* __restrict__ cuts, u32 latents,
              u32 first, u32 end, u32 k, const float* __restrict__ weights, const u16* __restrict__ rows, u32 stride, u32 d,
              float* __restrict__ out, float* __restrict__ bias, float* __restrict__ partial,
              float* __restrict__ partial_bias) {
    __shared__ u32 tokens[STAGED];
    __shared__ float scales[STAGED];
    __shared__ float scratch[32];
    Piece piece;
    if (!piece_of(blockIdx.x, offsets, cuts, latents, first, end, piece)) return;
    const u32 segment = blockIdx.x - latents;
    float* to = piece.whole ? out + u64(piece.latent) * d : partial + u64(segment) * d;
    const float weight_sum = d % 4 == 0 ? gather_rounded<true>(entries, piece.start, piece.stop, k, weights, rows, stride, d, to,
                                                               piece.whole, tokens, scales)
                                        : gather_rounded<false>(entries, piece.start, piece.stop, k, weights, rows, stride, d,
                                                                to, piece.whole, tokens, scales);
    if (bias) add_bias(piece, segment, weight_sum, bias, partial_bias, scratch);
}

// Adds the segments of each latent that has any, in order. One block a latent of first .. end.
extern "C" __global__ void __launch_bounds__(THREADS)
csc_combine(const u32* __restrict__ cuts, u32 first, u32 end, const float* __restrict__ partial,
            const float* __restrict__ partial_bias, u32 d, float* __restrict__ out, float* __restrict__ bias) {
    const u32 latent = first + blockIdx.x;
    if (latent >= end || cuts[latent] == cuts[latent + 1]) return;
    for (u32 x = threadIdx.x; x < d; x += THREADS) {
        float sum = 0.0f;
        for (u32 s = cuts[latent]; s < cuts[latent + 1]; s++) sum += partial[u64(s) * d + x];
        out[u64(latent) * d + x] += sum;
    }
    if (bias && threadIdx.x == 0) {
        float sum = 0.0f;
        for (u32 s = cuts[latent]; s < cuts[latent + 1]; s++) sum += partial_bias[s];
        bias[latent] += sum;
    }
}

// partial[block] [d] = Σ weight row over `each` rows; weight 1 where weights are null. Grid: (rows / each, d / 128).
extern "C" __global__ void __launch_bounds__(THREADS)
columns_partial(const float* __restrict__ rows, const float* __restrict__ weights, u64 count, u32 each, u32 d,
                float* __restrict__ partial) {
    const u32 x = blockIdx.y * THREADS + threadIdx.x;
    if (x >= d) return;
    const u64 start = u64(blockIdx.x) * each, stop = min(start + each, count);
    float sum = 0.0f;
#pragma unroll 8
    for (u64 row = start; row < stop; row++) sum += (weights ? weights[row] : 1.0f) * rows[row * d + x];
    partial[u64(blockIdx.x) * d + x] = sum;
}

// out += scale Σ partial. Grid: d / 32; each of 16 warps adds every sixteenth of the blocks, in order.
extern "C" __global__ void __launch_bounds__(512)
columns_combine(const float* __restrict__ partial, u32 blocks, u32 d, float scale, float* __restrict__ out) {
    __shared__ float sums[16][32];
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, x = blockIdx.x * 32 + lane;
    float sum = 0.0f;
    if (x < d) {
#pragma unroll 8
        for (u32 b = warp; b < blocks; b += 16) sum += partial[u64(b) * d + x];
    }
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || x >= d) return;
    for (u32 w = 1; w < 16; w++) sum += sums[w][lane];
    out[x] += scale * sum;
}
