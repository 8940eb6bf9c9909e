// Runs CUDA kernels on the CPU, to test them: a fiber per thread of a block, switched at barriers,
// blocks one after another; or, with SHIM_THREADS, every block a real thread with one CUDA thread,
// for ThreadSanitizer. No warp functions.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#define __global__
#define __device__
#ifdef SHIM_THREADS
#define __shared__ static thread_local
#define SHIM_LOCAL thread_local
#else
#define __shared__ static
#define SHIM_LOCAL
#endif

struct Dim { int x; };
static SHIM_LOCAL Dim threadIdx, blockIdx, blockDim, gridDim;

static inline int atomicAdd(int *where, int value)
{
    return __atomic_fetch_add(where, value, __ATOMIC_RELAXED);
}
static inline int atomicMax(int *where, int value)
{
    int old = __atomic_load_n(where, __ATOMIC_RELAXED);
    while (old < value && !__atomic_compare_exchange_n(where, &old, value, false, __ATOMIC_RELAXED,
                                                       __ATOMIC_RELAXED))
        ;
    return old;
}

static inline unsigned long long atomicAdd(unsigned long long *where, unsigned long long value)
{
    return __atomic_fetch_add(where, value, __ATOMIC_RELAXED);
}
// compile with -ffp-contract=off
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __ll2float_rn(long long a) { return (float)a; }
static inline int __float2int_rn(float a) { return (int)lrintf(a); }

#ifdef SHIM_THREADS
static inline void __syncthreads() {}

template <class Kernel> void launch(int blocks, int, int, Kernel kernel)
{
    std::vector<std::thread> running;
    for (int block = 0; block < blocks; ++block)
        running.emplace_back([=] {
            threadIdx.x = 0, blockIdx.x = block, blockDim.x = 1, gridDim.x = blocks;
            kernel();
        });
    for (auto &one : running)
        one.join();
}
#else
static ucontext_t shim_main;
static std::vector<ucontext_t> shim_fibers;
static std::vector<char> shim_done;
static std::function<void()> shim_kernel;

static void __syncthreads() { swapcontext(&shim_fibers[threadIdx.x], &shim_main); }

static void shim_start(int thread)
{
    shim_kernel();
    shim_done[thread] = 1;
}

// schedule: 0 forward, 1 reverse, 2 another shuffle at every barrier
template <class Kernel> void launch(int blocks, int threads, int schedule, Kernel kernel)
{
    const size_t stack = 1 << 15;
    std::vector<char> stacks(stack * threads);
    std::vector<int> order(threads);
    std::mt19937 shuffle(1);
    shim_kernel = kernel;
    blockDim.x = threads, gridDim.x = blocks;
    for (int block = 0; block < blocks; ++block) {
        shim_fibers.assign(threads, {});
        shim_done.assign(threads, 0);
        for (int thread = 0; thread < threads; ++thread) {
            getcontext(&shim_fibers[thread]);
            shim_fibers[thread].uc_stack.ss_sp = &stacks[stack * thread];
            shim_fibers[thread].uc_stack.ss_size = stack;
            shim_fibers[thread].uc_link = &shim_main;
            makecontext(&shim_fibers[thread], (void (*)())shim_start, 1, thread);
        }
        while (!std::all_of(shim_done.begin(), shim_done.end(), [](char done) { return done; })) {
            std::iota(order.begin(), order.end(), 0);
            if (schedule == 1)
                std::reverse(order.begin(), order.end());
            if (schedule == 2)
                std::shuffle(order.begin(), order.end(), shuffle);
            for (int thread : order)
                if (!shim_done[thread]) {
                    threadIdx.x = thread, blockIdx.x = block;
                    swapcontext(&shim_main, &shim_fibers[thread]);
                }
        }
    }
}
#endif
