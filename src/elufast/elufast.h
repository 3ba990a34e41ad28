/* ELU, SELU and CELU of one number, with their gradients: the functions of the Python package elufast for C and C++.
 *
 *     cc -std=c11 -O3 -ffp-contract=off -I"$(python -c 'import elufast; print(elufast.get_include())')" caller.c -lm
 *
 * C11 or C++20; GCC and clang take it in C++17 too. All is inline: there is nothing to link but the mathematical
 * library, and no Python at run time. With -O3 -fno-math-errno -fno-trapping-math clang vectorizes a plain loop over
 * these functions, and GCC most loops in which alpha is a constant.
 *
 * Values. Errors are at most 1.0 ulp forward and for the derivative, 1.5 ulp for grad times the derivative. With fused
 * multiply-add (x86-64: -mfma or -march=native; aarch64 always) the bits are those of the package's arrays, which use
 * it where the CPU has it; without, they are those of its level "base". Both hold with -ffp-contract=off, which GCC and
 * clang need: by default they fuse operations that are meant to be two. -ffast-math is refused.
 *
 * alpha is any finite number, for CELU not 0, for the functions from the output greater than 0; with another the result
 * is NaN. What depends on alpha alone leaves a loop when the compiler optimizes.
 */
#ifndef ELUFAST_H
#define ELUFAST_H

#ifdef __FAST_MATH__
#error "elufast.h: -ffast-math destroys what these functions do for accuracy; compile without it"
#endif

#include "_elu.h"

/* Without it a loop may keep the call, and is then not vectorized. */
#ifdef __GNUC__
#define ELUFAST_INLINE static inline __attribute__((always_inline))
#else
#define ELUFAST_INLINE static inline
#endif

ELUFAST_INLINE float elufast_one_f32(elu_family_t family, elu_mode_t mode, float grad, float x, double alpha) {
    elu_params_t s;
    int op = elu_prepare(family, mode, alpha, 1, &s);
    if (!elu_takes(family, mode, alpha))
        return NAN;
    if (mode == ELU_DO_FROM_OUTPUT)
        return elu_from_output_f32(grad, x, s);
    if (mode == ELU_DO_BACKWARD)
        return op == ELU_BACKWARD + ELU_UNIT    ? elu_backward_unit_f32(grad, x, s)
               : op == ELU_BACKWARD + ELU_ALPHA ? elu_backward_alpha_f32(grad, x, s)
               : op == ELU_BACKWARD + ELU_SELU  ? elu_backward_selu_f32(grad, x, s)
               : op == ELU_BACKWARD + ELU_CELU  ? elu_backward_celu_f32(grad, x, s)
                                                : elu_backward_any_f32(grad, x, s);
    return op == ELU_UNIT    ? elu_forward_unit_f32(x, s)
           : op == ELU_ALPHA ? elu_forward_alpha_f32(x, s)
           : op == ELU_SELU  ? elu_forward_selu_f32(x, s)
           : op == ELU_CELU  ? elu_forward_celu_f32(x, s)
                             : elu_forward_any_f32(x, s);
}

ELUFAST_INLINE double elufast_one_f64(elu_family_t family, elu_mode_t mode, double grad, double x, double alpha) {
    elu_params_t s;
    int op = elu_prepare(family, mode, alpha, 0, &s);
    if (!elu_takes(family, mode, alpha))
        return NAN;
    if (mode == ELU_DO_FROM_OUTPUT)
        return elu_from_output_f64(grad, x, s);
    if (mode == ELU_DO_BACKWARD)
        return op == ELU_BACKWARD + ELU_UNIT    ? elu_backward_unit_f64(grad, x, s)
               : op == ELU_BACKWARD + ELU_ALPHA ? elu_backward_alpha_f64(grad, x, s)
               : op == ELU_BACKWARD + ELU_SELU  ? elu_backward_selu_f64(grad, x, s)
               : op == ELU_BACKWARD + ELU_CELU  ? elu_backward_celu_f64(grad, x, s)
                                                : elu_backward_any_f64(grad, x, s);
    return op == ELU_UNIT    ? elu_forward_unit_f64(x, s)
           : op == ELU_ALPHA ? elu_forward_alpha_f64(x, s)
           : op == ELU_SELU  ? elu_forward_selu_f64(x, s)
           : op == ELU_CELU  ? elu_forward_celu_f64(x, s)
                             : elu_forward_any_f64(x, s);
}

/* x for x > 0; for x < 0 alpha * expm1(x), SELU's both times its scale, CELU's alpha * expm1(x / alpha). */
ELUFAST_INLINE float elufast_elu_f32(float x, double alpha) {
    return elufast_one_f32(ELUFAST_ELU, ELU_DO_FORWARD, x, x, alpha);
}
ELUFAST_INLINE double elufast_elu_f64(double x, double alpha) {
    return elufast_one_f64(ELUFAST_ELU, ELU_DO_FORWARD, x, x, alpha);
}
ELUFAST_INLINE float elufast_selu_f32(float x) { return elufast_one_f32(ELUFAST_SELU, ELU_DO_FORWARD, x, x, 1); }
ELUFAST_INLINE double elufast_selu_f64(double x) { return elufast_one_f64(ELUFAST_SELU, ELU_DO_FORWARD, x, x, 1); }
ELUFAST_INLINE float elufast_celu_f32(float x, double alpha) {
    return elufast_one_f32(ELUFAST_CELU, ELU_DO_FORWARD, x, x, alpha);
}
ELUFAST_INLINE double elufast_celu_f64(double x, double alpha) {
    return elufast_one_f64(ELUFAST_CELU, ELU_DO_FORWARD, x, x, alpha);
}

/* grad times the derivative at x, which for grad = 1 is the derivative; at 0 the one from below. */
ELUFAST_INLINE float elufast_elu_backward_f32(float grad, float x, double alpha) {
    return elufast_one_f32(ELUFAST_ELU, ELU_DO_BACKWARD, grad, x, alpha);
}
ELUFAST_INLINE double elufast_elu_backward_f64(double grad, double x, double alpha) {
    return elufast_one_f64(ELUFAST_ELU, ELU_DO_BACKWARD, grad, x, alpha);
}
ELUFAST_INLINE float elufast_selu_backward_f32(float grad, float x) {
    return elufast_one_f32(ELUFAST_SELU, ELU_DO_BACKWARD, grad, x, 1);
}
ELUFAST_INLINE double elufast_selu_backward_f64(double grad, double x) {
    return elufast_one_f64(ELUFAST_SELU, ELU_DO_BACKWARD, grad, x, 1);
}
ELUFAST_INLINE float elufast_celu_backward_f32(float grad, float x, double alpha) {
    return elufast_one_f32(ELUFAST_CELU, ELU_DO_BACKWARD, grad, x, alpha);
}
ELUFAST_INLINE double elufast_celu_backward_f64(double grad, double x, double alpha) {
    return elufast_one_f64(ELUFAST_CELU, ELU_DO_BACKWARD, grad, x, alpha);
}

/* The same from the result y of the function: fast, and without the bound, for y has rounded the derivative away. */
ELUFAST_INLINE float elufast_elu_from_output_f32(float grad, float y, double alpha) {
    return elufast_one_f32(ELUFAST_ELU, ELU_DO_FROM_OUTPUT, grad, y, alpha);
}
ELUFAST_INLINE double elufast_elu_from_output_f64(double grad, double y, double alpha) {
    return elufast_one_f64(ELUFAST_ELU, ELU_DO_FROM_OUTPUT, grad, y, alpha);
}
ELUFAST_INLINE float elufast_selu_from_output_f32(float grad, float y) {
    return elufast_one_f32(ELUFAST_SELU, ELU_DO_FROM_OUTPUT, grad, y, 1);
}
ELUFAST_INLINE double elufast_selu_from_output_f64(double grad, double y) {
    return elufast_one_f64(ELUFAST_SELU, ELU_DO_FROM_OUTPUT, grad, y, 1);
}
ELUFAST_INLINE float elufast_celu_from_output_f32(float grad, float y, double alpha) {
    return elufast_one_f32(ELUFAST_CELU, ELU_DO_FROM_OUTPUT, grad, y, alpha);
}
ELUFAST_INLINE double elufast_celu_from_output_f64(double grad, double y, double alpha) {
    return elufast_one_f64(ELUFAST_CELU, ELU_DO_FROM_OUTPUT, grad, y, alpha);
}

#endif
