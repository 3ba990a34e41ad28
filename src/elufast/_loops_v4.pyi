from elufast._loops_base import kernels as kernels
from elufast._loops_base import scalars as scalars
