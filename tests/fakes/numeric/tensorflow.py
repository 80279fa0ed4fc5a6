import types

import nested

__version__ = "2.21.0"
float16, float32 = "float16", "float32"
current = []


def list_physical_devices(kind):
    return ["/physical_device:GPU:{}".format(index) for index in range(nested.COUNT)]


config = types.SimpleNamespace(
    list_physical_devices=list_physical_devices,
    experimental=types.SimpleNamespace(get_device_details=lambda device: {"device_name": "plain loops"}),
)


class device:
    def __init__(self, name):
        self.name = name

    def __enter__(self):
        current.append(self.name)

    def __exit__(self, *error):
        current.pop()


class Tensor(nested.Array):
    @property
    def device(self):
        return "/job:localhost/replica:0/task:0/device:" + self.place

    def numpy(self):
        return self


def constant(given, dtype):
    return Tensor(given, dtype, current[-1])


def matmul(left, right):
    got = nested.matmul(left, right)
    return Tensor(got.nested, got.kind, got.place)


def conv2d(picture, kernel, strides, padding):
    """`[1, y, x, channel]` and `[y, x, channel, out]`."""
    if (strides, padding) != (1, "VALID"):
        raise NotImplementedError(padding)
    channels, outs = range(len(kernel.nested[0][0])), range(len(kernel.nested[0][0][0]))
    planes = [[[at[channel] for at in row] for row in picture.nested[0]] for channel in channels]
    taps = [[[[at[channel][out] for at in row] for row in kernel.nested] for channel in channels] for out in outs]
    given = (nested.Array(one, picture.kind, picture.place) for one in ([planes], taps))
    (got,) = nested.convolution(*given).nested
    sides = range(len(got[0]))
    return Tensor([[[[plane[y][x] for plane in got] for x in sides] for y in sides]], picture.kind, picture.place)


nn = types.SimpleNamespace(conv2d=conv2d)
