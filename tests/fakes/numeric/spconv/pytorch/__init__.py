import device_kernels
import torch

# The order of the weight's dimensions, of `[out, z, y, x, into]`: that of spconv 2 first, then those of older releases,
# and one that nobody has.
LAYOUTS = {"KRSC": (0, 1, 2, 3, 4), "RSCK": (1, 2, 3, 4, 0), "RSKC": (1, 2, 3, 0, 4), "CRSK": (4, 1, 2, 3, 0)}
layout = "KRSC"


class SparseConvTensor:
    def __init__(self, features, indices, spatial_shape, batch_size):
        if indices.dtype is not torch.int32 or max(indices.unbind(1)[0].numbers()) >= batch_size:
            raise RuntimeError("no sites: {} of {} batches".format(indices.dtype, batch_size))
        self.features, self.indices = features, indices
        self.spatial_shape, self.batch_size = spatial_shape, batch_size


class SubMConv3d:
    def __init__(self, into, out, size, bias):
        self.into, self.out, self.order = into, out, LAYOUTS[layout]
        shape = (out, size, size, size, into)
        self.weight = torch.zeros(*(shape[axis] for axis in self.order), dtype=torch.float32)
        self.bias = torch.zeros(out, dtype=torch.float32) if bias else None

    def eval(self):
        return self

    def to(self, device):
        for parameter in filter(None, (self.weight, self.bias)):
            parameter.data = parameter.to(device)
        return self

    def __call__(self, given):
        features, kind = given.features, given.features.dtype
        torch.cuda.launch(features, given.indices, self.weight)
        torch.same(features, self.weight)
        weight = self.weight.permute(*(self.order.index(axis) for axis in range(5))).numbers()
        problem = device_kernels.Convolution(
            features=features.numbers(),
            sites=[tuple(site) for site in given.indices.tolist()],
            weight=weight,
            bias=self.bias and self.bias.numbers(),
            into=self.into,
            out=self.out,
            grid=given.spatial_shape,
            kind=kind.name,
        )
        numbers, sites = device_kernels.run("forward " + kind.name, problem)
        result = torch.result_of(numbers, (len(sites), self.out), features)
        indices = torch.tensor([list(site) for site in sites], dtype=torch.int32).to(features.device)
        return SparseConvTensor(result, indices, given.spatial_shape, given.batch_size)
