#!/usr/bin/env python3
"""Proves the smoke's references with real packages, on the CPU: `references.py path/to/smoke.py`.

Fails with an AssertionError. torch is needed, spconv, torchvision and torch_scatter are used where they are.
"""

import importlib.util
import sys

spec = importlib.util.spec_from_file_location("smoke", sys.argv[1])
smoke = importlib.util.module_from_spec(spec)
spec.loader.exec_module(smoke)

import cases  # noqa: E402
import torch  # noqa: E402

CPU = torch.device("cpu")


def by_hand(features, sites, weight, bias):
    """A submanifold convolution as its definition has it, with spconv's weight of `[out, z, y, x, in]`."""
    rows = {tuple(site): row for row, site in enumerate(sites.tolist())}
    out = []
    for batch, z, y, x in sites.tolist():
        total = bias.clone()
        for dz in range(3):
            for dy in range(3):
                for dx in range(3):
                    row = rows.get((batch, z + dz - 1, y + dy - 1, x + dx - 1))
                    if row is not None:
                        total += weight[:, dz, dy, dx, :] @ features[row]
        out.append(total)
    return torch.stack(out)


def wrong(work):
    return cases.raised(smoke.Wrong, work)


cases.check_all(smoke, torch)

sites = smoke.sparse_sites(torch)
features = smoke.values(torch, 3, len(sites), smoke.CHANNELS_IN)
weight = smoke.values(torch, 4, smoke.CHANNELS_OUT, 3, 3, 3, smoke.CHANNELS_IN)
bias = smoke.values(torch, 5, smoke.CHANNELS_OUT)
# As in the smoke: beside full weights, a forgotten bias would be small.
weight = weight * 0.1
reference = smoke.dense_reference(torch, features, sites, weight, bias)
smoke.compare(torch, by_hand(features, sites, weight, bias), reference, 1e-12)

# The layouts of older releases hold the same weight in another order.
for layout in ((1, 2, 3, 4, 0), (1, 2, 3, 0, 4)):
    older = smoke.dense_reference(torch, features, sites, weight.permute(layout), bias)
    smoke.compare(torch, older, reference, 1e-12)

# What a broken kernel could give is far from the reference.
mistakes = {
    "mirrored": by_hand(features, sites, weight.flip(1, 2, 3), bias),
    "axes swapped": by_hand(features, sites, weight.permute(0, 3, 2, 1, 4).contiguous(), bias),
    "no bias": by_hand(features, sites, weight, bias * 0),
    "neighbours left out": features @ weight[:, 1, 1, 1, :].T + bias,
    "one row of another site": torch.cat([reference[1:2], reference[1:]]),
    "one channel zero": reference * (torch.arange(smoke.CHANNELS_OUT) != 7),
    "nothing": reference * 0,
}
for name, result in mistakes.items():
    difference = wrong(lambda: smoke.compare(torch, result, reference)).difference
    assert difference > 5 * smoke.TOLERANCE, (name, difference)
for value in (float("nan"), float("inf")):
    spoilt = reference.clone()
    spoilt[5, 5] = value
    assert wrong(lambda: smoke.compare(torch, spoilt, reference)).difference is None
assert "shape" in str(wrong(lambda: smoke.compare(torch, reference[:, :5], reference)))

for dtype in (torch.float32, torch.float16):
    assert smoke.matmul(torch, CPU, dtype)()["difference"] < 1e-3, dtype


def used(name):
    if importlib.util.find_spec(name) is None:
        print("not there:", name)
        return False
    return True


if used("spconv"):
    from spconv.pytorch import ConvAlgo

    # spconv's own kernels: on the CPU it has the native algorithm alone, and takes no bias.
    for dtype in (torch.float32, torch.float16):
        with torch.no_grad():
            check = smoke.spconv_forward(torch, CPU, dtype, bias=False, algo=ConvAlgo.Native)
        difference = check()["difference"]
        print("spconv on the CPU, {}: {:.3g}".format(dtype, difference))
        assert difference < 2e-3, dtype
    watch = smoke.watch_nvrtc()
    assert watch.places == 4, watch.places
    import spconv.algo

    for owner in (spconv.algo.SimpleGemm, spconv.algo.SimpleConv):
        try:
            owner._compile_nvrtc_module("a kernel")
        except Exception as error:
            # It went on to the real one, which wants more than a name.
            assert isinstance(error, AttributeError), error
    assert watch.told() == {"calls": 2, "kernels": ["a kernel"] * 2}, watch.told()
if used("torchvision"):
    smoke.torchvision_nms(torch, CPU)()
if used("torch_scatter"):
    for _, run in smoke.ENTRIES["torch-scatter"].steps:
        run(torch, CPU)()
if used("mmcv"):
    smoke.mmcv_nms(torch, CPU)()
print("all of it holds")
