"""Arrays of the frameworks: nested lists with a type and a place, computed by device_kernels."""

import device_kernels
from rounding import rounded

COUNT = 2


def of_type(kind, nested):
    if isinstance(nested, list):
        return [of_type(kind, part) for part in nested]
    return rounded(kind, [nested])[0]


class Array:
    def __init__(self, nested, kind, place=None):
        self.nested, self.kind, self.place = of_type(kind, nested), kind, place

    def tolist(self):
        return self.nested


def result(nested, like):
    return Array(nested, like.kind, like.place)


def on_one_device(*given):
    if given[0].place is None or any((one.kind, one.place) != (given[0].kind, given[0].place) for one in given):
        raise RuntimeError("arrays of two types, of two devices, or of none")


def matmul(left, right):
    on_one_device(left, right)
    rows, inner, columns = len(left.nested), len(right.nested), len(right.nested[0])
    flat = [[number for row in one.nested for number in row] for one in (left, right)]
    given = device_kernels.Product(*flat, rows, inner, columns, left.kind)
    got = device_kernels.run("matmul " + left.kind, given)
    return result([got[start : start + columns] for start in range(0, len(got), columns)], left)


def convolution(picture, kernel):
    """`[1, channel, y, x]` and `[out, channel, y, x]`."""
    on_one_device(picture, kernel)
    return result([device_kernels.run("convolution float32", picture.nested[0], kernel.nested)], picture)
