import device_kernels
import torch

__version__ = "2.1.2"


def scatter(source, index, dim, dim_size, reduce):
    if dim != 0:
        raise NotImplementedError("scatter along {}".format(dim))
    torch.cuda.launch(source, index)
    rows = device_kernels.run("scatter " + reduce, source.tolist(), index.tolist(), dim_size)
    numbers = [number for row in rows for number in row]
    return torch.Tensor(numbers, (len(rows), len(rows[0])), source.dtype, source.device)
