import device_kernels
import torch


def nms(boxes, scores, threshold):
    torch.cuda.launch(boxes, scores)
    kept = device_kernels.run("torchvision nms", boxes.tolist(), scores.tolist(), threshold)
    return torch.Tensor(kept, (len(kept),), torch.int64, boxes.device)
