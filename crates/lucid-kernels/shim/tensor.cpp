// Host twins of ldmatrix and mma, fragment layouts as in mma.cuh. Part of the runtime, uninstrumented like shim.cpp.
#include "shim.h"

extern "C" {

void lucid_shim_ldmatrix(u32* r, const u32* own_row, bool transposed, ShimAt at) {
    const u32 lane = lucid_shim_lane();
    const ShimWords* const warp = lucid_shim_gather(own_row, 4, at);
    for (u32 matrix = 0; matrix < 4; matrix++) {
        if (transposed) {
            u32 pair = 0;
            for (u32 half = 0; half < 2; half++) {
                const u32 column = lane / 4, word = warp[matrix * 8 + lane % 4 * 2 + half].words[column / 2];
                pair |= (word >> column % 2 * 16 & 0xffff) << half * 16;
            }
            r[matrix] = pair;
        } else {
            r[matrix] = warp[matrix * 8 + lane / 4].words[lane % 4];
        }
    }
}

void lucid_shim_mma_bf16(float* c, const u32* a, const u32* b, ShimAt at) {
    const u32 lane = lucid_shim_lane(), own[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    const ShimWords* const warp = lucid_shim_gather(own, 6, at);
    auto lower = [](u32 pair) { return __uint_as_float(pair << 16); };
    auto upper = [](u32 pair) { return __uint_as_float(pair & 0xffff0000u); };
    for (u32 i = 0; i < 4; i++) {
        for (u32 pair = 0; pair < 8; pair++) {
            const u32 high = pair / 4, within = pair % 4;
            const u32 left = warp[lane / 4 * 4 + within].words[2 * high + i / 2];
            const u32 right = warp[lane % 4 * 8 + i % 2 * 4 + within].words[4 + high];
            // In the order of the twin below arch 80; the sums of a tensor core differ from both in rounding. A product
            // of two bf16 is exact, so this is fmaf without its call.
            c[i] = c[i] + lower(left) * lower(right);
            c[i] = c[i] + upper(left) * upper(right);
        }
    }
}
}
