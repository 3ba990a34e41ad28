from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import coefficients


@pytest.fixture(scope="module")
def header() -> str:
    return coefficients.HEADER.read_text()


@pytest.fixture(scope="module", autouse=True)
def derived_once() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        result = list(coefficients.derived())
        patch.setattr(coefficients, "derived", lambda: result)
        yield


def test_every_constant_of_the_header_is_as_derived(header: str) -> None:
    assert coefficients.differences(header) == []


def test_one_bit_of_any_constant_is_noticed(header: str) -> None:
    """The last digit of each hexadecimal number, in turn, changed by its lowest bit."""
    code = re.sub(r"/\*.*?\*/", lambda comment: " " * len(comment[0]), header, flags=re.DOTALL)
    found = list(re.finditer(r"0x1\.[\da-f]+(?=p)", code))
    assert len(found) > 40
    for number in found:
        end = number.end()
        digit = f"{int(header[end - 1], 16) ^ 1:x}"
        changed = header[: end - 1] + digit + header[end:]
        assert len(coefficients.differences(changed)) == 1, number[0]


def test_decimal_constant_is_noticed(header: str) -> None:
    assert coefficients.differences(header.replace("elu_clamp_bits(x, -18)", "elu_clamp_bits(x, -17)")) != []


def test_missing_constant_is_noticed(header: str) -> None:
    assert coefficients.differences(header.replace("fmaf(q, r, 0x1.fffff4p-2f)", "q")) != []


@pytest.mark.parametrize(
    ("function", "bits"), [("elu_poly_d", 31.9), ("elu_poly_f", 27.1), ("elu_poly_a_f", 32.1), ("elu_poly_64", 61.6)]
)
def test_error_of_the_rounded_polynomial_is_as_the_header_says(function: str, bits: float) -> None:
    polynomial = next(p for p in coefficients.POLYNOMIALS if p.function == function)
    _, before, after = coefficients.fit(polynomial)
    assert before <= after < 2.0**-bits
