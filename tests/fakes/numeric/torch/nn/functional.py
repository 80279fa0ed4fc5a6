from operator import mul

import torch

done = {}


def conv3d(grid, kernel, bias, padding):
    """The dense convolution by its definition: every place of the grid, with zeros around it, times the whole kernel.

    The same is computed once only: one reference serves many kernels.
    """
    torch.alone()
    torch.same(grid, kernel)
    torch.same(grid, bias)
    key = (grid.shape, kernel.shape, padding, *map(tuple, (grid.numbers(), kernel.numbers(), bias.numbers())))
    if key not in done:
        done[key] = convolved(grid, kernel, bias, padding)
    return done[key].clone()


def convolved(grid, kernel, bias, padding):
    batches, into, *lengths = grid.shape
    out, second, *sizes = kernel.shape
    if into != second or bias.shape != (out,):
        raise RuntimeError("kernel {} and bias {} for {} channels".format(kernel.shape, bias.shape, into))
    z_length, y_length, x_length = (length + 2 * padding for length in lengths)
    z_places, y_places, x_places = (length + 2 * padding - size + 1 for length, size in zip(lengths, sizes))
    weights = kernel.numbers()
    weights = [weights[start : start + len(weights) // out] for start in range(0, len(weights), len(weights) // out)]
    added = bias.numbers()
    result = torch.zeros(batches, out, z_places, y_places, x_places, dtype=grid.dtype)
    numbers = iter(grid.numbers())
    for batch in range(batches):
        # With the zeros around it.
        padded = []
        for _ in range(into):
            planes = [[[0.0] * x_length for _ in range(y_length)] for _ in range(z_length)]
            for z in range(padding, z_length - padding):
                for y in range(padding, y_length - padding):
                    for x in range(padding, x_length - padding):
                        planes[z][y][x] = next(numbers)
            padded.append(planes)
        for z in range(z_places):
            for y in range(y_places):
                for x in range(x_places):
                    seen = []
                    for planes in padded:
                        for plane in planes[z : z + sizes[0]]:
                            for line in plane[y : y + sizes[1]]:
                                seen += line[x : x + sizes[2]]
                    for channel in range(out):
                        place = (((batch * out + channel) * z_places + z) * y_places + y) * x_places + x
                        result.memory[place] = added[channel] + sum(map(mul, weights[channel], seen))
    return result
