"""
Dask and Zarr: an array larger than memory
==========================================

A Zarr array goes through ELU into another Zarr array, chunk by chunk. No more than a few chunks are in memory at any
time, so the size of the array does not matter. Here the array has 512 MiB and the computation may use 96 MiB.
"""

# %%
# The pre-activations of a layer
# ------------------------------
#
# The handwritten digits that scikit-learn brings, many times over, times a matrix of weights: what a dense layer of 256
# units hands to its activation. Dask cuts the rows into chunks of 8 MiB and writes each as soon as it is computed.

import tempfile
import tracemalloc
from pathlib import Path

import dask
import dask.array as da
import numpy as np
from dask.diagnostics import ProgressBar
from sklearn.datasets import load_digits

import elufast

ROWS, UNITS, CHUNK_ROWS = 2**19, 256, 2**13
BUDGET = 96 * 2**20
dask.config.set(scheduler="threads", num_workers=2)  # each may hold a chunk and what it becomes

images = load_digits().data.astype(np.float32) / 16
weights = np.random.default_rng(0).normal(0, 0.2, (images.shape[1], UNITS)).astype(np.float32)
folder = tempfile.TemporaryDirectory()
source, target = Path(folder.name) / "before.zarr", Path(folder.name) / "after.zarr"

rows = da.arange(ROWS, chunks=CHUNK_ROWS)
layer = rows.map_blocks(
    lambda r: images[r % len(images)] @ weights - np.float32(0.5),
    dtype=np.float32,
    new_axis=1,
    chunks=(rows.chunks[0], UNITS),
)
with ProgressBar():
    layer.to_zarr(source)

# %%
# ELU, from file to file
# ----------------------
#
# `elufast.elu` of a Dask array only builds the graph: one task a chunk, none that sees the whole. A wrong alpha would
# be an error here, before anything is read.

x = da.from_zarr(source)
y = elufast.elu(x, alpha=0.5)
print(y)

# %%
# Writing runs it. Each task computes with one thread, since Dask already runs as many tasks as there are workers.

tracemalloc.start()
with ProgressBar():
    y.to_zarr(target)
peak = tracemalloc.get_traced_memory()[1]
tracemalloc.stop()

print(f"the array has {y.nbytes / 2**20:.0f} MiB, in memory were at most {peak / 2**20:.0f} MiB")
assert peak < BUDGET < y.nbytes

# %%
# A chunk of the result has the bits that NumPy arrays give, wherever it was computed.

last = slice(-CHUNK_ROWS, None)
after = da.from_zarr(target)
assert after.chunks == x.chunks
assert np.array_equal(after[last].compute(), elufast.elu(x[last].compute(), alpha=0.5))
folder.cleanup()

# %%
# On several machines
# -------------------
#
# The same lines run on a cluster once there is a client: ``dask.distributed.Client("tcp://scheduler:8786")``, and
# ``dask.distributed.progress`` in place of ``ProgressBar``. Each worker reads, computes and writes its own chunks;
# nothing passes through the client.
