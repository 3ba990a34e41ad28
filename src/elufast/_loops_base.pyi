kernels: tuple[object, object]
scalars: tuple[object, object]
