// Reductions over a full warp. Butterflies rather than shifts: every lane adds the same pairs (a + b = b + a), so all
// lanes end with the same bits, and so does every device.
#pragma once
#include "device.cuh"

template <typename T, typename Combine>
__device__ inline T warp_butterfly(T x, Combine combine) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) x = combine(x, __shfl_xor_sync(0xffffffffu, x, distance));
    return x;
}

__device__ inline float warp_sum(float x) {
    return warp_butterfly(x, [](float a, float b) { return a + b; });
}
__device__ inline double warp_sum(double x) {
    return warp_butterfly(x, [](double a, double b) { return a + b; });
}
__device__ inline u32 warp_sum(u32 x) {
    return warp_butterfly(x, [](u32 a, u32 b) { return a + b; });
}
// NaN loses against a number, as fmaxf has it.
__device__ inline float warp_max(float x) {
    return warp_butterfly(x, [](float a, float b) { return fmaxf(a, b); });
}
