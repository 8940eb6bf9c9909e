// All kernels behind one C function, called as a CUDA driver would: by name, with pointers to the
// arguments.
#include "cuda_shim.h"

#include "voxel.cu"

#include "evt3.cu"

#include "frame.cu"

#include <cstring>
#include <utility>

template <class... A, size_t... I>
static void call(void (*kernel)(A...), void **arguments, std::index_sequence<I...>)
{
    kernel(*(A *)arguments[I]...);
}

#define TRY(kernel)              \
    if (!strcmp(name, #kernel))  \
        return launch(blocks, threads, schedule, [=] { bind(kernel, arguments); }), 0;

template <class... A> static void bind(void (*kernel)(A...), void **arguments)
{
    call(kernel, arguments, std::index_sequence_for<A...>());
}

// 0, or 1 for an unknown kernel
extern "C" int shim_launch(const char *name, int blocks, int threads, int schedule,
                           void **arguments)
{
    TRY(voxel_events) TRY(voxel_mono) TRY(voxel_moved_events) TRY(voxel_moved_mono)
    TRY(voxel_largest) TRY(voxel_normalise) TRY(voxel_features)
    TRY(evt3_scan) TRY(evt3_join) TRY(evt3_scatter)
    TRY(frame_image) TRY(frame_quality) TRY(frame_claim)
    return 1;
}
