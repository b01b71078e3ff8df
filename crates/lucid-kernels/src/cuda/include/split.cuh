// f32 products on bf16 tensor cores: x = hi + lo + rest with |rest| ≤ 2⁻¹⁷ |x|, and
// x y ≈ hi hi' + hi lo' + lo hi', which leaves an error of about 2⁻¹⁶ |x y| a term.
#pragma once
#include "device.cuh"

// Two neighbouring values rounded, the first in the lower 16 bits.
__device__ inline u32 rounded_pair(float x, float y) {
#if !defined(LUCID_SHIM) && __CUDA_ARCH__ >= 800
    // One instruction; the rounding is that of bf16_round.
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(y), "f"(x));
    return pair;
#else
    return u32(bf16_round(y)) << 16 | bf16_round(x);
#endif
}

// Two neighbouring values' halves, the first in the lower 16 bits.
struct SplitPair {
    u32 hi, lo;
};

__device__ inline SplitPair split_pair(float x, float y) {
    const u32 hi = rounded_pair(x, y);
    return {hi, rounded_pair(x - __uint_as_float(hi << 16), y - __uint_as_float(hi & 0xffff0000u))};
}
