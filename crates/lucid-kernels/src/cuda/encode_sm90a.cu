// The encoder's product on Hopper: `wgmma` fed by bulk copies. Compiled for sm_90a alone and taken where the device is one;
// everywhere else, the CPU shim included, gemm_bf16x3 in encode.cu computes the same.
#include "tiles.cuh"
#include "wgmma.cuh"

namespace {

constexpr u32 ROWS = TILE_ROWS;         // of a block's output
constexpr u32 COLUMNS = 2 * TILE_ROWS;  // latents
constexpr u32 PITCH = 40;               // floats of a row of 32 that a warp turns: rows in banks of their own
constexpr u32 GROUP = 128;              // threads of a warpgroup: one that copies, two that multiply 64 rows each

// One depth of the sum: A hi, A lo, then B hi and B lo, two tiles each. Four of them are in shared memory.
struct SplitStage {
    static constexpr u32 STAGES = 4;
    u16 a_hi[TILE], a_lo[TILE], b_hi[2 * TILE], b_lo[2 * TILE];
};

// The same of operands that are not split; eight of them.
struct RoundedStage {
    static constexpr u32 STAGES = 8;
    u16 a_hi[TILE], b_hi[2 * TILE];
};

template <typename Stage>
constexpr bool is_split = sizeof(Stage) == sizeof(SplitStage);

template <typename Stage>
__device__ inline void product(const u16* __restrict__ a_hi, const u16* __restrict__ a_lo, const u16* __restrict__ b_hi,
                               const u16* __restrict__ b_lo, const float* __restrict__ bias, const u32* __restrict__ list,
                               u64 m, u64 n, u32 width, float* __restrict__ out) {
    constexpr u32 STAGES = Stage::STAGES;
    DYN_SHARED(u8, dynamic);
    __shared__ u64 full[STAGES], empty[STAGES];
    __shared__ __align__(16) float biases[2][COLUMNS];
    __shared__ __align__(16) float corners[2 * GROUP / 32][16][PITCH];
    // Stages start where a swizzle's pattern does.
    Stage* stages = reinterpret_cast<Stage*>(dynamic + (1024 - shared_address(dynamic) % 1024) % 1024);
    const u32 group = threadIdx.x / GROUP, steps = width / TILE_COLUMNS;
    const u32 tiles_m = u32((m + ROWS - 1) / ROWS), tiles_n = u32((n + COLUMNS - 1) / COLUMNS);
    if (threadIdx.x == 0) {
        for (u32 s = 0; s < STAGES; s++) barrier_init(&full[s], 1), barrier_init(&empty[s], 2 * GROUP / 32);
        barrier_init_fence();
    }
    __syncthreads();
    if (group == 0) {
        if (threadIdx.x != 0) return;
        u32 s = 0, parity = 0;
        for (u32 tile = blockIdx.x; tile < tiles_m * tiles_n; tile += gridDim.x) {
            const u64 at_m = u64(tile % tiles_m) * steps * TILE, at_n = u64(tile / tiles_m) * 2 * steps * TILE;
            for (u32 step = 0; step < steps; step++) {
                barrier_wait(&empty[s], parity ^ 1);
                barrier_expect(&full[s], sizeof(Stage));
                Stage& to = stages[s];
                const u64 from_m = at_m + u64(step) * TILE, from_n = at_n + u64(step) * TILE, other = u64(steps) * TILE;
                bulk_copy(to.a_hi, a_hi + from_m, TILE * 2, &full[s]);
                bulk_copy(to.b_hi, b_hi + from_n, TILE * 2, &full[s]);
                bulk_copy(to.b_hi + TILE, b_hi + from_n + other, TILE * 2, &full[s]);
                if constexpr (is_split<Stage>) {
                    bulk_copy(to.a_lo, a_lo + from_m, TILE * 2, &full[s]);
                    bulk_copy(to.b_lo, b_lo + from_n, TILE * 2, &full[s]);
                    bulk_copy(to.b_lo + TILE, b_lo + from_n + other, TILE * 2, &full[s]);
                }
                if (++s == STAGES) s = 0, parity ^= 1;
            }
        }
        return;
    }
    const u32 half = group - 1, lane = threadIdx.x % 32, warp = threadIdx.x % GROUP / 32;
    u32 s = 0, parity = 0, turn = 0;
    for (u32 tile = blockIdx.x; tile < tiles_m * tiles_n; tile += gridDim.x, turn ^= 1) {
        const u64 own_j = u64(tile / tiles_m) * COLUMNS + threadIdx.x - GROUP;
        biases[turn][threadIdx.x - GROUP] = own_j < n ? bias[list ? list[own_j] : u32(own_j)] : 0.0f;
        float sums[128];
#pragma unroll
        for (u32 i = 0; i < 128; i++) sums[i] = 0.0f;
        u32 before = 0;
        for (u32 step = 0; step < steps; step++) {
            barrier_wait(&full[s], parity);
            const Stage& from = stages[s];
            const u32 row = half * 64 * TILE_COLUMNS;
            const u64 ah = matrix_descriptor(from.a_hi + row), bh = matrix_descriptor(from.b_hi);
            wgmma_fence();
#pragma unroll
            for (u32 k = 0; k < 2; k++) {
                // Sixteen columns on are 32 bytes on. Small terms first.
                if constexpr (is_split<Stage>) {
                    wgmma_64x256x16(sums, matrix_descriptor(from.a_lo + row) + 2 * k, bh + 2 * k);
                    wgmma_64x256x16(sums, ah + 2 * k, matrix_descriptor(from.b_lo) + 2 * k);
                }
                wgmma_64x256x16(sums, ah + 2 * k, bh + 2 * k);
            }
            wgmma_commit();
            // With this stage's products given, those of the one before are waited for, and its memory is free.
            wgmma_wait<1>();
            if (step > 0 && lane == 0) barrier_arrive(&empty[before]);
            before = s;
            if (++s == STAGES) s = 0, parity ^= 1;
        }
        wgmma_wait<0>();
        if (lane == 0) barrier_arrive(&empty[before]);
        // The biases of this tile are there, and all are done with those of the tile before the last.
        named_barrier(1, 2 * GROUP);
        // A lane holds two neighbours of eight rows: written as they are, a store would touch eight lines for 256 bytes. A warp turns
        // 16 rows by 32 columns at a time in shared memory and writes whole lines.
        const u64 first_i = u64(tile % tiles_m) * ROWS + half * 64 + warp * 16, first_j = u64(tile / tiles_m) * COLUMNS;
        // Every row starts on a boundary of 16 bytes only where n is a multiple of 4.
        const bool inside = n % 4 == 0 && first_j + COLUMNS <= n;
        float (*turned)[PITCH] = corners[half * 4 + warp];
        const u32 column = lane % 8 * 4;
#pragma unroll
        for (u32 base = 0; base < COLUMNS; base += 32) {
#pragma unroll
            for (u32 c = 0; c < 4; c++) {
#pragma unroll
                for (u32 e = 0; e < 2; e++) {
                    const u32 at = (base / 8 + c) * 4 + e * 2;
                    *reinterpret_cast<float2*>(&turned[lane / 4 + e * 8][c * 8 + lane % 4 * 2]) = float2{sums[at], sums[at + 1]};
                }
            }
            __syncwarp();
            const float4 by = *reinterpret_cast<const float4*>(&biases[turn][base + column]);
#pragma unroll
            for (u32 r = lane / 8; r < 16; r += 4) {
                if (first_i + r >= m) continue;
                float4 value = *reinterpret_cast<const float4*>(&turned[r][column]);
                value.x += by.x, value.y += by.y, value.z += by.z, value.w += by.w;
                const u64 j = first_j + base + column;
                float* to = out + (first_i + r) * n + j;
                if (inside) {
                    *reinterpret_cast<float4*>(to) = value;
                } else {
                    if (j < n) to[0] = value.x;
                    if (j + 1 < n) to[1] = value.y;
                    if (j + 2 < n) to[2] = value.z;
                    if (j + 3 < n) to[3] = value.w;
                }
            }
            // The next columns go where these were read.
            __syncwarp();
        }
    }
}

}  // namespace

// out[i, j] = ⟨a_i, b_j⟩ + bias[list ? list[j] : j] from tiles as `pack_rows` leaves them: a of m rows, b of n, out [m · n];
// width a multiple of 32. The last tiles are read whole, so that b's memory holds a multiple of 256 rows. Blocks take one
// output tile of 128 × 256 after the other: a column of tiles, then the next. Dynamic shared memory: four stages of 48 KiB, and
// 1 KiB to align them.
extern "C" __global__ void __launch_bounds__(3 * GROUP, 1)
wgmma_bf16x3(const u16* __restrict__ a_hi, const u16* __restrict__ a_lo, const u16* __restrict__ b_hi,
             const u16* __restrict__ b_lo, const float* __restrict__ bias, const u32* __restrict__ list, u64 m, u64 n,
             u32 width, float* __restrict__ out) {
    product<SplitStage>(a_hi, a_lo, b_hi, b_lo, bias, list, m, n, width, out);
}

// The same of operands rounded to bf16; as much shared memory.
extern "C" __global__ void __launch_bounds__(3 * GROUP, 1)
wgmma_bf16(const u16* __restrict__ a, const u16* __restrict__ b, const float* __restrict__ bias,
           const u32* __restrict__ list, u64 m, u64 n, u32 width, float* __restrict__ out) {
    product<RoundedStage>(a, nullptr, b, nullptr, bias, list, m, n, width, out);
}
