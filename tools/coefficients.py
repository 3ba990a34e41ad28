"""Derives every coefficient and constant of src/elufast/_elu.h and prints them as the header has them.

    python tools/coefficients.py            print
    python tools/coefficients.py --check    compare with the header; exit 1 naming what differs

The polynomials are minimax fits (Remez' algorithm) of q in expm1(r) = r + r^2 q(r). Coefficients are
rounded one after another, the leading one first, and what remains is fitted anew each time, which
keeps nearly all of the accuracy: Sollya's ``fpminimax`` reaches 2^-31.96 and 2^-61.52 on the double
ones. All arithmetic is mpmath's, at 160 bits.
"""

from __future__ import annotations

import argparse
import re
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mpmath  # type: ignore[import-untyped]

HEADER = Path(__file__).parents[1] / "src" / "elufast" / "_elu.h"
POINTS = 360  # at which a fit is made; with 800 the errors are the same in all digits printed

mp = mpmath.MPContext()
mp.prec = 160
Real = Any  # mpmath has no types

ONE = mp.mpf(1)
LN2 = mp.log(2)

# Rounding z / ln2 to n leaves |r| <= ln2 / 2 and what log2(e), as rounded, shifts the point where n changes:
# 2^-25 |z| for float, |z| <= 264 in all, 2^-53 |z| for double. Both are below 0.3466 - ln2 / 2 = 2.6e-5.
EDGE = mp.mpf("0.3466")
assert LN2 / 2 + 264 * mp.mpf(2) ** -25 < EDGE


@dataclass(frozen=True)
class Polynomial:
    """One polynomial q of the header: ``terms`` coefficients of ``bits`` bits, the first ``fixed`` if given."""

    function: str
    terms: int
    bits: int
    weight: Callable[[Real], Real]
    meaning: str
    fixed: tuple[Real, ...] = ()


def relative(r: Real) -> Real:
    return 1 / abs(mp.expm1(r))


def by_result(r: Real) -> Real:
    """For r < 0 expm1(r) is the result (n = 0); for r > 0 the largest of them is 1 - e^r / 2 (n = -1)."""
    return relative(r) if r < 0 else 1 / (2 - mp.exp(r))


POLYNOMIALS = (
    Polynomial("elu_poly_d", 6, 53, relative, "relative to expm1(r)"),
    Polynomial("elu_poly_f", 5, 24, by_result, "relative to expm1(r), r < 0, and 2 - e^r, r > 0"),
    Polynomial(
        "elu_poly_a_f", 6, 24, by_result, "relative to expm1(r), r < 0, and 2 - e^r, r > 0; 1/2 is exact", (ONE / 2,)
    ),
    Polynomial("elu_poly_64", 11, 53, relative, "relative to expm1(r); 1/2 is exact", (ONE / 2,)),
)


def rounded(x: Real, bits: int) -> Real:
    """The nearest number of ``bits`` bits, ties to even."""
    mantissa, exponent = mp.frexp(x)
    return mp.ldexp(mp.nint(mp.ldexp(mantissa, bits)), exponent - bits)


def truncated(x: Real, bits: int) -> Real:
    mantissa, exponent = mp.frexp(x)
    return mp.ldexp(mp.floor(mp.ldexp(mantissa, bits)), exponent - bits)


def horner(coefficients: Sequence[Real], x: Real) -> Real:
    value = mp.zero
    for c in reversed(coefficients):
        value = value * x + c
    return value


def remez(xs: list[Real], f: list[Real], weights: list[Real], lowest: int, terms: int) -> tuple[list[Real], Real]:
    """Minimize max |w (x^lowest P(x) - f)| over the points xs; return P's coefficients and the maximum."""
    # x^lowest changes its sign at 0 when lowest is odd: then so does the error where it alternates.
    signed = [w if x > 0 or lowest % 2 == 0 else -w for x, w in zip(xs, weights, strict=True)]
    points = [round(i * (len(xs) - 1) / terms) for i in range(terms + 1)]
    for _ in range(30):
        matrix, right = mp.matrix(terms + 1, terms + 1), mp.matrix(terms + 1, 1)
        for i, j in enumerate(points):
            for column in range(terms):
                matrix[i, column] = xs[j] ** (lowest + column)
            matrix[i, terms], right[i] = (-1) ** i / signed[j], f[j]
        solution = mp.lu_solve(matrix, right)
        coefficients = [solution[i] for i in range(terms)]
        error = [w * (x**lowest * horner(coefficients, x) - y) for x, y, w in zip(xs, f, signed, strict=True)]
        largest = max(abs(e) for e in error)
        if largest < abs(solution[terms]) * (1 + mp.mpf("1e-9")):
            return coefficients, largest
        points = alternating(error, terms + 1)
    raise AssertionError("no convergence")


def alternating(error: list[Real], count: int) -> list[int]:
    """Places of ``count`` large errors of alternating sign."""
    peaks: list[int] = []
    for j, e in enumerate(error):
        if peaks and (e > 0) == (error[peaks[-1]] > 0):
            peaks[-1] = max(peaks[-1], j, key=lambda k: abs(error[k]))
        else:
            peaks.append(j)
    assert len(peaks) >= count
    while len(peaks) > count:
        least = min(range(len(peaks)), key=lambda i: abs(error[peaks[i]]))
        if len(peaks) == count + 1 or least in (0, len(peaks) - 1):
            peaks.pop(0 if abs(error[peaks[0]]) < abs(error[peaks[-1]]) else -1)
        else:
            # Its neighbours have one sign: one of the two stands for all three.
            peaks[least - 1 : least + 2] = [max(peaks[least - 1], peaks[least + 1], key=lambda j: abs(error[j]))]
    return peaks


def fit(p: Polynomial) -> tuple[list[Real], Real, Real]:
    """Coefficients, and the weighted error of the fit before and after they were rounded."""
    xs = [EDGE * mp.cos(mp.pi * (i + 0.5) / POINTS) for i in range(POINTS)]
    left = [(mp.expm1(x) - x) / x**2 for x in xs]
    weights = [p.weight(x) * x**2 for x in xs]
    result: list[Real] = []
    before = None
    for i in range(p.terms):
        if i < len(p.fixed):
            result.append(p.fixed[i])
        else:
            coefficients, largest = remez(xs, left, weights, i, p.terms - i)
            before = before or largest
            result.append(rounded(coefficients[0], p.bits))
        left = [y - result[i] * x**i for x, y in zip(xs, left, strict=True)]
    return result, before, max(abs(w * y) for w, y in zip(weights, left, strict=True))


def literal(x: Real, bits: int) -> str:
    """As C writes it: hexadecimal without trailing zeros, or a whole number."""
    value = float(x)
    assert value == x
    if bits == 0:
        return f"{value:.0f}"
    mantissa, exponent = value.hex().split("p")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}p{exponent}{'f' if bits == 24 else ''}"


def selu() -> tuple[Real, Real]:
    """alpha and scale of SELU: Klambauer et al. 2017, equation 14."""
    e, pi, root2 = mp.e, mp.pi, mp.sqrt(2)
    tail = mp.erfc(1 / root2) * mp.sqrt(e)
    alpha = -mp.sqrt(2 / pi) / (tail - 1)
    variance = 2 * mp.erfc(root2) * e**2 + pi * tail**2 - 2 * (2 + pi) * tail + pi + 2
    return alpha, (1 - tail) * mp.sqrt(2 * pi) / mp.sqrt(variance)


def split(x: Real, bits: int = 53) -> tuple[Real, Real]:
    """x = hi + lo"""
    high = rounded(x, bits)
    return high, rounded(x - high, bits)


@dataclass(frozen=True)
class Constant:
    """The numbers of one define, field or function of the header, in order; ``bits`` 0: whole numbers."""

    owner: str
    values: tuple[Real, ...]
    bits: int
    meaning: str


def between(low: Real, chosen: Real, high: Real) -> Real:
    """``chosen``, for which nothing matters but that it lies between."""
    assert low < chosen < high, (low, chosen, high)
    return mp.mpf(chosen)


def below(bits: int) -> Real:
    """The first whole number at which e^x < 2^-bits."""
    return mp.floor(-bits * LN2)


def constants() -> tuple[Constant, ...]:
    alpha, scale = selu()
    a_hi, a_lo = split(alpha * scale)
    s_hi, s_lo = split(scale)
    ln2, ln2_low = split(LN2)
    ln2_f, ln2_low_f = split(LN2, 24)
    ln2_head = truncated(LN2, 41)
    assert s_lo > 0
    two, third = mp.mpf(2), ONE / 3
    # 2^n is a normal double; any float times e^z is 0, or infinite, as a float; the same for double, times an alpha.
    lowest, highest = -1022 * LN2, 1023 * LN2
    zero_f, infinite_f = -(128 + 150) * LN2, (128 + 149) * LN2
    zero_64 = -(1024 + 1075) * LN2 - mp.log(mp.mpf("1e30"))
    assert (
        two**-40 * mp.exp(-40) * mp.mpf("1e-12") > two**-149 and two**-200 * mp.exp(-300) * mp.mpf("1e-30") > two**-1022
    )
    params = "ELU_SELU_PARAMS"
    return (
        Constant(f"{params}.a_hi", (a_hi,), 53, "scale * alpha, Klambauer et al. 2017, equation 14"),
        Constant(f"{params}.a_lo", (a_lo,), 53, "what a_hi lacks"),
        Constant(f"{params}.s_hi", (s_hi,), 53, "scale"),
        Constant(f"{params}.s_lo", (s_lo,), 53, "what s_hi lacks"),
        Constant(f"{params}.slope", (a_hi,), 53, "scale * alpha"),
        Constant("ELU_ROUND32", (1.5 * two**23,), 24, "the ulp is 1"),
        Constant("ELU_ROUND64", (1.5 * two**52,), 53, "the ulp is 1"),
        Constant("ELU_LOG2E", (rounded(1 / LN2, 53),), 53, "1 / ln2"),
        Constant("ELU_LN2", (ln2,), 53, "ln2"),
        Constant("ELU_LOG2E_F", (rounded(1 / LN2, 24),), 24, "1 / ln2"),
        Constant("ELU_LN2_F", (ln2_f,), 24, "ln2"),
        Constant("ELU_LN2_LO_F", (ln2_low_f,), 24, "ln2 - ELU_LN2_F"),
        Constant("ELU_LN2_LO", (ln2_low,), 53, "with FMA: ln2 - ELU_LN2"),
        Constant("ELU_LN2_HI", (ln2_head,), 53, "without: 41 bits of ln2, exact times n < 2^12"),
        Constant("ELU_LN2_LO", (rounded(LN2 - ln2_head, 53),), 53, "ln2 less these"),
        Constant(
            "elu_expm1_d",
            (between(lowest, -40, below(50)), *2 * (between(infinite_f, 700, highest),)),
            0,
            "expm1 is -1 to 2^-57; e^z is infinite as a float",
        ),
        Constant(
            "elu_backward_d",
            (between(lowest, -700, zero_f), *2 * (between(infinite_f, 700, highest),)),
            0,
            "e^z is 0, or infinite, as a float, times any grad",
        ),
        Constant("elu_forward_unit_f32", (below(25),), 0, "expm1 rounds to -1"),
        Constant("elu_scaled_expm1_f", (below(28),), 0, "e^z is less than 1/16 ulp"),
        *(
            Constant(function, (limit,), 24, "grad 2^n is normal, times alpha >= 1e-12 not 0")
            for function, limit in (
                ("ELU_LOW32", mp.mpf(-40)),
                ("elu_extreme", two**-40),
                ("elu_small_f32", two**-40),
            )
        ),
        Constant("elu_grad_scaled_exp_f", (two**-20,), 24, "any small number"),
        Constant(
            "elu_forward_celu_f32", (below(28), -(two**-26)), 24, "as above; z / 2 is less than a quarter ulp of 1"
        ),
        Constant("elu_expm1_64", (between(lowest, -64, below(60)),), 0, "expm1 is -1 to 2^-92"),
        Constant(
            "elu_scaled_expm1_64",
            (between(-(two**-54), -(two**-900), -(two ** -(1022 - 53))),),
            53,
            "A x is the result, and not yet subnormal",
        ),
        Constant("elu_forward_celu_f64", (-(two**-54),), 53, "z / 2 is less than a quarter ulp of 1"),
        *(
            Constant(function, limits, 53, "grad 2^n alpha is normal, alpha >= 1e-30")
            for function, limits in (
                ("ELU_LOW64", (mp.mpf(-300),)),
                ("elu_note_f64", (two**-200,)),
                ("elu_small_f64", (two**-200,)),
            )
        ),
        Constant("elu_exp_64", (two**-20,), 53, "any small number"),
        Constant(
            "elu_grad_times",
            (mp.mpf(200), mp.mpf(-200), two**200, two**-200, rounded(third, 53)),
            53,
            "far from either end of the range; 1/3",
        ),
        Constant(
            "elu_far_64",
            (between(-3 * 1022 * LN2 + 200 * LN2, -1530, zero_64),),
            0,
            "2^n * DBL_MAX * 1e30 is less than half the smallest double",
        ),
        Constant(
            "elu_prepare",
            (rounded(mp.mpf("1e37"), 53), rounded(mp.mpf("1e300"), 53)),
            53,
            "alpha and its inverse are normal, as a float and as a double, with some room",
        ),
        Constant("elu_prepare", (rounded(mp.mpf("1e12"), 53),), 53, "2^-40 times its inverse is normal as a float"),
        Constant(
            "elu_prepare",
            tuple(map(mp.mpf, (52, 1023, 1000, 1000, -1022, -1022, 1023))),
            0,
            "bits and bias of a double; 2^shift and its inverse are normal",
        ),
        Constant("elu_prepare", (mp.mpf(-64), mp.mpf(-1530)), 0, "as elu_low_celu"),
        Constant("elu_prepare", (rounded(mp.mpf("1e12"), 53),), 53, "of CELU too"),
        Constant(
            "elu_prepare",
            2 * (between(two**153, rounded(mp.mpf("1e100"), 53), two ** (1024 - 128)),),
            53,
            "CELU of any float x: x / alpha is below half an ulp of 1, or finite for the inverse",
        ),
        Constant(
            "elu_low_celu",
            (
                between(lowest, -64, below(60)),
                between(-3 * 1022 * LN2 + 200 * LN2, -1530, zero_64),
                between(1025 * LN2, 712, 1077 * LN2),
                between((1024 + 1074) * LN2, 1500, 3 * highest - 200 * LN2),
            ),
            0,
            "as elu_expm1_64 and elu_far_64; alpha expm1 is infinite; any grad 2^n is infinite",
        ),
        Constant(
            "elu_prepare_scalars",
            (two**-24 * mp.mpf(17) / 16, two**-50, between(1025 * LN2, 1418, 2 * highest), mp.mpf(-64), mp.mpf(-1530)),
            53,
            "1 / alpha rounded to a float; the product of two doubles; the largest 2^(n/2); as elu_low_celu",
        ),
        Constant(
            "elu_far_alpha", (mp.mpf(52), mp.mpf(1023), mp.mpf(900), mp.mpf(1023), mp.mpf(100)), 0, "room at the ends"
        ),
        Constant("elu_nonzero", (mp.mpf(63),), 0, "the sign bit"),
        Constant("elu_odd", 2 * (mp.mpf(63),), 0, "the sign bit"),
        Constant("elu_forward_exact_f32", (two**-110,), 53, "less than any rest of a product of two doubles"),
        Constant(
            "elu_divided", (mp.mpf(1022), two**-54), 53, "2^-1022 is normal; z / 2 is less than a quarter ulp of 1"
        ),
    )


def derived() -> Iterator[tuple[str, list[float], str]]:
    """Each owner with its numbers, in the header's order, and the text to print."""
    for p in POLYNOMIALS:
        coefficients, before, after = fit(p)
        texts = [literal(c, p.bits) for c in coefficients]
        title = (
            f"/* {p.function}: q of expm1(r) = r + r^2 q(r), |r| <= {mp.nstr(EDGE, 4)}, degree {p.terms + 1} in all, "
            f"error 2^{mp.nstr(mp.log(before, 2), 4)},\n"
            f" * 2^{mp.nstr(mp.log(after, 2), 4)} with coefficients rounded, {p.meaning} */"
        )
        yield (
            p.function,
            [float(c) for c in reversed(coefficients[len(p.fixed) :])],
            "\n".join([title, *reversed(texts)]),
        )
    for c in constants():
        texts = [literal(v, c.bits) for v in c.values]
        yield c.owner, [float(v) for v in c.values], f"{c.owner:30} {', '.join(texts):26} /* {c.meaning} */"


NUMBER = re.compile(r"(?<![\w.])(?:<< ?\d+|0x[\da-f.]+p[+-]?\d+|0x[\da-f]{8,16}u|\d+\.?\d*(?:e[+-]?\d+)?)(?=f?\b)")
OWNER = re.compile(r"#define (\w+)|static inline [\w ]+?\*?(elu_\w+)\(|static const \w+ (\w+) =|^ +(\.\w+) =")


def written(header: str) -> Iterator[tuple[str, list[float]]]:
    """Each owner in the header with its constants: hexadecimal, bit patterns, decimal ones from 10 up."""
    code = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    owner, group, numbers = "", "", list[float]()
    for line in [*code.splitlines(), "#define end"]:
        found = OWNER.search(line)
        if found:
            if numbers:
                yield owner, numbers
            define, function, constant, field = found.groups()
            group = constant or group
            owner, numbers = define or function or constant or group + field, []
        for match in NUMBER.finditer(line):
            text = match[0]
            if text.startswith("<<"):
                continue
            sign = -1 if re.search(r"(?:^|[(,=?<>:]|define \w+) *-$", line[: match.start()]) else 1
            if text.endswith("u"):
                value = struct.unpack(">f" if len(text) < 12 else ">d", bytes.fromhex(text[2:-1]))[0]
            else:
                value = sign * (float.fromhex(text) if "x" in text else float(text))
            if "x" in text or abs(value) >= 10:
                numbers.append(value)


def differences(header: str) -> list[str]:
    """What the header has otherwise than derived."""
    expected = [(owner, values) for owner, values, _ in derived()]
    found = [(owner, values) for owner, values in written(header)]
    found = [(o, [v for v in vs if v not in (127, 1023)] if "ROUND" in o else vs) for o, vs in found]
    messages = []
    for owner in dict.fromkeys(owner for owner, _ in [*expected, *found]):
        have = [v for o, values in found if o == owner for v in values]
        want = [v for o, values in expected if o == owner for v in values]
        if len(have) != len(want):
            messages.append(f"{owner}: the header has {len(have)} constants, {len(want)} are derived")
        messages += [
            f"{owner}, constant {i}: the header has {h.hex()}, derived is {w.hex()}"
            for i, (h, w) in enumerate(zip(have, want, strict=False), 1)
            if h != w
        ]
    return messages


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="compare with the header")
    arguments = parser.parse_args()
    if not arguments.check:
        for _, _, text in derived():
            print(text)
        return 0
    messages = differences(HEADER.read_text())
    print("\n".join(messages) or "Every constant of _elu.h is as derived.")
    return int(bool(messages))


if __name__ == "__main__":
    sys.exit(main())
