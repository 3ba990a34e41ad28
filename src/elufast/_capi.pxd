from elufast._elu cimport Family, Mode

ctypedef fused real:
    float
    double

# code: that of the dtype in _core.pxd.
cdef int run(
    Family family, Mode mode, int code, const void* grad, const void* x, void* out, ptrdiff_t n, double alpha
) except -1 nogil

# For Numba.
cdef bint takes(Family family, Mode mode, double alpha) noexcept nogil
cdef float number_f32(Family family, Mode mode, float grad, float x, double alpha) noexcept nogil
cdef double number_f64(Family family, Mode mode, double grad, double x, double alpha) noexcept nogil
cdef void strided(
    Family family, Mode mode, int code, double alpha, int axes, const ptrdiff_t* shape, char** data,
    const ptrdiff_t** strides,
) noexcept nogil

cdef int elu_array(const real* x, real* out, ptrdiff_t n, double alpha) except -1 nogil
cdef int selu_array(const real* x, real* out, ptrdiff_t n) except -1 nogil
cdef int celu_array(const real* x, real* out, ptrdiff_t n, double alpha) except -1 nogil

cdef int elu_backward_array(
    const real* grad, const real* x, real* out, ptrdiff_t n, double alpha, bint from_output
) except -1 nogil
cdef int selu_backward_array(
    const real* grad, const real* x, real* out, ptrdiff_t n, bint from_output
) except -1 nogil
cdef int celu_backward_array(
    const real* grad, const real* x, real* out, ptrdiff_t n, double alpha, bint from_output
) except -1 nogil
