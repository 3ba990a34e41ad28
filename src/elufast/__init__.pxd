# What ``cimport elufast`` gives; compile with include_dirs=[elufast.get_include()].

# One number, inline, at the level that the including module is compiled for: elufast.h says more.
cdef extern from "elufast.h" nogil:
    float elu_f32 "elufast_elu_f32"(float x, double alpha) noexcept
    double elu_f64 "elufast_elu_f64"(double x, double alpha) noexcept
    float selu_f32 "elufast_selu_f32"(float x) noexcept
    double selu_f64 "elufast_selu_f64"(double x) noexcept
    float celu_f32 "elufast_celu_f32"(float x, double alpha) noexcept
    double celu_f64 "elufast_celu_f64"(double x, double alpha) noexcept

    float elu_backward_f32 "elufast_elu_backward_f32"(float grad, float x, double alpha) noexcept
    double elu_backward_f64 "elufast_elu_backward_f64"(double grad, double x, double alpha) noexcept
    float selu_backward_f32 "elufast_selu_backward_f32"(float grad, float x) noexcept
    double selu_backward_f64 "elufast_selu_backward_f64"(double grad, double x) noexcept
    float celu_backward_f32 "elufast_celu_backward_f32"(float grad, float x, double alpha) noexcept
    double celu_backward_f64 "elufast_celu_backward_f64"(double grad, double x, double alpha) noexcept

    float elu_from_output_f32 "elufast_elu_from_output_f32"(float grad, float y, double alpha) noexcept
    double elu_from_output_f64 "elufast_elu_from_output_f64"(double grad, double y, double alpha) noexcept
    float selu_from_output_f32 "elufast_selu_from_output_f32"(float grad, float y) noexcept
    double selu_from_output_f64 "elufast_selu_from_output_f64"(double grad, double y) noexcept
    float celu_from_output_f32 "elufast_celu_from_output_f32"(float grad, float y, double alpha) noexcept
    double celu_from_output_f64 "elufast_celu_from_output_f64"(double grad, double y, double alpha) noexcept

# n contiguous floats or doubles, at the level chosen when elufast is imported. They work in the thread that calls
# them, without the GIL; out may be an input itself; an alpha that does not fit is a ValueError.
from elufast._capi cimport (
    celu_array, celu_backward_array, elu_array, elu_backward_array, selu_array, selu_backward_array,
)
