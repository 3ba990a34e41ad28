/* The functions in quadruple precision, and how far results are from them. Compiled at run time by accuracy.py.
 *
 * Shares nothing with _elu.h: expm1 and exp of binary128 come from the C library (long double) or libquadmath.
 */
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if LDBL_MANT_DIG == 113
typedef long double quad;
#define EXPM1 expm1l
#define EXP expl
#else
#include <quadmath.h>
typedef __float128 quad;
#define EXPM1 expm1q
#define EXP expq
#endif

/* scale * alpha, scale, f'(0) from below: each hi + lo. x is divided by inner: alpha for CELU, else 1. */
typedef struct {
    double a_hi, a_lo, s_hi, s_lo, slope_hi, slope_lo, inner;
} params_t;

/* grad: NULL for the forward direction */
void reference(size_t n, const double *x, const double *grad, const params_t *p, quad *out) {
    quad a = (quad)p->a_hi + p->a_lo, s = (quad)p->s_hi + p->s_lo, slope = (quad)p->slope_hi + p->slope_lo;
    for (size_t i = 0; i < n; i++) {
        quad z = (quad)x[i] / p->inner;
        if (isfinite(x[i]))
            z = z < -11000 ? -11000 : z > 11000 ? 11000 : z; /* neither 0 nor infinite: grad may be both */
        if (grad)
            out[i] = grad[i] * (x[i] > 0 ? s : slope * EXP(z));
        else
            out[i] = x[i] < 0 ? a * EXPM1(z) : x[i] == 0 ? (quad)x[i] : s * x[i];
    }
}

/* 2^e, -16382 <= e <= 16383 */
static quad power(int e) {
    quad y = 0;
    uint64_t high = (uint64_t)(e + 16383) << 48;
    memcpy((char *)&y + 8, &high, 8);
    return y;
}

static int exponent(quad x) {
    uint64_t high;
    memcpy(&high, (char *)&x + 8, 8);
    return (int)(high >> 48 & 0x7fff) - 16383;
}

/* |y - exact| in units in the last place of a format at the exact value; infinity for a wrong NaN, infinity or sign.
 * An infinite y counts as the power of two where the format ends. */
static double error(quad exact, double y, int digits, int lowest, int highest) {
    if (y != y || exact != exact)
        return (y != y) == (exact != exact) ? 0 : INFINITY;
    if (!signbit(y) != !(exact < 0 || (exact == 0 && signbit((double)exact))))
        return INFINITY;
    int e = exponent(exact);
    if (e == 16384)
        return isinf(y) ? 0 : INFINITY;
    quad distance = exact < 0 ? -exact : exact, end = power(highest + 1);
    if (isinf(y))
        distance = distance > end ? 0 : end - distance;
    else
        distance -= fabs(y);
    e = e < lowest ? lowest : e > highest ? highest : e;
    return (double)((distance < 0 ? -distance : distance) * power(digits - 1 - e));
}

void errors_f32(size_t n, const quad *exact, const float *y, double *out) {
    for (size_t i = 0; i < n; i++)
        out[i] = error(exact[i], y[i], FLT_MANT_DIG, FLT_MIN_EXP - 1, FLT_MAX_EXP - 1);
}

void errors_f64(size_t n, const quad *exact, const double *y, double *out) {
    for (size_t i = 0; i < n; i++)
        out[i] = error(exact[i], y[i], DBL_MANT_DIG, DBL_MIN_EXP - 1, DBL_MAX_EXP - 1);
}
