// Tensor-core products of bf16 with f32 sums, with the fragment layout of mma.m16n8k16 (PTX ISA, "Matrix Fragments"):
//   a (16 × 16, rows)  lane l holds rows l/4 (a[0], a[2]) and l/4 + 8 (a[1], a[3]), columns 2(l%4) + {0, 1}, + 8 in a[2], a[3]
//   b (16 × 8)         lane l holds column l/4, rows 2(l%4) + {0, 1}, + 8 in b[1]
//   c (16 × 8)         lane l holds rows l/4 (c[0], c[1]) and l/4 + 8 (c[2], c[3]), columns 2(l%4) + {0, 1}
// The lower half of a register is the lower index. Below arch 80 there is no bf16 tensor core: a twin by shuffles.
#pragma once
#include "device.cuh"

#ifndef LUCID_SHIM

// Four 8 × 8 matrices of 16-bit values: lanes 8i .. 8i + 7 give the addresses of matrix i's rows (16 bytes, aligned);
// lane l gets in r[i] the elements 2(l%4) + {0, 1} of row l/4.
__device__ inline void ldmatrix_x4(u32 (&r)[4], const void* row) {
    asm volatile(
        "{ .reg .u64 at; .reg .u32 from; cvta.to.shared.u64 at, %4; cvt.u32.u64 from, at;\n"
        "  ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [from]; }"
        : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "l"(row) : "memory");
}

// The same of the transposed matrices: lane l gets in r[i] column l/4 at rows 2(l%4) + {0, 1}.
__device__ inline void ldmatrix_x4_trans(u32 (&r)[4], const void* row) {
    asm volatile(
        "{ .reg .u64 at; .reg .u32 from; cvta.to.shared.u64 at, %4; cvt.u32.u64 from, at;\n"
        "  ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [from]; }"
        : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "l"(row) : "memory");
}

#if __CUDA_ARCH__ < 800
// Not inlined: dozens of copies of these shuffles take ptxas minutes.
__device__ __noinline__ float4 mma_bf16_twin(float4 sums, uint4 left, uint2 right) {
    float c[4] = {sums.x, sums.y, sums.z, sums.w};
    const u32 a[4] = {left.x, left.y, left.z, left.w}, b[2] = {right.x, right.y};
    u32 lane;
    asm("mov.u32 %0, %%laneid;" : "=r"(lane));
    auto lower = [](u32 pair) { return __uint_as_float(pair << 16); };
    auto upper = [](u32 pair) { return __uint_as_float(pair & 0xffff0000u); };
#pragma unroll
    for (u32 pair = 0; pair < 8; pair++) {
        const u32 high = pair / 4, within = pair % 4;
        const u32 a_top = __shfl_sync(0xffffffffu, a[2 * high], lane / 4 * 4 + within);
        const u32 a_bottom = __shfl_sync(0xffffffffu, a[2 * high + 1], lane / 4 * 4 + within);
        const u32 b_left = __shfl_sync(0xffffffffu, b[high], lane % 4 * 8 + within);
        const u32 b_right = __shfl_sync(0xffffffffu, b[high], lane % 4 * 8 + 4 + within);
        c[0] = fmaf(upper(a_top), upper(b_left), fmaf(lower(a_top), lower(b_left), c[0]));
        c[1] = fmaf(upper(a_top), upper(b_right), fmaf(lower(a_top), lower(b_right), c[1]));
        c[2] = fmaf(upper(a_bottom), upper(b_left), fmaf(lower(a_bottom), lower(b_left), c[2]));
        c[3] = fmaf(upper(a_bottom), upper(b_right), fmaf(lower(a_bottom), lower(b_right), c[3]));
    }
    return make_float4(c[0], c[1], c[2], c[3]);
}
#endif

// c += a b over the warp.
__device__ inline void mma_bf16(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#if __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    const float4 sums = mma_bf16_twin({c[0], c[1], c[2], c[3]}, {a[0], a[1], a[2], a[3]}, {b[0], b[1]});
    c[0] = sums.x, c[1] = sums.y, c[2] = sums.z, c[3] = sums.w;
#endif
}

#else

inline void shim_ldmatrix(u32 (&r)[4], const void* row, bool transposed, ShimAt at) {
    shim_check_shared("ldmatrix", row, 16, at);
    // Read here, where a sanitizer sees it, by the lane that names the row.
    const u32* words = static_cast<const u32*>(row);
    const u32 own[4] = {words[0], words[1], words[2], words[3]};
    lucid_shim_ldmatrix(r, own, transposed, at);
}
inline void ldmatrix_x4(u32 (&r)[4], const void* row, SHIM_AT) { shim_ldmatrix(r, row, false, at); }
inline void ldmatrix_x4_trans(u32 (&r)[4], const void* row, SHIM_AT) { shim_ldmatrix(r, row, true, at); }
inline void mma_bf16(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2], SHIM_AT) {
    lucid_shim_mma_bf16(c, a, b, at);
}

#endif
