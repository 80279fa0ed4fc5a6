"""Quantization by blocks: each number becomes the place of the nearest one of the code, scaled by the block's largest."""

import device_kernels
import torch
from rounding import rounded

# NF4: the quantiles of a normal distribution, as the paper on QLoRA has them, to four digits.
NF4 = [-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0]
NF4 += [0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.723, 1.0]
DYNAMIC = sorted({sign * (step + 1) / 16 / 10**power for sign in (-1, 1) for power in range(7) for step in range(16)})


def get_4bit_type(name, device):
    if name != "nf4":
        raise NotImplementedError(name)
    return torch.tensor(NF4, dtype=torch.float32).to(device)


def create_dynamic_map():
    return torch.tensor(DYNAMIC, dtype=torch.float32)


def nearest(numbers, code):
    largest = max(map(abs, numbers)) or 1.0
    return largest, [min(range(len(code)), key=lambda at: abs(code[at] - one / largest)) for one in numbers]


def quantize(operation, given, blocksize, code):
    if given.dtype is not torch.float16 or given.device.kind != "cuda":
        raise ValueError("Blockwise quantization only supports 16/32-bit floats on a device")
    torch.cuda.launch(given)
    numbers = given.numbers()
    blocks = [numbers[start : start + blocksize] for start in range(0, len(numbers), blocksize)]
    packed = [device_kernels.run(operation, block, code) for block in blocks]
    return packed, given


def dequantize(operation, packed, given, code):
    numbers = [number for block in packed for number in device_kernels.run(operation, *block, code)]
    return torch.Tensor(rounded("float16", numbers), given.shape, torch.float16, given.device)


def scaled(largest, places, code):
    return [largest * code[place] for place in places]


for bits in ("4 bits", "8 bits"):
    device_kernels.RIGHT["quantize " + bits], device_kernels.RIGHT["dequantize " + bits] = nearest, scaled


def quantize_4bit(given, blocksize, quant_type):
    return quantize("quantize 4 bits", given, blocksize, NF4)


def dequantize_4bit(packed, state):
    return dequantize("dequantize 4 bits", packed, state, NF4)


def quantize_blockwise(given, blocksize):
    return quantize("quantize 8 bits", given, blocksize, DYNAMIC)


def dequantize_blockwise(packed, state):
    return dequantize("dequantize 8 bits", packed, state, DYNAMIC)
