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

// 16-byte chunks within rows of 32 halves (A, or B with the sum along the row) and of 64 halves (B, a row a term of the
// sum), permuted so that eight rows read by one ldmatrix touch all banks.
__device__ inline u32 at32(u32 row, u32 column) { return row * 32 + ((column >> 3 ^ (row >> 1 & 3)) << 3) + column % 8; }
__device__ inline u32 at64(u32 row, u32 column) { return row * 64 + ((column >> 3 ^ (row & 7)) << 3) + column % 8; }

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

// Adds the product of one depth to a warp's sums. `rows_are_terms`: b lies as [term][column] (at64), else as
// [column][term] (at32).
template <bool split, bool rows_are_terms>
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
                if (rows_are_terms) {
                    ldmatrix_x4_trans(r, from + at64(k + lane / 8 % 2 * 8 + lane % 8, warp_n + pair * 16 + lane / 16 * 8));
                } else {
                    ldmatrix_x4(r, from + at32(warp_n + pair * 16 + lane / 16 * 8 + lane % 8, k + lane / 8 % 2 * 8));
                }
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

// What a block of mix_rows works in.
struct Mix {
    Halves a, b;
    Inverse of_row[TILE], of_term[DEPTH];
};

template <bool split>
__device__ inline void mix(const float* __restrict__ plan, const float* __restrict__ mass, u32 mass_of_own, u32 transposed,
                           const u64* __restrict__ own, const u64* __restrict__ other, const u64* __restrict__ cells,
                           const float* __restrict__ y, u32 d, float* __restrict__ out, Mix& room) {
    Halves &a = room.a, &b = room.b;
    Inverse *of_row = room.of_row, *of_term = room.of_term;
    const u64 pair = blockIdx.x;
    const u32 rows = u32(own[pair + 1] - own[pair]), terms = u32(other[pair + 1] - other[pair]);
    const u32 first_row = blockIdx.z * TILE, first_column = blockIdx.y * TILE;
    if (first_row >= rows) return;
    const bool wide_plan = cells[pair] % 4 == 0 && terms % 4 == 0, wide_y = d % 4 == 0;
    plan += cells[pair];
    mass += mass_of_own ? own[pair] : other[pair];
    y += other[pair] * d, out += own[pair] * d;
    if (threadIdx.x < TILE) {
        const u32 row = first_row + threadIdx.x;
        of_row[threadIdx.x] = Inverse{1.0f, 1.0f};
        if (mass_of_own && row < rows) of_row[threadIdx.x] = inverse(mass[row]);
    }
    constexpr u32 EACH = TILE * DEPTH / 4 / THREADS;  // groups of four that a thread stages
    const float4 zero = {0.0f, 0.0f, 0.0f, 0.0f};
    float4 points[EACH];
    auto read_points = [&](u32 base) {
#pragma unroll
        for (u32 i = 0; i < EACH; i++) {
            const u32 at = (threadIdx.x + i * THREADS) * 4, from = base + at / TILE;
            points[i] = from < terms ? load_four(wide_y, y + u64(from) * d, first_column + at % TILE, d) : zero;
        }
    };
    float sums[2][4][4] = {};
    read_points(0);
    for (u32 base = 0; base < terms; base += DEPTH) {
        __syncthreads();
        if (threadIdx.x < DEPTH) {
            const u32 term = base + threadIdx.x;
            of_term[threadIdx.x] = Inverse{1.0f, 1.0f};
            if (!mass_of_own && term < terms) of_term[threadIdx.x] = inverse(mass[term]);
        }
        if (!mass_of_own || base == 0) __syncthreads();
        for (u32 at = threadIdx.x; at < TILE * DEPTH / 4; at += THREADS) {
            // Four terms of a row. Neighbouring threads take neighbouring cells of the plan.
            const u32 r = transposed ? at % TILE : at / (DEPTH / 4), t = (transposed ? at / TILE : at % (DEPTH / 4)) * 4;
            const u32 row = first_row + r, term = base + t;
            float4 share = zero;
            if (row < rows && transposed) {
                const float* cell = plan + u64(term) * rows + row;
                share = {term < terms ? cell[0] : 0.0f, term + 1 < terms ? cell[rows] : 0.0f,
                         term + 2 < terms ? cell[2 * u64(rows)] : 0.0f, term + 3 < terms ? cell[3 * u64(rows)] : 0.0f};
            } else if (row < rows) {
                share = load_four(wide_plan, plan + u64(row) * terms, term, terms);
            }
            if (mass_of_own) {
                const Inverse by = of_row[r];
                auto part = [&](float cell) { return cell * by.first * by.second; };
                share = {part(share.x), part(share.y), part(share.z), part(share.w)};
            } else {
                auto part = [&](float cell, u32 t) { return cell * of_term[t].first * of_term[t].second; };
                share = {part(share.x, t), part(share.y, t + 1), part(share.z, t + 2), part(share.w, t + 3)};
            }
            put_four<split>(a, at32(r, t), share);
        }
#pragma unroll
        for (u32 i = 0; i < EACH; i++) {
            const u32 at = (threadIdx.x + i * THREADS) * 4;
            put_four<split>(b, at64(at / TILE, at % TILE), points[i]);
        }
        __syncthreads();
        // The next points are on their way while these are multiplied.
        if (base + DEPTH < terms) read_points(base + DEPTH);
        accumulate<split, true>(a, b, sums);
    }
    each_output(sums, [&](u32 r, u32 c, float sum) {
        if (first_row + r < rows && first_column + c < d) out[u64(first_row + r) * d + first_column + c] = sum;
    });
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
        accumulate<split, false>(a, b, sums);
    }
    each_output(sums, [&](u32 r, u32 c, float sum) {
        const u32 i = first_target + r, j = first_source + c;
        if (i < targets && j < sources) inner[cell(i, j, targets, sources, transposed)] = sum;
    });
}

}  // namespace

// out[i] = Σ_j share_ij y[j] over a pair, share = Π_ij / mass where mass > 0, else 0. `own` and `other` are the offsets of
// the output's and the sum's tokens; mass belongs to the output's tokens (`mass_of_own`: a barycentre) or to the sum's
// (the gradient of its points). Grid: (pairs, d / 64, longest / 64).
extern "C" __global__ void __launch_bounds__(THREADS, 1)
mix_rows(const float* __restrict__ plan, const float* __restrict__ mass, u32 mass_of_own, u32 transposed,
         const u64* __restrict__ own, const u64* __restrict__ other, const u64* __restrict__ cells,
         const float* __restrict__ y, u32 d, float* __restrict__ out) {
    __shared__ __align__(16) Mix room;
    mix<true>(plan, mass, mass_of_own, transposed, own, other, cells, y, d, out, room);
}

// The same of operands rounded to bf16.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
mix_rows_bf16(const float* __restrict__ plan, const float* __restrict__ mass, u32 mass_of_own, u32 transposed,
              const u64* __restrict__ own, const u64* __restrict__ other, const u64* __restrict__ cells,
              const float* __restrict__ y, u32 d, float* __restrict__ out) {
    __shared__ __align__(16) Mix room;
    mix<false>(plan, mass, mass_of_own, transposed, own, other, cells, y, d, out, room);
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
