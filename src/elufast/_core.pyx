"""Spans: load, kernel, store, over blocks in the first-level cache; threads, layouts, memory. No Python arguments.

Arrays of any layout become a ``Walk``: few axes, merged where they can be, of the strides of each operand. A run along
its last axis goes to the kernel as it is where it lies in memory as the kernel takes it. All else is a load or a store
of a block: other strides and byte orders are copied, halves converted, a bias is added.
"""
import os

cimport numpy as cnp
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.pythread cimport (
    NOWAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_release_lock, PyThread_type_lock,
)
from cpython.ref cimport Py_INCREF
from cython.parallel cimport prange
from libc.stdint cimport uint64_t
from libc.stdlib cimport llabs
from libc.string cimport memcpy
from numpy cimport ndarray

from elufast._elu cimport *

from elufast import _dispatch, _runtime

cdef extern from *:
    """
    #ifndef _OPENMP
    #define omp_get_max_threads() 1
    #define omp_get_thread_limit() 1
    #define omp_in_parallel() 0
    #define omp_get_wtime() 0.0
    #else
    #include <omp.h>
    #if _OPENMP < 200805
    #define omp_get_thread_limit() 0x7fffffff
    #endif
    #endif

    static int elu_forked;
    #if defined(_OPENMP) && !defined(_WIN32)
    #include <pthread.h>
    static void elu_note_fork(void) { elu_forked = 1; }
    #define elu_watch_forks() pthread_atfork(NULL, NULL, elu_note_fork)

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
    #define elu_watch_forks() 0
    #define elu_can_start(threads) 1
    #endif

    typedef struct { _Alignas(64) char numbers[4][1024]; _Alignas(64) char halves[4][512]; } elu_buffers_t;
    """
    bint elu_can_start(int threads) nogil
    int omp_get_max_threads() nogil
    int omp_get_thread_limit() nogil
    int omp_in_parallel() nogil
    double omp_get_wtime() nogil
    bint elu_forked
    int elu_watch_forks()
    ctypedef struct Buffers "elu_buffers_t":  # an operand each: floats or doubles; what they are converted from
        char numbers[4][1024]
        char halves[4][512]

cdef extern from "numpy/arrayobject.h":
    ndarray PyArray_NewLikeArray(ndarray prototype, cnp.NPY_ORDER order, cnp.PyArray_Descr* descr, int subok)
    cnp.PyArray_Descr* PyArray_DescrFromType(int typenum)

cdef extern from "_memory.h":
    const cnp.npy_intp ELU_PLACED
    void elu_set_inputs(const void* x, const void* grad) noexcept
    object elu_memory_handler()
    bint elu_default_memory() except -1
    object set_memory_handler "PyDataMem_SetHandler"(PyObject* handler)  # not in NumPy 2.0's own declarations

cnp.import_array()

cdef object memory_handler = elu_memory_handler()

cdef enum:
    NUMBERS = 1024  # bytes of a block's floats or doubles
    SHORT = 1024  # of a block where it is memory that limits: it stays busy
    STREAMED = 512  # the same, forward and with streaming stores
    AHEAD = 4096  # bytes that an input is fetched ahead of them
    LONG = 64  # elements of a run that is a block of its own; shorter ones are gathered
    FEW = 32  # elements of a block of halves that are computed again together
    PARTS = 16  # groups of runs that a block is gathered from, at most
    ROWS_AHEAD = 3  # of which one is fetched: the next one would come too late
    FORESEEN = 8192  # bytes of a row from which on the processor fetches most of it by itself
    NEAR = 4194304  # bytes in all beyond which the next row is not yet in a near cache
    PER_THREAD = 62500  # bytes of a result that repay a thread that sleeps, times 1, 2 or 4: docs/performance.md
    STREAK = 8  # calls at once after each other, before threads are woken for the next

# The native dtypes by code, each an object of its own: a comparison of pointers tells both type and byte order.
typenums[:] = [cnp.NPY_FLOAT32, cnp.NPY_FLOAT64, cnp.NPY_FLOAT16, cnp.NPY_NOTYPE]
dtypes[F32], dtypes[F64] = PyArray_DescrFromType(cnp.NPY_FLOAT32), PyArray_DescrFromType(cnp.NPY_FLOAT64)
dtypes[F16] = PyArray_DescrFromType(cnp.NPY_FLOAT16)

cdef ptrdiff_t cache_bytes
cdef int team_limit  # shared
cdef int openmp_default = 0
cdef PyThread_type_lock pool = PyThread_allocate_lock()
if pool == NULL:
    raise MemoryError

# OpenMP's threads do not survive a fork: a handler tells of it, or the process number.
cdef object home = os.getpid()
elu_forked = _runtime.inherits_openmp()
if elu_watch_forks():
    raise MemoryError("elufast: no memory to be told of forks")

# Where other processes keep the CPUs busy a thread may start a time slice, milliseconds, late, and its call with it.
# A call that took so much longer than the best of its kind sends the next ones to a single thread for a while.
cdef double SLACK = 1e-3, REST = 1e-2  # at first; twice as long after each that was of no use
cdef double paces[CODES][ELU_KERNELS]  # these two belong to who has the pool
cdef double rest = REST
cdef double resting_until = 0  # shared, as the three below; only hints

# Threads that have just computed are awake, for OpenMP lets them spin a while: less work repays them.
cdef bint spins = os.environ.get("OMP_WAIT_POLICY", "").lower() != "passive"
cdef double SOON = 1e-4
cdef double awake_until = 0, last_call = 0
cdef int streak = 0


def use(level, long last_level_cache) -> None:
    """Set the loops to use, a module of ``_dispatch``, and the size from which stores stream."""
    global loops, cache_bytes
    loops = <Loops*> PyCapsule_GetPointer(level.loops, NULL)
    cache_bytes = last_level_cache


def limit_threads(int num_threads) -> None:
    elu_store_int(&team_limit, num_threads)


def learn_bfloat16(dtype) -> None:
    """From now on arrays of this dtype, native bfloat16, are computed."""
    typenums[BF16] = dtype.num
    elu_store_pointer(<void**> &dtypes[BF16], PyArray_DescrFromType(dtype.num))  # the one that arrays have


use(_dispatch.loops, _runtime.cache_bytes())
team_limit = _runtime.default_num_threads()
openmp_default = max(team_limit, omp_get_max_threads())  # threadpoolctl may have limited OpenMP already


cdef inline bint forked():
    return elu_forked or os.getpid() != home


cdef int limit(int asked):
    cdef int now = omp_get_max_threads(), most = asked if asked else elu_load_int(&team_limit)
    most = min(most, omp_get_thread_limit())
    return min(most, now) if now < openmp_default else most


def thread_limit() -> int:
    """Threads a call may use: what was set, less where OpenMP was limited meanwhile (threadpoolctl), 1 after a fork."""
    return 1 if forked() else limit(0)


cdef void judge(const Plan* p, ptrdiff_t n, double start):
    """Note how long a call with threads, the only one at a time, took: seconds from start to now."""
    global rest
    cdef double* pace = &paces[p.code][p.op]
    cdef double now = omp_get_wtime(), each = (now - start) / n
    if pace[0] == 0 or each < pace[0]:
        pace[0] = each
    elu_store_double(&awake_until, now + SOON)
    if now - start > 4 * n * pace[0] + SLACK:
        elu_store_double(&resting_until, now + rest)
        rest = min(2 * rest, 10.0)
    else:
        rest = REST


cdef bint awake(double now):
    """Whether a call with threads has just been, or calls follow each other at once, so that waking them is repaid."""
    cdef int calls = elu_load_int(&streak) + 1 if now - elu_load_double(&last_call) < SOON else 0
    elu_store_double(&last_call, now)
    elu_store_int(&streak, min(calls, STREAK))
    return spins and (calls > STREAK or now < elu_load_double(&awake_until))


cdef int team(const Plan* p, ptrdiff_t n, int asked):
    """Threads for n elements: as many as asked for (0: not asked) and as the work repays."""
    cdef int share = PER_THREAD * (4 if p.op >= ELU_FROM_OUTPUT else 1 if p.code == F64 else 2)
    cdef ptrdiff_t bytes = n * (8 if p.code == F64 else 4), repaid
    cdef double now
    cdef int most
    if p.backward and p.op < ELU_FROM_OUTPUT:
        share -= share // 4
    if bytes < share or asked == 1 or omp_in_parallel():
        return 1
    now = omp_get_wtime()
    repaid = bytes // (share * (2 if p.code == F64 else 3) // 4 if awake(now) else share)
    most = <int> min(<ptrdiff_t> limit(asked), repaid)
    if most > 1 and (now < elu_load_double(&resting_until) or forked()):
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


cdef inline ptrdiff_t room(int code) noexcept nogil:
    """Elements of a block."""
    return NUMBERS // 8 if code == F64 else NUMBERS // 4


cdef inline char* buffer_of(const Walk* w, int k, Buffers* buffers) noexcept nogil:
    return &buffers.halves[k][0] if w.code[k] >= F16 else &buffers.numbers[k][0]


cdef inline const char* loaded(const Walk* w, int k, const char* data, ptrdiff_t n, Buffers* buffers) noexcept nogil:
    """A run of an operand as floats or doubles."""
    if w.code[k] < F16 or w.plan.halves:
        return data
    loops.load[w.code[k] - F16](data, &buffers.numbers[k][0], n)
    return &buffers.numbers[k][0]


cdef void settle(const Plan* p, const char* x, const char* second, char* numbers, char* to, ptrdiff_t n) noexcept nogil:
    """Compute again what may have been rounded to the wrong half, a few elements at a time."""
    cdef ptrdiff_t few
    while n > 0:
        few = min(n, <ptrdiff_t> FEW)
        if loops.store[p.code - F16](numbers, to, few, p.sums, True, True):
            p.exact(x, second, numbers, few, &p.s, NULL)
            loops.store[p.code - F16](numbers, to, few, p.sums, True, True)
        x, numbers, to, n = x + 4 * few, numbers + 4 * few, to + 2 * few, n - few
        if second != NULL:
            second += 4 * few


cdef void block(
    const Walk* w, const char* x, const char* grad, const char* bias, char* to, ptrdiff_t n, Buffers* buffers
) noexcept nogil:
    """Load, kernel, store: runs of n elements, which the buffers hold."""
    cdef const Plan* p = w.plan
    cdef char* numbers = &buffers.numbers[OUT][0]
    cdef const char* second = NULL
    x = loaded(w, X, x, n, buffers)
    if w.biased:
        second = loaded(w, BIAS, bias, n, buffers)
    if p.backward:
        if w.biased:
            loops.add[p.code == F64](x, second, &buffers.numbers[X][0], n)
            x = &buffers.numbers[X][0]
        second = loaded(w, GRAD, grad, n, buffers)
    if p.code < F16 or p.halves:
        p.kernel(x, second, to, n, &p.s, NULL)
    else:
        p.kernel(x, second, numbers, n, &p.s, NULL)
        # What is not to be settled, and sums, may be the middle of two halves.
        if loops.store[p.code - F16](numbers, to, n, p.sums, p.exact == NULL or w.biased, False) and p.exact != NULL:
            settle(p, x, second, numbers, to, n)


cdef inline ptrdiff_t piece(const char* out, ptrdiff_t n, ptrdiff_t most, int shift, bint* stream) noexcept nogil:
    """How many of n elements are next. Only whole cache lines stream; stream: in, the walk's; out, the piece's."""
    cdef ptrdiff_t size = min(n, most), before = <size_t> out & 63
    if stream[0]:
        size &= -(64 >> shift)
        if before or size == 0:
            stream[0] = False
            return min(n, (64 - before) >> shift)
    return size


cdef inline void advance(char** data, const ptrdiff_t* strides, ptrdiff_t n) noexcept nogil:
    cdef int k
    for k in range(OPERANDS):
        data[k] += n * strides[k]


cdef struct Batch:  # runs, gathered until they fill a block
    char* data[OPERANDS]
    char* to[PARTS]
    ptrdiff_t shape[PARTS][2]
    const char* bias  # of the rows that its buffer holds
    ptrdiff_t filled, rows
    int parts
    bint whole  # all operands' runs lie as a kernel takes them
    bint stream


cdef inline bint adjacent(const Walk* w, int k, ptrdiff_t m, ptrdiff_t n) noexcept nogil:
    """Whether m runs of n elements are one, as a kernel takes it."""
    cdef ptrdiff_t size = itemsize(w.code[k])
    cdef int last = w.axes - 1
    return w.plain[k] and w.strides[last][k] == size and (m == 1 or w.strides[last - 1][k] == n * size)


cdef void begin(Batch* batch, const Walk* w) noexcept nogil:
    cdef int k
    batch.filled = batch.parts = batch.rows = 0
    batch.whole, batch.stream = True, False
    for k in range(OPERANDS):  # one that there is not is x
        batch.whole = batch.whole and adjacent(w, k, 1, 1)


cdef void flush(Batch* batch, const Walk* w, Buffers* buffers) noexcept nogil:
    cdef ptrdiff_t size = itemsize(w.plan.code), m, n, step
    cdef const char* from_ = batch.data[OUT]
    cdef int i, last = w.axes - 1
    if batch.filled:
        block(w, batch.data[X], batch.data[GRAD], batch.data[BIAS], batch.data[OUT], batch.filled, buffers)
    for i in range(batch.parts):
        m, n = batch.shape[i][0], batch.shape[i][1]
        if batch.stream:
            elu_stream(batch.to[i], from_, n * size)
        elif batch.to[i] != from_:
            step = w.strides[last - 1][OUT] if m > 1 else 0
            elu_scatter(batch.to[i], from_, w.strides[last][OUT], n, step, m, size, w.swapped[OUT])
        from_ += m * n * size
    batch.filled = batch.parts = 0


cdef void gather(Batch* batch, const Walk* w, char** start, ptrdiff_t m, ptrdiff_t n, Buffers* buffers) noexcept nogil:
    """m runs of n elements, for which there is room. Many elements that are one run are a block as they are."""
    cdef bint many = batch.filled == 0 and m * n >= LONG, whole = False
    cdef ptrdiff_t size, step
    cdef int k, last = w.axes - 1
    for k in range(OPERANDS):
        if (k == GRAD and not w.plan.backward) or (k == BIAS and not w.biased):
            continue
        if many and adjacent(w, k, m, n) and not (k == OUT and batch.stream):
            batch.data[k], whole = start[k], True
            continue
        if batch.filled == 0:
            batch.data[k] = buffer_of(w, k, buffers)
        step = w.strides[last - 1][k] if m > 1 else 0
        if k == OUT or (k == BIAS and many and step == 0 and m <= batch.rows and start[k] == batch.bias):
            continue
        size = itemsize(w.code[k])
        elu_gather(batch.data[k] + batch.filled * size, start[k], w.strides[last][k], n, step, m, size, w.swapped[k])
        if k == BIAS:
            batch.bias, batch.rows = start[k], m if batch.filled == 0 and m > 1 and step == 0 else 0
    batch.to[batch.parts] = start[OUT]
    batch.shape[batch.parts][0], batch.shape[batch.parts][1] = m, n
    batch.parts += 1
    batch.filled += m * n
    if whole:
        flush(batch, w, buffers)


cdef void span(
    const Walk* w, char** start, ptrdiff_t n, ptrdiff_t x_ahead, ptrdiff_t grad_ahead, Batch* batch, Buffers* buffers
) noexcept nogil:
    """A run: n elements of each operand. Where an ahead is not 0 what lies so many bytes ahead of a block is fetched
    before it."""
    # Variables of their own: a load of two at once would wait for all streaming stores before it.
    cdef char* x = start[X]
    cdef char* grad = start[GRAD]
    cdef char* bias = start[BIAS]
    cdef char* out = start[OUT]
    cdef char* to
    cdef char* at[OPERANDS]
    cdef const ptrdiff_t* strides = w.strides[w.axes - 1]
    cdef const Plan* p = w.plan
    cdef int shift = 3 if p.code == F64 else 2 if p.code == F32 else 1  # as a division takes as long as a short kernel
    cdef ptrdiff_t most = room(p.code), size
    cdef bint direct = batch.whole and (p.code < F16 or p.halves) and not (p.backward and w.biased)
    if w.stream or x_ahead or grad_ahead:
        most = min(most, (STREAMED if w.stream and not p.backward else SHORT) >> shift)
    elif direct:
        most = n
    while n > 0:
        batch.stream = w.stream
        size = piece(out, n, most, shift, &batch.stream)
        if x_ahead:
            elu_prefetch(x + x_ahead, size << shift)
        if grad_ahead:
            elu_prefetch(grad + grad_ahead, size << shift)
        if batch.whole:
            to = buffer_of(w, OUT, buffers) if batch.stream else out
            if direct:
                p.kernel(x, bias if w.biased else grad if p.backward else NULL, to, size, &p.s, NULL)
            else:
                block(w, x, grad, bias, to, size, buffers)
            if batch.stream:
                elu_stream(out, to, size << shift)
        else:
            at[X], at[GRAD], at[BIAS], at[OUT] = x, grad, bias, out
            gather(batch, w, at, 1, size, buffers)
            flush(batch, w, buffers)
        x += size * strides[X]
        grad += size * strides[GRAD]
        bias += size * strides[BIAS]
        out += size * strides[OUT]
        n -= size
    batch.stream = False


cdef void walk_range(const Walk* w, ptrdiff_t start, ptrdiff_t stop) noexcept nogil:
    """The elements from start to stop, in the order of the walk's axes."""
    cdef uint64_t mode = elu_enter()
    cdef Buffers buffers
    cdef Batch batch
    cdef ptrdiff_t index[MAX_AXES]
    cdef char* data[OPERANDS]
    cdef ptrdiff_t m, n, rest = start, x_ahead = AHEAD if w.stream else 0
    cdef ptrdiff_t grad_ahead = x_ahead if w.plan.backward else 0, most = room(w.plan.code)
    cdef int axis, last = w.axes - 1
    memcpy(data, w.data, sizeof(data))
    begin(&batch, w)
    for axis in range(last, -1, -1):
        index[axis] = rest % w.shape[axis]
        rest //= w.shape[axis]
        advance(data, w.strides[axis], index[axis])
    while start < stop:
        axis, m, n = last, 1, min(w.shape[last] - index[last], stop - start)
        if n >= LONG:
            flush(&batch, w, &buffers)
            if w.fetch_rows:
                x_ahead = grad_ahead = 0
                if index[last - 1] + 1 < w.shape[last - 1]:
                    x_ahead = ROWS_AHEAD * w.strides[last - 1][X]
                    grad_ahead = ROWS_AHEAD * w.strides[last - 1][GRAD] if w.plan.backward else 0
            span(w, data, n, x_ahead, grad_ahead, &batch, &buffers)
        else:
            if batch.filled + n > most or batch.parts == PARTS:
                flush(&batch, w, &buffers)
            if n == w.shape[last] and last > 0:  # whole runs: several at once
                axis = last - 1
                m = min(min(w.shape[axis] - index[axis], (stop - start) // n), (most - batch.filled) // n)
            gather(&batch, w, data, m, n, &buffers)
        start += m * n
        index[axis] += n if axis == last else m
        advance(data, w.strides[axis], n if axis == last else m)
        while axis > 0 and index[axis] == w.shape[axis]:  # carry
            advance(data, w.strides[axis], -index[axis])
            index[axis] = 0
            axis -= 1
            advance(data, w.strides[axis], 1)
            index[axis] += 1
    flush(&batch, w, &buffers)
    if w.stream:
        elu_stream_end()
    elu_leave(mode)


cdef void lay_out(Walk* w) noexcept nogil:
    """Make the axes few: those of one element left out, those along which all are reversed turned, then sorted by the
    strides of out and merged where they are one run of steps."""
    cdef ptrdiff_t steps[OPERANDS]
    cdef ptrdiff_t length, this, other
    cdef int i, k, j, axes = w.axes
    cdef bint reversed, merges
    w.axes = 0
    for i in range(axes):
        length = w.shape[i]
        if length == 1:
            continue
        memcpy(steps, w.strides[i], sizeof(steps))
        reversed = True
        for k in range(OPERANDS):
            reversed = reversed and steps[k] <= 0
        if reversed:
            for k in range(OPERANDS):
                w.data[k] += steps[k] * (length - 1)
                steps[k] = -steps[k]
        j = w.axes
        while j > 0:
            this, other = llabs(steps[OUT]), llabs(w.strides[j - 1][OUT])
            if this == other:
                this, other = llabs(steps[X]), llabs(w.strides[j - 1][X])
            if this <= other:
                break
            w.shape[j] = w.shape[j - 1]
            memcpy(w.strides[j], w.strides[j - 1], sizeof(steps))
            j -= 1
        w.shape[j] = length
        memcpy(w.strides[j], steps, sizeof(steps))
        w.axes += 1
    j = 0
    for i in range(1, w.axes):
        merges = True
        for k in range(OPERANDS):
            merges = merges and w.strides[j][k] == w.strides[i][k] * w.shape[i]
        if merges:
            w.shape[j] *= w.shape[i]
        else:
            j += 1
            w.shape[j] = w.shape[i]
        memcpy(w.strides[j], w.strides[i], sizeof(steps))
    if w.axes == 0:  # one element
        w.shape[0] = 1
        for k in range(OPERANDS):
            w.strides[0][k] = itemsize(w.code[k])
    w.axes = j + 1


cdef int code_of(ndarray a) noexcept:
    """The code of a dtype that is known here, in any byte order."""
    cdef int code = 0
    while code < CODES - 1 and cnp.PyArray_TYPE(a) != typenums[code]:
        code += 1
    return code


cdef bint operand(Walk* w, int k, ndarray a) noexcept:
    """Note an operand, broadcast to the walk's axes; return whether its elements lie as a kernel takes them."""
    cdef int i, lead = w.axes - cnp.PyArray_NDIM(a)
    w.code[k] = code_of(a)
    w.swapped[k] = not cnp.PyArray_ISNOTSWAPPED(a)
    w.plain[k] = cnp.PyArray_ISALIGNED(a) and not w.swapped[k]
    w.data[k] = cnp.PyArray_BYTES(a)
    for i in range(w.axes):
        w.strides[i][k] = 0
        if i >= lead and cnp.PyArray_DIM(a, i - lead) == w.shape[i]:
            w.strides[i][k] = cnp.PyArray_STRIDE(a, i - lead)
    return w.plain[k]


cdef int compute(const Plan* p, ndarray x, ndarray grad, ndarray bias, ndarray out, int asked, bint flat) except -1:
    """Fill out. Without a gradient grad is x, without a bias bias is None. flat: all are plain and C-contiguous, and
    there is no bias."""
    cdef ptrdiff_t n = elements(out), each, traffic, size = itemsize(p.code)
    cdef double start
    cdef Walk w
    cdef int i, k, threads
    cdef bint rows
    if n == 0:
        return 0
    w.plan = p
    w.biased = bias is not None
    w.axes = cnp.PyArray_NDIM(out)
    for i in range(w.axes):
        w.shape[i] = cnp.PyArray_DIM(out, i)
    rows = operand(&w, X, x) & operand(&w, GRAD, grad) & operand(&w, BIAS, x if bias is None else bias)
    rows = operand(&w, OUT, out) and rows
    if flat:
        w.axes, w.shape[0] = 1, n
        for k in range(OPERANDS):
            w.strides[0][k] = size
    else:
        lay_out(&w)
    i = w.axes - 1
    for k in range(OPERANDS):
        rows = rows and (w.strides[i][k] == itemsize(w.code[k]) or k == BIAS)
    traffic = n * size * (3 if p.backward else 2)
    # Past the cache, where out is none of the inputs, stores stream; of rows apart from each other the next is fetched.
    w.stream = (
        ELU_STREAM and rows and 0 < cache_bytes < traffic and w.shape[i] >= LONG
        and w.data[OUT] != w.data[X] and w.data[OUT] != w.data[GRAD]
    )
    w.fetch_rows = (
        i > 0 and rows and w.shape[i] * size <= FORESEEN and traffic > NEAR and w.strides[i - 1][X] != w.shape[i] * size
    )
    threads = 1 if n <= KEEP_GIL else team(p, n, asked)
    if take_threads(threads):
        # One call at a time has the threads; a call made meanwhile runs in its own.
        try:
            start = omp_get_wtime()
            each = (n // threads + 16) // 16 * 16  # of an aligned array no two threads write into one cache line
            with nogil:
                for i in prange(threads, num_threads=threads, schedule="static", chunksize=1):
                    walk_range(&w, i * each, min(n, (i + 1) * each))
            judge(p, n, start)
        finally:
            PyThread_release_lock(pool)
    elif n <= KEEP_GIL:
        walk_range(&w, 0, n)
    else:
        with nogil:
            walk_range(&w, 0, n)
    return 0


cdef void run(
    const Plan* p, int axes, const ptrdiff_t* shape, char** data, const ptrdiff_t** strides, ptrdiff_t unit
) noexcept nogil:
    """Native operands of one shape, in this thread, for callers that share out arrays themselves: NULL for those that
    there are not. Strides are in units of so many bytes."""
    cdef uint64_t mode
    cdef Buffers buffers
    cdef Batch batch
    cdef Walk w
    cdef ptrdiff_t n = 1, size = itemsize(p.code), bits
    cdef int i, k, of
    w.plan, w.biased, w.stream = p, data[BIAS] != NULL, False
    w.axes, w.fetch_rows = axes, False
    for k in range(OPERANDS):
        of = k if data[k] != NULL else X
        w.data[k], w.code[k], w.swapped[k] = data[of], p.code, False
        bits = <ptrdiff_t> data[of]
        for i in range(axes):
            w.strides[i][k] = unit * strides[of][i]
            bits |= w.strides[i][k]
        w.plain[k] = bits & (size - 1) == 0
    for i in range(axes):
        w.shape[i] = shape[i]
        n *= shape[i]
    if axes == 1 and not w.biased:
        mode = elu_enter()
        begin(&batch, &w)
        span(&w, w.data, n, 0, 0, &batch, &buffers)
        elu_leave(mode)
    elif n:
        lay_out(&w)
        walk_range(&w, 0, n)


def evaluate(
    family: int, mode: int, alpha: float, x: ndarray, grad: ndarray, bias: ndarray | None, out: ndarray, threads: int
) -> None:
    """Fill ``out``. All is valid: one shape, one dtype that is known here, out writeable and, where it overlaps an
    input, the same elements. ``grad`` is x if there is none, ``threads`` is 0 if not given."""
    cdef Plan p
    plan(&p, family, <Mode> <int> mode, alpha, code_of(out))
    compute(&p, x, grad, bias, out, threads, False)


cdef inline ndarray ordinary(ndarray a, int code, bint flat):
    """`new`, in the memory that NumPy's handler gives."""
    cdef int i
    if flat:
        return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a), typenums[code], 0)
    for i in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_STRIDE(a, i) == 0:
            return None
    Py_INCREF(<object> dtypes[code])
    return PyArray_NewLikeArray(a, cnp.NPY_KEEPORDER, dtypes[code], False)


cdef ndarray placed(ndarray a, ndarray grad, int code, bint flat):
    """`new`, in memory that is chosen by where these are, and kept."""
    elu_set_inputs(cnp.PyArray_DATA(a), cnp.PyArray_DATA(grad))
    try:  # the handler may be set although setting it has raised
        set_memory_handler(<PyObject*> memory_handler)
        return ordinary(a, code, flat)
    finally:
        set_memory_handler(NULL)  # NumPy's own


cdef ndarray new(ndarray a, ndarray grad, int code, bint flat):
    """A new native array in the memory order of a, None where a has broadcast axes. flat: a is C-contiguous."""
    if elements(a) * itemsize(code) >= ELU_PLACED and elu_default_memory():
        return placed(a, grad, code, flat)
    return ordinary(a, code, flat)


def empty_like(a: ndarray, grad: ndarray) -> ndarray | None:
    """A new native array in the memory order of ``a``, of a dtype that is known here; None where it has broadcast
    axes. ``grad`` is a if there is none."""
    return new(a, grad, code_of(a), False)
