// How the operands of the encoder's product lie in memory: tiles of 128 rows and 32 columns of bf16 one after the other, rows
// of tiles first, each tile as a multiprocessor wants it in shared memory. A tile is copied as one run of 8 KiB.
#pragma once
#include "device.cuh"

constexpr u32 TILE_ROWS = 128;
constexpr u32 TILE_COLUMNS = 32;
constexpr u32 TILE = TILE_ROWS * TILE_COLUMNS;

// Where 16-byte chunk c of a row of 64 bytes lies in a tile: eight rows read at once then touch all 32 banks (it is what
// `wgmma` calls a swizzle of 64 bytes).
__device__ inline u32 swizzled(u32 row, u32 chunk) { return row * TILE_COLUMNS + ((chunk ^ (row >> 1 & 3)) << 3); }
