from elufast._loops_base import kernels as kernels
from elufast._loops_base import run_f32 as run_f32
from elufast._loops_base import run_f64 as run_f64
from elufast._loops_base import scalars as scalars
