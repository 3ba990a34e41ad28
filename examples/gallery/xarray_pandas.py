"""
xarray and pandas: labels are kept
==================================

`elufast.xarray` and `elufast.pandas` take labelled data and return labelled data. The numbers are those of the plain
functions, to the last bit.
"""

# %%
# A DataFrame
# -----------
#
# Measurements of tumours, standardised. ELU leaves what is above the mean as it is and bounds what is below.

import numpy as np
import pandas as pd
import xarray as xr
from sklearn.datasets import load_breast_cancer, load_digits

import elufast
import elufast.pandas
import elufast.xarray

tumours = load_breast_cancer(as_frame=True)
scores = (tumours.data - tumours.data.mean()) / tumours.data.std()
bounded = elufast.pandas.elu(scores)
print(bounded.iloc[:4, :3])
assert bounded.columns.equals(scores.columns)
assert bounded.min().min() > -1

# %%
# A column that is no float is refused by its name, and a missing value stays missing.

try:
    elufast.pandas.elu(scores.assign(malignant=tumours.target == 0))
except TypeError as error:
    print(error)

radius = scores["mean radius"].astype("Float64").mask(scores["mean radius"] < -1.2)
print(elufast.pandas.elu(radius).describe()[["count", "mean", "min"]])
assert elufast.pandas.elu(radius).isna().sum() == radius.isna().sum() > 0

# %%
# A DataArray
# -----------
#
# Handwritten digits with a label for each image. What a filter for vertical strokes finds goes through SELU; then the
# labels group it.

digits = load_digits()
images = xr.DataArray(
    digits.images / 16,
    {"digit": ("image", digits.target)},
    ("image", "row", "column"),
    name="ink",
    attrs={"source": "UCI ML hand-written digits"},
)
strokes = 4 * images.differentiate("column")
found = elufast.xarray.selu(strokes)
print(found.groupby("digit").mean().mean("row").round(2).to_pandas())
assert found.name == images.name
assert found.attrs == strokes.attrs

# %%
# Backward
# --------
#
# The gradient has the labels of x. Arrays that are labelled otherwise are an error, not aligned.

grad = elufast.xarray.selu_backward(xr.ones_like(strokes), strokes)
print(grad.isel(image=0).sel(row=3).values.round(3))
try:
    elufast.xarray.selu_backward(xr.ones_like(strokes)[:100], strokes)
except ValueError as error:
    print(error)

# %%
# In chunks
# ---------
#
# Where Dask backs an array the result is lazy, chunk by chunk, and the numbers are the same.

lazy = elufast.xarray.selu(strokes.chunk(image=300))
print(lazy.data)
assert np.array_equal(lazy.values, found.values)

# %%
# The plain functions take all of these too where they are in memory, as ``np.asarray`` does: the labels are lost, and
# columns of two dtypes become one. A lazy array they refuse, rather than compute it whole.

print(type(elufast.elu(scores)).__name__, type(elufast.elu(pd.Series([-1.0, 2.0]))).__name__)
try:
    elufast.selu(strokes.chunk(image=300))
except TypeError as error:
    print(error)
