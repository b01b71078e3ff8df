// Fibers: stacks that one OS thread switches between, with the sanitizers told of every switch.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef LUCID_SHIM_THREAD
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#endif
#ifdef LUCID_SHIM_ADDRESS
extern "C" {
void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom, size_t* size);
void __asan_unpoison_memory_region(const volatile void* address, size_t size);
}
#endif

// The edges ThreadSanitizer learns: everything before a release happens before what follows an acquire of its address.
inline void happens_before(char* edge) {
#ifdef LUCID_SHIM_THREAD
    __tsan_release(edge);
#endif
    (void)edge;
}
inline void happens_after(char* edge) {
#ifdef LUCID_SHIM_THREAD
    __tsan_acquire(edge);
#endif
    (void)edge;
}

#if defined(__x86_64__) || defined(__aarch64__)
extern "C" void lucid_shim_switch(void** save, void* load);

// Only what the calling convention makes the callee keep; the floating-point modes are the same everywhere.
#if defined(__x86_64__)
__asm__(R"(
.text
.type lucid_shim_switch, @function
lucid_shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size lucid_shim_switch, . - lucid_shim_switch
)");
constexpr size_t SAVED_WORDS = 8, ENTRY_WORD = 6;
#else
__asm__(R"(
.text
.type lucid_shim_switch, %function
lucid_shim_switch:
    sub sp, sp, #160
    stp x19, x20, [sp]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size lucid_shim_switch, . - lucid_shim_switch
)");
constexpr size_t SAVED_WORDS = 20, ENTRY_WORD = 11;
#endif
#else
#include <ucontext.h>
#endif

// Room for a kernel's local arrays with the sanitizers' red zones; only touched pages cost memory.
constexpr size_t STACK_BYTES = 256 << 10;

struct Fiber {
#if defined(__x86_64__) || defined(__aarch64__)
    void* stack_pointer = nullptr;
#else
    ucontext_t context;
#endif
    char* stack = nullptr;
    const void* bottom = nullptr;
    size_t size = 0;
    void* fake_stack = nullptr;
    void* tsan = nullptr;

    // Makes the caller's own stack a fiber to come back to.
    void adopt_caller() {
#ifdef LUCID_SHIM_THREAD
        tsan = __tsan_get_current_fiber();
#endif
    }

    void create(void (*entry)()) {
        const size_t page = size_t(sysconf(_SC_PAGESIZE));
        void* memory = mmap(nullptr, STACK_BYTES + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) abort();
        stack = static_cast<char*>(memory);
        // An overflow must not run into the next fiber's stack.
        mprotect(stack, page, PROT_NONE);
        bottom = stack + page;
        size = STACK_BYTES;
#if defined(__x86_64__) || defined(__aarch64__)
        void** top = reinterpret_cast<void**>(stack + page + STACK_BYTES) - SAVED_WORDS;
        top[ENTRY_WORD] = reinterpret_cast<void*>(entry);
        stack_pointer = top;
#else
        getcontext(&context);
        context.uc_stack.ss_sp = stack + page;
        context.uc_stack.ss_size = STACK_BYTES;
        context.uc_link = nullptr;
        makecontext(&context, entry, 0);
#endif
#ifdef LUCID_SHIM_THREAD
        tsan = __tsan_create_fiber(0);
#endif
    }

    // Called by `caller`, on its own stack.
    void destroy(Fiber& caller) {
        if (!stack) return;
#ifdef LUCID_SHIM_ADDRESS
        // The next owner of these addresses must not inherit the red zones of frames that never returned.
        __asan_unpoison_memory_region(bottom, size);
#endif
#ifdef LUCID_SHIM_THREAD
        // There and back with the edges of an ordinary switch: what a thread did before it was given up is over.
        __tsan_switch_to_fiber(tsan, 0);
        __tsan_switch_to_fiber(caller.tsan, 0);
        __tsan_destroy_fiber(tsan);
#else
        (void)caller;
#endif
        munmap(stack, STACK_BYTES + size_t(sysconf(_SC_PAGESIZE)));
        *this = Fiber();
    }
};

// To be called first on every arrival at a fiber, by its entry as well: completes the switch from `from`.
inline void arrived(Fiber& here, Fiber& from) {
#ifdef LUCID_SHIM_ADDRESS
    __sanitizer_finish_switch_fiber(here.fake_stack, &from.bottom, &from.size);
#endif
    (void)here, (void)from;
}

inline void switch_fiber(Fiber& from, Fiber& to) {
#ifdef LUCID_SHIM_ADDRESS
    __sanitizer_start_switch_fiber(&from.fake_stack, to.bottom, to.size);
#endif
#ifdef LUCID_SHIM_THREAD
    // 1: without an edge, or the order in which the fibers happen to run would hide every race.
    __tsan_switch_to_fiber(to.tsan, 1);
#endif
#if defined(__x86_64__) || defined(__aarch64__)
    lucid_shim_switch(&from.stack_pointer, to.stack_pointer);
#else
    swapcontext(&from.context, &to.context);
#endif
}
