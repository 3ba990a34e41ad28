from elufast._loops_base import loops as loops
