// f32 products on bf16 tensor cores: x = hi + lo + rest with |rest| ≤ 2⁻¹⁷ |x|, and
// x y ≈ hi hi' + hi lo' + lo hi', which leaves an error of about 2⁻¹⁶ |x y| a term.
#pragma once
#include "device.cuh"

struct Split {
    u16 hi, lo;
};

__device__ inline Split split(float x) {
    const u16 hi = bf16_round(x);
    return {hi, bf16_round(x - bf16_value(hi))};
}
