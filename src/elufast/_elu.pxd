from libc.stdint cimport uint16_t, uint32_t, uint64_t

cdef extern from "_elu.h" nogil:
    ctypedef struct elu_params_t:
        double a_hi, a_lo, s_hi, s_lo, inv_hi, inv_lo, low, slope, shift, down

    ctypedef enum Family "elu_family_t":
        ELU "ELUFAST_ELU"
        SELU "ELUFAST_SELU"
        CELU "ELUFAST_CELU"

    ctypedef enum Mode "elu_mode_t":
        DO_FORWARD "ELU_DO_FORWARD"
        DO_BACKWARD "ELU_DO_BACKWARD"
        DO_FROM_OUTPUT "ELU_DO_FROM_OUTPUT"

    enum: ELU_UNIT, ELU_ALPHA, ELU_SELU, ELU_CELU, ELU_ANY, ELU_EXACT, ELU_OUTPUT, ELU_OUTPUT_ANY
    enum: ELU_BACKWARD, ELU_FROM_OUTPUT, ELU_KERNELS

    bint elu_far_alpha(double alpha) noexcept
    bint elu_takes(Family family, Mode mode, double alpha) noexcept
    int elu_prepare(Family family, Mode mode, double alpha, bint single, elu_params_t* s) noexcept
    int elu_prepare_scalars(
        double alpha, double scale, double input_scale, Mode mode, bint single, elu_params_t* s
    ) noexcept

    const float ELU_LOW32
    const double ELU_LOW64
    ctypedef struct elu_noted_t:
        uint32_t x32, grad32
        uint64_t x64, grad64
    bint elu_extreme(elu_noted_t noted, float low, bint large) noexcept

cdef extern from "_half.h" nogil:
    void elu_load_f16(const uint16_t* x, float* out, ptrdiff_t n) noexcept
    void elu_store_f16(const float* y, uint16_t* out, ptrdiff_t n) noexcept
    void elu_outputs_f16()  # these two are kernels
    void elu_outputs_bf16()
    uint32_t elu_middle_f16(float y, uint32_t sign) noexcept
    uint32_t elu_perhaps_middle_f16(float y, uint32_t sign) noexcept
    float elu_from_bf16(uint16_t h) noexcept
    uint16_t elu_to_bf16(float y) noexcept
    uint16_t elu_to_bf16_up(float y) noexcept
    uint32_t elu_middle_bf16(float y, uint32_t sign) noexcept

cdef extern from "elufast.h" nogil:
    float elufast_one_f32(Family family, Mode mode, float grad, float x, double alpha) noexcept
    double elufast_one_f64(Family family, Mode mode, double grad, double x, double alpha) noexcept

cdef extern from "_span.h" nogil:
    ctypedef void (*elu_kernel_t)(
        const void* x, const void* grad, void* out, ptrdiff_t n, const elu_params_t* s, const void* family
    ) noexcept nogil
    uint64_t elu_enter() noexcept
    void elu_leave(uint64_t mode) noexcept
    void elu_prefetch(const char* from_, ptrdiff_t bytes) noexcept
    void elu_stream(char* out, const char* from_, ptrdiff_t bytes) noexcept
    void elu_stream_end "ELU_STREAM_END"() noexcept
    const bint ELU_STREAM
    void elu_gather(
        char* to, const char* from_, ptrdiff_t stride, ptrdiff_t n, ptrdiff_t step, ptrdiff_t m, ptrdiff_t size,
        bint swapped,
    ) noexcept
    void elu_scatter(
        char* to, const char* from_, ptrdiff_t stride, ptrdiff_t n, ptrdiff_t step, ptrdiff_t m, ptrdiff_t size,
        bint swapped,
    ) noexcept

ctypedef void (*elu_add_t)(const void* x, const void* bias, void* out, ptrdiff_t n) noexcept nogil
ctypedef void (*elu_load_t)(const void* x, void* out, ptrdiff_t n) noexcept nogil
ctypedef int (*elu_store_t)(const void* y, void* out, ptrdiff_t n, bint sums, bint even, bint again) noexcept nogil

cdef struct Loops:  # what a level's module offers
    elu_kernel_t kernels[2][ELU_KERNELS]  # float, double
    elu_kernel_t outputs[2]  # from the output, of float16 and bfloat16 themselves
    elu_add_t add[2]
    elu_load_t load[2]  # float16, bfloat16
    elu_store_t store[2]
    float (*one_f32)(Family family, Mode mode, float grad, float x, double alpha) noexcept nogil  # of one number
    double (*one_f64)(Family family, Mode mode, double grad, double x, double alpha) noexcept nogil
