// Runs every planted fault and its clean twin in each order, each run in a process of its own, and compares what was
// found with the table. Exit code 0 when all is as expected.
#include "shim.h"

#include <cstdio>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

extern "C" int lucid_shim_launch(const char* kernel, const unsigned int grid[3], const unsigned int block[3],
                                 u64 shared_bytes, void** args, int order, u64 seed, char* message,
                                 u64 message_capacity);

// Name and findings in the forward, reverse and random order, for a plain build, under ASan + UBSan and under TSan:
// `.` nothing, W a wrong result, F a fault reported by the shim, S stopped by the sanitizer.
#define FAULTS(X)                                       \
    X(missing_syncthreads, "WWW", "WWW", "SSS")         \
    X(missing_syncthreads_in_gemm, ".WW", ".WW", "SSS") \
    X(missing_syncwarp, "...", "...", "SSS")            \
    X(missing_cp_async_wait, "W.W", "W.W", "W.W")       \
    X(cp_async_wait_too_few, "W.W", "W.W", "W.W")       \
    X(two_writers, "...", "...", "SSS")                 \
    X(divergent_barrier, "FFF", "FFF", "FFF")           \
    X(early_return, "FFF", "FFF", "FFF")                \
    X(lane_not_in_mask, "FFF", "FFF", "FFF")            \
    X(lane_never_comes, "FFF", "FFF", "FFF")            \
    X(outside_global, "...", "SSS", "...")              \
    X(outside_dynamic_shared, "...", "SSS", "...")      \
    X(outside_static_shared, "...", "SSS", "...")       \
    X(outside_row, "...", "SSS", "...")                 \
    X(copy_outside_shared, "FFF", "FFF", "FFF")         \
    X(misaligned_ldmatrix, "FFF", "FFF", "FFF")         \
    X(static_shared_too_large, "FFF", "...", "FFF")

#define DECLARE(name, ...) extern "C" const ShimKernel lucid_shim_kernel_##name, lucid_shim_kernel_##name##_clean;
FAULTS(DECLARE)
#define ENTRIES(name, ...) &lucid_shim_kernel_##name, &lucid_shim_kernel_##name##_clean,
extern "C" const ShimKernel* const lucid_shim_kernels[];
const ShimKernel* const lucid_shim_kernels[] = {FAULTS(ENTRIES) nullptr};

#if defined(LUCID_SHIM_ADDRESS)
constexpr int MODE = 1;
#elif defined(LUCID_SHIM_THREAD)
constexpr int MODE = 2;
#else
constexpr int MODE = 0;
#endif
constexpr int SANITIZER_EXIT = 77;
extern "C" const char* __asan_default_options() { return "exitcode=77:detect_leaks=0"; }
extern "C" const char* __ubsan_default_options() { return "exitcode=77"; }
extern "C" const char* __tsan_default_options() { return "exitcode=77:halt_on_error=1:atexit_sleep_ms=0"; }

namespace {

constexpr u32 COUNT = 4096, THREADS = 64;
constexpr u64 SHARED_BYTES = 1024;

int launch(const std::string& kernel, int order, std::vector<float>& out, char* message) {
    // From malloc and as large as told to the kernel: a sanitizer sees what passes the end.
    float* in = static_cast<float*>(malloc(COUNT * sizeof(float)));
    for (u32 i = 0; i < COUNT; i++) in[i] = 0.5f + float(i * 2654435761u >> 8) / float(1 << 24);
    out.assign(THREADS, 0.0f);
    float* out_data = out.data();
    u32 count = COUNT;
    void* args[] = {&in, &out_data, &count};
    const unsigned int grid[3] = {1, 1, 1}, block[3] = {THREADS, 1, 1};
    const int status = lucid_shim_launch(kernel.c_str(), grid, block, SHARED_BYTES, args, order, 1, message, 1024);
    free(in);
    return status;
}

// The finding of one run against its clean twin in forward order. In a child, since a sanitizer ends the process that it
// stops; the parent launches nothing, since ThreadSanitizer forgets the edges of a process that forks with fibers.
char find(const std::string& name, const std::string& kernel, int order, std::string& told) {
    int ends[2];
    if (pipe(ends) != 0) return '?';
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        close(ends[0]);
        std::vector<float> expected, out;
        char message[1024] = "";
        const bool known = launch(name + "_clean", 0, expected, message) == 0;
        for (float x : expected) {
            if (!known || x != x) _exit(3);
        }
        const int status = launch(kernel, order, out, message);
        if (status != 0) fprintf(stderr, "%s\n", message);
        // A wrong result may be a NaN, so bits and not values.
        const bool same = memcmp(out.data(), expected.data(), THREADS * sizeof(float)) == 0;
        _exit(status == 2 ? 2 : status != 0 ? 3 : same ? 0 : 1);
    }
    close(ends[1]);
    char piece[512];
    for (ssize_t n; (n = read(ends[0], piece, sizeof piece)) > 0;) told.append(piece, size_t(n));
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    if (!WIFEXITED(status)) return '!';
    switch (WEXITSTATUS(status)) {
        case 0: return '.';
        case 1: return 'W';
        case 2: return 'F';
        case SANITIZER_EXIT: return 'S';
        default: return '?';
    }
}

int unexpected = 0, checks = 0;
bool verbose = false;

void expect(const std::string& name, const std::string& kernel, const std::string& findings) {
    std::string found, told;
    for (int order = 0; order < 3; order++) found += find(name, kernel, order, told);
    checks++;
    if (verbose) printf("%s: %s\n%s", kernel.c_str(), found.c_str(), told.c_str());
    if (found == findings) return;
    unexpected++;
    printf("%s: found %s, expected %s\n%s", kernel.c_str(), found.c_str(), findings.c_str(), told.c_str());
}

// A launch that a device would refuse as well.
void refuse(const char* what, const char* kernel, std::vector<unsigned int> grid, std::vector<unsigned int> block,
            u64 shared_bytes, int status, const char* text) {
    char message[1024] = "";
    void* args[3] = {};
    const int got = lucid_shim_launch(kernel, grid.data(), block.data(), shared_bytes, args, 0, 0, message, 1024);
    checks++;
    if (got == status && strstr(message, text)) return;
    unexpected++;
    printf("%s: status %d and '%s', expected %d and '%s'\n", what, got, message, status, text);
}

}  // namespace

int main(int count, char**) {
    verbose = count > 1;
#define CHECK(name, ...)                              \
    {                                                 \
        const char* const findings[] = {__VA_ARGS__}; \
        expect(#name, #name "_clean", "...");         \
        expect(#name, #name, findings[MODE]);         \
    }
    FAULTS(CHECK)
    const char* kernel = "missing_syncwarp_clean";
    refuse("unknown kernel", "no_such_kernel", {1, 1, 1}, {1, 1, 1}, 0, 1, "no kernel has this name");
    refuse("block", kernel, {1, 1, 1}, {1025, 1, 1}, 0, 2, "1025 x 1 x 1 threads");
    refuse("block.z", kernel, {1, 1, 1}, {1, 1, 65}, 0, 2, "block.z is 65");
    refuse("grid.y", kernel, {1, 65536, 1}, {32, 1, 1}, 0, 2, "grid.y is 65536");
    refuse("grid.z", kernel, {1, 1, 65536}, {32, 1, 1}, 0, 2, "grid.z is 65536");
    refuse("empty grid", kernel, {0, 1, 1}, {32, 1, 1}, 0, 2, "the grid is 0");
    refuse("dynamic shared", kernel, {1, 1, 1}, {32, 1, 1}, (227 << 10) + 1, 2, "bytes of shared memory");
    printf("%d checks, %d unexpected\n", checks, unexpected);
    return unexpected == 0 ? 0 : 1;
}
