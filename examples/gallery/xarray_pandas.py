"""
xarray and pandas: labels are kept
==================================

`elufast.elu` and its kin take labelled data and return labelled data. The numbers are those of NumPy arrays, to the
last bit.
"""

# %%
# A DataFrame
# -----------
#
# Measurements of tumours, standardised. ELU leaves what is above the mean as it is and bounds what is below.

import numpy as np
import xarray as xr
from sklearn.datasets import load_breast_cancer, load_digits

import elufast

tumours = load_breast_cancer(as_frame=True)
scores = (tumours.data - tumours.data.mean()) / tumours.data.std()
bounded = elufast.elu(scores)
print(bounded.iloc[:4, :3])
assert bounded.columns.equals(scores.columns)
assert bounded.min().min() > -1
assert np.array_equal(bounded, elufast.elu(scores.to_numpy()))

# %%
# Each column keeps its dtype, and a missing value stays missing.

radius = scores["mean radius"].astype("Float32").mask(scores["mean radius"] < -1.2)
print(elufast.elu(radius).describe()[["count", "mean", "min"]])
assert elufast.elu(radius).isna().sum() == radius.isna().sum() > 0
print(elufast.elu(scores.assign(radius=radius)).dtypes.value_counts())

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
found = elufast.selu(strokes)
print(found.groupby("digit").mean().mean("row").round(2).to_pandas())
assert found.name == images.name
assert found.attrs == strokes.attrs

# %%
# Backward
# --------
#
# The gradient has the labels of x.

grad = elufast.selu_backward(xr.ones_like(strokes), strokes)
print(grad.isel(image=0).sel(row=3).values.round(3))
assert grad.digit.equals(strokes.digit)

# %%
# In chunks
# ---------
#
# Where Dask backs an array the result is lazy, chunk by chunk, and the numbers are the same.

lazy = elufast.selu(strokes.chunk(image=300))
print(lazy.data)
assert np.array_equal(lazy.values, found.values)
