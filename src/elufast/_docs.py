"""The docstrings of the public functions and ufuncs: each paragraph once, put together by name."""

from __future__ import annotations

_SECTIONS = ("Parameters", "Returns", "Raises", "Notes", "References", "Examples")
_RAISES = """TypeError
    If an array has another dtype, or arrays differ in it; if an argument is of a type that it cannot have.
ValueError
    If arrays differ in shape or what is to be written is read-only; if a bias or an alpha is not as above.
    Nothing is written then."""
_NEW = """ndarray or scalar
    ``out`` if given, else a new array with the memory order of x (a NumPy scalar for a scalar)."""
_KINDS = {
    "": {
        "summary": "{title}.\n\n{formula}",
        "Parameters": "x alpha bias out num_threads",
        "Returns": _NEW,
        "Notes": """The error is at most 1.0 ulp, in half precision at most 0.501 ulp. Zeros keep their sign, NaN stays
NaN, subnormals are not flushed.""",
    },
    "_": {
        "summary": "`{family}` in place",
        "Parameters": "x_ alpha bias num_threads",
        "Returns": "ndarray\n    x itself.",
        "Notes": "The values of `{family}`, to the bit: at most 1.0 ulp from the exact ones.",
        "Examples": ">>> x = np.array([-1.0, 2.0])\n>>> elufast.{family}_(x) is x\nTrue",
    },
    "_backward": {
        "summary": "Gradient of `{family}`: grad times the derivative at x.\n\n{gradient}",
        "Parameters": "grad x_backward alpha alpha_backward from_output bias out num_threads",
        "Returns": _NEW,
        "Notes": """The derivative's error is at most 1.0 ulp, that of the product at most 1.5 ulp; in half precision
at most 0.501 ulp. At x = 0 it is the derivative from below. An infinite grad gives an infinite result.

From the output no such bound holds: y has rounded the derivative away, to an absolute error of half an ulp of its
limit at minus infinity, so the result is 0 below x = -17.33 in float32, -37.43 in float64 (CELU: x / alpha), and
half of its digits are lost at half of that.""",
    },
}
_DTYPES = "Float16, bfloat16 (of ml_dtypes), float32 or float64, of any shape, strides and byte order."
_PARAMETERS = {
    "grad": "grad : array_like\n    Gradient of the result, of the shape and dtype of x.",
    "x": f"""x : array_like
    {_DTYPES}
    An object with ``__array_ufunc__`` (Dask, xarray, pandas, masked arrays ...) gives its own kind back.""",
    "x_": f"x : ndarray\n    Writeable. {_DTYPES}",
    "x_backward": f"x : array_like\n    {_DTYPES}\n    With ``from_output=True`` the forward pass's result instead.",
    "alpha": """alpha : float or array_like, default 1.0
    The limit for x to minus infinity is -alpha. Any finite real number{domain}.
    An array, which broadcasts against x, is slower.""",
    "alpha_backward": "    With ``from_output=True`` it must be positive.",
    "from_output": """from_output : bool, default False
    Whether the second argument is the forward result y, which is what an in-place forward pass
    leaves. The derivative is then {from_y} for y <= 0, as fast as memory allows.""",
    "bias": """bias : array_like, optional
    Is added to x first, in the same pass, without an array of the size of x. Of the dtype of x (or float32, for
    half precision, in which the sum is not rounded), and of a shape that broadcasts to that of x.""",
    "out": """out : ndarray, optional
    Where to write the result: the shape and dtype of x. ``out=x`` works in place.""",
    "num_threads": """num_threads : int, optional
    At most so many threads. By default as many as the work repays, up to `get_num_threads`.""",
}
_FAMILIES = {
    "elu": {
        "title": "Exponential linear unit",
        "formula": "``alpha * expm1(x)`` for x < 0, else ``x``",
        "gradient": "``grad * alpha * exp(x)`` for x <= 0, else ``grad``",
        "from_y": "``y + alpha``",
        "domain": "; it is not rounded to x's dtype",
        "References": """D.-A. Clevert, T. Unterthiner, S. Hochreiter, "Fast and Accurate Deep Network Learning by
Exponential Linear Units (ELUs)", ICLR 2016, eq. 15 and 16.""",
    },
    "selu": {
        "title": "Scaled exponential linear unit",
        "formula": "``scale * alpha * expm1(x)`` for x < 0, else ``scale * x``, with `SELU_ALPHA` and `SELU_SCALE`",
        "gradient": "``grad * scale * alpha * exp(x)`` for x <= 0, else ``grad * scale``",
        "from_y": "``y + scale * alpha``",
        "References": """G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, "Self-Normalizing Neural Networks",
NeurIPS 2017, eq. 2 and 14.""",
    },
    "celu": {
        "title": "Continuously differentiable exponential linear unit",
        "formula": "``alpha * expm1(x / alpha)`` for x < 0, else ``x``. With alpha = 1 it is `elu`, to the bit",
        "gradient": "``grad * exp(x / alpha)`` for x <= 0, else ``grad``",
        "from_y": "``y / alpha + 1``",
        "domain": " but 0",
        "References": """J. T. Barron, "Continuously Differentiable Exponential Linear Units", 2017, eq. 2.""",
    },
}
_EXAMPLE = {
    "elu": """>>> elufast.elu(np.array([-2.3949, -0.2037226, 0.0, 1.5], np.float32))
array([-0.9088182 , -0.18431139,  0.        ,  1.5       ], dtype=float32)
>>> elufast.elu(np.zeros((2, 2)), bias=np.array([-1.0, 1.0]))
array([[-0.63212056,  1.        ],
       [-0.63212056,  1.        ]])""",
    "selu": ">>> elufast.selu(np.array([-1.0, 0.0, 1.0]))\narray([-1.11133074,  0.        ,  1.05070099])",
    "celu": ">>> elufast.celu(np.array([-4.0, 0.0, 1.0]), alpha=2.0)\narray([-1.72932943,  0.        ,  1.        ])",
    "elu_backward": """>>> x = np.array([-20.0, -1.0, 2.0])
>>> elufast.elu_backward(np.ones(3), x)
array([2.06115362e-09, 3.67879441e-01, 1.00000000e+00])
>>> elufast.elu_backward(np.ones(3), elufast.elu(x), from_output=True)
array([2.06115358e-09, 3.67879441e-01, 1.00000000e+00])""",
    "selu_backward": ">>> elufast.selu_backward(np.ones(2), np.array([-1.0, 2.0]))\narray([0.6467686 , 1.05070099])",
    "celu_backward": """>>> elufast.celu_backward(np.ones(2), np.array([-1.0, 2.0]), alpha=2.0)
array([0.60653066, 1.        ])""",
}


def function(name: str) -> str:
    """The docstring of a public function."""
    family, kind = name.rstrip("_").partition("_")[0], name[name.index("lu") + 2 :]
    words = _FAMILIES[family] | {"family": family}
    texts = words | {"Raises": _RAISES, "Examples": _EXAMPLE.get(name, "")}
    texts |= {key: text.format(**words) for key, text in _KINDS[kind].items()}
    parameters = [each for each in texts["Parameters"].split() if not each.startswith("alpha") or "domain" in words]
    texts["Parameters"] = "\n".join(_PARAMETERS[each].format(**words) for each in parameters)
    sections = (f"\n{title}\n{'-' * len(title)}\n{texts[title]}\n" for title in _SECTIONS)
    return f"{texts['summary']}.\n{''.join(sections)}"


def ufunc(name: str) -> str:
    """The docstring of a ufunc, to which NumPy adds the signature."""
    family, _, kind = name.partition("_")
    operands = ("grad, " if kind else "") + ("y" if kind == "from_output" else "x")
    operands += "" if family == "selu" else ", alpha"
    if not kind:
        formula = _FAMILIES[family]["formula"].replace("`SELU_", "`elufast.SELU_")
        return f"{_FAMILIES[family]['title']} of ({operands}): {formula}. The bits of `elufast.{family}`."
    operands += ", from_output=True" if kind == "from_output" else ""
    return f"Gradient of `elufast.{family}`, with the bits of ``elufast.{family}_backward({operands})``."
