/* The element functions: ELU, SELU and CELU, their derivatives times a gradient, for float and double.
 *
 * All are branch-free `static inline` C11 that a compiler vectorizes when a loop calls them; NaN, infinities and
 * zeros are repaired by one select at the end instead of being handled. Writing A for scale * alpha:
 *
 *     forward   x < 0:  A * expm1(x)         else  scale * x      (CELU: A = alpha, and x / alpha inside expm1)
 *     backward  x > 0:  grad * scale         else  grad * A * exp(x)
 *
 * Every function reduces x = n ln2 + r, |r| <= ln2 / 2, and evaluates expm1(r) = r + r^2 q(r). The polynomials and
 * constants are printed by tools/coefficients.py, the bounds by `make exhaustive` (float) and `make accuracy`.
 *
 * float    with FMA and an ordinary alpha: in float.  Everything else: in double, rounded once at the end.
 * double   the leading terms are carried as an unevaluated sum hi + lo up to the last rounding.
 *
 * An alpha far from 1 is taken as a number near 1 times 2^shift, so that no step but the last one leaves the range.
 *
 * With hardware FMA all instruction sets give the same bits; without it the products that need their low part are
 * split by masking, and the results differ within the same bounds. Compile with -ffp-contract=off, never -ffast-math.
 */
#ifndef ELUFAST_ELU_H
#define ELUFAST_ELU_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__FMA__) || defined(__aarch64__) || defined(_M_ARM64)
#define ELU_FMA 1
#else
#define ELU_FMA 0 /* fma() would be a library call */
#endif

/* What a loop calls: a compiler may find it too long to inline, and then does not vectorize the loop. */
#ifdef __GNUC__
#define ELU_INLINE static inline __attribute__((always_inline))
#else
#define ELU_INLINE static inline
#endif

/* The three scalars, each as hi + lo. */
typedef struct {
    double a_hi, a_lo;     /* A = scale * alpha */
    double s_hi, s_lo;     /* scale; s_lo >= 0, so that an infinite x stays one in s_hi x + s_lo x */
    double inv_hi, inv_lo; /* 1 / alpha for CELU, else 1 */
    double low;            /* CELU clamps x here: beyond it each result is saturated, 0, or overflows (alpha < 0) */
    double slope;          /* f'(0) from below: A, for CELU 1 */
    double shift;          /* what a_hi (forward) or slope (backward) lacks is 2^shift; 0 but for an alpha far from 1 */
    double down;           /* x is multiplied by it first: 2^-shift for such a CELU, else 1 */
} elu_params_t;

/* Klambauer et al. 2017, eq. 14: alpha = 1.6732632423543772848170429916717,
 * scale = 1.0507009873554804934193349852946 */
static const elu_params_t ELU_SELU_PARAMS = {
    .a_hi = 0x1.c212cc640f031p+0,
    .a_lo = 0x1.05161b045a1f1p-56,
    .s_hi = 0x1.0cfabd6a91132p+0,
    .s_lo = 0x1.6fc7d272f2696p-55,
    .inv_hi = 1,
    .inv_lo = 0,
    .low = 0,
    .slope = 0x1.c212cc640f031p+0,
    .shift = 0,
    .down = 1,
};

/* A number by its bits, and back. */
#define ELU_BITS(name, from_type, to_type)                                                                             \
    static inline to_type name(from_type from) {                                                                       \
        to_type to;                                                                                                    \
        memcpy(&to, &from, sizeof to);                                                                                 \
        return to;                                                                                                     \
    }
ELU_BITS(elu_f32, uint32_t, float)
ELU_BITS(elu_u32, float, uint32_t)
ELU_BITS(elu_f64, uint64_t, double)
ELU_BITS(elu_u64, double, uint64_t)

/* a * b + c, fused where the hardware does so; only where either rounding is good enough. */
static inline double elu_mad(double a, double b, double c) { return ELU_FMA ? fma(a, b, c) : a * b + c; }
/* max(x, low), NaN kept: one instruction on x86-64 in this order of operands. */
static inline double elu_clamp(double x, double low) { return low > x ? low : x; }
/* The low 27 bits off: the product of two such numbers is exact. */
static inline double elu_head(double x) { return elu_f64(elu_u64(x) & ~(uint64_t)0x7ffffff); }

/* Adding ROUND rounds to an integer n and leaves n + exponent bias in the low bits: shifted, they are 2^n.
 * 2^n is right for n of a normal number, 0 for the one below. */
#define ELU_ROUND32 (0x1.8p23f + 127)
#define ELU_ROUND64 (0x1.8p52 + 1023)
static inline double elu_exp2(double t) { return elu_f64(elu_u64(t) << 52); }

#define ELU_LOG2E 0x1.71547652b82fep+0
#define ELU_LN2 0x1.62e42fefa39efp-1

/* ---------------------------------------------------------------------------------------------------- float
 *
 * In double, rounded once: at most 0.501 ulp. Any alpha, any inner scale, no FMA needed; two thirds slower. */

/* expm1(r), |r| <= 0.3466, degree 7, relative error 2^-31.9 */
static inline double elu_poly_d(double r) {
    double q = 0x1.a032bd9654e86p-13;
    q = elu_mad(q, r, 0x1.6d71f204dd4c6p-10);
    q = elu_mad(q, r, 0x1.1111896301eb8p-7);
    q = elu_mad(q, r, 0x1.5554b133b7c2cp-5);
    q = elu_mad(q, r, 0x1.555554ef94ea2p-3);
    q = elu_mad(q, r, 0x1.00000025ee644p-1);
    return elu_mad(r * r, q, r);
}

static inline double elu_expm1_d(double z) {
    z = elu_clamp(z, -40);
    z = z > 700 ? 700 : z; /* CELU with alpha < 0 grows; at 700 every float result has overflowed */
    double t = elu_mad(z, ELU_LOG2E, ELU_ROUND64), n = t - ELU_ROUND64, k = elu_exp2(t);
    return elu_mad(k, elu_poly_d(elu_mad(n, -ELU_LN2, z)), k - 1);
}

static inline float elu_forward_any_f32(float x, elu_params_t s) {
    double d = x, y = s.a_hi * elu_expm1_d(d * s.inv_hi);
    return (float)(d < 0 ? y : d * s.s_hi);
}

static inline double elu_backward_d(float grad, float x, elu_params_t s) {
    double d = x, g = grad, z = elu_clamp(d * s.inv_hi, -700 - s.shift * ELU_LN2), round = ELU_ROUND64 + s.shift;
    z = z > 700 ? 700 : z;
    double t = elu_mad(z, ELU_LOG2E, round), n = t - round, k = elu_exp2(t); /* 2^(n + shift) */
    double y = g * s.slope * elu_mad(k, elu_poly_d(elu_mad(n, -ELU_LN2, z)), k);
    return d > 0 ? g * s.s_hi : y;
}

static inline float elu_backward_any_f32(float grad, float x, elu_params_t s) {
    return (float)elu_backward_d(grad, x, s);
}

/* For a result y + rest that is rounded again, to half precision: what a double, then what a float does not hold makes
 * its last bit odd, with the rest cut off. Conditions are sign bits, since SSE2 narrows no masks of doubles. */
static inline uint64_t elu_nonzero(uint64_t u) { return (u | (0 - u)) >> 63; }
static inline float elu_odd(double y, double rest) {
    uint64_t u = elu_u64(y), v = elu_u64(rest == rest ? rest : 0) /* y is infinite */, more = elu_nonzero(2 * v);
    double d = elu_f64((u - (((u ^ v) >> 63) & more)) | more);
    float f = (float)d;
    uint64_t lost = elu_u64(fabs(d)) - elu_u64(fabs((double)f));
    return elu_f32((elu_u32(f) - (uint32_t)(lost >> 63)) | (uint32_t)elu_nonzero(lost));
}

/* a expm1(z) is never the middle of two halves, but its double may be, for tiny z: then what the product has lost tells
 * the side or, where that is nothing, that expm1(z) > z. */
static inline float elu_forward_exact_f32(float x, elu_params_t s) {
    double d = x, z = d * s.inv_hi, e = elu_expm1_d(z), y = s.a_hi * e;
    double a1 = elu_head(s.a_hi), a2 = s.a_hi - a1, e1 = elu_head(e), e2 = e - e1;
    double rest = (((a1 * e1 - y) + a1 * e2) + a2 * e1) + a2 * e2 + s.a_hi * 0x1p-110 * fabs(e);
    return d < 0 ? elu_odd(y, rest) : elu_odd(d * s.s_hi, 0);
}

static inline float elu_backward_exact_f32(float grad, float x, elu_params_t s) {
    return elu_odd(elu_backward_d(grad, x, s), 0);
}

#define ELU_LOW32 -40.f

#define ELU_LOG2E_F 0x1.715476p+0f
#define ELU_LN2_F 0x1.62e430p-1f
#define ELU_LN2_LO_F -0x1.05c610p-29f

/* q of expm1(r) = r + r^2 q(r), |r| <= 0.3466, degree 6 in all; weighted by what the result's ulp is where r is used
 * (r < 0: relative to expm1(r); r > 0: to 1 - expm1(r)) the error is 2^-27.1 */
static inline float elu_poly_f(float r) {
    float q = fmaf(r * r, fmaf(r, 0x1.672fb8p-10f, 0x1.123d16p-7f), fmaf(r, 0x1.555dc6p-5f, 0x1.55548cp-3f));
    return fmaf(q, r, 0x1.fffff4p-2f);
}

/* a q of the same, degree 7, error 2^-32.1: the products with a are taken out of the loop, and a / 2 is exact */
static inline float elu_poly_a_f(float r, float a) {
    float q = a * 0x1.9b3bf4p-13f;
    q = fmaf(q, r, a * 0x1.6d5172p-10f);
    q = fmaf(q, r, a * 0x1.11156ep-7f);
    q = fmaf(q, r, a * 0x1.5554e4p-5f);
    q = fmaf(q, r, a * 0x1.555552p-3f);
    return fmaf(q, r, a * 0.5f);
}

/* As an unsigned minimum of bit patterns the clamp costs one instruction; x >= 0 and NaN are selected away later. */
static inline float elu_clamp_bits(float x, float low) {
    return elu_f32(elu_u32(x) < elu_u32(low) ? elu_u32(x) : elu_u32(low));
}

/* At -18 expm1 has rounded to -1. One constant is enough for n ln2: its error n * 1.9e-9 meets the factor 2^n. */
static inline float elu_forward_unit_f32(float x, elu_params_t s) {
    (void)s;
    float z = elu_clamp_bits(x, -18);
    float t = fmaf(z, ELU_LOG2E_F, ELU_ROUND32), n = t - ELU_ROUND32;
    float r = fmaf(n, -ELU_LN2_F, z), k = elu_f32(elu_u32(t) << 23);
    float y = fmaf(k, fmaf(r * r, elu_poly_f(r), r), k - 1);
    return x < 0 ? y : x;
}

/* A expm1(x): k r + (k - 1) is hi + lo without error (Fast2Sum: |k - 1| >= |k r|, or n = 0), so that only small terms
 * are rounded before the last operation. */
static inline float elu_scaled_expm1_f(float x, elu_params_t s) {
    float a = (float)s.a_hi, a_lo = (float)(s.a_hi - a);
    float z = elu_clamp_bits(x, -20);
    float t = fmaf(z, ELU_LOG2E_F, ELU_ROUND32), n = t - ELU_ROUND32;
    float r = fmaf(n, -ELU_LN2_F, z), k = elu_f32(elu_u32(t) << 23), m = k - 1;
    float kr = k * r, hi = kr + m, lo = kr + (m - hi);
    return fmaf(a, hi, fmaf(kr * r, elu_poly_a_f(r, a), fmaf(a, lo, a_lo * hi)));
}

static inline float elu_forward_alpha_f32(float x, elu_params_t s) {
    float y = elu_scaled_expm1_f(x, s);
    return x < 0 ? y : x;
}

static inline float elu_forward_selu_f32(float x, elu_params_t s) {
    float b = (float)s.s_hi, y = elu_scaled_expm1_f(x, s);
    b = b > s.s_hi ? b - FLT_EPSILON : b;
    float up = fmaf(b, x, (float)(s.s_hi - b) * x);
    return x < 0 ? y : up;
}

/* x / alpha = hi + lo */
typedef struct {
    float hi, lo;
} elu_sum_f_t;

static inline elu_sum_f_t elu_divided_f(float x, elu_params_t s) {
    float inv = (float)s.inv_hi, inv_lo = (float)(s.inv_hi - inv);
    elu_sum_f_t z = {x * inv, 0};
    z.lo = fmaf(x, inv_lo, fmaf(x, inv, -z.hi));
    return z;
}

/* 1e-12 <= alpha <= 1e12. As elu_scaled_expm1_f, with lo's part, k lo (1 + r). From -2^-26 alpha up the result is x,
 * which also keeps what an x / alpha among the subnormals lost. */
static inline float elu_forward_celu_f32(float x, elu_params_t s) {
    float a = (float)s.a_hi, a_lo = (float)(s.a_hi - a);
    elu_sum_f_t z = elu_divided_f(elu_clamp_bits(x, (float)(-20 * s.a_hi)), s);
    float t = fmaf(z.hi, ELU_LOG2E_F, ELU_ROUND32), n = t - ELU_ROUND32;
    float r = fmaf(n, -ELU_LN2_F, z.hi), k = elu_f32(elu_u32(t) << 23), m = k - 1;
    float kr = k * r, hi = kr + m, c = k * z.lo, lo = (kr + (m - hi)) + fmaf(c, r, c);
    float y = fmaf(a, hi, fmaf(kr * r, elu_poly_a_f(r, a), fmaf(a, lo, a_lo * hi)));
    return x < (float)(-0x1p-26 * s.a_hi) ? y : x;
}

/* Backward, an element is moderate unless x <= low, which is -40, times alpha for CELU, or grad is infinite (ELU_UNIT and
 * ELU_CELU) or 0 < |grad| < 2^-40 (the others): then every step of the float formula is as exact as it has to be. Loops
 * use that formula and note what they meet, and do a block again where it held an extreme element; there each element
 * still takes the formula that is its own, so its neighbours do not matter.
 * As unsigned numbers the bits of x <= low (and of a negative NaN, which does no harm) are above all others, those of
 * 2 grad the larger the larger grad is, its sign shifted out, and those of -2 grad the larger the smaller it is. */
typedef struct { /* 0 for what the type does not use */
    uint32_t x32, grad32;
    uint64_t x64, grad64;
} elu_noted_t;
static inline uint32_t elu_larger(uint32_t noted, uint32_t u) { return u > noted ? u : noted; }
static inline elu_noted_t elu_note_f32(elu_noted_t noted, float x, float grad, float low, int large) {
    (void)low;
    noted.x32 = elu_larger(noted.x32, elu_u32(x));
    noted.grad32 = elu_larger(noted.grad32, large ? 2 * elu_u32(grad) : 0 - 2 * elu_u32(grad));
    return noted;
}
static inline int elu_extreme(elu_noted_t noted, float low, int large) {
    uint32_t most = large ? 2 * elu_u32(INFINITY) : 1 - 2 * elu_u32(0x1p-40f);
    return (ELU_FMA && (noted.x32 >= elu_u32(low) || noted.grad32 >= most)) || (noted.x64 | noted.grad64) != 0;
}

/* Whether this grad is extreme, for one and for the others. */
static inline int elu_large_f32(float grad) { return !(fabsf(grad) <= FLT_MAX); }
static inline int elu_small_f32(float grad) { return (grad == 0 ? 1 : fabsf(grad)) < 0x1p-40f; }

/* grad exp(r + c) 2^n, t = n + ELU_ROUND32: u + u expm1(r + c), whose sum would make -0 of u a zero above */
static inline float elu_grad_exp_f(float grad, float t, float r, float c) {
    float p = r + c, e = r + fmaf(p * p, elu_poly_f(p), c);
    float u = grad * elu_f32(elu_u32(t) << 23), y = fmaf(u, e, u);
    return elu_f32(elu_u32(y) | (elu_u32(grad) & 0x80000000));
}

static inline float elu_moderate_unit_f32(float grad, float x, elu_params_t s) {
    (void)s;
    float t = fmaf(x, ELU_LOG2E_F, ELU_ROUND32), n = t - ELU_ROUND32;
    float y = elu_grad_exp_f(grad, t, fmaf(n, -ELU_LN2_F, x), n * -ELU_LN2_LO_F);
    return x > 0 ? grad : y;
}

static inline float elu_moderate_celu_f32(float grad, float x, elu_params_t s) {
    elu_sum_f_t z = elu_divided_f(x, s);
    float t = fmaf(z.hi, ELU_LOG2E_F, ELU_ROUND32), n = t - ELU_ROUND32;
    float y = elu_grad_exp_f(grad, t, fmaf(n, -ELU_LN2_F, z.hi), fmaf(n, -ELU_LN2_LO_F, z.lo));
    return x > 0 ? grad : y;
}

/* exp(x) = 2^n (hi + lo), times a. hi is 1 + r less 2^-20, which keeps lo positive: an infinite grad stays infinite. */
static inline float elu_grad_scaled_exp_f(float grad, float x, elu_params_t s) {
    float a = (float)s.a_hi, a_lo = (float)(s.a_hi - a);
    float t = fmaf(x, ELU_LOG2E_F, ELU_ROUND32), n = t - ELU_ROUND32;
    float r = fmaf(n, -ELU_LN2_LO_F, fmaf(n, -ELU_LN2_F, x)), e = (1 - 0x1p-20f) + r;
    float e_lo = fmaf(r * r, elu_poly_f(r), r - (e - 1));
    float hi = a * e, lo = fmaf(a, e_lo, fmaf(a_lo, e, fmaf(a, e, -hi)));
    float u = grad * elu_f32(elu_u32(t) << 23);
    return fmaf(u, hi, u * lo);
}

static inline float elu_moderate_alpha_f32(float grad, float x, elu_params_t s) {
    float y = elu_grad_scaled_exp_f(grad, x, s);
    return x > 0 ? grad : y;
}

static inline float elu_moderate_selu_f32(float grad, float x, elu_params_t s) {
    float b = (float)s.s_hi, y = elu_grad_scaled_exp_f(grad, x, s);
    b = b > s.s_hi ? b - FLT_EPSILON : b;
    float up = fmaf(b, grad, (float)(s.s_hi - b) * grad);
    return x > 0 ? up : y;
}

/* For any element: the moderate formula, or the extreme one where it has to be. CELU's low is times alpha. */
#define ELU_BACKWARD_BY_BOTH(T, name, low, times, is_extreme, extreme)                                                 \
    ELU_INLINE T elu_backward_##name(T grad, T x, elu_params_t s) {                                                    \
        T moderate = elu_moderate_##name(grad, x, s), far = extreme(grad, x, s);                                       \
        T y = x <= (T)(low * times) ? far : moderate;                                                                  \
        return is_extreme(grad) ? far : y;                                                                             \
    }
ELU_BACKWARD_BY_BOTH(float, unit_f32, ELU_LOW32, 1, elu_large_f32, elu_backward_any_f32)
ELU_BACKWARD_BY_BOTH(float, alpha_f32, ELU_LOW32, 1, elu_small_f32, elu_backward_any_f32)
ELU_BACKWARD_BY_BOTH(float, selu_f32, ELU_LOW32, 1, elu_small_f32, elu_backward_any_f32)
ELU_BACKWARD_BY_BOTH(float, celu_f32, ELU_LOW32, s.a_hi, elu_large_f32, elu_backward_any_f32)

/* --------------------------------------------------------------------------------------------------- double */

/* p p - s, for s = p p rounded */
static inline double elu_square_error(double p, double s) {
    double p1 = elu_head(p), p2 = p - p1;
    return ELU_FMA ? fma(p, p, -s) : ((p1 * p1 - s) + 2 * p1 * p2) + p2 * p2;
}

/* (q(r) - 1/2) / r, for expm1(r) = r + r^2 q(r), |r| <= 0.3466, degree 12 in all, relative error 2^-61.6; s = r^2.
 * Odd and even powers apart make two short chains of dependent operations out of a long one. */
static inline double elu_poly_64(double r, double s) {
    double odd = 0x1.1f38cc4ee07efp-29, even = 0x1.af5d03fe95204p-26;
    odd = elu_mad(odd, s, 0x1.27e4f8b88221fp-22);
    even = elu_mad(even, s, 0x1.71ddf9394667ep-19);
    odd = elu_mad(odd, s, 0x1.a01a019e59769p-16);
    even = elu_mad(even, s, 0x1.a01a01af9c82bp-13);
    odd = elu_mad(odd, s, 0x1.6c16c16c167fcp-10);
    even = elu_mad(even, s, 0x1.111111110f709p-7);
    odd = elu_mad(odd, s, 0x1.5555555555559p-5);
    even = elu_mad(even, s, 0x1.5555555555559p-3);
    return elu_mad(odd, r, even);
}

/* r^2 q(r) + c. Without FMA r^2 / 2 is kept apart and its rounding made good. */
static inline double elu_tail_64(double r, double c) {
    double s = r * r, q = elu_poly_64(r, s);
    return ELU_FMA ? fma(s, fma(q, r, 0.5), c) : 0.5 * s + (s * (r * q) + (c + 0.5 * elu_square_error(r, s)));
}

typedef struct {
    double hi, lo;
} elu_sum_t;

/* a (x.hi + x.lo), unevaluated */
static inline elu_sum_t elu_times(double a, double a_lo, elu_sum_t x) {
    double a1 = elu_head(a), x1 = elu_head(x.hi);
    elu_sum_t y = {ELU_FMA ? a * x.hi : a1 * x1, 0};
    y.lo = ELU_FMA ? fma(a, x.lo, fma(a_lo, x.hi, fma(a, x.hi, -y.hi)))
                   : a1 * ((x.hi - x1) + x.lo) + ((a - a1) + a_lo) * (x.hi + x.lo);
    return y;
}

/* the same, rounded */
static inline double elu_times_rounded(double a, double a_lo, elu_sum_t x) {
    if (ELU_FMA)
        return fma(a, x.hi, fma(a, x.lo, a_lo * x.hi));
    elu_sum_t y = elu_times(a, a_lo, x);
    return y.hi + y.lo;
}

/* z = n ln2 + r + c with r exact; the polynomial is evaluated at p, r + c where c is not shrunk by 2^n. */
#if ELU_FMA
#define ELU_LN2_HI ELU_LN2
#define ELU_LN2_LO 0x1.abc9e3b39803fp-56
#else /* n ELU_LN2_HI is exact for |n| < 2^12 */
#define ELU_LN2_HI 0x1.62e42fefa3p-1
#define ELU_LN2_LO 0x1.3de6af278ece6p-42
#endif

/* expm1(r + c), k = 2^n, as hi + lo; k r + (k - 1) is split without error (Fast2Sum: |k - 1| >= |k r| or n = 0). */
static inline elu_sum_t elu_expm1_reduced_64(double k, double r, double p, double c) {
    elu_sum_t y;
    double m = k - 1, kr = k * r;
    y.hi = kr + m;
    y.lo = elu_mad(k, elu_tail_64(p, c), kr + (m - y.hi));
    return y;
}

static inline elu_sum_t elu_expm1_64(double x) {
    double z = elu_clamp(x, -64);
    double t = elu_mad(z, ELU_LOG2E, ELU_ROUND64), n = t - ELU_ROUND64;
    double r = elu_mad(n, -ELU_LN2_HI, z), c = n * -ELU_LN2_LO;
    return elu_expm1_reduced_64(elu_exp2(t), r, ELU_FMA ? r : r + c, c);
}

static inline double elu_forward_unit_f64(double x, elu_params_t s) {
    (void)s;
    elu_sum_t e = elu_expm1_64(x);
    double y = e.hi + e.lo;
    return x < 0 ? y : x;
}

/* Without FMA the partial products of a subnormal result would each be rounded: there A x is the result. */
static inline double elu_scaled_expm1_64(double x, double a, double a_lo) {
    double y = elu_times_rounded(a, a_lo, elu_expm1_64(x));
    return !ELU_FMA && x > -0x1p-900 ? a * x : y;
}

static inline double elu_forward_alpha_f64(double x, elu_params_t s) {
    double y = elu_scaled_expm1_64(x, s.a_hi, 0);
    return x < 0 ? y : x;
}

static inline double elu_forward_selu_f64(double x, elu_params_t s) {
    double y = elu_scaled_expm1_64(x, s.a_hi, s.a_lo);
    elu_sum_t v = {x, 0}; /* without FMA an infinite x or a zero would lose itself among the parts */
    double parts = ((x > 0) & (x <= DBL_MAX)) ? elu_times_rounded(s.s_hi, s.s_lo, v) : x;
    double up = ELU_FMA ? fma(s.s_hi, x, s.s_lo * x) : parts;
    return x < 0 ? y : up;
}

/* x / alpha = hi + lo */
static inline elu_sum_t elu_divided(double x, elu_params_t s) {
    elu_sum_t v = {elu_clamp(x, s.low), 0}, z;
    z = elu_times(s.inv_hi, s.inv_lo, v);
    v.hi = z.hi + z.lo;
    v.lo = z.lo - (v.hi - z.hi);
    return v;
}

/* x / alpha is v / a_hi: v = x or, for wide, x down.
 * alpha < 0 makes x / alpha positive: 2^n = k1 k2 grows, with k1 coming last, and so does the share of r^2 / 2, which
 * is therefore part of hi. Below 2^-54 the result is x, which also keeps what an x / alpha among the subnormals lost.
 * Where the exponents are large 2^-n1, the one of expm1, has no part in the result. */
ELU_INLINE double elu_forward_split(double x, double v, int wide, elu_params_t s) {
    elu_sum_t z = elu_divided(v, s), e;
    double t = elu_mad(z.hi, ELU_LOG2E, ELU_ROUND64), n = t - ELU_ROUND64;
    double t1 = n * (s.inv_hi < 0 ? wide ? 0.6 : 0.5 : 0) + ELU_ROUND64, n1 = t1 - ELU_ROUND64, t0 = ELU_ROUND64 - n1;
    double k1 = elu_exp2(wide ? t1 + s.shift : t1), k2 = elu_exp2(t - n1);
    double one = elu_exp2(wide ? elu_clamp(t0, ELU_ROUND64 - 1022) : t0), m = k2 - one;
    double r = elu_mad(n, -ELU_LN2_HI, z.hi), c = elu_mad(n, -ELU_LN2_LO, z.lo), p = r + c, kr = k2 * r;
    double p2 = p * p, half = 0.5 * k2 * p2, hi = kr + m, lo = (kr + (m - hi)) + ((k2 - m) - one);
    c += ((r - p) + c) * p + 0.5 * elu_square_error(p, p2); /* what p has lost, times expm1(p); what p2 has */
    e.hi = hi + half;
    e.lo = elu_mad(k2, elu_mad(p2 * p, elu_poly_64(p, p2), c), lo + (half - (e.hi - hi)));
    double y = elu_times_rounded(s.a_hi, 0, e) * k1;
    y = fabs(z.hi) < 0x1p-54 ? x * s.slope : y;
    return x < 0 ? y : x * s.s_hi;
}

/* CELU's, for which slope and scale are 1, and that of any three scalars. */
static inline double elu_forward_any_f64(double x, elu_params_t s) { return elu_forward_split(x, x, 0, s); }

/* ELU's and CELU's with an alpha far from 1. */
static inline double elu_forward_wide_f64(double x, elu_params_t s) { return elu_forward_split(x, x * s.down, 1, s); }

static inline elu_sum_t elu_divided_moderate(double x, elu_params_t s) {
    elu_sum_t z = {x * s.inv_hi, 0};
    z.lo = fma(x, s.inv_lo, fma(x, s.inv_hi, -z.hi));
    return z;
}

/* 1e-12 <= alpha <= 1e12, as for float */
static inline double elu_forward_celu_f64(double x, elu_params_t s) {
    elu_sum_t z = elu_divided_moderate(elu_clamp(x, s.low), s);
    double t = fma(z.hi, ELU_LOG2E, ELU_ROUND64), n = t - ELU_ROUND64;
    double r = fma(n, -ELU_LN2_HI, z.hi), c = fma(n, -ELU_LN2_LO, z.lo);
    double y = elu_times_rounded(s.a_hi, 0, elu_expm1_reduced_64(elu_exp2(t), r, r, fma(c, r, c)));
    return x < -0x1p-54 * s.a_hi ? y : x;
}

/* As for float: moderate unless x <= low, which is -300, or 0 < |grad| < 2^-200. AVX2 has no maximum of 64-bit
 * integers; an OR of selected doubles is what compilers vectorize at every level. */
#define ELU_LOW64 -300.
static inline elu_noted_t elu_note_f64(elu_noted_t noted, double x, double grad, double low, int large) {
    (void)large;
    noted.x64 |= elu_u64(x <= low ? 1.0 : 0.0);
    noted.grad64 |= elu_u64(fabs(grad) < 0x1p-200 ? fabs(grad) : 0.0);
    return noted;
}

static inline int elu_small_f64(double grad) { return (grad == 0 ? 1 : fabs(grad)) < 0x1p-200; }

/* exp(x + x_lo) = 2^n (e.hi + e.lo), t = n + ELU_ROUND64; lo is positive, as in elu_exp_f */
typedef struct {
    elu_sum_t e;
    double t;
} elu_exp_t;

static inline elu_exp_t elu_exp_64(double x, double x_lo) {
    elu_exp_t y;
    y.t = elu_mad(x, ELU_LOG2E, ELU_ROUND64);
    double n = y.t - ELU_ROUND64;
    double r = elu_mad(n, -ELU_LN2_HI, x), c = elu_mad(n, -ELU_LN2_LO, x_lo);
    y.e.hi = (1 - 0x1p-20) + r;
    y.e.lo = elu_tail_64(r + c, (r - (y.e.hi - 1)) + c);
    return y;
}

/* u (e.hi + e.lo) */
static inline double elu_product(double u, elu_sum_t e) {
    if (ELU_FMA)
        return fma(u, e.hi, u * e.lo);
    double u1 = elu_head(u), u2 = u - u1, e1 = elu_head(e.hi);
    u2 = u2 == u2 ? u2 : 0; /* u infinite */
    double v = u1 * e1 + (u1 * ((e.hi - e1) + e.lo) + u2 * (e.hi + e.lo));
    return v == 0 ? u * e.hi : v; /* the sign of a zero */
}

/* grad 2^(n + shift) (e.hi + e.lo), for any grad and n: the first product is moved to the middle of the range, and the
 * rest of the exponent is split into three factors that all shrink or all grow. */
static inline double elu_grad_times(double grad, elu_exp_t y, double shift) {
    double up = fabs(grad) < 1 ? 200 - shift : -200 - shift, g = grad * (fabs(grad) < 1 ? 0x1p200 : 0x1p-200);
    double t = y.t - up, n = t - ELU_ROUND64;
    double t1 = n * 0x1.5555555555555p-2 + ELU_ROUND64, n1 = t1 - ELU_ROUND64;
    double k1 = elu_exp2(t1), k2 = elu_exp2(t - 2 * n1);
    return elu_product(g, y.e) * k1 * k1 * k2;
}

static inline double elu_moderate_unit_f64(double grad, double x, elu_params_t s) {
    (void)s;
    elu_exp_t e = elu_exp_64(x, 0);
    double y = elu_product(grad * elu_exp2(e.t), e.e);
    return x > 0 ? grad : y;
}

static inline double elu_grad_scaled_exp(double grad, double x, double a, double a_lo) {
    elu_exp_t e = elu_exp_64(x, 0);
    return elu_product(grad * elu_exp2(e.t), elu_times(a, a_lo, e.e));
}

static inline double elu_moderate_alpha_f64(double grad, double x, elu_params_t s) {
    double y = elu_grad_scaled_exp(grad, x, s.a_hi, 0);
    return x > 0 ? grad : y;
}

static inline double elu_moderate_selu_f64(double grad, double x, elu_params_t s) {
    elu_sum_t scale = {s.s_hi, s.s_lo};
    double y = elu_grad_scaled_exp(grad, x, s.a_hi, s.a_lo), up = elu_product(grad, scale);
    return x > 0 ? up : y;
}

/* At -1530 2^n is 2^-2207: times the largest grad and an alpha of 2^100 less than half the smallest subnormal. */
static inline double elu_far_64(double grad, double x, elu_params_t s) {
    elu_exp_t e = elu_exp_64(elu_clamp(x, -1530), 0);
    elu_sum_t scale = {s.s_hi, s.s_lo};
    e.e = elu_times(s.a_hi, s.a_lo, e.e);
    double y = elu_grad_times(grad, e, 0), up = elu_product(grad, scale);
    return x > 0 ? up : y;
}

static inline double elu_backward_any_f64(double grad, double x, elu_params_t s) {
    elu_sum_t z = elu_divided(x, s);
    double y = elu_grad_times(grad, elu_exp_64(z.hi, z.lo), 0) * s.slope;
    return x > 0 ? grad * s.s_hi : y;
}

static inline double elu_backward_wide_f64(double grad, double x, elu_params_t s) {
    elu_sum_t z = elu_divided(x * s.down, s);
    elu_exp_t e = elu_exp_64(z.hi, z.lo);
    e.e = elu_times(s.slope, 0, e.e);
    double y = elu_grad_times(grad, e, s.shift);
    return x > 0 ? grad : y;
}

static inline double elu_moderate_celu_f64(double grad, double x, elu_params_t s) {
    elu_sum_t z = elu_divided_moderate(x, s);
    elu_exp_t e = elu_exp_64(z.hi, z.lo);
    double y = elu_product(grad * elu_exp2(e.t), e.e);
    return x > 0 ? grad : y;
}

ELU_BACKWARD_BY_BOTH(double, unit_f64, ELU_LOW64, 1, elu_small_f64, elu_far_64)
ELU_BACKWARD_BY_BOTH(double, alpha_f64, ELU_LOW64, 1, elu_small_f64, elu_far_64)
ELU_BACKWARD_BY_BOTH(double, selu_f64, ELU_LOW64, 1, elu_small_f64, elu_far_64)
ELU_BACKWARD_BY_BOTH(double, celu_f64, ELU_LOW64, s.a_hi, elu_small_f64, elu_backward_any_f64)

/* ------------------------------------------------------------------------------- derivative from the output
 *
 * f' = y / alpha + 1 for CELU and y + A for the others (Clevert et al. 2016, eq. 16). Nothing brings back what y has
 * lost by rounding to -A; below it the result is 0, never negative. */
#define ELU_BY_OUTPUT(T, name, derivative)                                                                             \
    static inline T name(T grad, T y, elu_params_t s) {                                                                \
        T scale = (T)s.s_hi, d = derivative;                                                                           \
        d = 0 > d ? 0 : d;                                                                                             \
        return grad * (y > 0 ? scale : d);                                                                             \
    }
ELU_BY_OUTPUT(float, elu_from_output_f32, (float)s.slope + (float)s.inv_hi * y)
ELU_BY_OUTPUT(double, elu_from_output_f64, s.slope + s.inv_hi * y)
/* Where alpha or 1 / alpha is at the end of the range, or beyond. */
ELU_BY_OUTPUT(double, elu_from_output_any_f64, s.slope + y / (s.a_hi / s.slope))

static inline float elu_from_output_any_f32(float grad, float y, elu_params_t s) {
    return (float)elu_from_output_any_f64(grad, y, s);
}

/* ---------------------------------------------------------------------------------------------- parameters, loops */

typedef enum { ELUFAST_ELU, ELUFAST_SELU, ELUFAST_CELU } elu_family_t;
typedef enum { ELU_DO_FORWARD, ELU_DO_BACKWARD, ELU_DO_FROM_OUTPUT } elu_mode_t;

/* The formulas. ELU_ANY takes every alpha, and x / alpha; ELU_EXACT is ELU_ANY, in float for a result that is rounded
 * again, in double for an alpha far from 1. A kernel's number is one of these, + ELU_BACKWARD for the derivative, which
 * has two more, from the output. */
enum { ELU_UNIT, ELU_ALPHA, ELU_SELU, ELU_CELU, ELU_ANY, ELU_EXACT, ELU_OUTPUT, ELU_OUTPUT_ANY };
enum { ELU_BACKWARD = ELU_OUTPUT, ELU_FROM_OUTPUT = ELU_BACKWARD + ELU_OUTPUT, ELU_KERNELS = ELU_FROM_OUTPUT + 2 };

#define elu_forward_exact_f64 elu_forward_wide_f64
#define elu_backward_exact_f64 elu_backward_wide_f64
/* Formulas without a moderate form of their own are not watched. */
#define elu_moderate_any_f32 elu_backward_any_f32
#define elu_moderate_any_f64 elu_backward_any_f64
#define elu_moderate_exact_f32 elu_backward_any_f32
#define elu_moderate_exact_f64 elu_backward_wide_f64

/* A formula by its number; a constant number leaves that formula alone. Without FMA float has ELU_EXACT and ELU_ANY,
 * double no ELU_CELU: the others are ELU_ANY. */
#define ELU_HAS_f32(number) (ELU_FMA || (number) == ELU_EXACT)
#define ELU_HAS_f64(number) (ELU_FMA || (number) != ELU_CELU)
#define ELU_PICK(number, form, type, ...)                                                                              \
    (!ELU_HAS_##type(number) ? elu_##form##_any_##type(__VA_ARGS__)                                                    \
     : (number) == ELU_UNIT  ? elu_##form##_unit_##type(__VA_ARGS__)                                                   \
     : (number) == ELU_ALPHA ? elu_##form##_alpha_##type(__VA_ARGS__)                                                  \
     : (number) == ELU_SELU  ? elu_##form##_selu_##type(__VA_ARGS__)                                                   \
     : (number) == ELU_CELU  ? elu_##form##_celu_##type(__VA_ARGS__)                                                   \
     : (number) == ELU_EXACT ? elu_##form##_exact_##type(__VA_ARGS__)                                                  \
                             : elu_##form##_any_##type(__VA_ARGS__))
#define ELU_BACKWARD_OF(number, type, grad, x, s)                                                                      \
    ((number) == ELU_OUTPUT       ? elu_from_output_##type(grad, x, s)                                                 \
     : (number) == ELU_OUTPUT_ANY ? elu_from_output_any_##type(grad, x, s)                                             \
                                  : ELU_PICK(number, backward, type, grad, x, s))

/* Whether a function has a value for this alpha: from an output with alpha <= 0 the sign of x is not to be told. As
 * integers the bits tell it in a mode that takes subnormals for 0 too. */
static inline int elu_takes(elu_family_t family, elu_mode_t mode, double alpha) {
    int64_t bits = (int64_t)elu_u64(alpha);
    return fabs(alpha) <= DBL_MAX && (family != ELUFAST_CELU || bits << 1 != 0) &&
           (mode != ELU_DO_FROM_OUTPUT || bits > 0);
}

static inline int elu_number(int formula, elu_mode_t mode, int ordinary) {
    if (mode == ELU_DO_FROM_OUTPUT)
        return (int)ELU_BACKWARD + (ordinary ? ELU_OUTPUT : ELU_OUTPUT_ANY);
    return mode == ELU_DO_BACKWARD ? formula + ELU_BACKWARD : formula;
}

/* Whether products of alpha may leave the range, as integers tell in a mode that takes subnormals for 0 too. */
static inline int elu_far_alpha(double alpha) {
    uint64_t exponent = elu_u64(alpha) >> 52 & 0x7ff;
    return exponent < 1023 - 900 || exponent >= 1023 + 100;
}

/* x / alpha beyond which CELU's results are decided: alpha expm1 has overflowed, grad times the derivative too. */
static inline double elu_low_celu(elu_mode_t mode, double alpha) {
    if (alpha > 0)
        return mode == ELU_DO_FORWARD ? -64 : -1530;
    return mode == ELU_DO_FORWARD ? 712 - log(-alpha) : 1500;
}

/* Fills in the parameters for an alpha that elu_takes (SELU looks at none) and returns the kernel's number. */
static inline int elu_prepare(elu_family_t family, elu_mode_t mode, double alpha, int single, elu_params_t *s) {
    if (family == ELUFAST_SELU) {
        *s = ELU_SELU_PARAMS;
        return elu_number(ELU_SELU, mode, 1);
    }
    double largest = single ? 1e37 : 1e300;
    int celu = family == ELUFAST_CELU, steep = !celu && mode == ELU_DO_BACKWARD, op = alpha == 1 ? ELU_UNIT : ELU_ALPHA;
    elu_params_t p = {alpha, 0, 1, 0, 1, 0, 0, celu ? 1 : alpha, 0, 1};
    /* Beyond, the parts of a float's products are not normal numbers. */
    if (single && op == ELU_ALPHA && !(fabs(alpha) >= 1e-12 && fabs(alpha) <= 1e12))
        op = ELU_ANY;
    if (elu_far_alpha(alpha) && mode != ELU_DO_FROM_OUTPUT && (!single || (steep && fabs(alpha) > 1))) {
        /* alpha = a_hi 2^e: a_hi is 1 to 2, but less for a subnormal and more from 2^1001 on, where 2^e times another
         * power of 2 would overflow. */
        int e = (int)(elu_u64(alpha) >> 52 & 0x7ff) - 1023;
        e = e > 1000 ? 1000 : e < -1022 ? -1022 : e;
        double down = elu_f64((uint64_t)(1023 - e) << 52);
        p.a_hi = alpha * down;
        p.slope = steep ? p.a_hi : p.slope;
        p.low = mode == ELU_DO_FORWARD ? -64 : -1530 - e * ELU_LN2;
        p.down = celu ? down : 1;
        p.shift = celu && mode == ELU_DO_BACKWARD ? 0 : e;
        op = single ? ELU_ANY : ELU_EXACT;
    }
    if (celu && op != ELU_UNIT) {
        op = op == ELU_EXACT ? op : alpha >= 1e-12 && alpha <= 1e12 ? ELU_CELU : ELU_ANY;
        if (single && !(fabs(alpha) >= 1e-100 && fabs(alpha) <= 1e100)) /* the same floats, and x / alpha in range */
            p.a_hi = copysign(fabs(alpha) < 1 ? 1e-100 : 1e100, alpha);
        p.inv_hi = 1 / p.a_hi; /* infinite only from the output, whose formula for such an alpha has no use for it */
        p.inv_lo = fma(-p.a_hi, p.inv_hi, 1) / p.a_hi;
        p.low = elu_low_celu(mode, alpha) / p.inv_hi;
    }
    *s = p;
    return elu_number(op, mode, fabs(alpha) >= 1 / largest && fabs(alpha) <= largest);
}

/* The same for PyTorch's three scalars: y = scale x or scale alpha expm1(input_scale x). Those of ELU, SELU and CELU take
 * its formula; CELU's input_scale is 1 / alpha, which may have been rounded to a float. */
static inline int elu_prepare_scalars(double alpha, double scale, double input_scale, elu_mode_t mode, int single,
                                      elu_params_t *s) {
    if (scale == 1 && input_scale == 1)
        return elu_prepare(ELUFAST_ELU, mode, alpha, single, s);
    if (scale == 1 && fabs(alpha * input_scale - 1) < 0x1.1p-24)
        return elu_prepare(ELUFAST_CELU, mode, alpha, single, s);
    if (input_scale == 1 && scale == ELU_SELU_PARAMS.s_hi && fabs(alpha * scale - ELU_SELU_PARAMS.a_hi) < 0x1p-50)
        return elu_prepare(ELUFAST_SELU, mode, 1, single, s);
    elu_params_t p = {alpha * scale, 0, scale, 0, input_scale, 0, 0, alpha * scale * input_scale, 0, 1};
    p.low = (input_scale < 0 ? 1418 : mode == ELU_DO_FORWARD ? -64 : -1530) / input_scale;
    *s = p;
    return elu_number(ELU_ANY, mode, 1);
}

#endif
