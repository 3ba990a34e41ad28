/* Values that threads share without a lock: each is read and written whole. A store that a load sees brings along what
 * its thread has written before it (release, acquire), which on x86-64 costs nothing. */
#ifndef ELUFAST_SHARED_H
#define ELUFAST_SHARED_H

#ifdef __GNUC__
#define ELU_LOAD(T, from)                                                                                              \
    T value;                                                                                                           \
    __atomic_load(from, &value, __ATOMIC_ACQUIRE);                                                                     \
    return value;
#define ELU_STORE(to, value) __atomic_store(to, &value, __ATOMIC_RELEASE);
#else /* MSVC, whose volatile is that on x86-64 */
#define ELU_LOAD(T, from) return *(T volatile const *)from;
#define ELU_STORE(to, value) *to = value;
#endif

#define ELU_SHARED(T, name)                                                                                            \
    static inline T elu_load_##name(T volatile const *from) { ELU_LOAD(T, from) }                                      \
    static inline void elu_store_##name(T volatile *to, T value) { ELU_STORE(to, value) }

ELU_SHARED(int, int)
ELU_SHARED(double, double)
ELU_SHARED(void *, pointer)

#endif
