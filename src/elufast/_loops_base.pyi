from typing import Any

import numpy as np
from numpy.typing import NDArray

kernels: tuple[object, object]
scalars: tuple[object, object]

def run_f32(
    op: int,
    x: NDArray[np.float32],
    grad: NDArray[np.float32],
    out: NDArray[np.float32],
    s: dict[str, Any],
    num_threads: int,
    stream: bool,
) -> None: ...
def run_f64(
    op: int,
    x: NDArray[np.float64],
    grad: NDArray[np.float64],
    out: NDArray[np.float64],
    s: dict[str, Any],
    num_threads: int,
    stream: bool,
) -> None: ...
