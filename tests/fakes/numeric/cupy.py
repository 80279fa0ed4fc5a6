import types

import device_kernels
import nested

__version__ = "14.0.0"

current = None


class Device:
    def __init__(self, index):
        self.index = index

    def __enter__(self):
        global current
        current = self.index

    def __exit__(self, *error):
        global current
        current = None

    def synchronize(self):
        pass


runtime = types.SimpleNamespace(
    getDeviceCount=lambda: nested.COUNT,
    getDeviceProperties=lambda device: {"name": b"plain loops"},
)
cuda = types.SimpleNamespace(Device=Device, runtime=runtime)


def asarray(given, dtype):
    return nested.Array(given, dtype, current)


matmul = nested.matmul


class ElementwiseKernel:
    def __init__(self, given, result, operation, name):
        if (given, result, operation) != ("float32 x, float32 y", "float32 z", "z = x * y + 2.0f"):
            raise NotImplementedError(operation)

    def __call__(self, left, right):
        nested.on_one_device(left, right)
        return nested.result(device_kernels.run("compiled kernel", left.nested, right.nested), left)
