// EVT3 words -> events on a GPU, in three launches: what each run of words does to the decoder's
// state, the state in which each run begins, the events. Rules: `reference.py`; gives what
// `evt3.py` gives bit by bit, but leaves pixels outside the sensor to the consumer. Times must be
// valid at the first word (`evt3.seek_time`).
#define EVT3_RUN 64       // words of a run, one thread's work
#define EVT3_THREADS 256  // threads of evt3_join, which is one block

enum { EVT3_ROW = 1, EVT3_LOW = 2, EVT3_HIGH = 4, EVT3_BASE = 8 };

struct Evt3State {
    int known;  // of a run: which of the following it set; base is added if it did not
    int row, low, base, polarity;
    int first_high, high;  // its first and last TIME_HIGH
    int events;            // it holds; of a start: before it
    long long wraps;       // of the 24-bit clock
};

// A little less is noise.
static inline __device__ int evt3_wraps(int high, int before) { return high < before - 10; }

// Applies one word; returns the pixels it sets, from `base` on (before it is advanced), or from the
// word itself.
static inline __device__ int evt3_word(Evt3State &s, int word)
{
    int code = word >> 12, value = word & 0x7FF;
    if (code == 0)
        s.row = value, s.known |= EVT3_ROW;
    else if (code == 3)
        s.base = value, s.polarity = word >> 11 & 1, s.known |= EVT3_BASE;
    else if (code == 6)
        s.low = word & 0xFFF, s.known |= EVT3_LOW;
    else if (code == 8) {
        int high = word & 0xFFF;
        if (s.known & EVT3_HIGH)
            s.wraps += evt3_wraps(high, s.high);
        else
            s.first_high = high;
        s.high = high, s.known |= EVT3_HIGH;
    }
    return code == 2 ? 1 : code == 4 ? word & 0xFFF : code == 5 ? word & 0xFF : 0;
}

static inline __device__ int evt3_advance(int word)
{
    int code = word >> 12;
    return code == 4 ? 12 : code == 5 ? 8 : 0;
}

static inline __device__ int evt3_bits(int bits)
{
    int count = 0;
    for (; bits; bits &= bits - 1)
        ++count;
    return count;
}

// `s`, then the run `next`.
static inline __device__ void evt3_then(Evt3State &s, const Evt3State &next)
{
    if (next.known & EVT3_ROW)
        s.row = next.row;
    if (next.known & EVT3_LOW)
        s.low = next.low;
    if (next.known & EVT3_BASE)
        s.base = next.base, s.polarity = next.polarity;
    else
        s.base += next.base;
    s.wraps += next.wraps;
    if (next.known & EVT3_HIGH) {
        if (s.known & EVT3_HIGH)
            s.wraps += evt3_wraps(next.first_high, s.high);
        else
            s.first_high = next.first_high;
        s.high = next.high;
    }
    s.events += next.events;
    s.known |= next.known;
}

static inline __device__ int evt3_first() { return blockIdx.x * blockDim.x + threadIdx.x; }
static inline __device__ int evt3_stride() { return gridDim.x * blockDim.x; }

extern "C" __global__ void evt3_scan(const unsigned short *words, const int *count, Evt3State *runs)
{
    int last = (*count + EVT3_RUN - 1) / EVT3_RUN;
    for (int run = evt3_first(); run < last; run += evt3_stride()) {
        Evt3State s = {};
        for (int i = run * EVT3_RUN; i < (run + 1) * EVT3_RUN && i < *count; ++i) {
            s.events += evt3_bits(evt3_word(s, words[i]));
            s.base += evt3_advance(words[i]);
        }
        runs[run] = s;
    }
}

// runs[i] = the state in which run i begins; *state, with every bit of `known` set, goes from
// before the first word to after the last; *events = how many there are.
extern "C" __global__ void evt3_join(const int *count, Evt3State *runs, Evt3State *state,
                                     int *events)
{
    __shared__ Evt3State parts[EVT3_THREADS];
    int last = (*count + EVT3_RUN - 1) / EVT3_RUN, each = (last + EVT3_THREADS - 1) / EVT3_THREADS;
    int from = threadIdx.x * each, to = from + each < last ? from + each : last;
    Evt3State s = {};
    for (int run = from; run < to; ++run)
        evt3_then(s, runs[run]);
    parts[threadIdx.x] = s;
    __syncthreads();
    if (threadIdx.x == 0) {
        Evt3State all = *state;
        all.events = 0;
        for (int i = 0; i < EVT3_THREADS; ++i) {
            Evt3State part = parts[i];
            parts[i] = all;
            evt3_then(all, part);
        }
        *state = all;
        *events = all.events;
    }
    __syncthreads();
    s = parts[threadIdx.x];
    for (int run = from; run < to; ++run) {
        Evt3State next = runs[run];
        runs[run] = s;
        evt3_then(s, next);
    }
}

// x, y, p, t (ns of sensor time) of all events, in order.
extern "C" __global__ void evt3_scatter(const unsigned short *words, const int *count,
                                        const Evt3State *runs, unsigned short *x,
                                        unsigned short *y, unsigned char *p, long long *t)
{
    int last = (*count + EVT3_RUN - 1) / EVT3_RUN;
    for (int run = evt3_first(); run < last; run += evt3_stride()) {
        Evt3State s = runs[run];
        int n = s.events;
        for (int i = run * EVT3_RUN; i < (run + 1) * EVT3_RUN && i < *count; ++i) {
            int word = words[i], bits = evt3_word(s, word), single = word >> 12 == 2;
            for (int k = 0; bits; bits >>= 1, ++k)
                if (bits & 1) {
                    x[n] = (unsigned short)(single ? word & 0x7FF : s.base + k);
                    y[n] = (unsigned short)s.row;
                    p[n] = (unsigned char)(single ? word >> 11 & 1 : s.polarity);
                    t[n] = ((s.wraps << 24) + ((long long)s.high << 12) + s.low) * 1000;
                    ++n;
                }
            s.base += evt3_advance(word);
        }
    }
}
