"""The kernels of the device that the packages of this folder compute on: plain loops over flat memory.

They share nothing with the references that the smoke holds their results against. `chosen` has other ones, by the
operation's name: tests/smoke_script/arithmetic.py puts wrong ones there, and right ones of another kind.
"""

import collections
import itertools
from operator import mul

from rounding import rounded

chosen = {}


def run(operation, *arguments):
    return chosen.get(operation, RIGHT[operation.split(" float")[0]])(*arguments)


# A matrix of `rows` times `inner` numbers and one of `inner` times `columns`; the result's type is that of the factors.
Product = collections.namedtuple("Product", "left right rows inner columns kind")


def matmul(given, factors=None, sums=None, block=8):
    """`factors` is the type that they are rounded to first, `sums` that of what is kept after each `block` of them."""
    left, right = given.left, given.right
    if factors:
        left, right = rounded(factors, left), rounded(factors, right)
    result = []
    for row in range(given.rows):
        along = left[row * given.inner : (row + 1) * given.inner]
        for column in range(given.columns):
            down = right[column :: given.columns]
            if not sums:
                result.append(sum(map(mul, along, down)))
                continue
            total = 0.0
            for start in range(0, given.inner, block):
                part = sum(map(mul, along[start : start + block], down[start : start + block]))
                total = rounded(sums, [total + part])[0]
            result.append(total)
    return rounded(given.kind, result)


# `features` are those of a site after those of another, `sites` are tuples of `(batch, z, y, x)`, `weight` is flat memory
# of `[out, z, y, x, into]`, `bias` may be None, `grid` has the lengths of z, y and x.
Convolution = collections.namedtuple("Convolution", "features sites weight bias into out grid kind")
SIZE = 3
TAPS = list(itertools.product(range(SIZE), repeat=3))


def adjacent(site, tap, grid):
    """The site that this tap of the kernel looks at, or None beyond the grid."""
    batch, place = site[0], [at + step - SIZE // 2 for at, step in zip(site[1:], tap)]
    inside = all(0 <= at < length for at, length in zip(place, grid))
    return (batch, *place) if inside else None


def convolve(given, neighbour=adjacent, taps=TAPS, factors=None):
    """Site by site, the taps that meet another site. `taps` are those that are looked at."""
    into, out = given.into, given.out
    features, weight = given.features, given.weight
    if factors:
        features, weight = rounded(factors, features), rounded(factors, weight)
    rows = {site: features[row * into : (row + 1) * into] for row, site in enumerate(given.sites)}
    # For each tap the weights of each output channel.
    cut = [weight[start : start + into] for start in range(0, len(weight), into)]
    matrices = {tap: cut[place :: len(TAPS)] for place, tap in enumerate(TAPS)}
    result = []
    for site in given.sites:
        total = list(given.bias or [0.0] * out)
        for tap in taps:
            met = rows.get(neighbour(site, tap, given.grid))
            if met is not None:
                total = [have + sum(map(mul, along, met)) for have, along in zip(total, matrices[tap])]
        result.extend(total)
    return rounded(given.kind, result)


def forward(given, *how):
    """The features of the result and its sites, which are those that were given."""
    return convolve(given, *how), given.sites


def overlap(one, other):
    """Of two boxes `[left, top, right, bottom]`: what both cover, by what either covers."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(width, 0) * max(height, 0)
    return both / (area(one) + area(other) - both)


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def nms(boxes, scores, threshold):
    """Which boxes are left, the best first, once each has taken those away that it covers too much of."""
    kept = []
    for candidate in sorted(range(len(boxes)), key=lambda box: -scores[box]):
        if all(overlap(boxes[candidate], boxes[box]) <= threshold for box in kept):
            kept.append(candidate)
    return kept


def scatter_sum(rows, index, size):
    result = [[0.0] * len(rows[0]) for _ in range(size)]
    for row, target in zip(rows, index):
        for column, number in enumerate(row):
            result[target][column] += number
    return result


def scatter_max(rows, index, size):
    """Zero where nothing comes."""
    result = []
    for target in range(size):
        come = [row for row, place in zip(rows, index) if place == target]
        result.append([max(column) for column in zip(*come)] if come else [0.0] * len(rows[0]))
    return result


def convolve_2d(picture, kernel, at=lambda y, x, j, i: (y + j, x + i)):
    """Of `[channel, y, x]` with `[out, channel, y, x]`, without padding. `at` is the place that a tap looks at."""
    size, side = len(kernel[0][0]), len(picture[0])
    result = []
    for of_out in kernel:
        rows = [[0.0] * (side - size + 1) for _ in range(side - size + 1)]
        for channel, taps in zip(picture, of_out):
            for (j, along), y in itertools.product(enumerate(taps), range(len(rows))):
                for (i, weight), x in itertools.product(enumerate(along), range(len(rows))):
                    row, column = at(y, x, j, i)
                    rows[y][x] += weight * channel[row % side][column % side]
        result.append(rows)
    return result


def multiply_add(left, right):
    return [one * other + 2.0 for one, other in zip(left, right)]


RIGHT = {
    "matmul": matmul,
    "forward": forward,
    "torchvision nms": nms,
    "mmcv nms": nms,
    "scatter sum": scatter_sum,
    "scatter max": scatter_max,
    "convolution": convolve_2d,
    "compiled kernel": multiply_add,
}
