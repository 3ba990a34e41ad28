/* What goes around a kernel: the floating-point mode, streaming stores, prefetching, elements that are no run.
 *
 * The caller may have left another mode, in each thread: another rounding direction, subnormals flushed to zero. That
 * would change results, so every call puts the default in place, and then the caller's back.
 */
#ifndef ELUFAST_SPAN_H
#define ELUFAST_SPAN_H

#include "_elu.h"

/* Two additions tell a mode that rounds otherwise, a third one that flushes; reading the mode costs six times as much. */
static const volatile double ELU_SMALL = 0x1p-60, ELU_TINY = 0x1p-1074;
static inline int elu_usual(void) {
    double small = ELU_SMALL, tiny = ELU_TINY;
    return 1 + small == 1 - small && tiny + tiny != 0;
}

#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
static inline uint64_t elu_default_mode(void) {
    uint64_t mode = _mm_getcsr();
    _mm_setcsr(0x1f80);
    return mode | (uint64_t)1 << 32;
}
static inline void elu_set_mode(uint64_t mode) { _mm_setcsr((unsigned)mode); }
#elif defined(__aarch64__)
static inline uint64_t elu_default_mode(void) {
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr\n\tmsr fpcr, xzr" : "=&r"(mode)::"memory");
    return mode;
}
static inline void elu_set_mode(uint64_t mode) { __asm__ volatile("msr fpcr, %0" ::"r"(mode) : "memory"); }
#else
#define elu_default_mode() 0
#define elu_set_mode(mode) (void)(mode)
#endif

/* Returns 0 where the mode is the usual one, else what elu_leave() needs to put it back. */
static inline uint64_t elu_enter(void) { return elu_usual() ? 0 : elu_default_mode(); }
static inline void elu_leave(uint64_t mode) {
    if (mode)
        elu_set_mode(mode);
}

#if defined(__SSE2__) || defined(_M_X64)
#define ELU_STREAM 1
static inline void elu_stream(char *out, const char *from, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64)
        for (size_t j = i; j < i + 64; j += 16)
            _mm_stream_si128((__m128i *)(out + j), _mm_load_si128((const __m128i *)(from + j)));
}
#define ELU_STREAM_END() _mm_sfence()
#else
#define ELU_STREAM 0
#define elu_stream(out, from, bytes) memcpy(out, from, bytes)
#define ELU_STREAM_END() (void)0
#endif

#if defined(__GNUC__)
#define ELU_PREFETCH(p) __builtin_prefetch(p)
#elif ELU_STREAM
#define ELU_PREFETCH(p) _mm_prefetch((p), _MM_HINT_T0)
#else
#define ELU_PREFETCH(p) (void)(p)
#endif

static inline void elu_prefetch(const char *from, ptrdiff_t bytes) {
    for (ptrdiff_t i = 0; i < bytes; i += 64)
        ELU_PREFETCH(from + i);
}

/* A kernel of _loops.pyx; family is a type that nobody reads. */
typedef void (*elu_kernel_t)(const void *x, const void *grad, void *out, ptrdiff_t n, const elu_params_t *s,
                             const void *family);

/* Elements of any stride, alignment and byte order into one run, and back: m times n of them, a stride apart, with a step
 * from one n to the next. In one function, with the strides of both sides as arguments, rows of 12 floats took 18 % longer
 * (Zen 1). */
#define ELU_SWAP16(u) (uint16_t)((u) << 8 | (u) >> 8)
#define ELU_SWAP32(u) ((u) << 24 | ((u) & 0xff00) << 8 | ((u) >> 8 & 0xff00) | (u) >> 24)
#define ELU_SWAP64(u) ((uint64_t)ELU_SWAP32((uint32_t)(u)) << 32 | ELU_SWAP32((uint32_t)((u) >> 32)))

#define ELU_MOVE(bits, to_stride, from_stride)                                                                         \
    for (ptrdiff_t j = 0; j < m; j++)                                                                                  \
        for (ptrdiff_t i = 0; i < n; i++) {                                                                            \
            uint##bits##_t u;                                                                                          \
            memcpy(&u, from + j * from_step + i * (from_stride), sizeof u);                                            \
            if (swapped)                                                                                               \
                u = ELU_SWAP##bits(u);                                                                                 \
            memcpy(to + j * to_step + i * (to_stride), &u, sizeof u);                                                  \
        }
#define ELU_MOVES(to_stride, from_stride)                                                                              \
    if (size == 2)                                                                                                     \
        ELU_MOVE(16, to_stride, from_stride)                                                                           \
    else if (size == 4)                                                                                                \
        ELU_MOVE(32, to_stride, from_stride)                                                                           \
    else                                                                                                               \
        ELU_MOVE(64, to_stride, from_stride)

enum { ELU_COPIED = 32 }; /* elements from which on memcpy() is worth its call */

#define ELU_COPY(name, to_stride, to_next, from_stride, from_next)                                                     \
    static inline void name(char *to, const char *from, ptrdiff_t stride, ptrdiff_t n, ptrdiff_t step, ptrdiff_t m,    \
                            ptrdiff_t size, int swapped) {                                                             \
        ptrdiff_t length = n * size;                                                                                   \
        if (step == n * stride) /* rows without a gap are one */                                                       \
            n *= m, length *= m, m = 1;                                                                                \
        ptrdiff_t to_step = to_next, from_step = from_next;                                                            \
        if (stride != size || (n < ELU_COPIED && !swapped))                                                            \
            ELU_MOVES(to_stride, from_stride)                                                                          \
        else if (swapped)                                                                                              \
            ELU_MOVES(size, size)                                                                                      \
        else                                                                                                           \
            for (ptrdiff_t j = 0; j < m; j++)                                                                          \
                memcpy(to + j * to_step, from + j * from_step, (size_t)length);                                        \
    }
ELU_COPY(elu_gather, size, length, stride, step)
ELU_COPY(elu_scatter, stride, step, size, length)

#endif
