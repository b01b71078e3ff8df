// Rows of f32, four columns at a time.
#pragma once
#include "device.cuh"

// Columns x .. x + 3 of a row of `d`, zeros behind its end. `aligned`: d is a multiple of 4, so that every row starts on a
// boundary of 16 bytes, as x does.
template <bool aligned>
__device__ inline float4 columns(const float* row, u32 x, u32 d) {
    if (aligned) return x < d ? *reinterpret_cast<const float4*>(row + x) : float4{0.0f, 0.0f, 0.0f, 0.0f};
    return float4{x < d ? row[x] : 0.0f, x + 1 < d ? row[x + 1] : 0.0f, x + 2 < d ? row[x + 2] : 0.0f,
                  x + 3 < d ? row[x + 3] : 0.0f};
}

// Writes those columns that the row has.
template <bool aligned>
__device__ inline void store_columns(float* row, u32 x, u32 d, float4 value) {
    if (aligned) {
        if (x < d) *reinterpret_cast<float4*>(row + x) = value;
        return;
    }
    if (x < d) row[x] = value.x;
    if (x + 1 < d) row[x + 1] = value.y;
    if (x + 2 < d) row[x + 2] = value.z;
    if (x + 3 < d) row[x + 3] = value.w;
}

// Eight columns of a row of bf16, `at` on a boundary of 16 bytes.
struct Eight {
    float v[8];
};

__device__ inline Eight eight(uint4 bits) {
    const u32 pairs[4] = {bits.x, bits.y, bits.z, bits.w};
    Eight values;
#pragma unroll
    for (u32 p = 0; p < 4; p++) {
        values.v[2 * p] = __uint_as_float(pairs[p] << 16);
        values.v[2 * p + 1] = __uint_as_float(pairs[p] & 0xffff0000u);
    }
    return values;
}

__device__ inline uint4 eight_bits(const u16* at) { return *reinterpret_cast<const uint4*>(at); }

// Columns x .. x + 7 of a row of f32, and back.
template <bool aligned>
__device__ inline Eight eight_columns(const float* row, u32 x, u32 d) {
    const float4 a = columns<aligned>(row, x, d), b = columns<aligned>(row, x + 4, d);
    return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

template <bool aligned>
__device__ inline void store_eight(float* row, u32 x, u32 d, const Eight& value) {
    store_columns<aligned>(row, x, d, float4{value.v[0], value.v[1], value.v[2], value.v[3]});
    store_columns<aligned>(row, x + 4, d, float4{value.v[4], value.v[5], value.v[6], value.v[7]});
}

// sum += scale · value, column by column.
__device__ inline void add_scaled(Eight& sum, float scale, const Eight& value) {
#pragma unroll
    for (u32 i = 0; i < 8; i++) sum.v[i] += scale * value.v[i];
}

__device__ inline void add_scaled(float4& sum, float scale, float4 value) {
    sum.x += scale * value.x, sum.y += scale * value.y, sum.z += scale * value.z, sum.w += scale * value.w;
}
