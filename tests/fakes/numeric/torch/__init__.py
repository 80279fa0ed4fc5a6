"""As much of torch as the smoke calls, and its numbers are computed: the references by what stands here and in
nn/functional.py, on the CPU; the results by device_kernels.py, on two devices.

A tensor is a view of a flat memory by shape, strides and offset, its numbers are what its type can hold. Where torch
would convert types or spread shapes without being asked, this raises: the smoke asks for what it needs. So it does where
torch hangs or breaks: a product or a convolution on the CPU by a team of threads, work on a device that is not the
current one.
"""

import itertools
import math
import operator

import device_kernels
from rounding import rounded

__version__ = "2.5.0+numeric"


class dtype:
    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return "torch." + self.name


float16, bfloat16, float32, float64 = dtype("float16"), dtype("bfloat16"), dtype("float32"), dtype("float64")
int32, int64, boolean = dtype("int32"), dtype("int64"), dtype("bool")


class device:
    def __init__(self, kind, index=0):
        self.kind, self.index = kind, index

    def __eq__(self, other):
        return (self.kind, self.index) == (other.kind, other.index)


CPU = device("cpu")
# What set_num_threads was called with. Torch starts with one for each core.
threads = None


def set_num_threads(count):
    global threads
    threads = count


def alone():
    if threads != 1:
        raise RuntimeError("a team of threads, which a forked child does not have")


class Tensor:
    def __init__(self, memory, shape, kind, place=CPU, strides=None, offset=0):
        self.memory, self.shape, self.dtype, self.device = memory, tuple(shape), kind, place
        self.strides, self.offset = strides or contiguous(shape), offset

    # Views.

    def places(self):
        """Where in the memory the numbers are, the last dimension first."""
        if self.strides == contiguous(self.shape):
            return range(self.offset, self.offset + self.numel())
        found = [self.offset]
        for length, stride in zip(self.shape, self.strides):
            found = [place + step * stride for place in found for step in range(length)]
        return found

    def numbers(self):
        places = self.places()
        if isinstance(places, range):
            return self.memory[places.start : places.stop]
        return [self.memory[place] for place in places]

    def view(self, shape, strides, offset):
        return Tensor(self.memory, shape, self.dtype, self.device, strides, offset)

    def permute(self, *order):
        if sorted(order) != list(range(len(self.shape))):
            raise RuntimeError("{} is no order of the dimensions".format(order))
        return self.view([self.shape[axis] for axis in order], [self.strides[axis] for axis in order], self.offset)

    def unbind(self, axis):
        shape, strides = list(self.shape), list(self.strides)
        length, stride = shape.pop(axis), strides.pop(axis)
        return tuple(self.view(shape, strides, self.offset + step * stride) for step in range(length))

    def reshape(self, shape):
        if math.prod(shape) != self.numel():
            raise RuntimeError("shape {} is invalid for {} numbers".format(shape, self.numel()))
        return Tensor(self.numbers(), shape, self.dtype, self.device)

    def detach(self):
        return self.view(self.shape, self.strides, self.offset)

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, other):
        self.__dict__.update(other.__dict__)

    # Copies.

    def clone(self):
        return Tensor(self.numbers(), self.shape, self.dtype, self.device)

    def to(self, *targets):
        kind, place = self.dtype, self.device
        for target in targets:
            if isinstance(target, dtype):
                kind = target
            else:
                place = device(target) if isinstance(target, str) else target
        return Tensor(rounded(kind.name, self.numbers()), self.shape, kind, place)

    def cpu(self):
        return self.to(CPU)

    def double(self):
        return self.to(float64)

    def long(self):
        return self.to(int64)

    def numel(self):
        return math.prod(self.shape)

    def tolist(self):
        if not self.shape:
            return self.memory[self.offset]
        if len(self.shape) == 1:
            return self.numbers()
        return [part.tolist() for part in self.unbind(0)]

    def __int__(self):
        return int(self.tolist())

    def __float__(self):
        return float(self.tolist())

    # Number by number.

    def each(self, function, other=None, kind=None):
        kind = kind or self.dtype
        mine = self.numbers()
        if other is None:
            result = map(function, mine)
        elif isinstance(other, Tensor):
            same(self, other)
            if self.shape != other.shape:
                raise RuntimeError("shapes {} and {}".format(self.shape, other.shape))
            result = map(function, mine, other.numbers())
        else:
            if isinstance(other, float) and not self.dtype.name.startswith("float"):
                raise RuntimeError("{!r} for {}".format(other, self.dtype))
            result = map(function, mine, itertools.repeat(other))
        return Tensor(rounded(kind.name, result), self.shape, kind, self.device)

    def add(self, other):
        return self.each(operator.add, other)

    def sub(self, other):
        return self.each(operator.sub, other)

    def mul(self, other):
        return self.each(operator.mul, other)

    def div(self, other):
        # By zero it is what torch has: infinite, or no number.
        return self.each(lambda one, two: one / two if two else one * math.inf, other)

    def __floordiv__(self, other):
        return self.each(operator.floordiv, other)

    def __mod__(self, other):
        return self.each(operator.mod, other)

    def __and__(self, other):
        return self.each(operator.and_, other)

    def __or__(self, other):
        return self.each(operator.or_, other)

    def __xor__(self, other):
        return self.each(operator.xor, other)

    def __rshift__(self, other):
        return self.each(operator.rshift, other)

    def __lt__(self, other):
        return self.each(operator.lt, other, boolean)

    def __le__(self, other):
        return self.each(operator.le, other, boolean)

    def __gt__(self, other):
        return self.each(operator.gt, other, boolean)

    def __invert__(self):
        return self.each(operator.not_ if self.dtype is boolean else operator.invert)

    __add__, __sub__, __mul__, __truediv__ = add, sub, mul, div

    def abs(self):
        return self.each(abs)

    # Of all numbers.

    def max(self):
        numbers = self.numbers()
        missing = [number for number in numbers if number != number]
        return Tensor([missing[0] if missing else max(numbers)], (), self.dtype, self.device)

    def sum(self):
        kind = int64 if self.dtype is boolean else self.dtype
        return Tensor(rounded(kind.name, [sum(self.numbers())]), (), kind, self.device)

    # Parts.

    def chosen(self, key):
        """The shape and the places of `[mask]`, of a whole number, and of `[index, ..., :]`: whole dimensions come last."""
        if isinstance(key, int):
            key = Tensor([range(self.shape[0])[key]], (1,), int64)
        if isinstance(key, Tensor) and key.dtype is boolean:
            if key.shape != self.shape:
                raise IndexError("a mask of another shape")
            found = [place for place, taken in zip(self.places(), key.numbers()) if taken]
            return (len(found),), found
        keys = key if isinstance(key, tuple) else (key,)
        keys += (slice(None),) * (len(self.shape) - len(keys))
        pointers = [index.numbers() for index in keys if isinstance(index, Tensor)]
        count = len(pointers[0])
        starts = [self.offset] * count
        rest = []
        for axis, index in enumerate(keys):
            if index == slice(None):
                rest.append(axis)
                continue
            for row, step in enumerate(index.numbers()):
                starts[row] += range(self.shape[axis])[step] * self.strides[axis]
        part = self.view([self.shape[axis] for axis in rest], [self.strides[axis] for axis in rest], 0).places()
        return (count, *(self.shape[axis] for axis in rest)), [start + step for start in starts for step in part]

    def __getitem__(self, key):
        shape, places = self.chosen(key)
        return Tensor([self.memory[place] for place in places], shape, self.dtype, self.device)

    def __setitem__(self, key, value):
        shape, places = self.chosen(key)
        if isinstance(value, Tensor):
            same(self, value)
            if value.shape != shape:
                raise RuntimeError("shapes {} and {}".format(value.shape, shape))
            numbers = value.numbers()
        else:
            numbers = rounded(self.dtype.name, [value]) * len(places)
        for place, number in zip(places, numbers):
            self.memory[place] = number

    def __matmul__(self, other):
        same(self, other)
        (rows, inner), (second, columns) = self.shape, other.shape
        if inner != second:
            raise RuntimeError("matrices of {} and {}".format(self.shape, other.shape))
        left, right = self.numbers(), other.numbers()
        if self.device == CPU:
            alone()
            rows_of = [left[start : start + inner] for start in range(0, len(left), inner)]
            columns_of = [right[start::columns] for start in range(columns)]
            result = [sum(map(operator.mul, row, column)) for row in rows_of for column in columns_of]
            return Tensor(rounded(self.dtype.name, result), (rows, columns), self.dtype)
        cuda.launch(self)
        given = device_kernels.Product(left, right, rows, inner, columns, self.dtype.name)
        return result_of(device_kernels.run("matmul " + self.dtype.name, given), (rows, columns), self)


def contiguous(shape):
    strides = [1]
    for length in reversed(shape[1:]):
        strides.insert(0, strides[0] * length)
    return strides if shape else []


def same(one, other):
    if one.dtype is not other.dtype or not one.device == other.device:
        raise RuntimeError("tensors of two types or of two devices")


def result_of(numbers, shape, like):
    """What a kernel left in its memory. A wrong one may have made less than it, or more: then it gives another shape."""
    if len(numbers) != math.prod(shape):
        shape = (len(numbers) // shape[-1], shape[-1])
    return Tensor(numbers, shape, like.dtype, like.device)


def tensor(data, dtype=None):
    shape, numbers = [], data
    while isinstance(numbers, list):
        shape.append(len(numbers))
        numbers = numbers[0]
    numbers = data
    for _ in shape[1:]:
        numbers = list(itertools.chain.from_iterable(numbers))
    kind = dtype or (int64 if all(isinstance(number, int) for number in numbers) else float32)
    return Tensor(rounded(kind.name, numbers), shape, kind)


def arange(count, dtype):
    return Tensor(rounded(dtype.name, range(count)), (count,), dtype)


def zeros(*shape, dtype):
    return Tensor(rounded(dtype.name, [0] * math.prod(shape)), shape, dtype)


def empty(*shape, dtype, device):
    """What was in the memory before."""
    return Tensor(rounded(dtype.name, [math.sin(7.0 * place) for place in range(math.prod(shape))]), shape, dtype, device)


def stack(tensors, dim):
    """Of vectors as columns: all that the smoke does."""
    if dim != 1:
        raise NotImplementedError("stack along {}".format(dim))
    for other in tensors:
        same(tensors[0], other)
    rows = list(zip(*(part.numbers() for part in tensors)))
    return Tensor([number for row in rows for number in row], (len(rows), len(tensors)), tensors[0].dtype)


def softmax(given, dim):
    """Of a matrix, along its rows."""
    if len(given.shape) != 2 or dim != 1:
        raise NotImplementedError("softmax of {} along {}".format(given.shape, dim))
    numbers = []
    for row in given.tolist():
        weights = [math.exp(number - max(row)) for number in row]
        numbers.extend(weight / math.fsum(weights) for weight in weights)
    return Tensor(rounded(given.dtype.name, numbers), given.shape, given.dtype, given.device)


def isfinite(given):
    return given.each(math.isfinite, kind=boolean)


class no_grad:
    def __enter__(self):
        pass

    def __exit__(self, *error):
        pass


from . import cuda, nn  # noqa: E402, F401
