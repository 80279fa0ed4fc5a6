import math
from operator import mul

import device_kernels
import torch
from rounding import rounded

__version__ = "2.7.4"

# Of the devices.
capability = (9, 0)


def attention(query, key, value, kind, block=128, scale=None, weigh=math.exp):
    """One head, a block of keys after the other, as flash-attn does it: what was summed so far is scaled down where the
    next block has a larger score."""
    scale = scale or 1 / math.sqrt(len(query[0]))
    result = []
    for row in query:
        most, total, sums = -math.inf, 0.0, [0.0] * len(value[0])
        for start in range(0, len(key), block):
            scores = [scale * sum(map(mul, row, one)) for one in key[start : start + block]]
            largest = max(most, *scores)
            weights = [weigh(score - largest) for score in scores]
            shrunk = math.exp(most - largest)
            most, total = largest, total * shrunk + sum(weights)
            # The weights are rounded for the matrix units.
            columns = zip(*value[start : start + block])
            weights = rounded(kind, weights)
            sums = [have * shrunk + sum(map(mul, weights, column)) for have, column in zip(sums, columns)]
        result.append([number / total for number in sums])
    return result


device_kernels.RIGHT["attention"] = device_kernels.RIGHT["attention bfloat16"] = attention


def heads(given):
    """By batch and head, the rows."""
    return [[head.tolist() for head in batch.unbind(1)] for batch in given.unbind(0)]


def flash_attn_func(query, key, value):
    if capability < (8, 0):
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")
    if query.dtype not in (torch.float16, torch.bfloat16):
        raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
    torch.same(query, key)
    torch.same(query, value)
    torch.cuda.launch(query, key, value)
    numbers = []
    for batch in zip(heads(query), heads(key), heads(value)):
        results = [device_kernels.run("attention " + query.dtype.name, *head, query.dtype.name) for head in zip(*batch)]
        for row in zip(*results):
            numbers.extend(number for head in row for number in head)
    return torch.Tensor(rounded(query.dtype.name, numbers), query.shape, query.dtype, query.device)
