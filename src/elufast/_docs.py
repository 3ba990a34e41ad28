"""The docstrings of the public functions and ufuncs: each paragraph once, put together by name."""

from __future__ import annotations

_SUMMARY = {
    "elu": ("Exponential linear unit", "``alpha * expm1(x)`` for x < 0, else ``x``"),
    "selu": (
        "Scaled exponential linear unit",
        "``scale * alpha * expm1(x)`` for x < 0, else ``scale * x``, with `SELU_ALPHA` and `SELU_SCALE`",
    ),
    "celu": (
        "Continuously differentiable exponential linear unit",
        "``alpha * expm1(x / alpha)`` for x < 0, else ``x``. With alpha = 1 it is `elu`, to the bit",
    ),
}
_GRADIENT = {
    "elu": ("``grad * alpha * exp(x)`` for x <= 0, else ``grad``", "``y + alpha``", "alpha", "x = -17.33", "-37.43"),
    "selu": (
        "``grad * scale * alpha * exp(x)`` for x <= 0, else ``grad * scale``",
        "``y + scale * alpha``",
        "scale * alpha",
        "x = -17.33",
        "-37.43",
    ),
    "celu": (
        "``grad * exp(x / alpha)`` for x <= 0, else ``grad``",
        "``y / alpha + 1``",
        "alpha",
        "x = -17.33 alpha",
        "-37.43 alpha",
    ),
}
_ALPHA = {
    "elu": "The limit for x to minus infinity is -alpha. Any finite real number; it is not rounded to x's dtype.",
    "celu": "The limit for x to minus infinity is -alpha. Any finite real number but 0.",
}
_REFERENCE = {
    "elu": """D.-A. Clevert, T. Unterthiner, S. Hochreiter, "Fast and Accurate Deep Network Learning by
    Exponential Linear Units (ELUs)", ICLR 2016, eq. 15 and 16.""",
    "selu": """G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, "Self-Normalizing Neural Networks",
    NeurIPS 2017, eq. 2 and 14.""",
    "celu": """J. T. Barron, "Continuously Differentiable Exponential Linear Units", 2017, eq. 2.""",
}
_EXAMPLE = {
    "elu": """
    >>> elufast.elu(np.array([-2.3949, -0.2037226, 0.0, 1.5], np.float32))
    array([-0.9088182 , -0.18431139,  0.        ,  1.5       ], dtype=float32)
    >>> elufast.elu(np.zeros((2, 2)), bias=np.array([-1.0, 1.0]))
    array([[-0.63212056,  1.        ],
           [-0.63212056,  1.        ]])""",
    "selu": """
    >>> elufast.selu(np.array([-1.0, 0.0, 1.0]))
    array([-1.11133074,  0.        ,  1.05070099])""",
    "celu": """
    >>> elufast.celu(np.array([-4.0, 0.0, 1.0]), alpha=2.0)
    array([-1.72932943,  0.        ,  1.        ])""",
    "elu_": """
    >>> x = np.array([-1.0, 2.0])
    >>> elufast.elu_(x) is x
    True
    >>> x
    array([-0.63212056,  2.        ])""",
    "selu_": """
    >>> x = np.array([-1.0, 2.0])
    >>> elufast.selu_(x)
    array([-1.11133074,  2.10140197])""",
    "celu_": """
    >>> x = np.array([-1.0, 2.0])
    >>> elufast.celu_(x, alpha=0.5)
    array([-0.43233236,  2.        ])""",
    "elu_backward": """
    >>> x = np.array([-20.0, -1.0, 2.0])
    >>> elufast.elu_backward(np.ones(3), x)
    array([2.06115362e-09, 3.67879441e-01, 1.00000000e+00])
    >>> elufast.elu_backward(np.ones(3), elufast.elu(x), from_output=True)
    array([2.06115358e-09, 3.67879441e-01, 1.00000000e+00])""",
    "selu_backward": """
    >>> elufast.selu_backward(np.ones(2), np.array([-1.0, 2.0]))
    array([0.6467686 , 1.05070099])""",
    "celu_backward": """
    >>> elufast.celu_backward(np.ones(2), np.array([-1.0, 2.0]), alpha=2.0)
    array([0.60653066, 1.        ])""",
}
_DTYPES = "Float16, bfloat16 (of ml_dtypes), float32 or float64, of any shape, strides and byte order."
_OTHERS = """An object with ``__array_ufunc__`` (Dask, xarray, pandas, masked arrays ...) gives its own kind back."""


def _section(title: str, *entries: str) -> str:
    return f"\n    {title}\n    {'-' * len(title)}\n" + "".join(f"    {entry.strip()}\n" for entry in entries if entry)


def _parameters(family: str, kind: str) -> str:
    alpha = f"""alpha : float or array_like, default 1.0
        {_ALPHA.get(family)}
        An array, which broadcasts against x, is slower."""
    positive = "\n        With ``from_output=True`` it must be positive." if kind == "_backward" else ""
    return _section(
        "Parameters",
        """grad : array_like
        Gradient of the result, of the shape and dtype of x."""
        if kind == "_backward"
        else "",
        f"""x : ndarray
        Writeable. {_DTYPES}"""
        if kind == "_"
        else f"""x : array_like
        {_DTYPES}
        {"With ``from_output=True`` the result of the forward pass instead." if kind else _OTHERS}""",
        alpha + positive if family in _ALPHA else "",
        f"""from_output : bool, default False
        Whether the second argument is the forward result y, which is what an in-place forward pass
        leaves. The derivative is then {_GRADIENT[family][1]} for y <= 0, as fast as memory allows."""
        if kind == "_backward"
        else "",
        """bias : array_like, optional
        Is added to x first, in the same pass, without an array of the size of x. Of the dtype of x (or float32, for
        half precision, in which the sum is not rounded), and of a shape that broadcasts to that of x.""",
        """out : ndarray, optional
        Where to write the result: the shape and dtype of x. ``out=x`` works in place."""
        if kind != "_"
        else "",
        """num_threads : int, optional
        At most so many threads. By default as many as the work repays, up to `get_num_threads`.""",
    )


def function(name: str) -> str:
    """The docstring of a public function."""
    family, kind = name.rstrip("_").partition("_")[0], name[name.index("lu") + 2 :]
    title, formula = _SUMMARY[family]
    second = "grad, x or out" if kind == "_backward" else "x or out"
    if kind == "_backward":
        text = f"Gradient of `{family}`: grad times the derivative at x.\n\n    {_GRADIENT[family][0]}.\n"
        notes = f"""The derivative's error is at most 1.0 ulp, that of the product at most 1.5 ulp; in half precision
    at most 0.501 ulp. At x = 0 it is the derivative from below. An infinite grad gives an infinite result.

    From the output no such bound holds: y has rounded the derivative away, to an absolute error of half
    an ulp of {_GRADIENT[family][2]}, so the result is 0 below {_GRADIENT[family][3]} in float32,
    {_GRADIENT[family][4]} in float64, and half of its digits are lost at half of that."""
    elif kind == "_":
        text = f"`{family}` in place.\n"
        notes = f"The values of `{family}`, to the bit: at most 1.0 ulp from the exact ones."
    else:
        text = f"{title}.\n\n    {formula}.\n"
        notes = """The error is at most 1.0 ulp, in half precision at most 0.501 ulp. Zeros keep their sign, NaN stays
    NaN, subnormals are not flushed."""
    returns = (
        "ndarray\n        x itself."
        if kind == "_"
        else """ndarray or scalar
        ``out`` if given, else a new array with the memory order of x (a NumPy scalar for a scalar)."""
    )
    alpha = "alpha is not finite" + (" or is 0" if family == "celu" else "")
    alpha += ", or not positive with ``from_output=True``" if kind == "_backward" else ""
    return (
        text
        + _parameters(family, kind)
        + _section("Returns", returns)
        + _section(
            "Raises",
            f"""TypeError
        If {second} has another dtype or theirs differ{"; if x is no ndarray" if kind == "_" else ""}; if an argument is
        of a type that it cannot have.""",
            f"""ValueError
        If {second} differ in shape or what is to be written is read-only; if a bias or an alpha does not broadcast
        to the shape of x{"; if " + alpha if family in _ALPHA else ""}. Nothing is written then.""",
        )
        + _section("Notes", notes)
        + _section("References", _REFERENCE[family])
        + _section("Examples", _EXAMPLE[name])
    )


def ufunc(name: str) -> str:
    """The docstring of a ufunc, to which NumPy adds the signature."""
    family, _, kind = name.partition("_")
    operands = ("grad, " if kind else "") + ("y" if kind == "from_output" else "x")
    operands += ", alpha" if family in _ALPHA else ""
    if not kind:
        title, formula = _SUMMARY[family]
        formula = formula.replace("`SELU_", "`elufast.SELU_")
        return f"{title} of ({operands}): {formula}. The bits of `elufast.{family}`."
    operands += ", from_output=True" if kind == "from_output" else ""
    return f"Gradient of `elufast.{family}`, with the bits of ``elufast.{family}_backward({operands})``."
