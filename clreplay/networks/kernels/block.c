/* What lies between two convolutions of a ConvNet with instance norm, in one pass over memory:
 * normalise, ReLU, the moments of the rectified map, 2x2 average pooling; and the gradient of all that.
 *
 * Maps are channels-last (n, h, w, c), c a multiple of LANES; float32, or bfloat16 held as uint16.
 * All arithmetic is float32. Every image is worked on by one thread, in a fixed order of additions, so
 * the outcome does not depend on the number of threads. Vectors are GCC's and Clang's own extension:
 * the compiler lowers them to whatever the machine has.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 16 };
typedef float vf __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint16_t vh __attribute__((vector_size(32)));

#define INLINE static inline __attribute__((always_inline))

INLINE vf load(const void *p, size_t i, int half) {
    if (half) {
        vh h;
        memcpy(&h, (const uint16_t *)p + i, sizeof h);
        return (vf)(__builtin_convertvector(h, vu) << 16);
    }
    vf v;
    memcpy(&v, (const float *)p + i, sizeof v);
    return v;
}

INLINE void store(void *p, size_t i, vf v, int half) {
    if (half) { /* round to nearest even; NaN and infinity stay what they are for all practical values */
        vu u = (vu)v;
        u = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
        vh h = __builtin_convertvector(u, vh);
        memcpy((uint16_t *)p + i, &h, sizeof h);
    } else {
        memcpy((float *)p + i, &v, sizeof v);
    }
}

INLINE vf all(float x) {
    vf v = {0};
    return v + x;
}

/* v where x > 0, else 0; a NaN in x goes through, as in PyTorch's ReLU. */
INLINE vf where_positive(vf x, vf v) {
    vi off = (vi)(x <= all(0.0f));
    return (vf)((vi)v & ~off);
}

INLINE vf root(vf v) {
    for (int i = 0; i < LANES; i++) v[i] = sqrtf(v[i]);
    return v;
}

typedef struct {
    const void *x;      /* n, h, w, c: what the convolution gave */
    const float *scale; /* c, of the norm */
    const float *shift; /* c */
    float eps;
    float *mean, *rstd; /* n, c */
    float *map;         /* n, h, w, c float32: the rectified map, or NULL */
    void *pooled;       /* n, h/2, w/2, c, or NULL */
    float *first;       /* n, c: mean of the rectified map, or NULL */
    float *second;      /* n, c: mean of its square */
    long n, h, w, c;
    int half, pooled_half, threads;
} Forward;

INLINE void forward_strip(const Forward *a, long image, long strip, int half, int pooled_half) {
    const long h = a->h, w = a->w, c = a->c;
    const size_t base = (size_t)image * h * w * c + strip, row = (size_t)w * c;
    const float count = (float)(h * w);
    vf total = all(0.0f);
    for (long i = 0; i < h; i++) {
        vf sum = all(0.0f);
        for (long j = 0; j < w; j++) sum += load(a->x, base + i * row + j * c, half);
        total += sum;
    }
    const vf mean = total / count;
    total = all(0.0f);
    for (long i = 0; i < h; i++) {
        vf sum = all(0.0f);
        for (long j = 0; j < w; j++) {
            vf d = load(a->x, base + i * row + j * c, half) - mean;
            sum += d * d;
        }
        total += sum;
    }
    const vf rstd = 1.0f / root(total / count + a->eps);
    const vf by = rstd * load(a->scale, strip, 0);
    const vf plus = load(a->shift, strip, 0) - mean * by;
    store(a->mean, image * c + strip, mean, 0);
    store(a->rstd, image * c + strip, rstd, 0);
    vf first = all(0.0f), second = all(0.0f);
    const size_t pooled_base = (size_t)image * (h / 2) * (w / 2) * c + strip;
    for (long i = 0; i < h; i += 2) {
        vf row_first = all(0.0f), row_second = all(0.0f);
        for (long j = 0; j < w; j += 2) {
            vf quad = all(0.0f);
            for (int k = 0; k < 4; k++) {
                const size_t at = base + (i + (k >> 1)) * row + (j + (k & 1)) * c;
                vf z = load(a->x, at, half) * by + plus;
                vf y = where_positive(z, z);
                if (a->map) store(a->map, at, y, 0);
                quad += y;
                row_second += y * y;
            }
            row_first += quad;
            if (a->pooled)
                store(a->pooled, pooled_base + ((i / 2) * (w / 2) + j / 2) * c, quad * 0.25f, pooled_half);
        }
        first += row_first;
        second += row_second;
    }
    if (a->first) {
        store(a->first, image * c + strip, first / count, 0);
        store(a->second, image * c + strip, second / count, 0);
    }
}

#define FOR_EVERY_STRIP(body)                                                                        \
    _Pragma("omp parallel for collapse(2) num_threads(a->threads) if (a->threads > 1)")              \
    for (long image = 0; image < a->n; image++)                                                      \
        for (long strip = 0; strip < a->c; strip += LANES) body

void clreplay_forward(const Forward *a) {
    if (!a->half)
        FOR_EVERY_STRIP(forward_strip(a, image, strip, 0, 0);)
    else if (a->pooled_half)
        FOR_EVERY_STRIP(forward_strip(a, image, strip, 1, 1);)
    else
        FOR_EVERY_STRIP(forward_strip(a, image, strip, 1, 0);)
}

typedef struct {
    const void *x;
    const float *scale, *shift, *mean, *rstd;
    const float *map;    /* gradient of the rectified map, n, h, w, c, or NULL */
    const void *pooled;  /* gradient of the pooled map, or NULL */
    const float *first;  /* gradient of its mean, n, c, or NULL */
    const float *second; /* gradient of its mean square, or NULL */
    const float *before_first;  /* gradient of the mean of x, n, c, or NULL */
    const float *before_second; /* gradient of the mean of its square, or NULL */
    void *out;           /* gradient of x */
    float *of_scale;     /* n, c: gradient of scale, image by image, or NULL */
    float *of_shift;     /* n, c: likewise of shift */
    long n, h, w, c;
    int half, pooled_half, threads;
} Backward;

INLINE void backward_strip(const Backward *a, long image, long strip, int half, int pooled_half) {
    const long h = a->h, w = a->w, c = a->c;
    const size_t base = (size_t)image * h * w * c + strip, row = (size_t)w * c;
    const size_t pooled_base = (size_t)image * (h / 2) * (w / 2) * c + strip;
    const float count = (float)(h * w);
    const vf mean = load(a->mean, image * c + strip, 0), rstd = load(a->rstd, image * c + strip, 0);
    const vf scale = load(a->scale, strip, 0), shift = load(a->shift, strip, 0);
    const vf first = a->first ? load(a->first, image * c + strip, 0) / count : all(0.0f);
    const vf second = a->second ? load(a->second, image * c + strip, 0) * (2.0f / count) : all(0.0f);
    vf total = all(0.0f), along = all(0.0f);
    for (long i = 0; i < h; i += 2) {
        vf row_total = all(0.0f), row_along = all(0.0f);
        for (long j = 0; j < w; j += 2) {
            const vf spread = a->pooled
                ? load(a->pooled, pooled_base + ((i / 2) * (w / 2) + j / 2) * c, pooled_half) * 0.25f + first
                : first;
            for (int k = 0; k < 4; k++) {
                const size_t at = base + (i + (k >> 1)) * row + (j + (k & 1)) * c;
                const vf hat = (load(a->x, at, half) - mean) * rstd, z = hat * scale + shift;
                vf g = spread + second * z;
                if (a->map) g += load(a->map, at, 0);
                g = where_positive(z, g);
                row_total += g;
                row_along += g * hat;
            }
        }
        total += row_total;
        along += row_along;
    }
    if (a->of_scale) {
        store(a->of_scale, image * c + strip, along, 0);
        store(a->of_shift, image * c + strip, total, 0);
    }
    total /= count;
    along /= count;
    const vf by = rstd * scale;
    const vf flat = a->before_first ? load(a->before_first, image * c + strip, 0) / count : all(0.0f);
    const vf steep = a->before_second ? load(a->before_second, image * c + strip, 0) * (2.0f / count) : all(0.0f);
    const int before = a->before_first || a->before_second;
    for (long i = 0; i < h; i += 2)
        for (long j = 0; j < w; j += 2) {
            const vf spread = a->pooled
                ? load(a->pooled, pooled_base + ((i / 2) * (w / 2) + j / 2) * c, pooled_half) * 0.25f + first
                : first;
            for (int k = 0; k < 4; k++) {
                const size_t at = base + (i + (k >> 1)) * row + (j + (k & 1)) * c;
                const vf x = load(a->x, at, half), hat = (x - mean) * rstd, z = hat * scale + shift;
                vf g = spread + second * z;
                if (a->map) g += load(a->map, at, 0);
                g = where_positive(z, g);
                vf out = by * (g - total - hat * along);
                if (before) out += flat + steep * x;
                store(a->out, at, out, half);
            }
        }
}

void clreplay_backward(const Backward *a) {
    if (!a->half)
        FOR_EVERY_STRIP(backward_strip(a, image, strip, 0, 0);)
    else if (a->pooled_half)
        FOR_EVERY_STRIP(backward_strip(a, image, strip, 1, 1);)
    else
        FOR_EVERY_STRIP(backward_strip(a, image, strip, 1, 0);)
}
