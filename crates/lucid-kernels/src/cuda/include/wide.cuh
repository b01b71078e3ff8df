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

// sum += scale · value, column by column.
__device__ inline void add_scaled(float4& sum, float scale, float4 value) {
    sum.x += scale * value.x, sum.y += scale * value.y, sum.z += scale * value.z, sum.w += scale * value.w;
}
