// Encoder (spec 2): a = W_encᵀ (h − b_dec) + b_enc for a chunk of tokens on tensor cores, then exact Top-k.
//
// Contract: `Backend::encode_topk`, `Backend::encode_listed` and `Backend::count_fired`; scalar twin: scalar/encode.rs.
// Pre-activations exist for one chunk of tokens at a time, whose size the launcher chooses.
#include "block.cuh"
#include "mma.cuh"
#include "split.cuh"
#include "tiles.cuh"
#include "warp.cuh"
#include "wide.cuh"

// Rows as bf16 halves for the product, in tiles (tiles.cuh): rows[list ? list[r] : r] − subtract, `padded` columns,
// zero behind d; rows behind n are left as they are. Without `lo` the high halves alone. Grid: rows / 4 over blocks, a warp a row.
extern "C" __global__ void __launch_bounds__(128)
pack_rows(const float* __restrict__ rows, const u32* __restrict__ list, const float* __restrict__ subtract, u64 n, u32 d,
          u32 padded, u16* __restrict__ hi, u16* __restrict__ lo) {
    const u32 lane = threadIdx.x % 32;
    for (u64 row = u64(blockIdx.x) * 4 + threadIdx.x / 32; row < n; row += u64(gridDim.x) * 4) {
        const float* from = rows + (list ? u64(list[row]) : row) * d;
        const u64 tiles = row / TILE_ROWS * (padded / TILE_COLUMNS);
        for (u32 x = lane * 4; x < padded; x += 32 * 4) {
            float4 value, less = {0.0f, 0.0f, 0.0f, 0.0f};
            if (d % 4 == 0) {
                value = columns<true>(from, x, d);
                if (subtract) less = columns<true>(subtract, x, d);
            } else {
                value = columns<false>(from, x, d);
                if (subtract) less = columns<false>(subtract, x, d);
            }
            const SplitPair first = split_pair(value.x - less.x, value.y - less.y);
            const SplitPair second = split_pair(value.z - less.z, value.w - less.w);
            const u64 at = (tiles + x / TILE_COLUMNS) * TILE +
                           swizzled(row % TILE_ROWS, x % TILE_COLUMNS / 8) + x % 8;
            *reinterpret_cast<uint2*>(hi + at) = uint2{first.hi, second.hi};
            if (lo) *reinterpret_cast<uint2*>(lo + at) = uint2{first.lo, second.lo};
        }
    }
}

namespace {

// Blocks that fit a multiprocessor by their shared memory; the twin of the product below arch 80 needs more registers.
#if !defined(LUCID_SHIM) && __CUDA_ARCH__ < 800
constexpr u32 BLOCKS = 1;
#else
constexpr u32 BLOCKS = 2;
#endif

// Copies one operand's tile. Rows behind the last are whatever the memory holds: only outputs that nobody wants see them.
__device__ inline void stage(u16* shared, const u16* tile) {
    for (u32 at = threadIdx.x * 8; at < TILE; at += 256 * 8) cp_async_16(shared + at, tile + at, true);
}

// A stage holds A hi, A lo, B hi, B lo, or A and B where operands are not split.
template <bool split>
__device__ inline void product(const u16* __restrict__ a_hi, const u16* __restrict__ a_lo, const u16* __restrict__ b_hi,
                               const u16* __restrict__ b_lo, const float* __restrict__ bias, const u32* __restrict__ list,
                               u64 m, u64 n, u32 width, float* __restrict__ out, u16* shared) {
    constexpr u32 PARTS = split ? 2 : 1, STAGE = 2 * PARTS * TILE;
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u32 warp_m = warp / 4 * 64, warp_n = warp % 4 * 32;
    const u32 steps = width / TILE_COLUMNS;
    const u64 tiles_m = u64(blockIdx.x) * steps * TILE, tiles_n = u64(blockIdx.y) * steps * TILE;
    a_hi += tiles_m, a_lo += tiles_m, b_hi += tiles_n, b_lo += tiles_n;
    auto load = [&](u32 step) {
        u16* to = shared + step % 2 * STAGE;
        const u32 at = step * TILE;
        stage(to, a_hi + at);
        stage(to + PARTS * TILE, b_hi + at);
        if (split) stage(to + TILE, a_lo + at), stage(to + 3 * TILE, b_lo + at);
    };
    float sums[4][4][4] = {};
    load(0);
    cp_async_commit();
    for (u32 step = 0; step < steps; step++) {
        if (step + 1 < steps) load(step + 1);
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads();
        const u16* from = shared + step % 2 * STAGE;
// Unrolled, the two halves' fragments would not fit into registers.
#pragma unroll 1
        for (u32 k = 0; k < TILE_COLUMNS; k += 16) {
            u32 b[PARTS][4][2];
#pragma unroll
            for (u32 half = 0; half < PARTS; half++) {
#pragma unroll
                for (u32 pair = 0; pair < 2; pair++) {
                    const u32 row = warp_n + pair * 16 + lane / 16 * 8 + lane % 8;
                    u32 r[4];
                    ldmatrix_x4(r, from + (PARTS + half) * TILE + swizzled(row, k / 8 + lane / 8 % 2));
                    b[half][2 * pair][0] = r[0], b[half][2 * pair][1] = r[1];
                    b[half][2 * pair + 1][0] = r[2], b[half][2 * pair + 1][1] = r[3];
                }
            }
#pragma unroll
            for (u32 tile = 0; tile < 4; tile++) {
                const u32 at = swizzled(warp_m + tile * 16 + lane % 16, k / 8 + lane / 16);
                u32 hi[4], lo[4];
                ldmatrix_x4(hi, from + at);
                if (split) ldmatrix_x4(lo, from + TILE + at);
#pragma unroll
                for (u32 column = 0; column < 4; column++) {
                    // Small terms first.
                    if (split) {
                        mma_bf16(sums[tile][column], lo, b[0][column]);
                        mma_bf16(sums[tile][column], hi, b[PARTS - 1][column]);
                    }
                    mma_bf16(sums[tile][column], hi, b[0][column]);
                }
            }
        }
        // The next round's loads go where these warps read.
        __syncthreads();
    }
#pragma unroll
    for (u32 tile = 0; tile < 4; tile++) {
#pragma unroll
        for (u32 column = 0; column < 4; column++) {
#pragma unroll
            for (u32 e = 0; e < 4; e++) {
                const u32 i = blockIdx.x * TILE_ROWS + warp_m + tile * 16 + lane / 4 + e / 2 * 8;
                const u32 j = blockIdx.y * TILE_ROWS + warp_n + column * 8 + lane % 4 * 2 + e % 2;
                if (i < m && j < n) out[i * n + j] = sums[tile][column][e] + bias[list ? list[j] : j];
            }
        }
    }
}

}  // namespace

// out[i, j] = ⟨a_i, b_j⟩ + bias[list ? list[j] : j] from tiles as `pack_rows` leaves them: a of m rows, b of n, out [m · n];
// width a multiple of 32. Hopper has a faster twin in encode_sm90a.cu. Dynamic shared memory: 64 KiB. Grid: (m / 128, n / 128).
// Eight warps, 64 × 32 outputs each; two stages of cp.async.
extern "C" __global__ void __launch_bounds__(256, BLOCKS)
gemm_bf16x3(const u16* __restrict__ a_hi, const u16* __restrict__ a_lo, const u16* __restrict__ b_hi,
            const u16* __restrict__ b_lo, const float* __restrict__ bias, const u32* __restrict__ list, u64 m, u64 n,
            u32 width, float* __restrict__ out) {
    DYN_SHARED(u16, shared);
    product<true>(a_hi, a_lo, b_hi, b_lo, bias, list, m, n, width, out, shared);
}

// The same of operands rounded to bf16. Dynamic shared memory: 32 KiB.
extern "C" __global__ void __launch_bounds__(256, BLOCKS)
gemm_bf16(const u16* __restrict__ a, const u16* __restrict__ b, const float* __restrict__ bias,
          const u32* __restrict__ list, u64 m, u64 n, u32 width, float* __restrict__ out) {
    DYN_SHARED(u16, shared);
    product<false>(a, nullptr, b, nullptr, bias, list, m, n, width, out, shared);
}

namespace {

constexpr u32 SELECTING = 128;   // threads of a block that selects
constexpr u32 CELLS = 4;         // of a lane: parts of a row with a maximum of their own
constexpr u32 CANDIDATES = 128;  // that are ranked against each other
constexpr u32 UNUSED = 0xFFFFFFFF;

// Positive floats are ordered as their bits are; everything else, NaN too, is 0.
__device__ inline u32 positive_bits(float value) { return value > 0.0f ? __float_as_uint(value) : 0u; }

// Sorts by falling value, then index.
__device__ inline u64 sort_key(u32 latent, u32 bits) { return u64(0x7FFFFFFF - bits) << 32 | latent; }
__device__ inline float key_value(u64 key) { return __uint_as_float(0x7FFFFFFF - u32(key >> 32)); }

__device__ inline float largest(float4 v) { return fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w)); }

// What a warp keeps of a row.
struct Kept {
    u64 keys[CANDIDATES];
    u32 count;
    u8 cells[32 * CELLS];
    u8 ranks[CANDIDATES];
};

// Where the candidates of a row go, called by single lanes.
struct Collect {
    Kept* kept;
    const u32* list;
    u32 first, threshold;

    __device__ void operator()(float value, u32 j) const {
        if (positive_bits(value) < threshold) return;
        const u32 at = atomicAdd(&kept->count, 1u);
        if (at < CANDIDATES) kept->keys[at] = sort_key(list ? list[first + j] : first + j, positive_bits(value));
    }
};

// Collects a superset of the k ≤ 64 largest positive entries of a row, which is read once. Each lane keeps the maxima of its
// four cells; the k-th largest of the 128 maxima, rounded down, is a bound that at least k entries reach, and only cells
// that reach it are looked at again. More than CANDIDATES means that not all are there.
template <bool aligned>
__device__ void collect(const float* __restrict__ from, u32 count, u32 k, u32 first, const u32* __restrict__ list, Kept* kept) {
    const u32 lane = threadIdx.x % 32;
    float most[CELLS] = {};
#pragma unroll 3
    for (u32 base = 0; base < count; base += 32 * 4 * CELLS) {
#pragma unroll
        for (u32 c = 0; c < CELLS; c++) {
            most[c] = fmaxf(most[c], largest(columns<aligned>(from, base + (c * 32 + lane) * 4, count)));
        }
    }
    u32 own[CELLS], top = 0;
#pragma unroll
    for (u32 c = 0; c < CELLS; c++) own[c] = positive_bits(most[c]), top = max(top, own[c]);
    top = warp_butterfly(top, [](u32 a, u32 b) { return max(a, b); });
    u32 low = 0;
    for (u32 bit = 1u << 30; bit >= 1u << 19; bit >>= 1) {
        if ((low | bit) > top) continue;
        u32 reached = 0;
#pragma unroll
        for (u32 c = 0; c < CELLS; c++) reached += __popc(__ballot_sync(0xFFFFFFFF, own[c] >= (low | bit)));
        if (reached >= k) low |= bit;
    }
    // With fewer than k positive maxima, every positive entry.
    low = max(low, 1u);
    u32 cells = 0;
#pragma unroll
    for (u32 c = 0; c < CELLS; c++) {
        const bool hot = own[c] >= low;
        const u32 votes = __ballot_sync(0xFFFFFFFF, hot);
        if (hot) kept->cells[cells + __popc(votes & ((1u << lane) - 1))] = u8(c * 32 + lane);
        cells += __popc(votes);
    }
    if (lane == 0) kept->count = 0;
    __syncwarp();
    // Groups of four columns of the hot cells, over the lanes.
    const Collect consider = {kept, list, first, low};
    const u32 groups = (count + 32 * 4 * CELLS - 1) / (32 * 4 * CELLS), inverse = 0xFFFFFFFF / groups + 1;
    constexpr u32 AHEAD = 4;  // groups that a lane reads together
    for (u32 item = lane; item - lane < cells * groups; item += 32 * AHEAD) {
        float4 v[AHEAD];
        u32 j[AHEAD];
#pragma unroll
        for (u32 a = 0; a < AHEAD; a++) {
            const u32 own_item = item + 32 * a;
            const bool valid = own_item < cells * groups;
            const u32 cell = groups == 1 ? own_item : __umulhi(own_item, inverse);
            j[a] = valid ? ((own_item - cell * groups) * 32 * CELLS + kept->cells[cell]) * 4 : count;
            v[a] = columns<aligned>(from, j[a], count);
        }
#pragma unroll
        for (u32 a = 0; a < AHEAD; a++) {
            if (positive_bits(largest(v[a])) < low) continue;
            consider(v[a].x, j[a]), consider(v[a].y, j[a] + 1), consider(v[a].z, j[a] + 2), consider(v[a].w, j[a] + 3);
        }
    }
    __syncwarp();
}

// The k largest positive entries themselves, whatever the row holds: the k-th largest value bit by bit, each bit a pass over
// the row, then those above it, and of its equals the first. For rows with many equal entries.
__device__ void collect_exactly(const float* __restrict__ from, u32 count, u32 k, u32 first, const u32* __restrict__ list,
                                Kept* kept) {
    const u32 lane = threadIdx.x % 32;
    u32 low = 0, above = 0;
    for (u32 bit = 1u << 30; bit > 0; bit >>= 1) {
        u32 reached = 0;
        for (u32 j = lane; j < count; j += 32) reached += positive_bits(from[j]) >= (low | bit);
        reached = warp_sum(reached);
        if (reached >= k) low |= bit;
        else above = reached;
    }
    // `above` entries are larger than `low`; without a k-th positive entry, low is 0 and all of them are.
    u32 ties = k - above, found = 0;
    for (u32 base = 0; base < count; base += 32) {
        const u32 bits = base + lane < count ? positive_bits(from[base + lane]) : 0;
        const u32 equals = __ballot_sync(0xFFFFFFFF, bits == low && bits > 0);
        const u32 before = (1u << lane) - 1;
        const bool taken = bits > low || (bits == low && bits > 0 && __popc(equals & before) < ties);
        const u32 votes = __ballot_sync(0xFFFFFFFF, taken);
        if (taken) kept->keys[found + __popc(votes & before)] = sort_key(list ? list[first + base + lane] : first + base + lane, bits);
        found += __popc(votes);
        ties -= min(ties, u32(__popc(equals)));
    }
    if (lane == 0) kept->count = found;
    __syncwarp();
}

// The k lowest keys into k slots: those of latents below `border` first, each part in the order of its keys.
__device__ void rank(Kept* kept, u32 k, u32 border, u32* __restrict__ indices, float* __restrict__ values) {
    const u32 lane = threadIdx.x % 32, count = kept->count;
    for (u32 at = lane; at < count; at += 32) {
        const u64 own = kept->keys[at];
        u32 before = 0;
#pragma unroll 4
        for (u32 other = 0; other < count; other++) before += kept->keys[other] < own;
        if (border != UNUSED) {
            kept->ranks[at] = u8(before);
        } else if (before < k) {
            indices[before] = u32(own), values[before] = key_value(own);
        }
    }
    __syncwarp();
    if (border != UNUSED) {
        for (u32 at = lane; at < count; at += 32) {
            if (kept->ranks[at] >= k) continue;
            const u64 own = kept->keys[at];
            const bool behind = u32(own) >= border;
            u32 before = 0;
            for (u32 other = 0; other < count; other++) {
                const u64 key = kept->keys[other];
                const bool other_behind = u32(key) >= border;
                before += kept->ranks[other] < k && (other_behind == behind ? key < own : behind);
            }
            indices[before] = u32(own), values[before] = key_value(own);
        }
    }
    for (u32 empty = count + lane; empty < k; empty += 32) indices[empty] = UNUSED, values[empty] = 0.0f;
}

}  // namespace

// Exact Top-k as topk_rows has it, for k up to 64: a warp a row.
extern "C" __global__ void __launch_bounds__(SELECTING)
topk_warps(const float* __restrict__ a, u64 rows, u64 stride, u32 first_a, u32 count_a, u32 k_a, u32 offset_a, u32 first_b,
           u32 count_b, u32 k_b, u32 offset_b, u32 border, const u32* __restrict__ list, u32 slots,
           u32* __restrict__ indices, float* __restrict__ values) {
    __shared__ Kept all[SELECTING / 32];
    const u32 first = blockIdx.y ? first_b : first_a, count = blockIdx.y ? count_b : count_a;
    const u32 k = blockIdx.y ? k_b : k_a, offset = blockIdx.y ? offset_b : offset_a;
    const bool aligned = stride % 4 == 0 && first % 4 == 0 && count % 4 == 0;
    Kept* kept = &all[threadIdx.x / 32];
    for (u64 row = u64(blockIdx.x) * (SELECTING / 32) + threadIdx.x / 32; row < rows; row += u64(gridDim.x) * (SELECTING / 32)) {
        const float* from = a + row * stride + first;
        if (aligned) collect<true>(from, count, k, first, list, kept);
        else collect<false>(from, count, k, first, list, kept);
        const u32 found = kept->count;
        // All lanes have read it before one of them writes it.
        __syncwarp();
        if (found > CANDIDATES) collect_exactly(from, count, k, first, list, kept);
        const u64 slot = row * slots + offset;
        rank(kept, k, border, indices + slot, values + slot);
        __syncwarp();
    }
}

// Exact Top-k of the positive entries of columns first .. first + count of every row of a [rows · stride]; ties to the
// lower column. Entry j is latent list[j], or j itself. Slots offset .. offset + k of a token of `slots`: those below
// `border` first, each part by falling value; unused slots last. Blocks with blockIdx.y 1 select from other columns into other
// slots (`_b`). One block a row, radix selection on the bits of the value.
// Dynamic shared memory: 8 bytes times the power of two at or above the larger k.
extern "C" __global__ void __launch_bounds__(SELECTING)
topk_rows(const float* __restrict__ a, u64 rows, u64 stride, u32 first_a, u32 count_a, u32 k_a, u32 offset_a, u32 first_b,
          u32 count_b, u32 k_b, u32 offset_b, u32 border, const u32* __restrict__ list, u32 slots,
          u32* __restrict__ indices, float* __restrict__ values) {
    const u32 first = blockIdx.y ? first_b : first_a, count = blockIdx.y ? count_b : count_a;
    const u32 k = blockIdx.y ? k_b : k_a, offset = blockIdx.y ? offset_b : offset_a;
    DYN_SHARED(u64, kept);
    __shared__ u32 histogram[256];
    __shared__ u32 digit, above, survivors, wanted, size;
    const u32 lane = threadIdx.x % 32;
    u32 room = 1;
    while (room < k) room *= 2;
    for (u64 row = blockIdx.x; row < rows; row += gridDim.x) {
        const float* from = a + row * stride + first;
        auto bits = [&](u32 j) { return positive_bits(from[j]); };
        // By part, then as sort_key.
        auto key = [&](u32 j) {
            const u32 latent = list ? list[first + j] : first + j;
            return u64(latent >= border) << 63 | sort_key(latent, bits(j));
        };
        if (threadIdx.x == 0) wanted = k, survivors = 0;
        for (u32 at = threadIdx.x; at < room; at += blockDim.x) kept[at] = ~u64(0);

        // The k-th largest value, eight bits at a time; `prefix` is what is known of it.
        u32 prefix = 0, mask = 0, ties = 0;
        bool all = false;
        for (i32 shift = 24; shift >= 0; shift -= 8) {
            for (u32 bin = threadIdx.x; bin < 256; bin += blockDim.x) histogram[bin] = 0;
            __syncthreads();
            for (u32 j = threadIdx.x; j < count; j += blockDim.x) {
                const u32 value = bits(j);
                if (value != 0 && (value & mask) == prefix) atomicAdd(&histogram[value >> shift & 255], 1u);
            }
            __syncthreads();
            if (threadIdx.x < 32) {
                // Lane l holds bins 255 − 8l down to 248 − 8l.
                u32 sum = 0;
                for (u32 b = 0; b < 8; b++) sum += histogram[255 - 8 * lane - b];
                u32 before = sum;
                for (u32 step = 1; step < 32; step *= 2) {
                    const u32 other = __shfl_up_sync(0xFFFFFFFF, before, step);
                    if (lane >= step) before += other;
                }
                const u32 total = __shfl_sync(0xFFFFFFFF, before, 31);
                before -= sum;
                if (total < wanted) {
                    if (lane == 0) digit = 256;
                } else {
                    for (u32 b = 0; b < 8; b++) {
                        const u32 here = histogram[255 - 8 * lane - b];
                        if (before < wanted && before + here >= wanted) {
                            digit = 255 - 8 * lane - b;
                            above = before;
                            size = here;
                        }
                        before += here;
                    }
                }
            }
            __syncthreads();
            // Fewer positive entries than slots: only the first digit can tell.
            all = digit == 256;
            if (all) break;
            prefix |= digit << shift;
            mask |= 255u << shift;
            ties = size;
            if (threadIdx.x == 0) wanted -= above;
            // `above` and `digit` are read; the next round overwrites them.
            __syncthreads();
        }
        const u32 threshold = all ? 0 : prefix;
        const bool take_ties = all || ties == wanted;
        for (u32 j = threadIdx.x; j < count; j += blockDim.x) {
            const u32 value = bits(j);
            if (value > threshold || (take_ties && value == threshold && value != 0)) {
                kept[atomicAdd(&survivors, 1u)] = key(j);
            }
        }
        __syncthreads();
        if (!take_ties && threadIdx.x < 32) {
            // More ties at the threshold than room: the lowest indices, in order.
            u32 left = wanted;
            for (u32 base = 0; base < count && left > 0; base += 32) {
                const bool tie = base + lane < count && bits(base + lane) == threshold;
                const u32 votes = __ballot_sync(0xFFFFFFFF, tie);
                const u32 rank = __popc(votes & ((1u << lane) - 1));
                if (tie && rank < left) kept[survivors + wanted - left + rank] = key(base + lane);
                left -= min(left, u32(__popc(votes)));
            }
        }
        // Bitonic sort of the survivors, padding last.
        for (u32 width = 2; width <= room; width *= 2) {
            for (u32 step = width / 2; step > 0; step /= 2) {
                __syncthreads();
                for (u32 at = threadIdx.x; at < room; at += blockDim.x) {
                    const u32 other = at ^ step;
                    if (other > at) {
                        const u64 x = kept[at], y = kept[other];
                        if ((x > y) == ((at & width) == 0)) kept[at] = y, kept[other] = x;
                    }
                }
            }
        }
        __syncthreads();
        for (u32 slot = threadIdx.x; slot < k; slot += blockDim.x) {
            const u64 found = kept[slot];
            const bool used = found != ~u64(0);
            indices[row * slots + offset + slot] = used ? u32(found) : UNUSED;
            values[row * slots + offset + slot] = used ? __uint_as_float(0x7FFFFFFF - (u32(found >> 32) & 0x7FFFFFFF)) : 0.0f;
        }
        __syncthreads();
    }
}

// fired[latent] += slots that hold it. Blocks count in shared memory what fits there (`inside` latents: dynamic shared memory, 4
// bytes each). Grid: slots over threads.
extern "C" __global__ void __launch_bounds__(256)
count_fired(const u32* __restrict__ indices, u64 len, u32 inside, u32* __restrict__ fired) {
    DYN_SHARED(u32, counts);
    for (u32 latent = threadIdx.x; latent < inside; latent += blockDim.x) counts[latent] = 0;
    __syncthreads();
    constexpr u32 AHEAD = 8;  // indices that a thread reads together
    const u64 stride = u64(gridDim.x) * blockDim.x;
    for (u64 at = u64(blockIdx.x) * blockDim.x + threadIdx.x; at < len; at += stride * AHEAD) {
        u32 found[AHEAD];
#pragma unroll
        for (u32 a = 0; a < AHEAD; a++) found[a] = at + stride * a < len ? indices[at + stride * a] : UNUSED;
#pragma unroll
        for (u32 a = 0; a < AHEAD; a++) {
            if (found[a] < inside) atomicAdd(&counts[found[a]], 1u);
            else if (found[a] != UNUSED) atomicAdd(&fired[found[a]], 1u);
        }
    }
    __syncthreads();
    for (u32 latent = threadIdx.x; latent < inside; latent += blockDim.x) {
        if (counts[latent] > 0) atomicAdd(&fired[latent], counts[latent]);
    }
}
