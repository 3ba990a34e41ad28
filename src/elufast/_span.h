/* A kernel over a run of contiguous elements, with ordinary or with streaming stores.
 *
 * Past the last-level cache an ordinary store first reads the line that it overwrites. A streaming store does not; the
 * results go through a buffer that stays in the first-level cache, so the kernels need no variant for it.
 */
#ifndef ELUFAST_SPAN_H
#define ELUFAST_SPAN_H

#include "_elu.h"

#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
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

enum { ELU_BUFFER = 4096 };

static inline void elu_span(elu_kernel_t kernel, const char *x, const char *grad, char *out, ptrdiff_t n,
                            ptrdiff_t itemsize, elu_params_t s, int stream) {
    if (ELU_STREAM && stream) {
        _Alignas(64) char buffer[ELU_BUFFER];
        ptrdiff_t head = (ptrdiff_t)((64 - ((uintptr_t)out & 63)) & 63) / itemsize, block = ELU_BUFFER / itemsize;
        if (head < n) {
            kernel(x, grad, out, head, s);
            x += head * itemsize, grad += head * itemsize, out += head * itemsize, n -= head;
        }
        for (; n >= block; n -= block) {
            kernel(x, grad, buffer, block, s);
            elu_stream(out, buffer, ELU_BUFFER);
            x += ELU_BUFFER, grad += ELU_BUFFER, out += ELU_BUFFER;
        }
        ELU_STREAM_END();
    }
    kernel(x, grad, out, n, s);
}

#endif
