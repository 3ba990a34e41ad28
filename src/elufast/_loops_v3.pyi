from elufast._loops_base import kernels as kernels, run_f32 as run_f32, run_f64 as run_f64
