from fake_script import act
from torch import Tensor

act("import torch_scatter")

__version__ = "2.1.2"

RIGHT = {"sum": [[6.0, 8.0], [0.0, 0.0], [-4.0, 4.0]], "max": [[5.0, 6.0], [0.0, 0.0], [3.0, 8.0]]}


def scatter(source, index, dim, dim_size, reduce):
    return Tensor(result=act("scatter " + reduce), listed=RIGHT[reduce])
