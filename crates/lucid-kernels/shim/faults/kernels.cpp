// Makes the kernels of SOURCE known to the shim, once with their faults and once, with CLEAN, without.
#ifdef CLEAN
#define KERNEL(name) name##_clean
#define CORRECT(...) __VA_ARGS__
#else
#define KERNEL(name) name
#define CORRECT(...)
#endif
#include "shim.h"

namespace {
#include SOURCE
}

#define ENTRY_(name) LUCID_SHIM_ENTRY(name)
#define ENTRY(name) ENTRY_(KERNEL(name))
#ifdef LIMITS
ENTRY(static_shared_too_large)
#else
ENTRY(missing_syncthreads)
ENTRY(missing_syncthreads_in_gemm)
ENTRY(missing_syncwarp)
ENTRY(missing_cp_async_wait)
ENTRY(cp_async_wait_too_few)
ENTRY(two_writers)
ENTRY(divergent_barrier)
ENTRY(early_return)
ENTRY(lane_not_in_mask)
ENTRY(lane_never_comes)
ENTRY(outside_global)
ENTRY(outside_dynamic_shared)
ENTRY(outside_static_shared)
ENTRY(outside_row)
ENTRY(copy_outside_shared)
ENTRY(misaligned_ldmatrix)
#endif
