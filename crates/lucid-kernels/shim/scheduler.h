// The state of a launch and of its threads, and which thread goes on when one waits. Part of shim.cpp.
#pragma once

#include "fiber.h"
#include "shim.h"

#include <stdarg.h>
#include <stdio.h>
#include <string>
#include <vector>

namespace {

constexpr u32 MAX_THREADS = 1024, WARPS = MAX_THREADS / 32;
// The largest opt-in of any architecture (sm_90), and the static limit of all of them.
constexpr u64 MAX_SHARED = 227 << 10, MAX_STATIC_SHARED = 48 << 10;

enum class State { ready, waiting, exited };
enum class Order { forward, reverse, random };

struct Copy {
    void* to;
    u32 data[4];
    u64 group;
};

struct Thread {
    Fiber fiber;
    dim3 index;
    State state;
    ShimOp op;
    ShimAt at;
    u32 mask;
    u64 value;
    u32 source;
    u64 result;
    u64 open_group;
    std::vector<Copy> copies;
    u32 deposits;
};

// The lanes of a warp that meet under one mask. Edges alternate: a lane may be at the next meeting already while another
// has not left this one.
struct Meeting {
    u32 mask, arrived, phase;
    char edge[2];
};

struct Run {
    const ShimKernel* kernel;
    void** args;
    Order order;
    u64 random;
    u32 threads, exited, current;
    char* dynamic;
    u64 dynamic_bytes;
    std::string fault;

    u32 arrived, first_arrived, predicates, phase;
    int barrier_result[2];
    char edge[2], block_begin, block_end;
    Meeting meetings[WARPS][32];
    u64 ready[MAX_THREADS / 64];
};

Run run;
Thread threads[MAX_THREADS];
// Words for a whole-warp operation. Two, because a lane may deposit the next while another still reads this one.
ShimWords words[2][MAX_THREADS];
u32 fibers_made = 0;
Fiber caller;
Fiber* previous;

const char* const OP_NAMES[] = {
    "__syncthreads", "__syncthreads_count", "__syncthreads_and", "__syncthreads_or", "__syncwarp", "__shfl_sync",
    "__shfl_xor_sync", "__shfl_up_sync", "__shfl_down_sync", "__ballot_sync", "__any_sync", "__all_sync",
    "__match_any_sync", "ldmatrix/mma",
};

std::string format(const char* pattern, ...) {
    char text[512];
    va_list list;
    va_start(list, pattern);
    vsnprintf(text, sizeof text, pattern, list);
    va_end(list);
    return text;
}

std::string name_of(u32 thread) {
    const dim3 t = threads[thread].index;
    return format("thread (%u,%u,%u)", t.x, t.y, t.z);
}

std::string place(ShimAt at) {
    const char* slash = strrchr(at.file, '/');
    return format("%s:%d", slash ? slash + 1 : at.file, at.line);
}

bool same_place(ShimAt a, ShimAt b) { return a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0); }

u64 next_random() {
    u64 z = run.random += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

// ---- scheduling ----------------------------------------------------------------------------------------------------

void make_ready(u32 thread) {
    threads[thread].state = State::ready;
    run.ready[thread / 64] |= 1ull << thread % 64;
}

void stop(u32 thread, State state) {
    threads[thread].state = state;
    run.ready[thread / 64] &= ~(1ull << thread % 64);
}

// The thread to go on with; -1 when none can.
int pick() {
    const int words = int((run.threads + 63) / 64);
    if (run.order == Order::forward) {
        for (int w = 0; w < words; w++)
            if (run.ready[w]) return w * 64 + __builtin_ctzll(run.ready[w]);
    } else if (run.order == Order::reverse) {
        for (int w = words - 1; w >= 0; w--)
            if (run.ready[w]) return w * 64 + 63 - __builtin_clzll(run.ready[w]);
    } else {
        const u32 from = u32(next_random() % run.threads);
        for (u32 step = 0; step <= u32(words); step++) {
            const u32 w = (from / 64 + step) % u32(words);
            // First what lies behind the drawn thread in its word, at the end what lies before it.
            const u64 bits = run.ready[w] & (step == 0 ? ~0ull << from % 64 : ~0ull);
            if (bits) return int(w * 64 + u32(__builtin_ctzll(bits)));
        }
    }
    return -1;
}

void resume(Fiber& from, u32 thread) {
    run.current = thread;
    lucid_shim_thread = threads[thread].index;
    previous = &from;
    switch_fiber(from, threads[thread].fiber);
    arrived(from, *previous);
}

void leave_to_caller() {
    Fiber& own = threads[run.current].fiber;
    previous = &own;
    switch_fiber(own, caller);
    arrived(own, *previous);
}

[[noreturn]] void fault(std::string text) {
    run.fault = std::move(text);
    leave_to_caller();
    // The caller drops every fiber after a fault.
    abort();
}

// Who waits where, a line for each place: what a deadlock looks like from outside.
std::string deadlock() {
    std::string text = "deadlock: no thread can go on.";
    std::vector<bool> told(run.threads);
    for (u32 t = 0; t < run.threads; t++) {
        const Thread& a = threads[t];
        if (told[t]) continue;
        u32 count = 0;
        for (u32 other = t; other < run.threads; other++) {
            const Thread& b = threads[other];
            const bool same_wait = a.op == b.op && a.mask == b.mask && same_place(a.at, b.at);
            if (a.state == b.state && (a.state == State::exited || same_wait)) told[other] = true, count++;
        }
        text += format(" %u thread%s, first %s, ", count, count == 1 ? "" : "s", name_of(t).c_str());
        if (a.state == State::exited) {
            text += count == 1 ? "has returned;" : "have returned;";
        } else {
            text += format("wait%s at %s (%s)", count == 1 ? "s" : "", OP_NAMES[a.op], place(a.at).c_str());
            text += a.op >= SHIM_SYNCWARP ? format(" for lanes 0x%08x;", a.mask) : std::string(";");
        }
    }
    text.back() = '.';
    return text;
}

// Lets the next thread go on; returns when this one may.
void yield() {
    const int next = pick();
    if (next == int(run.current)) return;
    Fiber& own = threads[run.current].fiber;
    if (next >= 0) {
        resume(own, u32(next));
    } else {
        if (run.exited < run.threads) run.fault = deadlock();
        leave_to_caller();
    }
}

void fiber_main() {
    arrived(threads[run.current].fiber, *previous);
    for (;;) {
        happens_after(&run.block_begin);
        run.kernel->call(run.args);
        happens_before(&run.block_end);
        stop(run.current, State::exited);
        run.exited++;
        yield();
    }
}

}  // namespace
