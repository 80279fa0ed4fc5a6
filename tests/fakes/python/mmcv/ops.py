from fake_script import act
from torch import Tensor

from . import _ext  # noqa: F401

act("import mmcv.ops")


def nms(boxes, scores, threshold):
    return None, Tensor(result=act("mmcv nms"), listed=[1, 4, 3])
