"""The attention of flash-attn, which is one of those that xformers has."""

import device_kernels
import flash_attn
import torch
from rounding import rounded

device_kernels.RIGHT["xformers attention"] = flash_attn.attention


def memory_efficient_attention(query, key, value):
    torch.same(query, key)
    torch.same(query, value)
    torch.cuda.launch(query, key, value)
    numbers = []
    for batch in zip(*(flash_attn.heads(given) for given in (query, key, value))):
        run = device_kernels.run
        results = [run("xformers attention float16", *head, query.dtype.name) for head in zip(*batch)]
        for row in zip(*results):
            numbers.extend(number for head in row for number in head)
    return torch.Tensor(rounded(query.dtype.name, numbers), query.shape, query.dtype, query.device)
