import types

import nested

__version__ = "0.9.0"


class Device:
    device_kind = "plain loops"

    def __init__(self, index):
        self.index = index


DEVICES = [Device(index) for index in range(nested.COUNT)]


def devices(platform):
    if platform != "gpu":
        raise NotImplementedError(platform)
    return DEVICES


class Array(nested.Array):
    def block_until_ready(self):
        return self


def device_put(given, device):
    return Array(given.nested, given.kind, device.index)


def conv_general_dilated(picture, kernel, window_strides, padding):
    if (window_strides, padding) != ((1, 1), "VALID"):
        raise NotImplementedError(padding)
    return nested.convolution(picture, kernel)


numpy = types.SimpleNamespace(
    float16="float16",
    float32="float32",
    asarray=lambda given, dtype: nested.Array(given, dtype),
    matmul=nested.matmul,
)
lax = types.SimpleNamespace(conv_general_dilated=conv_general_dilated)
