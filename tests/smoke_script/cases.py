"""What must hold of the smoke's numbers, of its sites and of its comparison, with any torch: arithmetic.py holds it of
the stand-in for torch, references.py of a real one."""

import functools
import itertools
import math
import sys
import types

# scrambled(torch, 6, 1), by whole numbers of Python.
SCRAMBLED = [364079405, 4280460961, 2266890630, 111708980, 12390515, 2846255883]


def flat(numbers):
    return list(itertools.chain.from_iterable(map(flat, numbers))) if isinstance(numbers, list) else [numbers]


def raised(kind, work):
    try:
        work()
    except kind as error:
        return error
    raise AssertionError("a wrong result was taken for a right one")


def check_numbers(smoke, torch):
    """They are the same everywhere, are spread over [-1, 1), and one seed has other ones than the next."""
    assert smoke.scrambled(torch, 6, 1).tolist() == SCRAMBLED
    assert smoke.values(torch, 1, 2, 3).tolist() == [
        [number / 2**31 - 1 for number in SCRAMBLED[:3]],
        [number / 2**31 - 1 for number in SCRAMBLED[3:]],
    ]
    seen = set()
    for seed, shape in ((1, (64, 96)), (2, (96, 80)), (3, (300, 16)), (4, (32, 3, 3, 3, 16)), (5, (32,))):
        given = smoke.values(torch, seed, *shape)
        numbers = flat(given.tolist())
        assert given.dtype is torch.float64 and tuple(given.shape) == shape
        assert -1 <= min(numbers) < -0.8 and 0.8 < max(numbers) < 1, seed
        assert abs(sum(numbers) / len(numbers)) < 0.2, seed
        assert len(set(numbers)) == len(numbers) and not seen.intersection(numbers), seed
        seen.update(numbers)


def check_sites(smoke, torch):
    """About a third of the grid, in order, from the first corner to the last."""
    sites = smoke.sparse_sites(torch)
    assert sites.dtype is torch.int32
    rows = [tuple(row) for row in sites.tolist()]
    assert 300 < len(rows) < 380 and rows == sorted(set(rows))
    assert rows[0] == (0, 0, 0, 0)
    assert rows[-1] == (smoke.BATCH - 1, smoke.SIDE - 1, smoke.SIDE - 1, smoke.SIDE - 1)
    lengths = (smoke.BATCH, smoke.SIDE, smoke.SIDE, smoke.SIDE)
    for axis, length in enumerate(lengths):
        assert {row[axis] for row in rows} == set(range(length)), axis


def check_comparison(smoke, torch):
    """Differences are relative to the reference's largest magnitude, and the tolerance itself is allowed."""

    def of(*numbers):
        return torch.tensor(list(numbers), dtype=torch.float64)

    want = of(1.0, -4.0, 2.0)
    assert smoke.TOLERANCE == 0.02
    same = smoke.compare(torch, of(1.0, -4.0, 2.0), want)
    assert same == {"difference": 0.0, "tolerance": 0.02}, same
    # Below the reference and above it, where it is small and where it is large.
    for got in (of(1.0, -3.0, 2.0), of(1.0, -5.0, 2.0), of(0.0, -4.0, 2.0), of(2.0, -4.0, 2.0), of(1.5, -4.0, 3.0)):
        assert smoke.compare(torch, got, want, 0.25) == {"difference": 0.25, "tolerance": 0.25}
        error = raised(smoke.Wrong, lambda: smoke.compare(torch, got, want, 0.2499))
        assert (error.difference, error.tolerance) == (0.25, 0.2499)
        text = "the result differs from the reference by 0.25 of its largest value, 0.25 is allowed"
        assert str(error) == text, error
    # Without its sign, it is one of a right result.
    assert raised(smoke.Wrong, lambda: smoke.compare(torch, of(-7.0, -4.0, 2.0), want)).difference == 2.0
    # What the reference is zero of has no such measure, and no result is taken for it.
    for numbers in ((0.0, 0.0), (1.0, 0.0)):
        raised(smoke.Wrong, lambda: smoke.compare(torch, of(*numbers), of(0.0, 0.0)))
    error = raised(smoke.Wrong, lambda: smoke.compare(torch, of(math.nan, -math.inf, 2.0), want, 0.5))
    assert (str(error), error.difference, error.tolerance) == ("2 of 3 values are not finite", None, 0.5)
    error = raised(smoke.Wrong, lambda: smoke.compare(torch, of(1.0, -4.0), want, 0.5))
    assert (str(error), error.difference, error.tolerance) == ("a result of shape 2 instead of 3", None, 0.5)
    square = smoke.compare(torch, want.reshape((1, 3)).to(torch.float32), want.reshape((1, 3)))
    assert square["difference"] == 0.0
    error = raised(smoke.Wrong, lambda: smoke.compare(torch, want.reshape((3, 1)), want.reshape((1, 3))))
    assert str(error) == "a result of shape 3x1 instead of 1x3", error
    smoke.exactly("the sum", [1.0, 0.0], [1.0, 0.0])
    error = raised(smoke.Wrong, lambda: smoke.exactly("the sum", [1.0, 2.0], [1.0, 0.0]))
    assert (str(error), error.difference) == ("the sum: [1.0, 2.0] instead of [1.0, 0.0]", None)


def found(numbers, places):
    return functools.reduce(lambda part, place: part[place], places, numbers.tolist())


def check_layouts(smoke, torch):
    """The weight's axes are known by their lengths, each of them; other lengths are none of a layout."""
    into, out = smoke.CHANNELS_IN, smoke.CHANNELS_OUT
    for shape in ((out, 3, 3, 3, into), (3, 3, 3, into, out), (3, 3, 3, out, into)):
        weight = smoke.values(torch, 6, *shape)
        kernel = smoke.dense_kernel(weight, into, out)
        assert tuple(kernel.shape) == (out, into, 3, 3, 3)
        # One number, by either order of the axes.
        places = {out: 4, into: 2}
        ends = [places[length] for length in shape if length != 3]
        at = (ends[0], 0, 1, 2, ends[1]) if shape[0] == out else (0, 1, 2, *ends)
        assert found(kernel, (4, 2, 0, 1, 2)) == found(weight, at), shape
    for shape in ((out, 3, 3, 3, into + 1), (out + 1, 3, 3, 3, into), (3, 3, 3, into, out + 1), (3, 3, 3, out, into + 1)):
        raised(smoke.Wrong, lambda: smoke.dense_kernel(smoke.values(torch, 6, *shape), into, out))


def watched(smoke, algo):
    """What watches this module in the place of spconv's."""
    before = sys.modules.get("spconv.algo")
    sys.modules["spconv.algo"] = algo
    try:
        return smoke.watch_nvrtc()
    finally:
        sys.modules.pop("spconv.algo")
        if before:
            sys.modules["spconv.algo"] = before


def check_watch(smoke):
    """Every way of spconv's to define the function that compiles is watched, and still returns what it returns."""

    class Static:
        @staticmethod
        def _compile_nvrtc_module(desp):
            return "static", desp

    class Class:
        @classmethod
        def _compile_nvrtc_module(cls, desp):
            return cls, desp

    class Plain:
        def _compile_nvrtc_module(self, desp):
            return self, desp

    algo = types.ModuleType("spconv.algo")
    # Nothing to watch, so that nobody knows.
    assert watched(smoke, algo).told() == {"calls": None, "kernels": []}
    algo.Static, algo.Class, algo.Plain = Static, Class, Plain
    algo._compile_nvrtc_module = lambda desp: ("module", desp)
    watch = watched(smoke, algo)
    assert watch.told() == {"calls": 0, "kernels": []}
    plain = Plain()
    assert Static._compile_nvrtc_module("a") == ("static", "a")
    assert Class._compile_nvrtc_module("b") == (Class, "b")
    assert plain._compile_nvrtc_module("c") == (plain, "c")
    assert algo._compile_nvrtc_module("d") == ("module", "d")
    assert watch.told() == {"calls": 4, "kernels": ["a", "b", "c", "d"]}


def check_all(smoke, torch):
    check_layouts(smoke, torch)
    check_watch(smoke)
    check_numbers(smoke, torch)
    check_sites(smoke, torch)
    check_comparison(smoke, torch)
