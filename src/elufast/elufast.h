/* ELU, SELU and CELU of one number, with their gradients: the functions of the Python package elufast for C and C++.
 *
 *     cc -std=c11 -O3 -ffp-contract=off -I"$(python -c 'import elufast; print(elufast.get_include())')" caller.c -lm
 *
 * C11 or C++20; GCC and clang take it in C++17 too. All is inline, and needs no Python at run time. -ffp-contract=off
 * belongs to it; flags, bits, vectors and the floating-point mode: docs/howto/compiled_callers.md.
 *
 * Errors are at most 1.0 ulp forward and for the derivative, 1.5 ulp for grad times the derivative. alpha is any finite
 * number, for CELU not 0, for the functions from the output greater than 0; with another the result is NaN.
 */
#ifndef ELUFAST_H
#define ELUFAST_H

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || defined(__ASSOCIATIVE_MATH__)
#error "elufast.h: -ffast-math, or a part of it, destroys what these functions do for accuracy; compile without it"
#endif

#include "_half.h"

#define ELUFAST_ONE(type, T, single)                                                                                   \
    ELU_INLINE T elufast_one_##type(elu_family_t family, elu_mode_t mode, T grad, T x, double alpha) {                 \
        elu_params_t s;                                                                                                \
        int op = elu_prepare(family, mode, alpha, single, &s);                                                         \
        if (!elu_takes(family, mode, alpha))                                                                           \
            return NAN;                                                                                                \
        if (mode == ELU_DO_FORWARD)                                                                                    \
            return ELU_PICK(op, forward, type, x, s);                                                                  \
        return ELU_BACKWARD_OF(op - ELU_BACKWARD, type, grad, x, s);                                                   \
    }
ELUFAST_ONE(f32, float, 1)
ELUFAST_ONE(f64, double, 0)

/* A float that is to be rounded to half precision. */
ELU_INLINE float elufast_one_odd(elu_family_t family, elu_mode_t mode, float grad, float x, double alpha) {
    elu_params_t s;
    elu_prepare(family, mode, alpha, 1, &s);
    if (!elu_takes(family, mode, alpha) || mode == ELU_DO_FROM_OUTPUT)
        return elufast_one_f32(family, mode, grad, x, alpha);
    return mode == ELU_DO_FORWARD ? elu_forward_exact_f32(x, s) : elu_backward_exact_f32(grad, x, s);
}
ELU_INLINE uint16_t elufast_one_f16(elu_family_t family, elu_mode_t mode, uint16_t grad, uint16_t x, double alpha) {
    return elu_to_f16(elufast_one_odd(family, mode, elu_from_f16(grad), elu_from_f16(x), alpha));
}
ELU_INLINE uint16_t elufast_one_bf16(elu_family_t family, elu_mode_t mode, uint16_t grad, uint16_t x, double alpha) {
    return elu_to_bf16(elufast_one_odd(family, mode, elu_from_bf16(grad), elu_from_bf16(x), alpha));
}

/* For each type T, named f32 (float), f64 (double), f16 and bf16 (uint16_t, the bits of a half); so too selu, which has
 * no alpha, and celu:
 *
 *     T elufast_elu_f32(T x, double alpha)                      the function
 *     T elufast_elu_backward_f32(T grad, T x, double alpha)     grad times the derivative at x; at 0 the one from below
 *     T elufast_elu_from_output_f32(T grad, T y, double alpha)  the same from the result y: fast, without the bound
 */
#define ELUFAST_FUNCTIONS(type, T)                                                                                     \
    ELUFAST_FAMILY(type, T, elu, ELUFAST_ELU, ELUFAST_ALPHA, alpha)                                                    \
    ELUFAST_FAMILY(type, T, selu, ELUFAST_SELU, , 1)                                                                   \
    ELUFAST_FAMILY(type, T, celu, ELUFAST_CELU, ELUFAST_ALPHA, alpha)
#define ELUFAST_ALPHA , double alpha
#define ELUFAST_FAMILY(type, T, name, family, parameter, alpha)                                                        \
    ELU_INLINE T elufast_##name##_##type(T x parameter) {                                                              \
        return elufast_one_##type(family, ELU_DO_FORWARD, x, x, alpha);                                                \
    }                                                                                                                  \
    ELU_INLINE T elufast_##name##_backward_##type(T grad, T x parameter) {                                             \
        return elufast_one_##type(family, ELU_DO_BACKWARD, grad, x, alpha);                                            \
    }                                                                                                                  \
    ELU_INLINE T elufast_##name##_from_output_##type(T grad, T y parameter) {                                          \
        return elufast_one_##type(family, ELU_DO_FROM_OUTPUT, grad, y, alpha);                                         \
    }
ELUFAST_FUNCTIONS(f32, float)
ELUFAST_FUNCTIONS(f64, double)
ELUFAST_FUNCTIONS(f16, uint16_t)
ELUFAST_FUNCTIONS(bf16, uint16_t)

#endif
