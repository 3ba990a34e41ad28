/* A kernel over a run of contiguous elements, in the default floating-point mode, with ordinary or with streaming stores.
 *
 * The caller may have left another mode: another rounding direction, subnormals flushed to zero. It would change results,
 * and each thread has its own. So every run puts the default in place, and then the caller's back.
 *
 * Past the last-level cache an ordinary store first reads the line that it overwrites. A streaming store does not; the
 * results go through a buffer that stays in the first-level cache, so the kernels need no variant for it.
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

/* elu_enter() returns 0 where the mode is the usual one, else what elu_leave() needs to put it back. */
#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
static inline uint64_t elu_enter(void) {
    if (elu_usual())
        return 0;
    uint64_t mode = _mm_getcsr();
    _mm_setcsr(0x1f80);
    return mode | (uint64_t)1 << 32;
}
static inline void elu_leave(uint64_t mode) {
    if (mode)
        _mm_setcsr((unsigned)mode);
}
#elif defined(__aarch64__)
static inline uint64_t elu_enter(void) {
    if (elu_usual())
        return 0;
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr\n\tmsr fpcr, xzr" : "=&r"(mode)::"memory");
    return mode;
}
static inline void elu_leave(uint64_t mode) {
    if (mode)
        __asm__ volatile("msr fpcr, %0" ::"r"(mode) : "memory");
}
#else
#define elu_enter() 0
#define elu_leave(mode) (void)(mode)
#endif

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

enum { ELU_BLOCK = 1024, ELU_AHEAD = 4096 };

static inline void elu_prefetch(const char *from, ptrdiff_t bytes) {
    for (ptrdiff_t i = 0; i < bytes; i += 64)
        ELU_PREFETCH(from + i);
}

/* In the mode that is in force. After the last streaming stores ELU_STREAM_END() is due. With these, or where an ahead is
 * not 0, it goes in short blocks, which keep memory busy; before each what lies so many bytes ahead of it is fetched. */
static inline void elu_run(elu_kernel_t kernel, const char *x, const char *grad, char *out, ptrdiff_t n,
                           ptrdiff_t itemsize, const elu_params_t *s, int stream, ptrdiff_t x_ahead,
                           ptrdiff_t grad_ahead) {
    stream = ELU_STREAM && stream;
    if (stream || x_ahead || grad_ahead) {
        _Alignas(64) char buffer[ELU_BLOCK];
        ptrdiff_t block = stream && grad == x ? ELU_BLOCK / 2 : ELU_BLOCK;
        ptrdiff_t bytes = stream ? (ptrdiff_t)((64 - ((uintptr_t)out & 63)) & 63) : 0;
        ptrdiff_t rest = n * itemsize - bytes;
        if (rest > 0) {
            if (bytes)
                kernel(x, grad, out, bytes / itemsize, s);
            for (; rest >= 64; rest -= bytes) {
                x += bytes, grad += bytes, out += bytes;
                bytes = rest < block ? rest & ~(ptrdiff_t)63 : block;
                if (x_ahead)
                    elu_prefetch(x + x_ahead, bytes);
                if (grad_ahead)
                    elu_prefetch(grad + grad_ahead, bytes);
                kernel(x, grad, stream ? buffer : out, bytes / itemsize, s);
                if (stream)
                    elu_stream(out, buffer, bytes);
            }
            x += bytes, grad += bytes, out += bytes, n = rest / itemsize;
        }
    }
    kernel(x, grad, out, n, s);
}

static inline void elu_span(elu_kernel_t kernel, const char *x, const char *grad, char *out, ptrdiff_t n,
                            ptrdiff_t itemsize, const elu_params_t *s, int stream) {
    uint64_t mode = elu_enter();
    ptrdiff_t ahead = stream ? ELU_AHEAD : 0;
    elu_run(kernel, x, grad, out, n, itemsize, s, stream, ahead, grad == x ? 0 : ahead);
    if (stream)
        ELU_STREAM_END();
    elu_leave(mode);
}

#endif
