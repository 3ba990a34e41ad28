"""The public functions. The usual case (exact ndarrays, native and aligned, nothing overlapping, of any strides) goes
straight to ``_core``, without a Python object in between; all else through ``_api``."""
cimport numpy as cnp
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from libc.stdlib cimport llabs
from numpy cimport NPY_ARRAY_ALIGNED as ALIGNED, NPY_ARRAY_C_CONTIGUOUS as C, NPY_ARRAY_WRITEABLE as WRITEABLE, ndarray

from elufast._core cimport CODES, F32, F64, Plan, at_once, compute, dtype_of, elements, new, plan
from elufast._elu cimport *

from elufast import _api, _docs, _runtime

cnp.import_array()

cdef int most = _runtime.MAX_THREADS
cdef object unusual = _api.call


cdef inline bint usual(object a, int flags) noexcept:
    return cnp.PyArray_CheckExact(a) and cnp.PyArray_CHKFLAGS(<ndarray> a, flags)


cdef inline int code_of(ndarray a) noexcept:
    """The code of its dtype, or -1."""
    cdef int code
    for code in range(CODES):
        if cnp.PyArray_DESCR(a) == dtype_of(code):
            return code
    return -1


cdef inline bint alike(ndarray a, ndarray b) noexcept:
    """Same dtype and shape, of two usual arrays."""
    cdef int i
    if cnp.PyArray_DESCR(a) != cnp.PyArray_DESCR(b) or cnp.PyArray_NDIM(a) != cnp.PyArray_NDIM(b):
        return False
    for i in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIM(a, i) != cnp.PyArray_DIM(b, i):
            return False
    return True


cdef bint fits(object bias, ndarray x, int code) noexcept:
    """Whether it can be added as it is: a usual array that broadcasts to the shape of x."""
    cdef int bias_code = code_of(<ndarray> bias) if usual(bias, ALIGNED) else -1, i, lead
    cdef ptrdiff_t length
    if bias_code != code and not (bias_code == F32 and code > F64):
        return False
    lead = cnp.PyArray_NDIM(x) - cnp.PyArray_NDIM(<ndarray> bias)
    if lead < 0:
        return False
    for i in range(cnp.PyArray_NDIM(<ndarray> bias)):
        length = cnp.PyArray_DIM(<ndarray> bias, i)
        if length != 1 and length != cnp.PyArray_DIM(x, lead + i):
            return False
    return True


cdef bint disjoint(ndarray a, ndarray b) noexcept:
    """No byte in common between the first and the last of each, of two arrays of any strides."""
    cdef const char* low[2]
    cdef const char* high[2]
    cdef ndarray array
    cdef ptrdiff_t reach
    cdef int k, i
    for k in range(2):
        array = b if k else a
        low[k] = cnp.PyArray_BYTES(array)
        high[k] = low[k] + cnp.PyArray_ITEMSIZE(array)
        for i in range(cnp.PyArray_NDIM(array)):
            reach = cnp.PyArray_STRIDE(array, i) * (cnp.PyArray_DIM(array, i) - 1)
            if reach < 0:
                low[k] += reach
            else:
                high[k] += reach
    return high[0] <= low[1] or high[1] <= low[0]


cdef inline bint apart(ndarray a, ndarray out, bint flat) noexcept:
    """None in common or, of contiguous arrays that are alike, the same elements."""
    cdef ptrdiff_t gap = cnp.PyArray_BYTES(a) - cnp.PyArray_BYTES(out)
    if not flat:
        return disjoint(a, out)
    return gap == 0 or llabs(gap) >= elements(out) * cnp.PyArray_ITEMSIZE(out)


cdef inline call(str name, Family family, bint backward, x, grad, alpha, from_output, bias, out, num_threads):
    cdef Plan p
    cdef Mode mode = DO_FROM_OUTPUT if from_output is True else DO_BACKWARD if backward else DO_FORWARD
    cdef int asked, code = -1
    cdef bint flat
    cdef object to = None
    if (
        usual(x, ALIGNED) and PyFloat_CheckExact(alpha) and (from_output is False or from_output is True)
        and elu_takes(family, mode, PyFloat_AS_DOUBLE(alpha))
        and (num_threads is None or (type(num_threads) is int and 0 < num_threads <= most))
    ):
        code = code_of(<ndarray> x)
    if (
        code >= 0 and (not backward or (usual(grad, ALIGNED) and alike(<ndarray> x, <ndarray> grad)))
        and (bias is None or (from_output is False and fits(bias, <ndarray> x, code)))
    ):
        asked = 0 if num_threads is None else <int> num_threads
        flat = cnp.PyArray_CHKFLAGS(<ndarray> x, C) and (not backward or cnp.PyArray_CHKFLAGS(<ndarray> grad, C))
        if out is None:
            to = new(<ndarray> x, <ndarray> grad, code, flat)
        elif usual(out, ALIGNED | WRITEABLE) and alike(<ndarray> x, <ndarray> out):
            flat = flat and cnp.PyArray_CHKFLAGS(<ndarray> out, C)
            if (
                apart(<ndarray> x, <ndarray> out, flat) and (not backward or apart(<ndarray> grad, <ndarray> out, flat))
                and (bias is None or disjoint(<ndarray> bias, <ndarray> out))
            ):
                to = out
        if to is not None:
            plan(&p, family, mode, PyFloat_AS_DOUBLE(alpha), code)
            flat = flat and bias is None
            if not (flat and at_once(&p, <ndarray> x, <ndarray> grad, <ndarray> to)):
                compute(&p, <ndarray> x, <ndarray> grad, <ndarray> bias, <ndarray> to, asked, flat)
            return to if out is not None or cnp.PyArray_NDIM(<ndarray> to) else to[()]
    return unusual(name, x, grad, alpha, from_output, bias, out, num_threads)


def elu(x, alpha=1.0, *, bias=None, out=None, num_threads=None):
    return call("elu", ELU, False, x, x, alpha, False, bias, out, num_threads)


def elu_(x, alpha=1.0, *, bias=None, num_threads=None):
    return call("elu_", ELU, False, x, x, alpha, False, bias, x, num_threads)


def elu_backward(grad, x, alpha=1.0, *, from_output=False, bias=None, out=None, num_threads=None):
    return call("elu_backward", ELU, True, x, grad, alpha, from_output, bias, out, num_threads)


def selu(x, *, bias=None, out=None, num_threads=None):
    return call("selu", SELU, False, x, x, 1.0, False, bias, out, num_threads)


def selu_(x, *, bias=None, num_threads=None):
    return call("selu_", SELU, False, x, x, 1.0, False, bias, x, num_threads)


def selu_backward(grad, x, *, from_output=False, bias=None, out=None, num_threads=None):
    return call("selu_backward", SELU, True, x, grad, 1.0, from_output, bias, out, num_threads)


def celu(x, alpha=1.0, *, bias=None, out=None, num_threads=None):
    return call("celu", CELU, False, x, x, alpha, False, bias, out, num_threads)


def celu_(x, alpha=1.0, *, bias=None, num_threads=None):
    return call("celu_", CELU, False, x, x, alpha, False, bias, x, num_threads)


def celu_backward(grad, x, alpha=1.0, *, from_output=False, bias=None, out=None, num_threads=None):
    return call("celu_backward", CELU, True, x, grad, alpha, from_output, bias, out, num_threads)


for function in (elu, elu_, elu_backward, selu, selu_, selu_backward, celu, celu_, celu_backward):
    function.__module__ = "elufast"  # the name to pickle, whatever the level
    function.__doc__ = _docs.function(function.__name__)
