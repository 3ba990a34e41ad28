"""Facts about this machine. Compiled plainly, so that it runs on every CPU of the architecture."""
import os

cdef extern from *:
    """
    #if defined(__x86_64__) && defined(__GNUC__)
    #include <cpuid.h>
    #define ELU_CPU(feature) (__builtin_cpu_supports(feature) != 0)
    static int elu_v3(void) { /* not all compilers know the name f16c */
        unsigned a, b, c = 0, d;
        return ELU_CPU("avx2") && ELU_CPU("fma") && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
    }
    static int elu_v4(void) {
        return elu_v3() && ELU_CPU("avx512f") && ELU_CPU("avx512cd") && ELU_CPU("avx512bw") &&
               ELU_CPU("avx512dq") && ELU_CPU("avx512vl");
    }
    #else
    #define elu_v3() 0
    #define elu_v4() 0
    #endif

    #ifdef _OPENMP
    #include <omp.h>
    #define ELU_OPENMP _OPENMP
    #else
    #define ELU_OPENMP 0
    #endif

    #if ELU_OPENMP >= 201511
    static int elu_bound_cpus(void) {
        int cpus = 0;
        if (omp_get_proc_bind() != omp_proc_bind_false)
            for (int place = omp_get_num_places(); place-- > 0;) cpus += omp_get_place_num_procs(place);
        return cpus;
    }
    #else
    #define elu_bound_cpus() 0
    #endif

    #if defined(__linux__) && ELU_OPENMP
    #include <link.h>
    static int elu_holds(const struct dl_phdr_info *object, uintptr_t address) {
        for (int i = 0; i < object->dlpi_phnum; i++)
            if (object->dlpi_phdr[i].p_type == PT_LOAD &&
                address - object->dlpi_addr - object->dlpi_phdr[i].p_vaddr < object->dlpi_phdr[i].p_memsz)
                return 1;
        return 0;
    }
    static int elu_visit(struct dl_phdr_info *object, size_t size, void *unused) {
        (void)size, (void)unused;
        return elu_holds(object, (uintptr_t)elu_visit) ? 1 : elu_holds(object, (uintptr_t)omp_get_max_threads) ? 2 : 0;
    }
    /* Objects are visited in the order of loading. */
    #define elu_openmp_was_loaded() (dl_iterate_phdr(elu_visit, NULL) == 2)
    #else
    #define elu_openmp_was_loaded() 0
    #endif

    #if defined(__APPLE__)
    #include <sys/sysctl.h>
    static long elu_cache_bytes(void) {
        int64_t bytes = 0;
        size_t size = sizeof bytes;
        if (sysctlbyname("hw.l3cachesize", &bytes, &size, NULL, 0) || bytes <= 0)
            if (sysctlbyname("hw.l2cachesize", &bytes, &size, NULL, 0)) return 0;
        return (long)bytes;
    }
    #else
    #define elu_cache_bytes() 0L
    #endif

    #if defined(__clang__)
    #define ELU_COMPILER "clang " __clang_version__
    #elif defined(__GNUC__)
    #define ELU_COMPILER "gcc " __VERSION__
    #else
    #define ELU_COMPILER "other"
    #endif
    """
    bint elu_v3()
    bint elu_v4()
    long elu_cache_bytes()
    int elu_bound_cpus()
    bint elu_openmp_was_loaded()
    const char* ELU_COMPILER
    const int ELU_OPENMP

OPENMP = ELU_OPENMP != 0
COMPILER = ELU_COMPILER.decode().strip()
MAX_THREADS = 1024


def cpu_levels() -> tuple[str, ...]:
    """Levels that the CPU and the system support, best first: each with exactly what setup.py compiles it for."""
    return ("v4",) * elu_v4() + ("v3",) * elu_v3() + ("base",)


def cache_bytes(root: str = "/") -> int:
    """Bytes of the last-level cache, 0 if the system does not say. Of Linux its own account, not sysconf's."""
    caches = {}
    folder = os.path.join(root, "sys/devices/system/cpu/cpu0/cache")
    for index in os.listdir(folder) if os.path.isdir(folder) else ():
        size = _read(folder, index, "size")
        if size.endswith("K") and _read(folder, index, "type") != "Instruction":
            caches[_read(folder, index, "level")] = int(size[:-1]) << 10
    return caches[max(caches)] if caches else elu_cache_bytes()


def inherits_openmp(root: str = "/") -> bool:
    """Whether this process is a fork that had the OpenMP library loaded before this module: its first parallel region
    would wait for threads that it does not have, if the parent had used it. Linux marks a process that has not called
    exec since its fork (PF_FORKNOEXEC); elsewhere the answer is False."""
    flags = _read(root, "proc/self/stat").rpartition(")")[2].split()[6:7]
    return bool(flags) and int(flags[0]) & 0x40 != 0 and elu_openmp_was_loaded()


def _read(*path: str) -> str:
    try:
        with open(os.path.join(*path), encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _cgroup_quota(root: str = "/") -> float:
    """CPUs that the cgroups (version 2 or 1) of this process allow, in CPUs."""
    quotas = [float("inf")]
    for line in _read(root, "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = "sys/fs/cgroup/cpu" if controllers else "sys/fs/cgroup"  # of version 1, of version 2
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
        folders = group.strip("/").split("/")
        for depth in range(len(folders) + 1):  # a limit on any ancestor holds
            words = " ".join(_read(root, base, *folders[:depth], name) for name in names).split()
            if len(words) == 2 and words[0] not in ("max", "-1") and words[1] != "0":
                quotas.append(int(words[0]) / int(words[1]))
    return min(quotas)


def cpus() -> int:
    """CPUs that this process may use: its affinity mask, rounded down to the cgroup quota, at least 1. Where OpenMP
    binds threads (OMP_PROC_BIND), the main thread's mask is its own place: all places count."""
    count = os.cpu_count() or 1
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count
    return max(1, int(min(max(available, min(elu_bound_cpus(), count)), _cgroup_quota())))


def default_num_threads() -> int:
    """OMP_NUM_THREADS if it is set, else the CPUs, of either as many as a call takes; 1 without OpenMP."""
    if not ELU_OPENMP:
        return 1
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(int(first) if first.isdecimal() and int(first) else cpus(), MAX_THREADS)
