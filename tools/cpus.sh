#!/usr/bin/env bash
# Tests on CPUs that this machine is not, by emulation.
#
#   tools/cpus.sh noavx|aarch64|avx512 PYTHON [quick]
#
# noavx: which level each of five CPUs gets, and the tests on one without AVX. aarch64: the tests, and the bits of v3.
# avx512: v4 is chosen, gives the bits of v3, and passes the special values and the worst known inputs. Bits are
# compared on 10^6 inputs of every function and dtype (INPUTS=n; with quick 10^5, and no tests).
#
# PYTHON has elufast and what its tests need (.venv/bin/python). $EMULATE is a folder with the scripts that run a
# command on another CPU: old-x86-run.sh CPU COMMAND..., aarch64-test.sh SOURCE COMMAND... and
# avx512-python.sh SCRIPT FILE... -- ARGUMENT... (QEMU and Bochs). Without them: noavx takes qemu-x86_64 itself,
# avx512 this CPU if it has AVX-512, and aarch64 ends with status 2.
set -euo pipefail
cd "$(dirname "$0")/.."
what=$1 python=$2 quick=${3:-}
emulate=${EMULATE:-../shared/emulate}
PATH=$PATH:/usr/sbin # for chroot
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE ELUFAST_ISA # NumPy's library would believe the former
mkdir -p build

level='import elufast; print(elufast.runtime_info()["level"])'
has() { [ -x "$emulate/$1" ] || { echo "$what: $emulate/$1 is missing (set EMULATE to the folder with it)"; return 1; }; }
expect() { # expect WANTED COMMAND...
    local wanted=$1 got status=0
    shift
    got=$("$@" 2>&1) || status=$?
    got=$(tail -n 1 <<<"$got")
    # Its own words alone: what runs on it may end with 3 too.
    [[ $status != 3 || $got != old-x86-run:* ]] || { echo "$what: $got"; exit 2; }
    [[ $got == *"$wanted"* ]] || { echo "$what: wanted $wanted, got $got (status $status) from: ${*:0:3}"; exit 1; }
}
v3_bits() { # what this machine prints, to compare with
    ELUFAST_ISA=v3 "$python" tools/bits.py --inputs "$1" >build/bits-v3.txt || {
        echo "$what: no bits of this machine to compare with (they need AVX2 and FMA)"
        exit 2
    }
}

noavx() {
    local run=()
    if has old-x86-run.sh; then
        run=("$emulate/old-x86-run.sh")
    elif command -v qemu-x86_64 >/dev/null; then
        echo "$what: by qemu-x86_64; programs that the tests start run on this CPU"
        run=(qemu-x86_64 -cpu)
    else
        echo "$what: qemu-x86_64 is missing too (apt-get install qemu-user)"
        exit 2
    fi
    local real
    real=$("$python" -c 'import sys; print(sys.executable)')
    expect base "${run[@]}" Nehalem "$real" -c "$level"
    expect base "${run[@]}" SandyBridge,-x2apic,-tsc-deadline "$real" -c "$level"
    expect base "${run[@]}" max,-avx2 "$real" -c "$level"
    expect base "${run[@]}" max,-fma "$real" -c "$level"
    expect v3 "${run[@]}" Haswell,-x2apic,-tsc-deadline,-pcid,-invpcid,-hle,-rtm "$real" -c "$level"
    expect "this CPU and this build of elufast have base" \
        "${run[@]}" Nehalem "$real" -c "import os; os.environ['ELUFAST_ISA'] = 'v3'; import elufast"
    echo "$what: the level is base on Nehalem, on Sandy Bridge, without AVX2 and without FMA; v3 on Haswell"
    [ -n "$quick" ] || "${run[@]}" Nehalem "$real" -m pytest -q -p no:cacheprovider "${SLOW[@]}"
}

aarch64() {
    has aarch64-test.sh || exit 2
    local inputs=${INPUTS:-1000000}
    [ -z "$quick" ] || inputs=${INPUTS:-100000}
    v3_bits "$inputs"
    cp build/bits-v3.txt tools/bits-v3.txt # what is copied to the other side leaves build out
    trap 'rm -f tools/bits-v3.txt' EXIT
    EMUL_EXTRAS=test-core "$emulate/aarch64-test.sh" . bash -ec "python3 tools/bits.py --inputs $inputs --against tools/bits-v3.txt
        ${quick:+exit}
        python3 -m pytest -q -p no:cacheprovider ${SLOW[*]}"
}

avx512() {
    local inputs=${INPUTS:-1000000} run=() package packages=()
    [ -z "$quick" ] || inputs=${INPUTS:-100000}
    v3_bits "$inputs"
    local pytest='import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))'
    local slice=(-q -p no:cacheprovider tests/test_values.py tests/test_accuracy.py
        -k "v4 and (special or worst_known or not_flushed or not_rounded or alpha_beyond)")
    if has avx512-python.sh; then
        export AVX512_CACHE=${AVX512_CACHE:-$HOME/.cache/avx512} AVX512_BOCHS=${AVX512_BOCHS:-trixie}
        make --silent build/wheel/ready
        for package in build/wheel/elufast-*.whl numpy pytest hypothesis mpmath; do packages+=(--pip "$package"); done
        run=("$emulate/avx512-python.sh" -t 3000 --python "$python" "${packages[@]}")
        local status=0
        "${run[@]}" tools/bits.py build/bits-v3.txt -- --inputs "$inputs" --against bits-v3.txt \
            2>build/bits-v4.log | tee build/bits-v4.txt || status=$?
        cat build/bits-v4.log >&2
        # Its own words alone: a program that it did not come to the end of is a failure.
        if ((status == 125)) && grep -qE '^avx512-run: (could not|apt|debootstrap|this Bochs) ' build/bits-v4.log; then
            exit 2
        fi
        ((status == 0)) || exit "$status"
        [ -n "$quick" ] || "${run[@]}" -c "$pytest" tests pyproject.toml tools -- "${slice[@]}"
    elif "$python" -c 'from elufast import _runtime as r; raise SystemExit("v4" not in r.cpu_levels())'; then
        echo "$what: this CPU has AVX-512, so on it"
        "$python" tools/bits.py --inputs "$inputs" --against build/bits-v3.txt 2>&1 | tee build/bits-v4.txt
        [ -n "$quick" ] || "$python" -m pytest "${slice[@]}"
    else
        echo "$what: this CPU lacks AVX-512 too"
        exit 2
    fi
    grep -q "^v4: " build/bits-v4.txt || { echo "$what: v4 was not the level chosen"; exit 1; }
}

# What emulation makes too slow (minutes each), is about other libraries, reads /proc/cpuinfo, which is the host's, or
# the flags in /proc/self/stat, which QEMU leaves 0, sets RLIMIT_AS or RLIMIT_DATA, which it leaves out, or goes by
# the time that a call takes.
SLOW=(
    --ignore=tests/test_cli.py --ignore=tests/test_docs.py --ignore=tests/test_keras.py --ignore=tests/test_others.py
    --ignore=tests/test_sklearn.py --ignore=tests/test_torch.py
    --deselect=tests/test_memory.py::test_no_room_for_a_result
    --deselect=tests/test_memory.py::test_nothing_is_kept_where_addresses_are_limited
    --deselect=tests/test_threads.py::test_late_threads_are_given_a_rest
    --ignore=tests/test_coefficients.py --ignore=tests/test_examples.py --ignore=tests/test_packaging.py
    --deselect=tests/test_accuracy.py::test_every_float32_from_minus_20_to_minus_2_to_the_minus_26
    --deselect=tests/test_runtime.py::test_levels_are_those_the_kernel_names
    --deselect=tests/test_processes.py::test_first_import_is_in_the_child
    "--deselect=tests/test_processes.py::test_fork_after_another_librarys_work[torch-child]"
)
"$what"
