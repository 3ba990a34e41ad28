from libc.stdint cimport uint32_t, uint64_t

cdef extern from "_elu.h" nogil:
    ctypedef struct elu_params_t:
        double a_hi, a_lo, s_hi, s_lo, inv_hi, inv_lo, low, slope, far, exponent

    ctypedef void (*elu_kernel_t)(
        const void* x, const void* grad, void* out, ptrdiff_t n, elu_params_t s
    ) noexcept nogil

    const elu_params_t ELU_SELU_PARAMS

    enum: ELU_UNIT, ELU_ALPHA, ELU_SELU, ELU_ANY, ELU_BACKWARD, ELU_FROM_OUTPUT, ELU_KERNELS

    float elu_forward_unit_f32(float x, elu_params_t s) noexcept
    float elu_forward_alpha_f32(float x, elu_params_t s) noexcept
    float elu_forward_selu_f32(float x, elu_params_t s) noexcept
    float elu_forward_any_f32(float x, elu_params_t s) noexcept
    float elu_backward_unit_f32(float grad, float x, elu_params_t s) noexcept
    float elu_backward_alpha_f32(float grad, float x, elu_params_t s) noexcept
    float elu_backward_selu_f32(float grad, float x, elu_params_t s) noexcept
    float elu_backward_any_f32(float grad, float x, elu_params_t s) noexcept
    float elu_moderate_unit_f32(float grad, float x, elu_params_t s) noexcept
    float elu_moderate_alpha_f32(float grad, float x, elu_params_t s) noexcept
    float elu_moderate_selu_f32(float grad, float x, elu_params_t s) noexcept
    uint32_t elu_extreme_f32(float x, float grad) noexcept
    float elu_from_output_f32(float grad, float y, elu_params_t s) noexcept

    double elu_forward_unit_f64(double x, elu_params_t s) noexcept
    double elu_forward_alpha_f64(double x, elu_params_t s) noexcept
    double elu_forward_selu_f64(double x, elu_params_t s) noexcept
    double elu_forward_any_f64(double x, elu_params_t s) noexcept
    double elu_backward_unit_f64(double grad, double x, elu_params_t s) noexcept
    double elu_backward_alpha_f64(double grad, double x, elu_params_t s) noexcept
    double elu_backward_selu_f64(double grad, double x, elu_params_t s) noexcept
    double elu_backward_any_f64(double grad, double x, elu_params_t s) noexcept
    double elu_moderate_unit_f64(double grad, double x, elu_params_t s) noexcept
    double elu_moderate_alpha_f64(double grad, double x, elu_params_t s) noexcept
    double elu_moderate_selu_f64(double grad, double x, elu_params_t s) noexcept
    uint64_t elu_extreme_f64(double x, double grad, elu_params_t s) noexcept
    double elu_from_output_f64(double grad, double y, elu_params_t s) noexcept

cdef extern from "_span.h" nogil:
    uint64_t elu_enter() noexcept
    void elu_leave(uint64_t mode) noexcept
    void elu_span(
        elu_kernel_t kernel, const char* x, const char* grad, char* out, ptrdiff_t n,
        ptrdiff_t itemsize, elu_params_t s, bint stream,
    ) noexcept
    void elu_wide(
        elu_kernel_t kernel, const char* x, const char* grad, char* out, ptrdiff_t n, elu_params_t s
    ) noexcept
