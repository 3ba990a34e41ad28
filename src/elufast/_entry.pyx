"""The public functions, and the way from arrays to a kernel.

The usual case (exact ndarrays, aligned, C-contiguous, native byte order, nothing overlapping) goes
from here to a kernel by pointer, without a Python object in between; other strides are walked with
NumPy's iterator, by blocks or by rows. All else goes to ``_api``, which validates, converts and calls
``evaluate``.
"""
import os

cimport numpy as cnp
from cpython.exc cimport PyErr_Occurred
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.pythread cimport (
    NOWAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_release_lock, PyThread_type_lock,
)
from cpython.ref cimport Py_INCREF
from cython.parallel cimport prange
from libc.stdint cimport uint64_t
from numpy cimport ndarray

from elufast import _runtime
from elufast._elu cimport *

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define ELU_OPENMP 1
    #else
    #define omp_get_max_threads() 1
    #define omp_in_parallel() 0
    #define omp_get_wtime() 0.0
    #define ELU_OPENMP 0
    #endif
    #if !defined(_OPENMP) || _OPENMP < 200805
    #include <limits.h>
    #define omp_get_thread_limit() INT_MAX
    #endif

    static int elu_forked;
    #ifdef _WIN32
    #define elu_watch_forks() 0
    #else
    #include <pthread.h>
    static void elu_note_fork(void) { elu_forked = 1; }
    #define elu_watch_forks() pthread_atfork(NULL, NULL, elu_note_fork)
    #endif

    #if defined(_OPENMP) && !defined(_WIN32)
    static _Thread_local int elu_team = 1; /* threads of the last parallel region, which OpenMP keeps */

    static void *elu_wait(void *gate) {
        pthread_mutex_lock(gate);
        pthread_mutex_unlock(gate);
        return NULL;
    }

    /* Where one of its threads cannot be started (no memory for its stack, too many processes) libgomp ends the
     * process. So those that a region would start are started first, all at once. */
    static int elu_can_start(int threads) {
        pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
        pthread_t started[1024];
        int n = 0, more = threads - elu_team;
        pthread_mutex_lock(&gate);
        while (n < more && n < 1024 && pthread_create(&started[n], NULL, elu_wait, &gate) == 0) n++;
        pthread_mutex_unlock(&gate);
        for (int i = 0; i < n; i++) pthread_join(started[i], NULL);
        if (n < more) return 0;
        elu_team = threads;
        return 1;
    }
    #else
    #define elu_can_start(threads) 1
    #endif
    """
    bint elu_can_start(int threads) nogil
    int omp_get_max_threads() nogil
    int omp_get_thread_limit() nogil
    int omp_in_parallel() nogil
    double omp_get_wtime() nogil
    const bint ELU_OPENMP
    bint elu_forked
    int elu_watch_forks()

cdef extern from "numpy/arrayobject.h":
    ndarray PyArray_NewLikeArray(ndarray prototype, cnp.NPY_ORDER order, cnp.PyArray_Descr* descr, int subok)
    cnp.PyArray_Descr* descr "PyArray_DESCR"(ndarray a) noexcept
    cnp.PyArray_Descr* PyArray_DescrFromType(int typenum)
    # As NumPy's own declaration from 2.2 on; the earlier one does not compile.
    ctypedef int (*IterNext "NpyIter_IterNextFunc *")(cnp.NpyIter*) noexcept nogil
    IterNext NpyIter_GetIterNext(cnp.NpyIter*, char**) except NULL
    # Where memory is missing NumPy 2 returns NULL without an exception, which numpy/__init__.pxd takes for one.
    cnp.NpyIter* new_iterator "NpyIter_AdvancedNew"(
        cnp.npy_intp nop, cnp.PyArrayObject** op, cnp.npy_uint32 flags, cnp.NPY_ORDER order, cnp.NPY_CASTING casting,
        cnp.npy_uint32* op_flags, cnp.PyArray_Descr** op_dtypes, int oa_ndim, int** op_axes,
        const cnp.npy_intp* itershape, cnp.npy_intp buffersize,
    )

cdef extern from "_memory.h":
    const cnp.npy_intp ELU_LARGE
    object elu_memory_handler()
    bint elu_default_memory() except -1
    object set_memory_handler "PyDataMem_SetHandler"(PyObject* handler)  # not in NumPy 2.0's own declarations

cnp.import_array()

cdef object memory_handler = elu_memory_handler()

# The native dtypes, each an object of its own: a comparison of pointers tells both type and byte order.
cdef cnp.PyArray_Descr* float32 = PyArray_DescrFromType(cnp.NPY_FLOAT32)
cdef cnp.PyArray_Descr* float64 = PyArray_DescrFromType(cnp.NPY_FLOAT64)

cdef enum:
    BLOCK = 2048  # elements a block where the layout needs one: 48 KiB for three float64 operands
    ROW = 256  # bytes that lie side by side in every operand, from which on blocks of a row are no slower
    ROWS = 64  # fewer rows are not shared out evenly
    LINE = 16  # elements in a cache line of 64 bytes, or in two
    ROWS_AHEAD = 3  # of which one is fetched: the next one would come too late
    FORESEEN = 8192  # bytes of a row from which on the processor fetches most of it by itself
    NEAR = 4194304  # bytes in all beyond which the next row is not yet in a near cache
    MAX_TEAM = 1024
    PER_THREAD = 65536  # bytes of a result that repay a thread, times 1, 2 or 4: docs/performance.md
    KEEP_GIL = 4096  # elements below which releasing the GIL costs more than it gives


cdef elu_kernel_t* kernels_f32
cdef elu_kernel_t* kernels_f64
cdef object fallback
cdef ptrdiff_t cache_bytes
cdef int team_limit
cdef int openmp_default = 0
cdef PyThread_type_lock pool = PyThread_allocate_lock()
if pool == NULL:
    raise MemoryError

# OpenMP's threads do not survive a fork. The handler misses a bare clone(), the process number a child that has its
# parent's number, in a namespace of its own.
cdef object home = os.getpid()
elu_forked = _runtime.inherits_openmp()
if elu_watch_forks():
    raise MemoryError("elufast: no memory to be told of forks")

# Where other processes keep the CPUs busy a thread may start a time slice, milliseconds, late, and its call with it.
# A call that took so much longer than the best of its kind sends the next ones to a single thread for a while.
cdef double SLACK = 1e-3
cdef double[ELU_KERNELS] pace_f32
cdef double[ELU_KERNELS] pace_f64
cdef double rest = 0.1
cdef double resting_until = 0


def bind(loops, long last_level_cache, int num_threads, unusual):
    """Set the loops to use, the facts that choose stores and threads, and what is called for the rest."""
    global kernels_f32, kernels_f64, fallback, cache_bytes, team_limit, openmp_default
    kernels_f32 = <elu_kernel_t*> PyCapsule_GetPointer(loops.kernels[0], NULL)
    kernels_f64 = <elu_kernel_t*> PyCapsule_GetPointer(loops.kernels[1], NULL)
    fallback = unusual
    cache_bytes, team_limit = last_level_cache, num_threads
    if openmp_default == 0:  # at import; threadpoolctl may have limited OpenMP already
        openmp_default = max(num_threads, omp_get_max_threads())


def address(ndarray array) -> int:
    return <size_t> cnp.PyArray_DATA(array)


def limit_threads(int num_threads):
    global team_limit
    team_limit = num_threads


cdef inline bint forked():
    return elu_forked or os.getpid() != home


cdef int limit():
    cdef int now = omp_get_max_threads(), most = min(team_limit, omp_get_thread_limit())
    return min(most, now) if now < openmp_default or not ELU_OPENMP else most


def thread_limit() -> int:
    """Threads a call may use: what was set, less where OpenMP was limited meanwhile (threadpoolctl), 1 after a fork."""
    return 1 if forked() else limit()


cdef void judge(int op, bint single, ptrdiff_t n, double start):
    """Note how long a call with threads, the only one at a time, took: seconds from start to now."""
    global rest, resting_until
    cdef double* pace = &pace_f32[op] if single else &pace_f64[op]
    cdef double now = omp_get_wtime(), each = (now - start) / n
    if pace[0] == 0 or each < pace[0]:
        pace[0] = each
    if now - start > 4 * n * pace[0] + SLACK:
        resting_until = now + rest
        rest = min(2 * rest, 10.0)
    else:
        rest = 0.1


cdef inline Mode what(bint backward, bint from_output) noexcept:
    return DO_FROM_OUTPUT if from_output else DO_BACKWARD if backward else DO_FORWARD


cdef int prepare(Family family, Mode mode, double alpha, bint single, elu_params_t* s):
    """Fill in the parameters and return the kernel's number. CELU's are computed, so in the default mode."""
    cdef uint64_t fp_mode
    cdef int op
    if family != CELU:  # apart, so that it is inlined: 30 instructions of a call's 450
        return elu_prepare(family, mode, alpha, single, s)
    fp_mode = elu_enter()
    op = elu_prepare(family, mode, alpha, single, s)
    elu_leave(fp_mode)
    return op


cdef inline ptrdiff_t elements(ndarray a) noexcept:
    """PyArray_SIZE, without a call of NumPy."""
    cdef ptrdiff_t n = 1
    cdef int i
    for i in range(cnp.PyArray_NDIM(a)):
        n *= cnp.PyArray_DIM(a, i)
    return n


cdef int team(int op, bint single, ptrdiff_t n, int asked):
    """Threads for n elements: as many as asked for (0: not asked) and as the work repays."""
    cdef int share = PER_THREAD * (4 if op == ELU_FROM_OUTPUT else 2 if single else 1)
    cdef ptrdiff_t repaid = n * (4 if single else 8) // share
    cdef int most
    if repaid < 2 or asked == 1 or omp_in_parallel():
        return 1
    most = limit() if asked == 0 else asked
    if asked and omp_get_max_threads() < openmp_default:
        most = min(most, omp_get_max_threads())
    most = <int> min(<ptrdiff_t> min(most, MAX_TEAM), repaid)
    if most > 1 and (omp_get_wtime() < resting_until or forked()):
        return 1
    return most


cdef bint take_threads(int threads):
    """Have the threads of OpenMP for one call, if no other call has them and the system can start them."""
    if threads == 1 or not PyThread_acquire_lock(pool, NOWAIT_LOCK):
        return False
    if elu_can_start(threads):
        return True
    PyThread_release_lock(pool)
    return False


cdef inline ptrdiff_t traffic(ndarray x, ndarray grad, ndarray out) noexcept:
    """Bytes of all operands; without a gradient grad is x."""
    return elements(out) * cnp.PyArray_ITEMSIZE(out) * (2 if x is grad else 3)


cdef inline bint streams(ndarray x, ndarray grad, ndarray out) noexcept:
    """Whether the arrays exceed the cache and out is not one of them."""
    cdef const char* to = cnp.PyArray_BYTES(out)
    return 0 < cache_bytes < traffic(x, grad, out) and to != cnp.PyArray_BYTES(x) and to != cnp.PyArray_BYTES(grad)


cdef int contiguous(int op, ndarray x, ndarray grad, ndarray out, const elu_params_t* s, int asked) except -1:
    """One layout, no gaps: x, grad (or x again) and out as flat runs of elements."""
    cdef ptrdiff_t n = elements(out), itemsize = cnp.PyArray_ITEMSIZE(out)
    cdef const char* px = cnp.PyArray_BYTES(x)
    cdef const char* pg = cnp.PyArray_BYTES(grad)
    cdef char* po = cnp.PyArray_BYTES(out)
    cdef bint single = itemsize == 4
    cdef elu_kernel_t kernel = kernels_f32[op] if single else kernels_f64[op]
    cdef ptrdiff_t each
    cdef int threads, i
    cdef bint stream
    cdef double start
    cdef uint64_t mode
    if n <= KEEP_GIL:
        mode = elu_enter()
        kernel(px, pg, po, n, s)
        elu_leave(mode)
        return 0
    stream = streams(x, grad, out)
    threads = team(op, single, n, asked)
    if take_threads(threads):
        # One call at a time has the threads; a call made meanwhile runs in its own.
        try:
            start = omp_get_wtime()
            each = (n // threads + LINE) // LINE * LINE  # of an aligned array no two threads write into one line
            with nogil:
                for i in prange(threads, num_threads=threads, schedule="static", chunksize=1):
                    if i * each < n:
                        elu_span(
                            kernel, px + i * each * itemsize, pg + i * each * itemsize, po + i * each * itemsize,
                            min(each, n - i * each), itemsize, s, stream,
                        )
            judge(op, single, n, start)
        finally:
            PyThread_release_lock(pool)
    else:
        with nogil:
            elu_span(kernel, px, pg, po, n, itemsize, s, stream)
    return 0


cdef int row_axis(ndarray x, ndarray grad, ndarray out) noexcept:
    """An axis along which all of them are contiguous, long enough to be walked by itself, or -1; -1 too where they are
    dense and of one layout, so that all axes merge."""
    cdef ptrdiff_t itemsize = cnp.PyArray_ITEMSIZE(out), n = elements(out), reach = 1, dim, stride
    cdef bint same, merges = True
    cdef int i, axis = -1
    for i in range(cnp.PyArray_NDIM(out)):
        dim, stride = cnp.PyArray_DIM(out, i), cnp.PyArray_STRIDE(out, i)
        same = cnp.PyArray_STRIDE(x, i) == stride and cnp.PyArray_STRIDE(grad, i) == stride
        if same and stride == itemsize and dim * itemsize >= ROW and n >= ROWS * dim:
            axis = i
        merges = merges and same
        reach += (stride if stride > 0 else -stride) // itemsize * (dim - 1)
    return -1 if merges and reach == n else axis


cdef cnp.NpyIter* iterator(int operands, cnp.PyArrayObject** ops, int axis, bint single) except NULL:
    """Of blocks of all elements, or of the rows along an axis, that are contiguous, aligned and native; blocks are
    buffered where an array is not."""
    cdef cnp.npy_uint32 flags = cnp.NPY_ITER_RANGED | cnp.NPY_ITER_ZEROSIZE_OK
    cdef cnp.npy_uint32 op_flags[3]
    cdef cnp.PyArray_Descr* dtypes[3]
    cdef cnp.NpyIter* it
    cdef int i
    if axis < 0:
        flags |= (
            cnp.NPY_ITER_EXTERNAL_LOOP | cnp.NPY_ITER_BUFFERED | cnp.NPY_ITER_GROWINNER | cnp.NPY_ITER_DELAY_BUFALLOC
        )
    else:
        flags |= cnp.NPY_ITER_MULTI_INDEX
    for i in range(operands):
        op_flags[i] = cnp.NPY_ITER_READONLY if i < operands - 1 else cnp.NPY_ITER_WRITEONLY
        op_flags[i] |= cnp.NPY_ITER_NBO | cnp.NPY_ITER_ALIGNED
        if axis < 0:
            op_flags[i] |= cnp.NPY_ITER_CONTIG
        dtypes[i] = float32 if single else float64
    it = new_iterator(
        operands, ops, flags, cnp.NPY_KEEPORDER, cnp.NPY_EQUIV_CASTING, op_flags, dtypes, -1, NULL, NULL, BLOCK
    )
    if it == NULL and not PyErr_Occurred():
        raise MemoryError
    if axis >= 0:
        try:
            cnp.NpyIter_RemoveAxis(it, axis)
            cnp.NpyIter_RemoveMultiIndex(it)
        except BaseException:
            cnp.NpyIter_Deallocate(it)
            raise
    return it


cdef struct Walk:
    cnp.NpyIter* it
    IterNext next
    char** data
    cnp.npy_intp* size
    bint empty


cdef void walk_range(
    Walk* w, int inputs, elu_kernel_t kernel, ptrdiff_t itemsize, const elu_params_t* s,
    bint rows, bint fetch_rows, bint stream,
) noexcept nogil:
    cdef uint64_t mode = elu_enter()
    cdef const char* x
    cdef const char* grad
    cdef char* out
    cdef ptrdiff_t x_ahead = ELU_AHEAD if stream else 0, grad_ahead = x_ahead if inputs == 2 else 0
    while not w.empty:
        x, grad, out = w.data[0], w.data[inputs - 1], w.data[inputs]
        if rows:
            w.empty = not w.next(w.it)
            if fetch_rows:
                x_ahead = 0 if w.empty else ROWS_AHEAD * (w.data[0] - x)
                grad_ahead = 0 if w.empty or inputs == 1 else ROWS_AHEAD * (w.data[1] - grad)
            elu_run(kernel, x, grad, out, w.size[0], itemsize, s, stream, x_ahead, grad_ahead)
        else:
            kernel(x, grad, out, w.size[0], s)
            w.empty = not w.next(w.it)
    if stream:
        elu_stream_end()
    elu_leave(mode)


cdef int walk(int op, ndarray x, ndarray grad, ndarray out, const elu_params_t* s, int asked, bint plain) except -1:
    """Any layout and byte order, with NumPy's iterator, which merges axes. plain: all are aligned and native."""
    cdef ptrdiff_t itemsize = cnp.PyArray_ITEMSIZE(out)
    cdef bint single = itemsize == 4
    cdef elu_kernel_t kernel = kernels_f32[op] if single else kernels_f64[op]
    cdef int inputs = 1 if grad is x else 2
    cdef cnp.PyArrayObject* ops[3]
    cdef Walk* walks = NULL  # not on the stack: a thread may have 32 KiB of it
    cdef cnp.NpyIter* part
    cdef cnp.npy_intp size, row = 0
    cdef int threads, made = 1, i, axis = row_axis(x, grad, out) if plain else -1
    cdef bint fetch_rows = False
    cdef bint stream = axis >= 0 and streams(x, grad, out)
    ops[0] = <cnp.PyArrayObject*> x
    ops[inputs - 1] = <cnp.PyArrayObject*> grad
    ops[inputs] = <cnp.PyArrayObject*> out
    if axis >= 0:
        row = cnp.PyArray_DIM(out, axis)
        fetch_rows = row * itemsize <= FORESEEN and traffic(x, grad, out) > NEAR
    cdef cnp.NpyIter* it = iterator(inputs + 1, ops, axis, single)
    try:
        size = cnp.NpyIter_GetIterSize(it)
        if size == 0:
            return 0
        threads = <int> min(<cnp.npy_intp> team(op, single, elements(out), asked), size)
        if not take_threads(threads):
            threads = 1
        try:
            walks = <Walk*> PyMem_Calloc(threads, sizeof(Walk))
            if walks == NULL:
                raise MemoryError
            walks[0].it = it
            while made < threads:
                # Not NpyIter_Copy, which writes to address 0 where memory is missing.
                walks[made].it = iterator(inputs + 1, ops, axis, single)
                made += 1
            # All buffers before the first one holds elements: NpyIter_Deallocate writes those of out back.
            for i in range(threads):
                cnp.NpyIter_ResetToIterIndexRange(walks[i].it, 0, 0, NULL)
            for i in range(threads):
                part = walks[i].it
                cnp.NpyIter_ResetToIterIndexRange(
                    part, size // threads * i + min(size % threads, i),
                    size // threads * (i + 1) + min(size % threads, i + 1), NULL,
                )
                walks[i].next = NpyIter_GetIterNext(part, NULL)
                walks[i].data = cnp.NpyIter_GetDataPtrArray(part)
                walks[i].size = &row if axis >= 0 else cnp.NpyIter_GetInnerLoopSizePtr(part)
                walks[i].empty = False
            with nogil:
                if threads == 1:
                    walk_range(&walks[0], inputs, kernel, itemsize, s, axis >= 0, fetch_rows, stream)
                else:
                    for i in prange(threads, num_threads=threads, schedule="static", chunksize=1):
                        walk_range(&walks[i], inputs, kernel, itemsize, s, axis >= 0, fetch_rows, stream)
        finally:
            if threads > 1:
                PyThread_release_lock(pool)
    finally:
        for i in range(1, made):
            cnp.NpyIter_Deallocate(walks[i].it)
        cnp.NpyIter_Deallocate(it)
        PyMem_Free(walks)
    return 0


cdef int compute(int op, ndarray x, ndarray grad, ndarray out, const elu_params_t* s, int asked) except -1:
    cdef int c = cnp.NPY_ARRAY_C_CONTIGUOUS, f = cnp.NPY_ARRAY_F_CONTIGUOUS
    cdef bint plain = (
        cnp.PyArray_ISNOTSWAPPED(x) and cnp.PyArray_ISNOTSWAPPED(grad) and cnp.PyArray_ISNOTSWAPPED(out)
        and cnp.PyArray_ISALIGNED(x) and cnp.PyArray_ISALIGNED(grad) and cnp.PyArray_ISALIGNED(out)
    )
    if plain and (
        cnp.PyArray_CHKFLAGS(x, c) and cnp.PyArray_CHKFLAGS(grad, c) and cnp.PyArray_CHKFLAGS(out, c)
        or cnp.PyArray_CHKFLAGS(x, f) and cnp.PyArray_CHKFLAGS(grad, f) and cnp.PyArray_CHKFLAGS(out, f)
    ):
        return contiguous(op, x, grad, out, s, asked)
    return walk(op, x, grad, out, s, asked, plain)


def evaluate(
    family: int, backward: bool, from_output: bool, x: ndarray, grad: ndarray, alpha: float, out: ndarray,
    num_threads: int,
) -> None:
    """Fill ``out``. All is valid: one shape, float32 or float64, out writeable and, where it
    overlaps an input, the same elements. ``grad`` is x if there is none, ``num_threads`` 0 if not
    given."""
    cdef elu_params_t s
    cdef int op = prepare(family, what(backward, from_output), alpha, cnp.PyArray_ITEMSIZE(out) == 4, &s)
    compute(op, x, grad, out, &s, num_threads)


cdef inline bint usual(object a, int flags) noexcept:
    return (
        cnp.PyArray_CheckExact(a) and cnp.PyArray_CHKFLAGS(<ndarray> a, flags)
        and (descr(<ndarray> a) == float32 or descr(<ndarray> a) == float64)
    )


cdef inline bint alike(ndarray a, ndarray b) noexcept:
    """Same dtype and shape, of two usual arrays."""
    cdef int i
    if descr(a) != descr(b) or cnp.PyArray_NDIM(a) != cnp.PyArray_NDIM(b):
        return False
    for i in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIM(a, i) != cnp.PyArray_DIM(b, i):
            return False
    return True


cdef inline bint apart(ndarray a, ndarray out) noexcept:
    """The same elements, or none in common, of two usual arrays that are alike."""
    cdef const char* pa = cnp.PyArray_BYTES(a)
    cdef const char* po = cnp.PyArray_BYTES(out)
    cdef ptrdiff_t bytes = elements(out) * cnp.PyArray_ITEMSIZE(out)
    return pa == po or pa + bytes <= po or po + bytes <= pa


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


cdef inline ndarray ordinary(ndarray a, bint flat):
    """`new`, in the memory that NumPy's handler gives."""
    cdef cnp.PyArray_Descr* dtype = float32 if cnp.PyArray_ITEMSIZE(a) == 4 else float64
    cdef int i
    if flat:
        return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a), cnp.PyArray_TYPE(a), 0)
    for i in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_STRIDE(a, i) == 0:
            return None
    Py_INCREF(<object> dtype)
    return PyArray_NewLikeArray(a, cnp.NPY_KEEPORDER, dtype, False)


cdef ndarray kept(ndarray a, bint flat):
    """`new`, in memory that is kept."""
    try:  # the handler may be set although setting it has raised
        set_memory_handler(<PyObject*> memory_handler)
        return ordinary(a, flat)
    finally:
        set_memory_handler(NULL)  # NumPy's own


cdef inline ndarray new(ndarray a, bint flat):
    """A new native array in the memory order of a, None where a has broadcast axes. flat: a is C-contiguous."""
    cdef bint large = elements(a) * cnp.PyArray_ITEMSIZE(a) >= ELU_LARGE
    return kept(a, flat) if large and memory_handler is not None and elu_default_memory() else ordinary(a, flat)


def empty_like(a: ndarray) -> ndarray | None:
    """A new native array in the memory order of ``a``, float32 or float64; None where it has broadcast axes."""
    return new(a, False)


cdef inline object call(
    Family family, bint inplace, bint backward, object x, object grad, object alpha,
    object from_output, object out, object num_threads,
):
    cdef elu_params_t s
    cdef int readable = cnp.NPY_ARRAY_C_CONTIGUOUS | cnp.NPY_ARRAY_ALIGNED
    cdef int asked = 0, op
    cdef bint flat
    cdef object to = None
    if (
        PyFloat_CheckExact(alpha) and (from_output is False or from_output is True)
        and elu_takes(family, what(backward, from_output is True), PyFloat_AS_DOUBLE(alpha))
        and (num_threads is None or (type(num_threads) is int and 0 < num_threads <= MAX_TEAM))
        and usual(x, cnp.NPY_ARRAY_ALIGNED)
        and (not backward or (usual(grad, cnp.NPY_ARRAY_ALIGNED) and alike(<ndarray> x, <ndarray> grad)))
    ):
        if num_threads is not None:
            asked = num_threads
        flat = cnp.PyArray_CHKFLAGS(<ndarray> x, readable)
        if backward:
            flat = flat and cnp.PyArray_CHKFLAGS(<ndarray> grad, readable)
        if out is None:
            to = new(<ndarray> x, flat)
        elif usual(out, cnp.NPY_ARRAY_ALIGNED | cnp.NPY_ARRAY_WRITEABLE) and alike(<ndarray> x, <ndarray> out):
            flat = flat and cnp.PyArray_CHKFLAGS(<ndarray> out, readable)
            if (
                flat and apart(<ndarray> x, <ndarray> out) and (not backward or apart(<ndarray> grad, <ndarray> out))
                or disjoint(<ndarray> x, <ndarray> out) and disjoint(<ndarray> grad, <ndarray> out)
            ):
                to = out
        if to is not None:
            op = prepare(
                family, what(backward, from_output is True), PyFloat_AS_DOUBLE(alpha), descr(<ndarray> x) == float32, &s
            )
            if flat:
                contiguous(op, <ndarray> x, <ndarray> grad, <ndarray> to, &s, asked)
            else:
                compute(op, <ndarray> x, <ndarray> grad, <ndarray> to, &s, asked)
            return to if out is not None or cnp.PyArray_NDIM(<ndarray> to) else to[()]
    return fallback(family, inplace, backward, x, grad, alpha, from_output, out, num_threads)


def elu(x, alpha=1.0, *, out=None, num_threads=None):
    """Exponential linear unit.

    ``alpha * expm1(x)`` for x < 0, else ``x``.

    Parameters
    ----------
    x : array_like
        Float32 or float64, of any shape, strides and byte order.
    alpha : float, default 1.0
        The limit for x to minus infinity is -alpha. Any finite real number. It is not rounded to x's dtype.
    out : ndarray, optional
        Where to write the result: the shape and dtype of x. ``out=x`` works in place.
    num_threads : int, optional
        At most so many threads. By default as many as the work repays, up to `get_num_threads`.

    Returns
    -------
    ndarray or scalar
        ``out`` if given, else a new array with the memory order of x (a NumPy scalar for a scalar).

    Raises
    ------
    TypeError
        If x or out has another dtype, or out's is not that of x.
    ValueError
        If out has another shape or is read-only.
    TypeError, ValueError
        If alpha is not a finite real number.

    Notes
    -----
    The error is at most 1.0 ulp. Zeros keep their sign, NaN stays NaN, subnormals are not flushed.

    References
    ----------
    D.-A. Clevert, T. Unterthiner, S. Hochreiter, "Fast and Accurate Deep Network Learning by
    Exponential Linear Units (ELUs)", ICLR 2016, eq. 15.

    Examples
    --------
    >>> elufast.elu(np.array([-2.3949, -0.2037226, 0.0, 1.5], np.float32))
    array([-0.9088182 , -0.18431139,  0.        ,  1.5       ], dtype=float32)
    """
    return call(ELU, False, False, x, x, alpha, False, out, num_threads)


def elu_(x, alpha=1.0, *, num_threads=None):
    """`elu` in place.

    Parameters
    ----------
    x : ndarray
        Writeable, float32 or float64, of any shape, strides and byte order.
    alpha : float, default 1.0
        As for `elu`.
    num_threads : int, optional
        At most so many threads. By default as many as the work repays, up to `get_num_threads`.

    Returns
    -------
    ndarray
        x itself.

    Raises
    ------
    TypeError
        If x is not an ndarray or has another dtype; if alpha is not a real number.
    ValueError
        If x is read-only; if alpha is not finite.

    Notes
    -----
    The values of `elu`, to the bit: at most 1.0 ulp from the exact ones.

    Examples
    --------
    >>> x = np.array([-1.0, 2.0])
    >>> elufast.elu_(x) is x
    True
    >>> x
    array([-0.63212056,  2.        ])
    """
    return call(ELU, True, False, x, x, alpha, False, x, num_threads)


def elu_backward(grad, x, alpha=1.0, *, from_output=False, out=None, num_threads=None):
    """Gradient of `elu`: grad times the derivative at x.

    ``grad * alpha * exp(x)`` for x <= 0, else ``grad``.

    Parameters
    ----------
    grad : array_like
        Gradient of the result, of the shape and dtype of x.
    x : array_like
        Float32 or float64, of any shape, strides and byte order.
        With ``from_output=True`` the result of the forward pass instead.
    alpha : float, default 1.0
        As for `elu`; with ``from_output=True`` it must be positive.
    from_output : bool, default False
        Whether the second argument is the forward result y, which is what an in-place forward pass
        leaves. The derivative is then ``y + alpha`` for y <= 0, as fast as memory allows.
    out : ndarray, optional
        Where to write the result: the shape and dtype of x. ``out=x`` and ``out=grad`` work in place.
    num_threads : int, optional
        At most so many threads. By default as many as the work repays, up to `get_num_threads`.

    Returns
    -------
    ndarray or scalar
        ``out`` if given, else a new array with the memory order of x (a NumPy scalar for a scalar).

    Raises
    ------
    TypeError
        If grad, x or out has another dtype, or theirs differ.
    ValueError
        If grad, x or out differ in shape or out is read-only; if alpha is not finite,
        or not positive with ``from_output=True``.

    Notes
    -----
    The derivative's error is at most 1.0 ulp, that of the product at most 1.5 ulp. At x = 0 it is the
    derivative from below. An infinite grad gives an infinite result.

    From the output no such bound holds: y has rounded the derivative away, to an absolute error of half
    an ulp of alpha, so the result is 0 below x = -17.33 in float32, -37.43 in float64, and half of
    its digits are lost at half of that.

    References
    ----------
    D.-A. Clevert, T. Unterthiner, S. Hochreiter, "Fast and Accurate Deep Network Learning by
    Exponential Linear Units (ELUs)", ICLR 2016, eq. 16.

    Examples
    --------
    >>> x = np.array([-20.0, -1.0, 2.0])
    >>> elufast.elu_backward(np.ones(3), x)
    array([2.06115362e-09, 3.67879441e-01, 1.00000000e+00])
    >>> elufast.elu_backward(np.ones(3), elufast.elu(x), from_output=True)
    array([2.06115358e-09, 3.67879441e-01, 1.00000000e+00])
    """
    return call(ELU, False, True, x, grad, alpha, from_output, out, num_threads)


def selu(x, *, out=None, num_threads=None):
    """Scaled exponential linear unit.

    ``scale * alpha * expm1(x)`` for x < 0, else ``scale * x``, with `SELU_ALPHA` and `SELU_SCALE`.

    Parameters
    ----------
    x : array_like
        Float32 or float64, of any shape, strides and byte order.
    out : ndarray, optional
        Where to write the result: the shape and dtype of x. ``out=x`` works in place.
    num_threads : int, optional
        At most so many threads. By default as many as the work repays, up to `get_num_threads`.

    Returns
    -------
    ndarray or scalar
        ``out`` if given, else a new array with the memory order of x (a NumPy scalar for a scalar).

    Raises
    ------
    TypeError
        If x or out has another dtype, or out's is not that of x.
    ValueError
        If out has another shape or is read-only.

    Notes
    -----
    With weights of mean 0 and variance 1 / n, mean 0 and variance 1 are a fixed point of a layer.

    The error is at most 1.0 ulp. Zeros keep their sign, NaN stays NaN, subnormals are not flushed.

    References
    ----------
    G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, "Self-Normalizing Neural Networks",
    NeurIPS 2017, eq. 2 and 14.

    Examples
    --------
    >>> elufast.selu(np.array([-np.inf, -1.0, 0.0, 1.0]))
    array([-1.75809934, -1.11133074,  0.        ,  1.05070099])
    """
    return call(SELU, False, False, x, x, 1.0, False, out, num_threads)


def selu_(x, *, num_threads=None):
    """`selu` in place.

    Parameters
    ----------
    x : ndarray
        Writeable, float32 or float64, of any shape, strides and byte order.
    num_threads : int, optional
        At most so many threads. By default as many as the work repays, up to `get_num_threads`.

    Returns
    -------
    ndarray
        x itself.

    Raises
    ------
    TypeError
        If x is not an ndarray or has another dtype.
    ValueError
        If x is read-only.

    Notes
    -----
    The values of `selu`, to the bit: at most 1.0 ulp from the exact ones.

    Examples
    --------
    >>> x = np.array([-1.0, 2.0])
    >>> elufast.selu_(x)
    array([-1.11133074,  2.10140197])
    """
    return call(SELU, True, False, x, x, 1.0, False, x, num_threads)


def selu_backward(grad, x, *, from_output=False, out=None, num_threads=None):
    """Gradient of `selu`: grad times the derivative at x.

    ``grad * scale * alpha * exp(x)`` for x <= 0, else ``grad * scale``.

    Parameters
    ----------
    grad : array_like
        Gradient of the result, of the shape and dtype of x.
    x : array_like
        Float32 or float64, of any shape, strides and byte order.
        With ``from_output=True`` the result of the forward pass instead.
    from_output : bool, default False
        Whether the second argument is the forward result y, which is what an in-place forward pass
        leaves. The derivative is then ``y + scale * alpha`` for y <= 0, as fast as memory allows.
    out : ndarray, optional
        Where to write the result: the shape and dtype of x. ``out=x`` and ``out=grad`` work in place.
    num_threads : int, optional
        At most so many threads. By default as many as the work repays, up to `get_num_threads`.

    Returns
    -------
    ndarray or scalar
        ``out`` if given, else a new array with the memory order of x (a NumPy scalar for a scalar).

    Raises
    ------
    TypeError
        If grad, x or out has another dtype, or theirs differ.
    ValueError
        If grad, x or out differ in shape or out is read-only.

    Notes
    -----
    The derivative's error is at most 1.0 ulp, that of the product at most 1.5 ulp. At x = 0 it is the
    derivative from below. An infinite grad gives an infinite result.

    From the output no such bound holds: y has rounded the derivative away, to an absolute error of half
    an ulp of scale * alpha, so the result is 0 below x = -17.33 in float32, -37.43 in float64, and half of
    its digits are lost at half of that.

    References
    ----------
    G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, "Self-Normalizing Neural Networks",
    NeurIPS 2017, eq. 2 and 14.

    Examples
    --------
    >>> elufast.selu_backward(np.ones(2), np.array([-1.0, 2.0]))
    array([0.6467686 , 1.05070099])
    """
    return call(SELU, False, True, x, grad, 1.0, from_output, out, num_threads)


def celu(x, alpha=1.0, *, out=None, num_threads=None):
    """Continuously differentiable exponential linear unit.

    ``alpha * expm1(x / alpha)`` for x < 0, else ``x``.

    Parameters
    ----------
    x : array_like
        Float32 or float64, of any shape, strides and byte order.
    alpha : float, default 1.0
        The limit for x to minus infinity is -alpha. Any finite real number but 0. It is not rounded to x's dtype.
    out : ndarray, optional
        Where to write the result: the shape and dtype of x. ``out=x`` works in place.
    num_threads : int, optional
        At most so many threads. By default as many as the work repays, up to `get_num_threads`.

    Returns
    -------
    ndarray or scalar
        ``out`` if given, else a new array with the memory order of x (a NumPy scalar for a scalar).

    Raises
    ------
    TypeError
        If x or out has another dtype, or out's is not that of x.
    ValueError
        If out has another shape or is read-only.
    TypeError, ValueError
        If alpha is not a finite real number or is 0.

    Notes
    -----
    With alpha = 1 it is `elu`, to the bit.

    The error is at most 1.0 ulp. Zeros keep their sign, NaN stays NaN, subnormals are not flushed.

    References
    ----------
    J. T. Barron, "Continuously Differentiable Exponential Linear Units", 2017, eq. 2.

    Examples
    --------
    >>> elufast.celu(np.array([-2.0, -1.0, 0.0, 1.0]), alpha=2.0)
    array([-1.26424112, -0.78693868,  0.        ,  1.        ])
    """
    return call(CELU, False, False, x, x, alpha, False, out, num_threads)


def celu_(x, alpha=1.0, *, num_threads=None):
    """`celu` in place.

    Parameters
    ----------
    x : ndarray
        Writeable, float32 or float64, of any shape, strides and byte order.
    alpha : float, default 1.0
        As for `celu`.
    num_threads : int, optional
        At most so many threads. By default as many as the work repays, up to `get_num_threads`.

    Returns
    -------
    ndarray
        x itself.

    Raises
    ------
    TypeError
        If x is not an ndarray or has another dtype; if alpha is not a real number.
    ValueError
        If x is read-only; if alpha is not finite or is 0.

    Notes
    -----
    The values of `celu`, to the bit: at most 1.0 ulp from the exact ones.

    Examples
    --------
    >>> x = np.array([-1.0, 2.0])
    >>> elufast.celu_(x, alpha=0.5)
    array([-0.43233236,  2.        ])
    """
    return call(CELU, True, False, x, x, alpha, False, x, num_threads)


def celu_backward(grad, x, alpha=1.0, *, from_output=False, out=None, num_threads=None):
    """Gradient of `celu`: grad times the derivative at x.

    ``grad * exp(x / alpha)`` for x <= 0, else ``grad``.

    Parameters
    ----------
    grad : array_like
        Gradient of the result, of the shape and dtype of x.
    x : array_like
        Float32 or float64, of any shape, strides and byte order.
        With ``from_output=True`` the result of the forward pass instead.
    alpha : float, default 1.0
        As for `celu`; with ``from_output=True`` it must be positive.
    from_output : bool, default False
        Whether the second argument is the forward result y, which is what an in-place forward pass
        leaves. The derivative is then ``y / alpha + 1`` for y <= 0, as fast as memory allows.
    out : ndarray, optional
        Where to write the result: the shape and dtype of x. ``out=x`` and ``out=grad`` work in place.
    num_threads : int, optional
        At most so many threads. By default as many as the work repays, up to `get_num_threads`.

    Returns
    -------
    ndarray or scalar
        ``out`` if given, else a new array with the memory order of x (a NumPy scalar for a scalar).

    Raises
    ------
    TypeError
        If grad, x or out has another dtype, or theirs differ.
    ValueError
        If grad, x or out differ in shape or out is read-only; if alpha is not finite, is 0,
        or not positive with ``from_output=True``.

    Notes
    -----
    The derivative's error is at most 1.0 ulp, that of the product at most 1.5 ulp. At x = 0 it is the
    derivative from below. An infinite grad gives an infinite result.

    From the output no such bound holds: y has rounded the derivative away, to an absolute error of half
    an ulp of alpha, so the result is 0 below x = -17.33 alpha in float32, -37.43 alpha in float64, and half of
    its digits are lost at half of that.

    References
    ----------
    J. T. Barron, "Continuously Differentiable Exponential Linear Units", 2017, eq. 2.

    Examples
    --------
    >>> elufast.celu_backward(np.ones(2), np.array([-1.0, 2.0]), alpha=2.0)
    array([0.60653066, 1.        ])
    """
    return call(CELU, False, True, x, grad, alpha, from_output, out, num_threads)


for function in (elu, elu_, elu_backward, selu, selu_, selu_backward, celu, celu_, celu_backward):
    function.__module__ = "elufast"  # the name to pickle, whatever the level
