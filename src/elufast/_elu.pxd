from libc.stdint cimport uint32_t, uint64_t

cdef extern from "_elu.h" nogil:
    ctypedef struct elu_params_t:
        double a_hi, a_lo, s_hi, s_lo, inv_hi, inv_lo, low, slope

    ctypedef void (*elu_kernel_t)(
        const void* x, const void* grad, void* out, ptrdiff_t n, const elu_params_t* s
    ) noexcept nogil

    ctypedef enum Family "elu_family_t":
        ELU "ELUFAST_ELU"
        SELU "ELUFAST_SELU"
        CELU "ELUFAST_CELU"

    ctypedef enum Mode "elu_mode_t":
        DO_FORWARD "ELU_DO_FORWARD"
        DO_BACKWARD "ELU_DO_BACKWARD"
        DO_FROM_OUTPUT "ELU_DO_FROM_OUTPUT"

    enum: ELU_UNIT, ELU_ALPHA, ELU_SELU, ELU_CELU, ELU_ANY, ELU_BACKWARD, ELU_FROM_OUTPUT, ELU_KERNELS

    bint elu_takes(Family family, Mode mode, double alpha) noexcept
    int elu_prepare(Family family, Mode mode, double alpha, bint single, elu_params_t* s) noexcept

    float elu_forward_unit_f32(float x, elu_params_t s) noexcept
    float elu_forward_alpha_f32(float x, elu_params_t s) noexcept
    float elu_forward_selu_f32(float x, elu_params_t s) noexcept
    float elu_forward_celu_f32(float x, elu_params_t s) noexcept
    float elu_forward_any_f32(float x, elu_params_t s) noexcept
    float elu_backward_unit_f32(float grad, float x, elu_params_t s) noexcept
    float elu_backward_alpha_f32(float grad, float x, elu_params_t s) noexcept
    float elu_backward_selu_f32(float grad, float x, elu_params_t s) noexcept
    float elu_backward_celu_f32(float grad, float x, elu_params_t s) noexcept
    float elu_backward_any_f32(float grad, float x, elu_params_t s) noexcept
    float elu_moderate_unit_f32(float grad, float x, elu_params_t s) noexcept
    float elu_moderate_alpha_f32(float grad, float x, elu_params_t s) noexcept
    float elu_moderate_selu_f32(float grad, float x, elu_params_t s) noexcept
    float elu_moderate_celu_f32(float grad, float x, elu_params_t s) noexcept
    uint32_t elu_note_x_f32(uint32_t noted, float x) noexcept
    uint32_t elu_note_large_f32(uint32_t noted, float grad) noexcept
    uint32_t elu_note_small_f32(uint32_t noted, float grad) noexcept
    bint elu_extreme_f32(uint32_t x, uint32_t large, uint32_t small, float low) noexcept
    const float ELU_LOW32
    float elu_low_celu_f32(elu_params_t s) noexcept
    float elu_from_output_f32(float grad, float y, elu_params_t s) noexcept

    double elu_forward_unit_f64(double x, elu_params_t s) noexcept
    double elu_forward_alpha_f64(double x, elu_params_t s) noexcept
    double elu_forward_selu_f64(double x, elu_params_t s) noexcept
    double elu_forward_celu_f64(double x, elu_params_t s) noexcept
    double elu_forward_any_f64(double x, elu_params_t s) noexcept
    double elu_backward_unit_f64(double grad, double x, elu_params_t s) noexcept
    double elu_backward_alpha_f64(double grad, double x, elu_params_t s) noexcept
    double elu_backward_selu_f64(double grad, double x, elu_params_t s) noexcept
    double elu_backward_celu_f64(double grad, double x, elu_params_t s) noexcept
    double elu_backward_any_f64(double grad, double x, elu_params_t s) noexcept
    double elu_moderate_unit_f64(double grad, double x, elu_params_t s) noexcept
    double elu_moderate_alpha_f64(double grad, double x, elu_params_t s) noexcept
    double elu_moderate_selu_f64(double grad, double x, elu_params_t s) noexcept
    double elu_moderate_celu_f64(double grad, double x, elu_params_t s) noexcept
    uint64_t elu_note_x_f64(uint64_t noted, double x, double low) noexcept
    uint64_t elu_note_grad_f64(uint64_t noted, double grad) noexcept
    bint elu_extreme_f64(uint64_t x, uint64_t grad) noexcept
    const double ELU_LOW64
    double elu_low_celu_f64(elu_params_t s) noexcept
    double elu_from_output_f64(double grad, double y, elu_params_t s) noexcept

cdef extern from "elufast.h" nogil:
    float elufast_one_f32(Family family, Mode mode, float grad, float x, double alpha) noexcept
    double elufast_one_f64(Family family, Mode mode, double grad, double x, double alpha) noexcept

cdef extern from "_span.h" nogil:
    uint64_t elu_enter() noexcept
    void elu_leave(uint64_t mode) noexcept
    const ptrdiff_t ELU_AHEAD
    void elu_stream_end "ELU_STREAM_END"() noexcept
    void elu_run(
        elu_kernel_t kernel, const char* x, const char* grad, char* out, ptrdiff_t n,
        ptrdiff_t itemsize, const elu_params_t* s, bint stream, ptrdiff_t x_ahead, ptrdiff_t grad_ahead,
    ) noexcept
    void elu_span(
        elu_kernel_t kernel, const char* x, const char* grad, char* out, ptrdiff_t n,
        ptrdiff_t itemsize, const elu_params_t* s, bint stream,
    ) noexcept
