// Around the network: pixels -> input tensor, mask logits -> mask quality and label image, so that only small vectors and one
// label image leave the GPU. Gives what `dimos.py` gives on the CPU (x86; OpenCV fuses multiply and add on ARM): labels bit
// by bit, quality to 1e-5. Tables map an output axis to its source, see `resize_axes.py`.
#define FRAME_THREADS 256  // threads of every block

static inline __device__ long long frame_first() { return blockIdx.x * (long long)blockDim.x + threadIdx.x; }
static inline __device__ long long frame_stride() { return (long long)gridDim.x * blockDim.x; }

struct AreaAxis {          // OpenCV's INTER_AREA along one axis
    const int *first;      // first source of an output
    const int *begin;      // its weights: begin[i] .. begin[i + 1]
    const float *weight;
    int size, block;       // outputs; sources per output where that is whole, else 0
};

static inline __device__ int frame_area(const unsigned char *pixels, int row_bytes, int pixel_bytes, const AreaAxis &rows,
                                        const AreaAxis &columns, int y, int x)
{
    const unsigned char *top = pixels + (long long)rows.first[y] * row_bytes + (long long)columns.first[x] * pixel_bytes;
    int down = rows.begin[y + 1] - rows.begin[y], across = columns.begin[x + 1] - columns.begin[x];
    if (rows.block && columns.block) {
        int sum = 0;
        for (int i = 0; i < down; ++i)
            for (int j = 0; j < across; ++j)
                sum += top[(long long)i * row_bytes + j * pixel_bytes];
        if (down == 2 && across == 2)
            return (sum + 2) >> 2;
        return __float2int_rn(__fmul_rn((float)sum, 1.f / (float)(down * across)));
    }
    float sum = 0;
    for (int i = 0; i < down; ++i) {
        float line = 0;
        for (int j = 0; j < across; ++j)
            line = __fadd_rn(line, __fmul_rn((float)top[(long long)i * row_bytes + j * pixel_bytes],
                                             columns.weight[columns.begin[x] + j]));
        sum = __fadd_rn(sum, __fmul_rn(rows.weight[rows.begin[y] + i], line));
    }
    int value = __float2int_rn(sum);
    return value < 0 ? 0 : value > 255 ? 255 : value;
}

// out (3, rows.size, columns.size) = the 8-bit image, shrunk by area, times scale less shift; zeros unless *present.
// Channel c of a pixel lies `order[c]` bytes into it: rgb8, bgr8, rgba8, bgra8 and mono8 differ in nothing else.
extern "C" __global__ void frame_image(float *out, const unsigned char *pixels, int row_bytes, int pixel_bytes,
                                       const int *order, const int *present, const AreaAxis *rows,
                                       const AreaAxis *columns, const float *scale, const float *shift)
{
    const AreaAxis down = *rows, across = *columns;
    long long area = (long long)down.size * across.size;
    bool there = *present;
    for (long long i = frame_first(); i < 3 * area; i += frame_stride()) {
        int channel = (int)(i / area), y = (int)(i % area / across.size), x = (int)(i % across.size);
        float value = 0;
        if (there) {
            int grey = frame_area(pixels + order[channel], row_bytes, pixel_bytes, down, across, y, x);
            value = __fsub_rn(__fmul_rn((float)grey, scale[channel]), shift[channel]);
        }
        out[i] = value;
    }
}

struct LinearAxis {      // OpenCV's INTER_LINEAR along one axis
    const int *first;    // the lower source of an output
    const float *part;   // how far towards the next one
    int size, sources;
};

static inline __device__ float frame_linear(const float *logits, const LinearAxis &rows, const LinearAxis &columns, int y,
                                            int x)
{
    int y0 = rows.first[y], x0 = columns.first[x];
    int y1 = y0 + 1 < rows.sources ? y0 + 1 : y0, x1 = x0 + 1 < columns.sources ? x0 + 1 : x0;
    float fx = columns.part[x], fy = rows.part[y], gx = __fsub_rn(1.f, fx), gy = __fsub_rn(1.f, fy);
    const float *top = logits + (long long)y0 * columns.sources, *low = logits + (long long)y1 * columns.sources;
    float above = __fadd_rn(__fmul_rn(top[x0], gx), __fmul_rn(top[x1], fx));
    float below = __fadd_rn(__fmul_rn(low[x0], gx), __fmul_rn(low[x1], fx));
    return __fadd_rn(__fmul_rn(above, gy), __fmul_rn(below, fy));
}

// Per query of logits (Q, h, w), enlarged: sums[q] += sigmoid in Q16 of its positive pixels, counts[q] += their number;
// *bad += values that are not finite. gridDim.x = Q * share.
extern "C" __global__ void frame_quality(const float *logits, int share, const LinearAxis *rows, const LinearAxis *columns,
                                         unsigned long long *sums, int *counts, int *bad)
{
    __shared__ unsigned long long sum;
    __shared__ int count;
    if (threadIdx.x == 0)
        sum = 0, count = 0;
    __syncthreads();
    const LinearAxis down = *rows, across = *columns;
    int query = blockIdx.x / share, mine = 0;
    long long area = (long long)down.size * across.size, total = 0, step = (long long)share * blockDim.x;
    const float *map = logits + (long long)query * down.sources * across.sources;
    for (long long i = blockIdx.x % share * (long long)blockDim.x + threadIdx.x; i < area; i += step) {
        float value = frame_linear(map, down, across, (int)(i / across.size), (int)(i % across.size));
        if (!(value - value == 0))
            atomicAdd(bad, 1);
        if (value > 0) {
            total += (long long)(65536.f / (1.f + expf(-value)) + 0.5f);
            ++mine;
        }
    }
    atomicAdd(&sum, (unsigned long long)total);
    atomicAdd(&count, mine);
    __syncthreads();
    if (threadIdx.x == 0) {
        atomicAdd(&sums[query], sum);
        atomicAdd(&counts[query], count);
    }
}

struct Claim {  // of one mask; all start at 0
    int whole, visible;           // pixels: its own, and those no better mask holds
    int left, top, right, bottom; // of the visible ones: width - x, height - y, x + 1, y + 1, the greatest of each
};

// One step of painting masks, the best first: step n paints mask n - 1 if enough of it is visible, and measures mask n.
// labels (height, width) = 1 + the place in `order` of the mask that holds the pixel, 0 for none. Run steps 0 to *count.
extern "C" __global__ void frame_claim(const float *logits, const int *order, const int *count, int step,
                                       double min_visible, const LinearAxis *rows, const LinearAxis *columns,
                                       unsigned short *labels, Claim *claims)
{
    __shared__ int part[6];
    if (threadIdx.x < 6)
        part[threadIdx.x] = 0;
    __syncthreads();
    const LinearAxis down = *rows, across = *columns;
    int height = down.size, width = across.size;
    long long sources = (long long)down.sources * across.sources;
    const Claim *last = step ? &claims[step - 1] : 0;
    bool paints = last && step <= *count && last->visible && last->visible >= min_visible * last->whole;
    bool measures = step < *count;
    const float *before = paints ? logits + order[step - 1] * sources : 0;
    const float *now = measures ? logits + order[step] * sources : 0;
    if (paints || measures)
        for (long long i = frame_first(); i < (long long)height * width; i += frame_stride()) {
            int y = (int)(i / width), x = (int)(i % width);
            if (paints && !labels[i] && frame_linear(before, down, across, y, x) > 0)
                labels[i] = (unsigned short)step;
            if (measures && frame_linear(now, down, across, y, x) > 0) {
                atomicAdd(&part[0], 1);
                if (!labels[i]) {
                    atomicAdd(&part[1], 1);
                    atomicMax(&part[2], width - x);
                    atomicMax(&part[3], height - y);
                    atomicMax(&part[4], x + 1);
                    atomicMax(&part[5], y + 1);
                }
            }
        }
    __syncthreads();
    if (threadIdx.x == 0 && measures) {
        Claim *claim = &claims[step];
        atomicAdd(&claim->whole, part[0]);
        atomicAdd(&claim->visible, part[1]);
        atomicMax(&claim->left, part[2]);
        atomicMax(&claim->top, part[3]);
        atomicMax(&claim->right, part[4]);
        atomicMax(&claim->bottom, part[5]);
    }
}
