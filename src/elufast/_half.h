/* Half precision: float16 (IEEE 754 binary16) and bfloat16 (the upper half of a float), to float and back.
 *
 * A float's own rounding may have moved it onto the middle of two halves, but never across: elu_middle_* says where it
 * is, so that _core takes ELU_EXACT there (docs/design.md). Its sign is 0, or the sign bit where only negative floats
 * matter. All is branch-free, with comparisons of signed integers, which SSE2 has.
 */
#ifndef ELUFAST_HALF_H
#define ELUFAST_HALF_H

#include "_elu.h"

static inline float elu_from_bf16(uint16_t h) { return elu_f32((uint32_t)h << 16); }
/* The upper half is u rounded to even. */
static inline uint32_t elu_even_bf16(uint32_t u) { return u + 0x7fff + ((u >> 16) & 1); }

/* Of a NaN that arithmetic has made, or a half, the upper half is one. */
static inline uint16_t elu_to_bf16(float y) {
    uint32_t u = elu_u32(y);
    return (uint16_t)(((int32_t)(u & 0x7fffffff) > 0x7f800000 ? u : elu_even_bf16(u)) >> 16);
}

/* The same of what is not the middle of two, nor a NaN whose lower half is not 0, sooner. */
static inline uint16_t elu_to_bf16_up(float y) { return (uint16_t)((elu_u32(y) + 0x8000) >> 16); }
static inline uint32_t elu_middle_bf16(float y, uint32_t sign) {
    return (elu_u32(y) & (sign | 0xffff)) == (sign | 0x8000);
}

/* Times 2^112 the exponent's bias is a float's, of subnormals too. */
static inline float elu_from_f16(uint16_t h) {
    int32_t a = h & 0x7fff, sign = (int32_t)(h & 0x8000), u = a << 13;
    int32_t number = (int32_t)elu_u32(elu_f32((uint32_t)u) * 0x1p112f),
            other = u | (a > 0x7c00 ? 0x7fc00000 : 0x7f800000);
    return elu_f32((uint32_t)(a >= 0x7c00 ? other : number) | (uint32_t)sign << 16);
}

/* In a float + 1/2 the last bit is 2^-24, as of subnormal halves: the hardware rounds. */
static inline uint16_t elu_to_f16(float y) {
    uint32_t u = elu_u32(y), sign = u >> 16 & 0x8000;
    int32_t a = (int32_t)(u & 0x7fffffff);
    int32_t normal = (a - (112 << 23) + 0xfff + ((a >> 13) & 1)) >> 13;
    int32_t small = (int32_t)elu_u32(elu_f32((uint32_t)a) + 0.5f) - (int32_t)elu_u32(0.5f);
    int32_t half = a < 113 << 23 ? small : normal;
    half = a >= 0x477ff000 ? 0x7c00 : half;
    half = a > 0x7f800000 ? 0x7e00 | (a >> 13 & 0x3ff) : half;
    return (uint16_t)(sign | (uint32_t)half);
}

/* Of subnormal halves |y| 2^24 is compared with the nearest integer. */
static inline uint32_t elu_middle_f16(float y, uint32_t sign) {
    float a = fabsf(y), t = a * 0x1p24f, whole = (t + 0x1p23f) - 0x1p23f;
    int32_t normal = (int32_t)(elu_u32(y) & 0x1fff) == 0x1000;
    int32_t small = fabsf(fabsf(t - whole) - 0.5f) <= t * 0x1p-22f;
    return (uint32_t)((a < 0x1p-14f ? small : normal) & ((elu_u32(y) & sign) == sign));
}

/* The same sooner, and for all subnormal halves but 0: a first look. */
static inline uint32_t elu_perhaps_middle_f16(float y, uint32_t sign) {
    uint32_t u = elu_u32(y);
    return (uint32_t)((u & (sign | 0x1fff)) == (sign | 0x1000)) | (2 * u - 1 < 2 * 0x38800000u - 1);
}

/* Whole runs, where the hardware converts float16: F16C is part of the levels v3 and v4. */
#ifdef __F16C__
#include <immintrin.h>
#endif

static inline void elu_load_f16(const uint16_t *x, float *out, ptrdiff_t n) {
    ptrdiff_t i = 0;
#ifdef __F16C__
    for (; i < n - 7; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(x + i))));
#endif
    for (; i < n; i++)
        out[i] = elu_from_f16(x[i]);
}

static inline void elu_store_f16(const float *y, uint16_t *out, ptrdiff_t n) {
    ptrdiff_t i = 0;
#ifdef __F16C__
    for (; i < n - 7; i += 8)
        _mm_storeu_si128((__m128i *)(out + i), _mm256_cvtps_ph(_mm256_loadu_ps(y + i), _MM_FROUND_TO_NEAREST_INT));
#endif
    for (; i < n; i++)
        out[i] = elu_to_f16(y[i]);
}

/* The derivative from the output, times grad, as kernels. Two bfloat16 are computed as one word: no element changes its
 * place in a register. A NaN of theirs has no bits that would be rounded. */
static inline uint32_t elu_output_bf16(uint32_t grad, uint32_t y, elu_params_t s) {
    return elu_even_bf16(elu_u32(elu_from_output_f32(elu_f32(grad), elu_f32(y), s)));
}

static inline void elu_outputs_bf16(const uint16_t *y, const uint16_t *grad, uint16_t *out, ptrdiff_t n,
                                    const elu_params_t *p, const void *family) {
    elu_params_t s = *p;
    (void)family;
    for (ptrdiff_t i = 0; i < n / 2; i++) {
        uint32_t a, b, c;
        memcpy(&a, y + 2 * i, 4);
        memcpy(&b, grad + 2 * i, 4);
        c = (elu_output_bf16(b & 0xffff0000, a & 0xffff0000, s) & 0xffff0000) |
            elu_output_bf16(b << 16, a << 16, s) >> 16;
        memcpy(out + 2 * i, &c, 4);
    }
    if (n & 1)
        out[n - 1] = (uint16_t)(elu_output_bf16((uint32_t)grad[n - 1] << 16, (uint32_t)y[n - 1] << 16, s) >> 16);
}

static inline void elu_outputs_f16(const uint16_t *y, const uint16_t *grad, uint16_t *out, ptrdiff_t n,
                                   const elu_params_t *p, const void *family) {
    elu_params_t s = *p;
    (void)family;
    ptrdiff_t i = 0;
    for (; i < n - 7; i += 8) {
        float a[8], b[8];
        elu_load_f16(y + i, a, 8);
        elu_load_f16(grad + i, b, 8);
        for (int k = 0; k < 8; k++)
            a[k] = elu_from_output_f32(b[k], a[k], s);
        elu_store_f16(a, out + i, 8);
    }
    for (; i < n; i++)
        out[i] = elu_to_f16(elu_from_output_f32(elu_from_f16(grad[i]), elu_from_f16(y[i]), s));
}

#endif
