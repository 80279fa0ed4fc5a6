#!/usr/bin/env python3
"""Holds the smoke's arithmetic against kernels that compute: `arithmetic.py path/to/smoke.py ENTRY...`.

The packages are those of tests/fakes/numeric, which PYTHONPATH must name. Every kernel below goes through a whole smoke:
the right ones must pass, however they round, and of each wrong one the smoke must say `wrong`. Some wrong ones it does
not tell from right ones; they are here as well, and must pass: whoever sharpens the smoke moves them. Fails with an
AssertionError.
"""

import functools
import importlib.util
import itertools
import math
import pathlib
import sys
import types

spec = importlib.util.spec_from_file_location("smoke", sys.argv[1])
smoke = importlib.util.module_from_spec(spec)
spec.loader.exec_module(smoke)


def with_frameworks():
    """As the entrypoint runs it for a framework: the text of frameworks.py stands in front."""
    texts = []
    for path in (pathlib.Path(sys.argv[1]).with_name("frameworks.py"), pathlib.Path(sys.argv[1])):
        texts.append(path.read_text())
    module = types.ModuleType("smoke_of_frameworks")
    exec(compile("".join(texts), "<string>", "exec"), module.__dict__)
    return module


frameworks = with_frameworks()

import cases  # noqa: E402
import device_kernels as kernels  # noqa: E402
import bitsandbytes.functional as quantization  # noqa: E402
import flash_attn  # noqa: E402
import onnxruntime  # noqa: E402
import torch  # noqa: E402
from rounding import rounded  # noqa: E402


def smoked(entry, devices="first"):
    """The lines of one smoke of that entry."""
    lines = []
    module = module_of(entry)
    run = module.Smoke([entry], devices, lambda kind, fields=None: lines.append((kind, fields)))
    run.imports()
    run.gpu(count=2)
    return lines


def module_of(entry):
    return smoke if entry in smoke.ENTRIES else frameworks


def of(lines, kind):
    return [fields for name, fields in lines if name == kind]


def with_kernel(operation, kernel, entry):
    kernels.chosen = {operation: kernel}
    try:
        return smoked(entry)
    finally:
        kernels.chosen = {}


# Any kernel's memory, spoilt afterwards.


def changed(place, number):
    def change(numbers):
        numbers[place] = number
        return numbers

    return change


def stale(numbers):
    """What another program left there: numbers of the same size."""
    scale = max(map(abs, numbers)) or 1.0
    return [scale * math.sin(7.0 * place) for place in range(len(numbers))]


def columns(numbers, width, change):
    """Each row of that width changed."""
    return [number for start in range(0, len(numbers), width) for number in change(numbers[start : start + width])]


SPOILT = {
    "nothing is written": lambda numbers: [0.0] * len(numbers),
    "ones": lambda numbers: [1.0] * len(numbers),
    "stale memory": stale,
    "added to what was there": lambda numbers: list(map(sum, zip(numbers, stale(numbers)))),
    "one number is none": changed(5, math.nan),
    "the last number is none": changed(-1, math.nan),
    "no number": lambda numbers: [math.nan] * len(numbers),
    "an infinite number": changed(7, math.inf),
    "a negative infinite number": changed(0, -math.inf),
    "one number is too large": lambda numbers: changed(0, 2 * max(map(abs, numbers)))(numbers),
    "the last number is too small": lambda numbers: changed(-1, -2 * max(map(abs, numbers)))(numbers),
    "twice": lambda numbers: [2 * number for number in numbers],
    "3 % too large": lambda numbers: [1.03 * number for number in numbers],
    "3 % too small": lambda numbers: [0.97 * number for number in numbers],
    "the other sign": lambda numbers: [-number for number in numbers],
    "no sign": lambda numbers: list(map(abs, numbers)),
    "negative numbers cut": lambda numbers: [max(number, 0.0) for number in numbers],
    "positive numbers cut": lambda numbers: [min(number, 0.0) for number in numbers],
    "shifted by one": lambda numbers: numbers[1:] + numbers[:1],
    "backwards": lambda numbers: numbers[::-1],
}


def transposed(numbers, width):
    return [number for column in range(width) for number in numbers[column::width]]


def strided(numbers, width, stride):
    """Rows of that width, read as if they were `stride` apart."""
    rows = range(len(numbers) // width)
    return [numbers[(row * stride + column) % len(numbers)] for row in rows for column in range(width)]


# Products of 64 x 96 and 96 x 80.

RIGHT_PRODUCTS = {
    "as it is": kernels.matmul,
    "factors of TF32": functools.partial(kernels.matmul, factors="tf32"),
    "sums of float32": functools.partial(kernels.matmul, sums="float32"),
    "sums of float16": functools.partial(kernels.matmul, sums="float16"),
}


def of_factors(change):
    return lambda given: kernels.matmul(change(given))


def of_product(change):
    return lambda given: change(kernels.matmul(given), given.columns)


def shorter(given, count):
    """Without the last `count` of each sum."""
    left = columns(given.left, given.inner, lambda row: row[:-count])
    return given._replace(left=left, right=given.right[: -count * given.columns], inner=given.inner - count)


WRONG_PRODUCTS = {
    "left is read by columns": of_factors(lambda p: p._replace(left=transposed(p.left, p.inner))),
    "right is read by columns": of_factors(lambda p: p._replace(right=transposed(p.right, p.columns))),
    "left is read as wide as right": of_factors(lambda p: p._replace(left=strided(p.left, p.inner, p.columns))),
    "right is read as wide as left": of_factors(lambda p: p._replace(right=strided(p.right, p.columns, p.inner))),
    "left's rows are one apart too many": of_factors(lambda p: p._replace(left=strided(p.left, p.inner, p.inner + 1))),
    "the sums' last 32 are left out": of_factors(lambda p: shorter(p, 32)),
    "the sums' last is left out": of_factors(lambda p: shorter(p, 1)),
    "the last row is left out": of_product(lambda numbers, width: numbers[:-width] + [0.0] * width),
    "the last column is left out": of_product(
        lambda numbers, width: columns(numbers, width, lambda row: row[:-1] + [0.0])
    ),
    "the last 16 columns are left out": of_product(
        lambda numbers, width: columns(numbers, width, lambda row: row[:-16] + [0.0] * 16)
    ),
    "written by columns": of_product(lambda numbers, width: transposed(numbers, width)),
    "the rows are in another order": of_product(lambda numbers, width: numbers[width:] + numbers[:width]),
    "one row too few": of_product(lambda numbers, width: numbers[:-width]),
    "one row too many": of_product(lambda numbers, width: numbers + numbers[:width]),
    "factors of E4M3": functools.partial(kernels.matmul, factors="e4m3"),
}
for name, change in SPOILT.items():
    WRONG_PRODUCTS[name] = of_product(lambda numbers, width, change=change: change(numbers))


# Submanifold convolutions of 16 channels to 32, over sites of two grids of 8 x 8 x 8.


def scattered(given):
    """Tap by tap, each a product that is added to the sites it reaches, as spconv's native algorithm does it."""
    rows = {site: row for row, site in enumerate(given.sites)}
    result = [list(given.bias) for _ in given.sites]
    for tap in kernels.TAPS:
        one = kernels.convolve(given._replace(bias=None, kind="float64"), taps=[tap])
        for row in rows.values():
            part = one[row * given.out : (row + 1) * given.out]
            result[row] = [have + more for have, more in zip(result[row], part)]
    return rounded(given.kind, [number for row in result for number in row]), given.sites


RIGHT_CONVOLUTIONS = {
    "as it is": kernels.forward,
    "tap by tap": scattered,
    "factors of TF32": lambda given: (kernels.convolve(given, factors="tf32"), given.sites),
}


def of_weight(order):
    """The weight at other places: `order` gives, for a tap, the one whose weight is taken."""
    into = RIGHT_INTO
    place = {tap: number for number, tap in enumerate(kernels.TAPS)}

    def kernel(given):
        rows = [given.weight[start : start + into] for start in range(0, len(given.weight), into)]
        taps = len(kernels.TAPS)
        moved = [
            rows[channel * taps + place[order(*tap)]] for channel in range(given.out) for tap in kernels.TAPS
        ]
        return kernels.forward(given._replace(weight=list(itertools.chain(*moved))))

    return kernel


RIGHT_INTO = smoke.CHANNELS_IN


def of_given(change):
    return lambda given: kernels.forward(change(given))


def of_neighbour(neighbour):
    return lambda given: kernels.forward(given, neighbour)


def of_taps(wanted):
    return lambda given: kernels.forward(given, kernels.adjacent, [tap for tap in kernels.TAPS if wanted(tap)])


def of_features(change):
    return lambda given: (change(kernels.convolve(given), given.out), given.sites)


def moved(offset, step=1):
    def neighbour(site, tap, grid):
        place = [at + step * one + offset for at, one in zip(site[1:], tap)]
        return (site[0], *place) if all(0 <= at < length for at, length in zip(place, grid)) else None

    return neighbour


def around(site, tap, grid):
    """Beyond one side of the grid comes the other."""
    return (site[0], *((at + one - 1) % length for at, one, length in zip(site[1:], tap, grid)))


def running_on(site, tap, grid):
    """Only the place in memory is looked at: beyond a line comes the next one, beyond a grid the other."""
    ordinal = 0
    for at, length in zip((site[0], *(at + one - 1 for at, one in zip(site[1:], tap))), (2, *grid)):
        ordinal = ordinal * length + at
    place = []
    for length in reversed(grid):
        ordinal, at = divmod(ordinal, length)
        place.insert(0, at)
    return (ordinal, *place)


def one_grid(given):
    """All sites are taken for those of the first grid; later ones hide earlier ones."""
    return kernels.convolve(given._replace(sites=[(0, *site[1:]) for site in given.sites])), given.sites


def other_sites(change):
    return lambda given: (kernels.convolve(given), [change(site) for site in given.sites])


def sorted_otherwise(given):
    """A right result in another order, which is no submanifold convolution's."""
    numbers = kernels.convolve(given)
    rows = [numbers[start : start + given.out] for start in range(0, len(numbers), given.out)]
    return list(itertools.chain(*rows[::-1])), given.sites[::-1]


def rows_of_features(change):
    return of_given(lambda g: g._replace(features=columns(g.features, g.into, change)))


def rows_of_weight(change):
    return of_given(lambda g: g._replace(weight=columns(g.weight, g.into, change)))


def of_bias(change):
    return of_given(lambda g: g._replace(bias=change(g.bias)))


WRONG_CONVOLUTIONS = {
    "z and x swapped": of_weight(lambda z, y, x: (x, y, z)),
    "z and y swapped": of_weight(lambda z, y, x: (y, z, x)),
    "y and x swapped": of_weight(lambda z, y, x: (z, x, y)),
    "axes turned on": of_weight(lambda z, y, x: (y, x, z)),
    "mirrored": of_weight(lambda z, y, x: (2 - z, 2 - y, 2 - x)),
    "z mirrored": of_weight(lambda z, y, x: (2 - z, y, x)),
    "y mirrored": of_weight(lambda z, y, x: (z, 2 - y, x)),
    "x mirrored": of_weight(lambda z, y, x: (z, y, 2 - x)),
    "one plane for all": of_weight(lambda z, y, x: (0, y, x)),
    "weight is read as [into, z, y, x, out]": of_given(
        lambda g: g._replace(weight=transposed(g.weight, len(g.weight) // g.into))
    ),
    "weight is read by columns": of_given(lambda g: g._replace(weight=transposed(g.weight, g.into))),
    "no bias": of_bias(lambda bias: None),
    "bias twice": of_bias(lambda bias: [2 * number for number in bias]),
    "bias of the next channel": of_bias(lambda bias: bias[1:] + bias[:1]),
    "bias of one channel left out": of_bias(lambda bias: [0.0] + bias[1:]),
    "the site alone": of_taps(lambda tap: tap == (1, 1, 1)),
    "not the site": of_taps(lambda tap: tap != (1, 1, 1)),
    "not the last tap": of_taps(lambda tap: tap != (2, 2, 2)),
    "not the first tap": of_taps(lambda tap: tap != (0, 0, 0)),
    "neighbours in one plane": of_taps(lambda tap: tap[0] == 1),
    "no padding": of_neighbour(moved(0)),
    "padding of 2": of_neighbour(moved(-2)),
    "taps two apart": of_neighbour(moved(-2, 2)),
    "around the grid": of_neighbour(around),
    "beyond the grid": of_neighbour(running_on),
    "both grids are one": one_grid,
    "channels shifted by one": rows_of_features(lambda row: row[1:] + row[:1]),
    "the last channel left out": rows_of_features(lambda row: row[:-1] + [0.0]),
    "the last half of the channels left out": rows_of_features(lambda row: row[:8] + [0.0] * 8),
    "weights shifted by one channel": rows_of_weight(lambda row: row[1:] + row[:1]),
    "features are read by columns": of_given(lambda g: g._replace(features=transposed(g.features, g.into))),
    "features are read one apart too many": of_given(
        lambda g: g._replace(features=strided(g.features, g.into, g.into + 1))
    ),
    "features are read as wide as the result": of_given(
        lambda g: g._replace(features=strided(g.features, g.into, g.out))
    ),
    "features of the next site": of_given(
        lambda g: g._replace(features=g.features[g.into :] + g.features[: g.into])
    ),
    "the last site's features left out": of_given(
        lambda g: g._replace(features=g.features[: -g.into] + [0.0] * g.into)
    ),
    "factors of E4M3": lambda given: (kernels.convolve(given, factors="e4m3"), given.sites),
    "the result's channels shifted by one": of_features(
        lambda numbers, width: columns(numbers, width, lambda row: row[1:] + row[:1])
    ),
    "one channel left out": of_features(
        lambda numbers, width: columns(numbers, width, lambda row: row[:7] + [0.0] + row[8:])
    ),
    "written by columns": of_features(transposed),
    "one row of another site": of_features(lambda numbers, width: numbers[width : 2 * width] + numbers[width:]),
    "the last site left out": of_features(lambda numbers, width: numbers[:-width] + [0.0] * width),
    "one row too few": of_features(lambda numbers, width: numbers[:-width]),
    "one channel too few": lambda given: (
        columns(kernels.convolve(given), given.out, lambda row: row[:-1]),
        given.sites,
    ),
    "sites of another order of axes": other_sites(lambda site: (site[0], site[3], site[2], site[1])),
    "sites of one grid": other_sites(lambda site: (0, *site[1:])),
    "sites in another order": sorted_otherwise,
    "a site too few": lambda given: (kernels.convolve(given), given.sites[:-1]),
}
for name, change in SPOILT.items():
    WRONG_CONVOLUTIONS[name] = of_features(lambda numbers, width, change=change: change(numbers))


# Boxes.


def greedy(boxes, scores, threshold, order=lambda box, score: -score, covered=kernels.overlap):
    """kernels.nms with another order, or another measure."""
    kept = []
    for one in sorted(range(len(boxes)), key=lambda box: order(box, scores[box])):
        if all(covered(boxes[one], boxes[box]) <= threshold for box in kept):
            kept.append(one)
    return kept


def of_boxes(change):
    return lambda *given: change(kernels.nms(*given), *given)


RIGHT_BOXES = {
    "as it is": kernels.nms,
    # Both ways of counting are in use.
    "of pixels, whose last one counts": lambda boxes, scores, threshold: kernels.nms(
        [[left, top, right + 1, bottom + 1] for left, top, right, bottom in boxes], scores, threshold
    ),
}
WRONG_BOXES = {
    "all boxes": lambda boxes, scores, threshold: list(range(len(boxes))),
    "all boxes, the best first": lambda boxes, scores, threshold: sorted(
        range(len(boxes)), key=lambda box: -scores[box]
    ),
    "none": of_boxes(lambda kept, *given: []),
    "the best alone": of_boxes(lambda kept, *given: kept[:1]),
    "those that go": of_boxes(lambda kept, boxes, *rest: [box for box in range(len(boxes)) if box not in kept]),
    "in the order of boxes": of_boxes(lambda kept, *given: sorted(kept)),
    "the worst first": of_boxes(lambda kept, *given: kept[::-1]),
    "the last left out": of_boxes(lambda kept, *given: kept[:-1]),
    "one of them twice": of_boxes(lambda kept, *given: kept[:1] + kept),
    "counted from one": of_boxes(lambda kept, *given: [box + 1 for box in kept]),
    "zeros": of_boxes(lambda kept, *given: [0] * len(kept)),
    "stale memory": of_boxes(lambda kept, *given: [1065353216, 0, -1082130432]),
    "the scores are not looked at": functools.partial(greedy, order=lambda box, score: box),
    "the worst box wins": functools.partial(greedy, order=lambda box, score: score),
    "another threshold": lambda boxes, scores, threshold: kernels.nms(boxes, scores, 0.75),
    "a threshold of nothing": lambda boxes, scores, threshold: kernels.nms(boxes, scores, 1.0),
    "what both cover, by both areas": functools.partial(
        greedy, covered=lambda a, b: kernels.overlap(a, b) / (1 + kernels.overlap(a, b))
    ),
    "the overlap is never computed": functools.partial(greedy, covered=lambda a, b: 0.0),
    "the overlap is no number": functools.partial(greedy, covered=lambda a, b: math.nan),
}
# No three boxes overlap in a row, and what the two pairs have in common they have by either reading of the numbers.
UNTOLD_BOXES = {
    "boxes that were taken away take away": lambda boxes, scores, threshold: [
        one
        for one in kernels.nms(boxes, scores, 1.0)
        if all(
            kernels.overlap(boxes[one], boxes[box]) <= threshold
            for box in range(len(boxes))
            if scores[box] > scores[one]
        )
    ],
    "boxes by their width and height": lambda boxes, scores, threshold: kernels.nms(
        [[left, top, left + width, top + height] for left, top, width, height in boxes], scores, threshold
    ),
}


# Four rows of two numbers, to the first and the last of three places.


def of_sums(change):
    return lambda *given: change(kernels.scatter_sum(*given))


def of_largest(change):
    return lambda *given: change(kernels.scatter_max(*given))


def to_places(change):
    """Another index."""
    return lambda kernel: lambda rows, index, size: kernel(rows, [change(at, to) for at, to in enumerate(index)], size)


def folded(function, start=None):
    def kernel(rows, index, size):
        result = [[start] * len(rows[0]) for _ in range(size)]
        for row, target in zip(rows, index):
            for column, number in enumerate(row):
                have = result[target][column]
                result[target][column] = number if have is None else function(have, number)
        return [[0.0 if number is None else number for number in row] for row in result]

    return kernel


LOWEST = -3.4028234663852886e38
OF_ANY = {
    "nothing is written": lambda rows: [[0.0, 0.0] for _ in rows],
    "one number is none": lambda rows: [[math.nan, rows[0][1]], *rows[1:]],
    "the empty place is none": lambda rows: [rows[0], [math.nan, math.nan], rows[2]],
    "the empty place keeps the lowest number": lambda rows: [rows[0], [LOWEST, LOWEST], rows[2]],
    "the empty place is stale": lambda rows: [rows[0], [1.0, 0.0], rows[2]],
    "columns swapped": lambda rows: [row[::-1] for row in rows],
    "places backwards": lambda rows: rows[::-1],
    "one place too few": lambda rows: rows[:-1],
    "the last column left out": lambda rows: [[row[0], 0.0] for row in rows],
    "a little too large": lambda rows: [[number + 0.001 for number in row] for row in rows],
    "the other sign": lambda rows: [[-number for number in row] for row in rows],
}
OTHER_PLACES = {
    "all in one place": to_places(lambda at, to: 0),
    "to the next place": to_places(lambda at, to: (to + 1) % 3),
    "to the places in their order": to_places(lambda at, to: at % 3),
}
WRONG_SUMS = {
    "the last one wins": folded(lambda have, number: number),
    "the first one wins": folded(lambda have, number: have),
    "the largest": folded(max),
    "products": folded(lambda have, number: have * number),
    "added to stale memory": folded(lambda have, number: have + number, 1.0),
    "the first row left out": lambda rows, index, size: kernels.scatter_sum(rows[1:], index[1:], size),
    "the last row left out": lambda rows, index, size: kernels.scatter_sum(rows[:-1], index[:-1], size),
    "half of it": of_sums(lambda rows: [[number / 2 for number in row] for row in rows]),
}
WRONG_LARGEST = {
    "the last one wins": folded(lambda have, number: number),
    "the first one wins": folded(lambda have, number: have),
    "the smallest": folded(min),
    "sums": folded(lambda have, number: have + number),
    "the largest magnitude": folded(lambda have, number: max(have, number, key=abs)),
    "not below 6": folded(max, 6.0),
}
# Each place's largest number is positive.
UNTOLD_LARGEST = {"not below 0": folded(max, 0.0)}
for name, change in OF_ANY.items():
    WRONG_SUMS[name], WRONG_LARGEST[name] = of_sums(change), of_largest(change)
for name, change in OTHER_PLACES.items():
    WRONG_SUMS[name], WRONG_LARGEST[name] = change(kernels.scatter_sum), change(kernels.scatter_max)

# One head: rows of queries, of keys and of values.


def of_given(change):
    """Wrong reading of what was given."""
    return lambda query, key, value, kind: flash_attn.attention(*change(query, key, value), kind)


def of_attention(change):
    return lambda *given: change(flash_attn.attention(*given))


def masked(query, key, value, kind):
    """Each query sees the keys up to its own place alone, as in a causal model."""
    ends = range(len(key) - len(query) + 1, len(key) + 1)
    rows = [flash_attn.attention([row], key[:end], value[:end], kind) for row, end in zip(query, ends)]
    return [row for (row,) in rows]


def blockwise(query, key, value, kind):
    """Each block of keys has its own largest score, and nothing is scaled down for the next one."""
    halves = [
        flash_attn.attention(query, key[part], value[part], kind) for part in (slice(0, 128), slice(128, None))
    ]
    return [[(one + two) / 2 for one, two in zip(*rows)] for rows in zip(*halves)]


RIGHT_ATTENTION = {
    "as it is": flash_attn.attention,
    "blocks of 32 keys": functools.partial(flash_attn.attention, block=32),
    "all keys at once": functools.partial(flash_attn.attention, block=1000),
}
WRONG_ATTENTION = {
    "no scale": functools.partial(flash_attn.attention, scale=1.0),
    "the scale of width 64": functools.partial(flash_attn.attention, scale=1 / 8),
    "the scale is not a root": functools.partial(flash_attn.attention, scale=1 / 32),
    "powers of 2": functools.partial(flash_attn.attention, weigh=lambda score: 2.0**score),
    "no weights": functools.partial(flash_attn.attention, weigh=lambda score: 1.0),
    "the keys of the last block are left out": of_given(lambda q, k, v: (q, k[:128], v[:128])),
    "the keys of the first block are left out": of_given(lambda q, k, v: (q, k[128:], v[128:])),
    "the last 8 keys are left out": of_given(lambda q, k, v: (q, k[:-8], v[:-8])),
    "blocks are not scaled": blockwise,
    "keys are masked": masked,
    "keys backwards": of_given(lambda q, k, v: (q, k[::-1], v)),
    "keys for values": of_given(lambda q, k, v: (q, k, k)),
    "values for keys": of_given(lambda q, k, v: (q, v, v)),
    "queries of the next row": of_given(lambda q, k, v: (q[1:] + q[:1], k, v)),
    "half of the width": of_given(lambda q, k, v: ([row[:16] for row in q], k, v)),
    "columns swapped": of_attention(lambda rows: [row[::-1] for row in rows]),
    "the last row is left out": of_attention(lambda rows: rows[:-1] + [[0.0] * len(rows[0])]),
    "nothing is written": of_attention(lambda rows: [[0.0] * len(row) for row in rows]),
    "stale memory": of_attention(lambda rows: [stale(row) for row in rows]),
    "no number": of_attention(lambda rows: [[math.nan] * len(row) for row in rows]),
    "3 % too large": of_attention(lambda rows: [[1.03 * number for number in row] for row in rows]),
    "3 % too small": of_attention(lambda rows: [[0.97 * number for number in row] for row in rows]),
}



# Convolutions of one picture, and what is computed number by number.


def of_taps_2d(change):
    """Another kernel than the one that was given."""
    return lambda picture, kernel: kernels.convolve_2d(picture, change(kernel))


def of_picture(change):
    return lambda picture, kernel: kernels.convolve_2d(change(picture), kernel)


def of_planes(change):
    return lambda *given: [change(plane) for plane in kernels.convolve_2d(*given)]


def each_tap(change):
    return lambda kernel: [[change(taps) for taps in of_out] for of_out in kernel]


def changed_numbers(change):
    """Whatever is done to flat memory, done to the whole result."""

    def kernel(*given):
        planes = kernels.convolve_2d(*given)
        side = len(planes[0])
        numbers = change([number for plane in planes for row in plane for number in row])
        rows = [numbers[start : start + side] for start in range(0, len(numbers), side)]
        return [rows[start : start + side] for start in range(0, len(rows), side)]

    return kernel


def plane_transposed(plane):
    return [list(row) for row in zip(*plane)]


WRONG_CONVOLUTIONS_2D = {
    "mirrored, as a convolution of mathematics": of_taps_2d(each_tap(lambda taps: [row[::-1] for row in taps[::-1]])),
    "y mirrored": of_taps_2d(each_tap(lambda taps: taps[::-1])),
    "y and x swapped": of_taps_2d(each_tap(plane_transposed)),
    "the last tap left out": of_taps_2d(each_tap(lambda taps: [*taps[:-1], [*taps[-1][:-1], 0.0]])),
    "the channels swapped": of_picture(lambda picture: picture[::-1]),
    "one channel for all": of_picture(lambda picture: [picture[0]] * len(picture)),
    "the picture is read by columns": of_picture(lambda picture: [plane_transposed(plane) for plane in picture]),
    "padding": functools.partial(kernels.convolve_2d, at=lambda y, x, j, i: (y + j - 1, x + i - 1)),
    "taps two apart": functools.partial(kernels.convolve_2d, at=lambda y, x, j, i: (y + 2 * j, x + 2 * i)),
    "written by columns": of_planes(plane_transposed),
    "the last row left out": of_planes(lambda plane: plane[:-1] + [[0.0] * len(plane)]),
    "one row too few": of_planes(lambda plane: plane[:-1]),
    "another output's place": lambda *given: kernels.convolve_2d(*given)[::-1],
}
WRONG_NUMBERS = {
    "no product": lambda left, right: [one + 2.0 for one in left],
    "no sum": lambda left, right: [one * other for one, other in zip(left, right)],
    "left alone": lambda left, right: left,
}
for name, change in SPOILT.items():
    WRONG_CONVOLUTIONS_2D[name] = changed_numbers(change)
    # All lie between 1 and 3, so that there is nothing to cut.
    if name not in ("no sign", "negative numbers cut"):
        WRONG_NUMBERS[name] = lambda *given, change=change: change(kernels.multiply_add(*given))


# Blocks of numbers and their code.


def of_blocks(change):
    return lambda numbers, code: change(*quantization.nearest(numbers, code))


WRONG_BLOCKS = {
    "the scale is left out": of_blocks(lambda largest, places: (1.0, places)),
    "the scale of another block": of_blocks(lambda largest, places: (2 * largest, places)),
    "the next number of the code": lambda numbers, code: (
        quantization.nearest(numbers, code)[0],
        [(place + 1) % len(code) for place in quantization.nearest(numbers, code)[1]],
    ),
    "two numbers in one byte swapped": of_blocks(
        lambda largest, places: (largest, [places[at ^ 1] for at in range(len(places))])
    ),
    "the last half is left out": of_blocks(lambda largest, places: (largest, places[:32] + [0] * 32)),
    "one place for all": of_blocks(lambda largest, places: (largest, [places[1]] * len(places))),
    "backwards": of_blocks(lambda largest, places: (largest, places[::-1])),
}


# What the types differ in is rounding, and the smoke compares them alike: of the wrong kernels a few are enough.
FEW = "factors of E4M3|z and x swapped|left is read by columns|nothing is written|stale memory|no number|3 % too large"


def few(wrong):
    return {name: kernel for name, kernel in wrong.items() if name in FEW.split("|")}


# What 8 bits are too many for: bfloat16, for which the tolerance is too wide.
UNTOLD_PRODUCTS = {"factors of bfloat16": functools.partial(kernels.matmul, factors="bfloat16")}

# A square: what is read as wide as the other is read rightly. A result has the memory that was made for it.
SAME_IN_A_SQUARE = ("left is read as wide as right", "right is read as wide as left")
WRONG_TRITON = {
    name: kernel for name, kernel in WRONG_PRODUCTS.items() if name not in (*SAME_IN_A_SQUARE, "one row too many")
}
UNTOLD_TRITON = {"one row too many": WRONG_PRODUCTS["one row too many"], **UNTOLD_PRODUCTS}

# The operation, its entry, its step; kernels that are right, wrong ones, and wrong ones that are not told.
GROUPS = (
    ("matmul float32", "torch", "matmul float32", RIGHT_PRODUCTS, WRONG_PRODUCTS, UNTOLD_PRODUCTS),
    ("matmul float16", "torch", "matmul float16", RIGHT_PRODUCTS, few(WRONG_PRODUCTS), UNTOLD_PRODUCTS),
    ("forward float32", "spconv", "forward float32", RIGHT_CONVOLUTIONS, WRONG_CONVOLUTIONS, {}),
    ("forward float16", "spconv", "forward float16", RIGHT_CONVOLUTIONS, few(WRONG_CONVOLUTIONS), {}),
    ("torchvision nms", "torchvision", "nms", RIGHT_BOXES, WRONG_BOXES, UNTOLD_BOXES),
    ("mmcv nms", "mmcv", "nms", RIGHT_BOXES, WRONG_BOXES, UNTOLD_BOXES),
    ("scatter sum", "torch-scatter", "scatter sum", {"as it is": kernels.scatter_sum}, WRONG_SUMS, {}),
    ("scatter max", "torch-scatter", "scatter max", {"as it is": kernels.scatter_max}, WRONG_LARGEST, UNTOLD_LARGEST),
    ("attention float16", "flash-attn", "attention float16", RIGHT_ATTENTION, WRONG_ATTENTION, {}),
    ("attention bfloat16", "flash-attn", "attention bfloat16", RIGHT_ATTENTION, few(WRONG_ATTENTION), {}),
    ("triton dot float16", "triton", "dot float16", RIGHT_PRODUCTS, WRONG_TRITON, UNTOLD_TRITON),
    ("xformers attention float16", "xformers", "attention float16", RIGHT_ATTENTION, WRONG_ATTENTION, {}),
    ("quantize 8 bits", "bitsandbytes", "quantize 8 bits", {"as it is": quantization.nearest}, WRONG_BLOCKS, {}),
    ("quantize 4 bits", "bitsandbytes", "quantize 4 bits", {"as it is": quantization.nearest}, WRONG_BLOCKS, {}),
    ("compiled kernel", "cupy", "compiled kernel", {"as it is": kernels.multiply_add}, WRONG_NUMBERS, {}),
)
for framework in frameworks.ENTRIES:
    for kind in ("float32", "float16"):
        step = "matmul " + kind
        GROUPS += ((step, framework, step, RIGHT_PRODUCTS, WRONG_PRODUCTS, UNTOLD_PRODUCTS),)
    if framework != "cupy":
        step, right = "convolution float32", {"as it is": kernels.convolve_2d}
        GROUPS += ((step, framework, step, right, WRONG_CONVOLUTIONS_2D, {}),)


# What comes back as it was differs by nothing.
EXACT = ("bitsandbytes",)


def above_of(entry):
    # Float64 is nobody's result: a difference of nothing would say that nothing was compared.
    return -1 if entry in EXACT else 0


def check_passes(lines, where, above):
    """It came to its end; what was computed in floats differs by more than `above`, and by as good as nothing."""
    assert not of(lines, "failed") and not of(lines, "skipped"), (where, lines[-3:])
    for passed in of(lines, "passed"):
        assert above < passed.get("difference", 1e-9) < 1e-2, (where, passed)


def check_group(operation, entry, step, right, wrong, untold):
    for name, kernel in itertools.chain(right.items(), untold.items()):
        check_passes(with_kernel(operation, kernel, entry), (operation, name), above_of(entry))
    for name, kernel in wrong.items():
        lines = with_kernel(operation, kernel, entry)
        assert of(lines, "begin")[-1]["step"] == step, (operation, name, lines[-3:])
        failed = of(lines, "failed")
        assert [fields["kind"] for fields in failed] == ["wrong"], (operation, name, lines[-3:])
        difference = failed[0].get("difference")
        assert difference is None or difference > failed[0]["tolerance"], (operation, name, failed)
    counts = len(right), len(wrong), len(untold)
    print("{}: {} right kernels pass, {} wrong ones do not, {} are not told".format(operation, *counts))


def check_layouts():
    """The weights of older releases, and those of a layout that nobody knows."""
    import spconv.pytorch

    for layout in spconv.pytorch.LAYOUTS:
        spconv.pytorch.layout = layout
        lines = smoked("spconv")
        if layout != "CRSK":
            check_passes(lines, layout, 0)
            continue
        failed = of(lines, "failed")
        assert [fields["message"] for fields in failed] == ["a weight of the unknown shape 16x3x3x3x32"], failed
        assert failed[0]["kind"] == "wrong"
    spconv.pytorch.layout = "KRSC"
    print("layouts: {} are told apart".format(len(spconv.pytorch.LAYOUTS)))


def check_devices(entry):
    """Each device computes its own."""
    lines = smoked(entry, "all")
    check_passes(lines, entry, above_of(entry))
    assert [fields["ordinal"] for fields in of(lines, "device")] == [0, 1]
    steps = [(fields["step"], fields["device"]) for fields in of(lines, "begin") if "device" in fields]
    names = [step for step, _ in module_of(entry).ENTRIES[entry].steps]
    assert steps == [(step, device) for device in (0, 1) for step in names], steps


def check_old_device():
    """flash-attn's own words on a GPU that it does not serve, and nothing after them."""
    flash_attn.capability = (7, 5)
    lines = smoked("flash-attn")
    flash_attn.capability = (9, 0)
    failed = of(lines, "failed")
    assert [fields["message"] for fields in failed] == ["FlashAttention only supports Ampere GPUs or newer."], failed
    assert of(lines, "begin")[-1]["step"] == "attention float16", lines[-3:]


def check_preload():
    """onnxruntime that finds CUDA's libraries by its own call alone passes, and says so; else it is an import's failure."""
    onnxruntime.found = "by preload_dlls"
    lines = smoked("onnxruntime")
    check_passes(lines, "preload", 0)
    says = [fields.get("says", "") for fields in of(lines, "passed") if "difference" in fields]
    assert len(says) == 3 and all("preload_dlls" in text for text in says), says
    frameworks.ENTRIES["onnxruntime"].runtime.preloads = False
    onnxruntime.found = "never"
    failed = of(smoked("onnxruntime"), "failed")
    assert [fields["kind"] for fields in failed] == ["import"], failed
    onnxruntime.found = "at once"


for entry in sys.argv[2:]:
    check_devices(entry)
    for group in GROUPS:
        if group[1] == entry:
            check_group(*group)
    if entry == "torch":
        cases.check_all(smoke, torch)
    if entry == "spconv":
        check_layouts()
    if entry == "flash-attn":
        check_old_device()
    if entry == "onnxruntime":
        check_preload()
print("all of it holds")
