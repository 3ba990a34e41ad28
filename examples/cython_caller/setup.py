"""Build with `python setup.py build_ext --inplace`, where elufast and Cython are installed."""

from Cython.Build import cythonize
from setuptools import Extension, setup

import elufast

# Without OpenMP (-fopenmp) prange is an ordinary loop. -mfma, or /arch:AVX2, would give the functions of one number the
# bits of the arrays; the array loops have them anyway.
layer = Extension("layer", ["layer.pyx"], include_dirs=[elufast.get_include()])

setup(name="layer", ext_modules=cythonize([layer]))
