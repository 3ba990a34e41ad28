/* Memory for results, by NumPy's handler (NEP 49): arrays own their data as ever, and resize, copies and views work.
 *
 * A result begins with a cache line, and modulo a page as the inputs do or up to a line before. The last large block
 * freed is kept, marked as memory that the system may take as soon as it needs some (MADV_FREE), and the next result of
 * that many huge pages uses it: docs/design.md, "Loops, threads, memory".
 */
#ifndef ELUFAST_MEMORY_H
#define ELUFAST_MEMORY_H

#include <Python.h>
#include <numpy/arrayobject.h>
#include <stdint.h>

/* Below, the handler, 0.7 us, costs what the place saves. */
#define ELU_PLACED ((npy_intp)512 << 10)

#ifdef __linux__
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#endif

#if defined(MADV_FREE) && defined(MADV_HUGEPAGE) /* Linux alone has the latter */
#include <stdatomic.h>
/* Below, malloc keeps what is freed by itself (mallopt(3), M_MMAP_THRESHOLD). */
#define ELU_LARGE ((size_t)32 << 20)
#define ELU_KEEP_MOST ((size_t)258 << 20) /* a result of 256 MiB and its place */
#define ELU_ADVISED ((size_t)4 << 20)     /* as of NumPy's own memory */
#define ELU_HUGE_PAGE ((size_t)2 << 20)
#define ELU_PAGE 4096 /* of which the processor compares addresses first, whatever the system's */
#define ELU_LINE 64

/* The block that is kept, if any. It begins with its size, whole huge pages. */
static _Atomic(size_t *) elu_kept;

/* The inputs of the result that is to be allocated. */
static _Thread_local uintptr_t elu_inputs[2];
static void elu_set_inputs(const void *x, const void *grad) {
    elu_inputs[0] = (uintptr_t)x;
    elu_inputs[1] = (uintptr_t)grad;
}

/* Before the data is the address of their block. */
static void **elu_block_of(void *data) { return (void **)data - 1; }

static void *elu_allocate(void *ctx, size_t size) {
    (void)ctx;
    size_t *block;
    size += ELU_LINE + ELU_PAGE;
    if (size < ELU_LARGE) {
        block = malloc(size);
    } else {
        size = (size + ELU_HUGE_PAGE - 1) / ELU_HUGE_PAGE * ELU_HUGE_PAGE;
        block = atomic_exchange(&elu_kept, NULL);
        if (!block || *block != size) {
            free(block);
            block = aligned_alloc(ELU_HUGE_PAGE, size);
        }
    }
    if (!block)
        return NULL;
    size_t rest = -(uintptr_t)block % ELU_PAGE;
    if (size >= ELU_ADVISED)
        madvise((char *)block + rest, size - rest, MADV_HUGEPAGE);
    uintptr_t place = elu_inputs[0], first = (uintptr_t)block + ELU_LINE;
    if ((place - elu_inputs[1]) % ELU_PAGE < ELU_PAGE / 2) /* the other one begins a little before */
        place = elu_inputs[1];
    void *data = (char *)block + ELU_LINE + (place / ELU_LINE * ELU_LINE - first) % ELU_PAGE;
    *elu_block_of(data) = block;
    return data;
}

static void *elu_allocate_zeros(void *ctx, size_t n, size_t itemsize) {
    void *data = elu_allocate(ctx, n * itemsize); /* NumPy has multiplied them already */
    return data ? memset(data, 0, n * itemsize) : NULL;
}

/* A limit of addresses or data (ulimit -v, -d) counts what is kept. */
static int elu_limited(void) {
    struct rlimit addresses, data;
    return getrlimit(RLIMIT_AS, &addresses) || getrlimit(RLIMIT_DATA, &data) || addresses.rlim_cur != RLIM_INFINITY ||
           data.rlim_cur != RLIM_INFINITY;
}

/* By malloc's account of its size: after an ndarray.__setstate__ that failed NumPy's is wrong. */
static void elu_release(void *ctx, void *data, size_t size) {
    (void)ctx;
    if (!data) /* NumPy does so */
        return;
    void *block = *elu_block_of(data);
    size = malloc_usable_size(block) / ELU_HUGE_PAGE * ELU_HUGE_PAGE;
    if (size >= ELU_LARGE && size <= ELU_KEEP_MOST && (uintptr_t)block % ELU_HUGE_PAGE == 0 && !elu_limited() &&
        madvise(block, size, MADV_FREE) == 0) {
        *(size_t *)block = size;
        block = atomic_exchange(&elu_kept, block);
    }
    free(block);
}

static void *elu_resize(void *ctx, void *data, size_t size) {
    (void)ctx;
    char *block = *elu_block_of(data);
    size_t before = (size_t)((char *)data - block);
    if (!(block = realloc(block, before + size)))
        return NULL;
    data = block + before;
    *elu_block_of(data) = block;
    return data;
}

static PyDataMem_Handler elu_handler = {
    "elufast", 1, {NULL, elu_allocate, elu_allocate_zeros, elu_resize, elu_release}};

/* What NumPy takes for a handler; None where nothing is kept. */
static PyObject *elu_memory_handler(void) { return PyCapsule_New(&elu_handler, "mem_handler", NULL); }

/* Whether arrays take their memory from NumPy's own handler, or from this one, which stays in force where no memory was
 * left to set the other again. */
static int elu_default_memory(void) {
    PyObject *handler = PyDataMem_GetHandler();
    if (!handler)
        return -1;
    int known = handler == PyDataMem_DefaultHandler || PyCapsule_GetPointer(handler, "mem_handler") == &elu_handler;
    Py_DECREF(handler);
    return known;
}
#else
static PyObject *elu_memory_handler(void) { Py_RETURN_NONE; }
#define elu_default_memory() 0
#define elu_set_inputs(x, grad) (void)0
#endif

#endif
