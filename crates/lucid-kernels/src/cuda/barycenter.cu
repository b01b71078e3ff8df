// Barycentres under a normalised plan (spec 4), both ways, forward and backward, as ragged products on tensor cores.
//
// Contract: `Backend::barycenter`, `Backend::barycenter_backward`; scalar twin: scalar/barycenter.rs. Operands are f32 and
// are split into bf16 halves on their way to shared memory (split.cuh); where `split` is not set, low halves are left out.
#include "mma.cuh"
#include "split.cuh"
#include "warp.cuh"
#include "wide.cuh"

namespace {

constexpr u32 THREADS = 128;
constexpr u32 TILE = 64;   // rows and columns of a block's output; four warps, 32 × 32 each
constexpr u32 DEPTH = 32;  // of the sum, at a time

// 16-byte chunks within rows of 32 halves, permuted so that eight rows read by one ldmatrix touch all banks.
__device__ inline u32 at32(u32 row, u32 column) { return row * 32 + ((column >> 3 ^ (row >> 1 & 3)) << 3) + column % 8; }

struct Halves {
    u16 hi[TILE * DEPTH], lo[TILE * DEPTH];
};

// Four neighbours within a chunk, `at` a multiple of 4.
template <bool split>
__device__ inline void put_four(Halves& halves, u32 at, float4 value) {
    const SplitPair first = split_pair(value.x, value.y), second = split_pair(value.z, value.w);
    *reinterpret_cast<uint2*>(halves.hi + at) = uint2{first.hi, second.hi};
    if (split) *reinterpret_cast<uint2*>(halves.lo + at) = uint2{first.lo, second.lo};
}

__device__ inline float4 load_four(bool aligned, const float* row, u32 x, u32 d) {
    return aligned ? columns<true>(row, x, d) : columns<false>(row, x, d);
}

// 1 / mass in two factors, so that it is finite for the smallest mass; 0 where there is none.
struct Inverse {
    float first, second;
};

__device__ inline Inverse inverse(float mass) {
    if (!(mass > 0.0f)) return {0.0f, 0.0f};
    const float lift = mass < 1e-30f ? 1.8446744e19f : 1.0f;
    return {lift, 1.0f / (mass * lift)};
}

// Adds the product of one depth to a warp's sums; b lies as [column][term].
template <bool split>
__device__ void accumulate(const Halves& a, const Halves& b, float (&sums)[2][4][4]) {
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u32 warp_m = warp / 2 * 32, warp_n = warp % 2 * 32;
#pragma unroll
    for (u32 k = 0; k < DEPTH; k += 16) {
        constexpr u32 PARTS = split ? 2 : 1;
        u32 right[PARTS][4][2];
#pragma unroll
        for (u32 half = 0; half < PARTS; half++) {
            const u16* from = half ? b.lo : b.hi;
#pragma unroll
            for (u32 pair = 0; pair < 2; pair++) {
                u32 r[4];
                ldmatrix_x4(r, from + at32(warp_n + pair * 16 + lane / 16 * 8 + lane % 8, k + lane / 8 % 2 * 8));
                right[half][2 * pair][0] = r[0], right[half][2 * pair][1] = r[1];
                right[half][2 * pair + 1][0] = r[2], right[half][2 * pair + 1][1] = r[3];
            }
        }
#pragma unroll
        for (u32 tile = 0; tile < 2; tile++) {
            const u32 at = at32(warp_m + tile * 16 + lane % 16, k + lane / 16 * 8);
            u32 hi[4], lo[4];
            ldmatrix_x4(hi, a.hi + at);
            if (split) ldmatrix_x4(lo, a.lo + at);
#pragma unroll
            for (u32 column = 0; column < 4; column++) {
                if (split) {
                    mma_bf16(sums[tile][column], lo, right[0][column]);
                    mma_bf16(sums[tile][column], hi, right[PARTS - 1][column]);
                }
                mma_bf16(sums[tile][column], hi, right[0][column]);
            }
        }
    }
}

// Calls visit(row, column, sum) for each of a thread's outputs within the block's tile.
template <typename Visit>
__device__ void each_output(const float (&sums)[2][4][4], Visit visit) {
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u32 warp_m = warp / 2 * 32, warp_n = warp % 2 * 32;
#pragma unroll
    for (u32 tile = 0; tile < 2; tile++) {
#pragma unroll
        for (u32 column = 0; column < 4; column++) {
#pragma unroll
            for (u32 e = 0; e < 4; e++) {
                visit(warp_m + tile * 16 + lane / 4 + e / 2 * 8, warp_n + column * 8 + lane % 4 * 2 + e % 2,
                      sums[tile][column][e]);
            }
        }
    }
}

// Cell of the plan for a row of the output and a term of the sum; `transposed` if the output's rows are columns of the plan.
__device__ inline u64 cell(u32 row, u32 term, u32 rows, u32 terms, bool transposed) {
    return transposed ? u64(term) * rows + row : u64(row) * terms + term;
}

// Sizes of a block of mix_rows: four warps of 32 rows × 32 columns, `down` of them above each other.
struct Mixing {
    u32 down, across;
    u32 panel;  // depths of shares that are in shared memory at once
    u32 tiles;  // tiles of 32 · across columns, one after the other
};

// Blocks that a multiprocessor's registers have room for; the twin of the product below arch 80 needs more of them.
#if !defined(LUCID_SHIM) && __CUDA_ARCH__ < 800
constexpr u32 MIX_BLOCKS = 2;
#else
constexpr u32 MIX_BLOCKS = 3;
#endif
constexpr u32 PANEL = 256;  // most terms of a panel, and most rows of a block
constexpr u32 POINTS = 4;   // groups of four points that a thread stages: at least two warps down

// One tile: 32 rows (of shares, or terms of points) × 32.
constexpr u32 SQUARE = 32 * 32;

// `aligned`: d is a multiple of 4. Points are then read ahead.
template <bool split, bool aligned>
__device__ inline void mix(const float* __restrict__ plan, const float* __restrict__ mass, u32 mass_of_own, u32 transposed,
                           const u64* __restrict__ own, const u64* __restrict__ other, const u64* __restrict__ cells,
                           const float* __restrict__ y, u32 d, float* __restrict__ out, const Mixing& by, u16* shares,
                           Inverse* inverses) {
    constexpr u32 PARTS = split ? 2 : 1;
    const u64 pair = blockIdx.x;
    const u32 rows = u32(own[pair + 1] - own[pair]), terms = u32(other[pair + 1] - other[pair]);
    const u32 height = 32 * by.down, first_row = blockIdx.z * height;
    if (first_row >= rows) return;
    const u32 threads = THREADS, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u32 warp_m = warp % by.down, warp_n = warp / by.down;
    const bool wide_plan = cells[pair] % 4 == 0 && terms % 4 == 0;
    plan += cells[pair];
    mass += mass_of_own ? own[pair] : other[pair];
    y += other[pair] * d, out += own[pair] * d;
    const float4 zero = {0.0f, 0.0f, 0.0f, 0.0f};

    // Shares [depth][part][row][32 terms], then two buffers of points [part][column / 32][term][32 columns].
    const u32 depth_size = PARTS * by.down * SQUARE, points_size = PARTS * by.across * SQUARE;
    u16* points = shares + by.panel * depth_size;
    auto put = [&](u16* hi, u32 part_size, u32 at, float4 value) {
        const SplitPair one = split_pair(value.x, value.y), two = split_pair(value.z, value.w);
        *reinterpret_cast<uint2*>(hi + at) = uint2{one.hi, two.hi};
        if (split) *reinterpret_cast<uint2*>(hi + part_size + at) = uint2{one.lo, two.lo};
    };
    auto stage_shares = [&](u32 first_term) {
        const u32 count = min(by.panel * 32, (terms - first_term + 31) / 32 * 32);
        const u32 inverted = mass_of_own ? height : count, before = mass_of_own ? first_row : first_term;
        for (u32 at = threadIdx.x; at < inverted; at += threads) {
            inverses[at] = before + at < (mass_of_own ? rows : terms) ? inverse(mass[before + at]) : Inverse{0.0f, 0.0f};
        }
        __syncthreads();
        // Four terms of a row. Neighbouring threads take neighbouring cells of the plan: rows, or terms of sixteen threads a row.
        // A height is 64 or 128.
        const u32 rows_shift = 31 - __clz(height), shift = transposed ? rows_shift : 4;
        const u32 groups = transposed ? count / 4 : (count / 4 + 15) / 16 << rows_shift;
// Unrolled, it would take the registers of the products.
#pragma unroll 1
        for (u32 at = threadIdx.x; at < groups << shift; at += threads) {
            const u32 low = at & ((1 << shift) - 1), high = at >> shift;
            const u32 r = transposed ? low : high & (height - 1), t = (transposed ? high : low + (high >> rows_shift) * 16) * 4;
            if (t >= count) continue;
            const u32 row = first_row + r, term = first_term + t;
            float4 share = zero;
            if (row < rows && transposed) {
                const float* cell = plan + u64(term) * rows + row;
                share = {term < terms ? cell[0] : 0.0f, term + 1 < terms ? cell[rows] : 0.0f,
                         term + 2 < terms ? cell[2 * u64(rows)] : 0.0f, term + 3 < terms ? cell[3 * u64(rows)] : 0.0f};
            } else if (row < rows) {
                share = load_four(wide_plan, plan + u64(row) * terms, term, terms);
            }
            auto part = [&](float cell, u32 t) {
                const Inverse by_mass = inverses[mass_of_own ? r : t];
                return cell * by_mass.first * by_mass.second;
            };
            share = {part(share.x, t), part(share.y, t + 1), part(share.z, t + 2), part(share.w, t + 3)};
            put(shares + t / 32 * depth_size, by.down * SQUARE, at32(r, t % 32), share);
        }
        __syncthreads();
    };

    const u32 depths = (terms + 31) / 32, width = 32 * by.across;
    const u32 first_tile = blockIdx.y * by.tiles, end_tile = min(first_tile + by.tiles, (d + width - 1) / width);
    // A thread's points are 4 columns of every `threads`-th group: the same columns of some terms.
    const u32 own_term = threadIdx.x / (width / 4), own_column = threadIdx.x % (width / 4) * 4, next_term = threads / (width / 4);
    float4 ahead[POINTS];
    auto read_points = [&](u32 tile, u32 depth) {
        const u32 x = tile * width + own_column;
        const float* from = y + u64(depth * 32 + own_term) * d + x;
#pragma unroll
        for (u32 i = 0; i < POINTS; i++) {
            const u32 term = own_term + i * next_term;
            const bool valid = term < 32 && depth * 32 + term < terms && x < d;
            ahead[i] = valid ? *reinterpret_cast<const float4*>(from) : zero;
            from += u64(next_term) * d;
        }
    };
    auto stage_points = [&](u32 buffer, u32 tile, u32 depth) {
        u16* to = points + buffer * points_size + own_column / 32 * SQUARE;
        if (aligned) {
#pragma unroll
            for (u32 i = 0; i < POINTS; i++) {
                const u32 term = own_term + i * next_term;
                if (term < 32) put(to, by.across * SQUARE, at32(term, own_column % 32), ahead[i]);
            }
        } else {
#pragma unroll 1
            for (u32 term = own_term; term < 32; term += next_term) {
                const bool valid = depth * 32 + term < terms;
                const float* row = y + u64(valid ? depth * 32 + term : 0) * d;
                const float4 value = columns<false>(row, tile * width + own_column, valid ? d : 0);
                put(to, by.across * SQUARE, at32(term, own_column % 32), value);
            }
        }
    };

    float sums[2][4][4] = {};
    u32 staged = ~0u, buffer = 0;
    const bool idle = first_row + warp_m * 32 >= rows;
    if (aligned) read_points(first_tile, 0);
    stage_points(0, first_tile, 0);
    __syncthreads();
    for (u32 tile = first_tile; tile < end_tile; tile++) {
        for (u32 depth = 0; depth < depths; depth++, buffer ^= 1) {
            if (depth / by.panel != staged) {
                staged = depth / by.panel;
                stage_shares(staged * by.panel * 32);
            }
            const u32 next_depth = depth + 1 < depths ? depth + 1 : 0, next_tile = tile + (next_depth == 0);
            // The next points are on their way while these are multiplied.
            if (aligned && next_tile < end_tile) read_points(next_tile, next_depth);
            const u16* left = shares + depth % by.panel * depth_size + warp_m * SQUARE;
            const u16* right = points + buffer * points_size + warp_n * SQUARE;
#pragma unroll
            for (u32 k = 0; k < (idle ? 0 : 32); k += 16) {
                u32 b[PARTS][4][2];
#pragma unroll
                for (u32 part = 0; part < PARTS; part++) {
#pragma unroll
                    for (u32 two = 0; two < 2; two++) {
                        const u32 at = at32(k + lane / 8 % 2 * 8 + lane % 8, two * 16 + lane / 16 * 8);
                        u32 r[4];
                        ldmatrix_x4_trans(r, right + part * by.across * SQUARE + at);
                        b[part][2 * two][0] = r[0], b[part][2 * two][1] = r[1];
                        b[part][2 * two + 1][0] = r[2], b[part][2 * two + 1][1] = r[3];
                    }
                }
#pragma unroll
                for (u32 half = 0; half < 2; half++) {
                    const u32 at = at32(half * 16 + lane % 16, k + lane / 16 * 8);
                    u32 hi[4], lo[4];
                    ldmatrix_x4(hi, left + at);
                    if (split) ldmatrix_x4(lo, left + by.down * SQUARE + at);
#pragma unroll
                    for (u32 column = 0; column < 4; column++) {
                        // Small terms first.
                        if (split) {
                            mma_bf16(sums[half][column], lo, b[0][column]);
                            mma_bf16(sums[half][column], hi, b[PARTS - 1][column]);
                        }
                        mma_bf16(sums[half][column], hi, b[0][column]);
                    }
                }
            }
            if (depth + 1 == depths) {
#pragma unroll
                for (u32 half = 0; half < 2; half++) {
#pragma unroll
                    for (u32 e = 0; e < 2; e++) {
                        const u32 row = first_row + warp_m * 32 + half * 16 + lane / 4 + e * 8;
#pragma unroll
                        for (u32 column = 0; column < 4; column++) {
                            const u32 x = tile * width + warp_n * 32 + column * 8 + lane % 4 * 2;
                            const float one = sums[half][column][2 * e], two = sums[half][column][2 * e + 1];
                            sums[half][column][2 * e] = 0.0f, sums[half][column][2 * e + 1] = 0.0f;
                            if (row >= rows) continue;
                            float* to = out + u64(row) * d + x;
                            if (aligned) {
                                if (x < d) *reinterpret_cast<float2*>(to) = float2{one, two};
                            } else {
                                if (x < d) to[0] = one;
                                if (x + 1 < d) to[1] = two;
                            }
                        }
                    }
                }
            }
            if (next_tile < end_tile) stage_points(buffer ^ 1, next_tile, next_depth);
            __syncthreads();
        }
    }
}

template <bool split>
__device__ inline void inner_products(const float* __restrict__ grad, const float* __restrict__ y, u32 transposed,
                                      const u64* __restrict__ target, const u64* __restrict__ source,
                                      const u64* __restrict__ cells, u32 d, float* __restrict__ inner, Halves& a, Halves& b) {
    const u64 pair = blockIdx.x;
    const u32 targets = u32(target[pair + 1] - target[pair]), sources = u32(source[pair + 1] - source[pair]);
    const u32 first_target = blockIdx.z * TILE, first_source = blockIdx.y * TILE;
    if (first_target >= targets || first_source >= sources) return;
    grad += target[pair] * d, y += source[pair] * d, inner += cells[pair];
    float sums[2][4][4] = {};
    for (u32 base = 0; base < d; base += DEPTH) {
        __syncthreads();
        for (u32 at = threadIdx.x * 4; at < TILE * DEPTH; at += THREADS * 4) {
            const u32 r = at / DEPTH, x = base + at % DEPTH;
            const float4 zero = {0.0f, 0.0f, 0.0f, 0.0f};
            const bool in_targets = first_target + r < targets, in_sources = first_source + r < sources;
            put_four<split>(a, at32(r, at % DEPTH),
                     in_targets ? load_four(d % 4 == 0, grad + u64(first_target + r) * d, x, d) : zero);
            put_four<split>(b, at32(r, at % DEPTH),
                     in_sources ? load_four(d % 4 == 0, y + u64(first_source + r) * d, x, d) : zero);
        }
        __syncthreads();
        accumulate<split>(a, b, sums);
    }
    each_output(sums, [&](u32 r, u32 c, float sum) {
        const u32 i = first_target + r, j = first_source + c;
        if (i < targets && j < sources) inner[cell(i, j, targets, sources, transposed)] = sum;
    });
}

}  // namespace

// out[i] = Σ_j share_ij y[j] over a pair, share = Π_ij / mass where mass > 0, else 0. `own` and `other` are the offsets of
// the output's and the sum's tokens; mass belongs to the output's tokens (`mass_of_own`: a barycentre) or to the sum's
// (the gradient of its points). Blocks as Mixing says. Dynamic shared memory: panel · down + 2 ·
// across squares of 4 KiB. Grid: (pairs, d / (32 · across · tiles), longest / (32 · down)).
extern "C" __global__ void __launch_bounds__(THREADS, MIX_BLOCKS)
mix_rows(const float* __restrict__ plan, const float* __restrict__ mass, u32 mass_of_own, u32 transposed,
         const u64* __restrict__ own, const u64* __restrict__ other, const u64* __restrict__ cells,
         const float* __restrict__ y, u32 d, u32 down, u32 panel, u32 tiles, float* __restrict__ out) {
    DYN_SHARED(u16, shared);
    __shared__ Inverse inverses[PANEL];
    const Mixing by = {down, THREADS / 32 / down, panel, tiles};
    if (d % 4 == 0) mix<true, true>(plan, mass, mass_of_own, transposed, own, other, cells, y, d, out, by, shared, inverses);
    else mix<true, false>(plan, mass, mass_of_own, transposed, own, other, cells, y, d, out, by, shared, inverses);
}

// The same of operands rounded to bf16; squares are of 2 KiB.
extern "C" __global__ void __launch_bounds__(THREADS, MIX_BLOCKS)
mix_rows_bf16(const float* __restrict__ plan, const float* __restrict__ mass, u32 mass_of_own, u32 transposed,
              const u64* __restrict__ own, const u64* __restrict__ other, const u64* __restrict__ cells,
              const float* __restrict__ y, u32 d, u32 down, u32 panel, u32 tiles, float* __restrict__ out) {
    DYN_SHARED(u16, shared);
    __shared__ Inverse inverses[PANEL];
    const Mixing by = {down, THREADS / 32 / down, panel, tiles};
    if (d % 4 == 0) mix<false, true>(plan, mass, mass_of_own, transposed, own, other, cells, y, d, out, by, shared, inverses);
    else mix<false, false>(plan, mass, mass_of_own, transposed, own, other, cells, y, d, out, by, shared, inverses);
}

// inner[cell] = ⟨grad of the target, y of the source⟩ for every cell of the plan; `transposed` if targets are its columns.
// Grid: (pairs, longest source / 64, longest target / 64).
extern "C" __global__ void __launch_bounds__(THREADS)
mix_inner(const float* __restrict__ grad, const float* __restrict__ y, u32 transposed, const u64* __restrict__ target,
          const u64* __restrict__ source, const u64* __restrict__ cells, u32 d, float* __restrict__ inner) {
    __shared__ __align__(16) Halves a, b;
    inner_products<true>(grad, y, transposed, target, source, cells, d, inner, a, b);
}

// The same of operands rounded to bf16.
extern "C" __global__ void __launch_bounds__(THREADS)
mix_inner_bf16(const float* __restrict__ grad, const float* __restrict__ y, u32 transposed, const u64* __restrict__ target,
               const u64* __restrict__ source, const u64* __restrict__ cells, u32 d, float* __restrict__ inner) {
    __shared__ __align__(16) Halves a, b;
    inner_products<false>(grad, y, transposed, target, source, cells, d, inner, a, b);
}

// dΠ += (inner − Σ share · inner) / mass of the target, where that is > 0. One warp a target; grid: (pairs, shares of the
// targets).
extern "C" __global__ void __launch_bounds__(THREADS)
plan_gradient(const float* __restrict__ plan, const float* __restrict__ mass, const float* __restrict__ inner,
              u32 transposed, const u64* __restrict__ target, const u64* __restrict__ source,
              const u64* __restrict__ cells, float* __restrict__ d_plan) {
    const u64 pair = blockIdx.x;
    const u32 targets = u32(target[pair + 1] - target[pair]), sources = u32(source[pair + 1] - source[pair]);
    const u32 lane = threadIdx.x % 32;
    plan += cells[pair], inner += cells[pair], d_plan += cells[pair], mass += target[pair];
    for (u32 i = blockIdx.y * (THREADS / 32) + threadIdx.x / 32; i < targets; i += gridDim.y * (THREADS / 32)) {
        const float whole = mass[i];
        if (!(whole > 0.0f)) continue;
        float mean = 0.0f;
        for (u32 j = lane; j < sources; j += 32) {
            const u64 at = cell(i, j, targets, sources, transposed);
            mean += plan[at] / whole * inner[at];
        }
        mean = warp_sum(mean);
        for (u32 j = lane; j < sources; j += 32) {
            const u64 at = cell(i, j, targets, sources, transposed);
            d_plan[at] += (inner[at] - mean) / whole;
        }
    }
}
