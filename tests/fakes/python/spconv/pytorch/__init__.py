from fake_script import act
from torch import Tensor

act("import spconv.pytorch")


class SparseConvTensor:
    def __init__(self, features, indices, spatial_shape, batch_size):
        self.features = features
        self.indices = indices


class SubMConv3d:
    def __init__(self, into, out, size, bias):
        self.weight = Tensor((out, size, size, size, into))
        self.bias = Tensor((out,))

    def eval(self):
        return self

    def to(self, device):
        return self

    def __call__(self, given):
        features = Tensor(result=act("forward " + given.features.dtype))
        return SparseConvTensor(features, given.indices, None, None)
