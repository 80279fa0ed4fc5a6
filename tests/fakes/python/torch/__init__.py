"""As much of torch as the smoke calls. It computes nothing: results are right unless the script says otherwise."""

import sys
import types

from fake_script import SCRIPT, OutOfMemoryError, act  # noqa: F401

act("import torch")
if "tensor.numpy()" in SCRIPT:
    # As torch imports it where it is installed.
    sys.modules["numpy"] = types.ModuleType("numpy")
    sys.modules["numpy"].__version__ = "2.2.6"

__version__ = "2.5.0+fake"


class Shape(tuple):
    """Equal to any other: shapes are not followed through the operations."""

    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    __hash__ = tuple.__hash__


class OddShape(Shape):
    def __eq__(self, other):
        return False

    def __ne__(self, other):
        return True

    __hash__ = tuple.__hash__


class Tensor:
    def __init__(self, shape=(302, 16), dtype="float64", result=None, listed=None):
        self.shape = Shape(shape)
        self.dtype = dtype
        # What the script says of the operation that this came from.
        self.result = result or {}
        self.listed = listed
        if "shape" in self.result:
            self.shape = OddShape(self.result["shape"])

    def same(self, *args, **kwargs):
        return self

    add = sub = mul = div = abs = max = sum = detach = clone = cpu = permute = long = double = same
    __add__ = __sub__ = __mul__ = __truediv__ = __floordiv__ = __mod__ = __and__ = __xor__ = __rshift__ = same
    __lt__ = __invert__ = __getitem__ = same
    # The left side of a difference is the result; a quotient's is, too.
    __radd__ = __rsub__ = __rmul__ = same

    def __setitem__(self, key, value):
        pass

    def to(self, *targets):
        copy = Tensor(self.shape, self.dtype, self.result, self.listed)
        copy.shape = self.shape
        for target in targets:
            if isinstance(target, str) and target in (float32, float16):
                copy.dtype = target
        return copy

    def reshape(self, shape):
        return Tensor(shape, self.dtype)

    def unbind(self, dim):
        return [self] * 4

    def numpy(self):
        act("tensor.numpy()")
        return self

    def numel(self):
        return 1000

    def tolist(self):
        return self.result.get("list", self.listed)

    def __int__(self):
        return self.result.get("not_finite", 0)

    def __float__(self):
        return self.result.get("difference", 1e-4)

    def __matmul__(self, other):
        if self.dtype == float64:
            return self
        return Tensor(result=act("matmul " + self.dtype))


Tensor.double = lambda self: Tensor(self.shape)

float16, float32, float64, int32, int64 = "float16", "float32", "float64", "int32", "int64"


def tensor(data, dtype=None):
    return Tensor(listed=data)


def ones(count):
    return Tensor(listed=[1.0] * count)


def anything(*args, **kwargs):
    return Tensor()


arange = stack = zeros = anything


def isfinite(tensor):
    return tensor


def device(kind, index):
    return "{}:{}".format(kind, index)


def set_num_threads(count):
    assert count == 1


class no_grad:
    def __enter__(self):
        pass

    def __exit__(self, *error):
        pass


from . import cuda, nn  # noqa: E402, F401
