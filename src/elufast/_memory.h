/* Memory for large results, kept from one to the next.
 *
 * malloc gives a large block back to the system as soon as it is freed, so every new result is memory that the system
 * first has to clear, page by page: more work than to compute it. Here the last block freed is kept, marked as memory
 * that the system may take as soon as it needs some (MADV_FREE), and the next result of that many huge pages uses it.
 *
 * NumPy calls this through a handler (NEP 49): arrays own their data as ever, and resize, copies and views work.
 */
#ifndef ELUFAST_MEMORY_H
#define ELUFAST_MEMORY_H

#include <Python.h>
#include <numpy/arrayobject.h>
#include <stdint.h>

/* Below, malloc keeps what is freed by itself (mallopt(3), M_MMAP_THRESHOLD). */
#define ELU_LARGE ((npy_intp)32 << 20)

#ifdef __linux__
#include <malloc.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>

#if defined(MADV_FREE) && defined(MADV_HUGEPAGE)
#define ELU_KEEPS 1
#endif
#endif

#ifdef ELU_KEEPS
#include <stdatomic.h>
#define ELU_KEEP_MOST ((size_t)256 << 20)
#define ELU_HUGE_PAGE ((size_t)2 << 20)

/* The block that is kept, if any. It begins with its size, whole huge pages. */
static _Atomic(size_t *) elu_kept;

static void *elu_allocate(void *ctx, size_t size) {
    (void)ctx;
    if (size < (size_t)ELU_LARGE)
        return malloc(size);
    size = (size + ELU_HUGE_PAGE - 1) / ELU_HUGE_PAGE * ELU_HUGE_PAGE;
    size_t *block = atomic_exchange(&elu_kept, NULL);
    if (block && *block == size)
        return block;
    free(block);
    block = aligned_alloc(ELU_HUGE_PAGE, size);
    if (block)
        madvise(block, size, MADV_HUGEPAGE);
    return block;
}

static void *elu_allocate_zeros(void *ctx, size_t n, size_t itemsize) {
    (void)ctx;
    return calloc(n, itemsize);
}

static void *elu_resize(void *ctx, void *block, size_t size) {
    (void)ctx;
    return realloc(block, size);
}

/* A limit of addresses or data (ulimit -v, -d) counts what is kept. */
static int elu_limited(void) {
    struct rlimit addresses, data;
    return getrlimit(RLIMIT_AS, &addresses) || getrlimit(RLIMIT_DATA, &data) || addresses.rlim_cur != RLIM_INFINITY ||
           data.rlim_cur != RLIM_INFINITY;
}

/* By malloc's account of its size: after an ndarray.__setstate__ that failed NumPy's is wrong. */
static void elu_release(void *ctx, void *block, size_t size) {
    (void)ctx;
    size = malloc_usable_size(block) / ELU_HUGE_PAGE * ELU_HUGE_PAGE;
    if (size >= (size_t)ELU_LARGE && size <= ELU_KEEP_MOST && (uintptr_t)block % ELU_HUGE_PAGE == 0 && !elu_limited() &&
        madvise(block, size, MADV_FREE) == 0) {
        *(size_t *)block = size;
        block = atomic_exchange(&elu_kept, block);
    }
    free(block);
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
#endif

#endif
