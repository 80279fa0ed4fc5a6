# cuda-entrypoint smoke: the container's entrypoint proves torch and its extensions on the GPU before the service starts
"""Imports the stack, runs each package's kernels once on the GPU, compares with known results, and says so.

Run as `python -c TEXT PLAN`, where PLAN is `{"entries": ["torch", "spconv", ...], "devices": "first" | "all"}`. The
protocol goes to standard output, one JSON value a line: src/facts/smoke.rs describes it. After `"ready"` one line is
read from standard input: `{"gpu": true, "alone": true | false, "count": 2}`, which says whether CUDA is to be shown the
first GPU and no other, and how many there are, or `{"gpu": false, "reason": "..."}` to leave the GPU alone.

This file has torch and the packages that are built on it. A framework that brings CUDA of its own is proven in a process
of its own: then src/smoke/frameworks.py stands in front of this text, with its entries in FRAMEWORKS.

The hand-off imports this file as a module and calls the two halves itself. Needs Python 3.8, and nothing but the
standard library until it imports what it is to prove.
"""

import errno
import json
import math
import os
import sys
import time

# Whose version and file are told after such an import, where it is not the module's own.
TELLS = {"spconv.pytorch": ("cumm", "spconv"), "mmcv.ops": ("mmcv._ext",)}

# Included by whatever cumm compiles; wheels without it fail in the service's first convolution, not at import.
CUMM_HEADER = os.path.join("include", "tensorview", "core", "all.h")

# Differences are relative to the largest magnitude of the reference. Right kernels stay far below on any GPU: TF32,
# which both torch and spconv may use for float32, keeps 11 bits of each factor, and sums of some hundred products in
# float16 lose about as much (an H200 gave 3e-4 and 1e-3 with spconv 2.3.8). Swapped axes, wrong strides, kernels of
# another architecture and stale memory give differences near 1.
TOLERANCE = 2e-2

# Torch's switch that makes `torch.cuda.is_available()` ask NVML: the CUDA driver stays untouched during imports, so
# that a process can fork after them.
NVML_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"

MESSAGE_LIMIT = 4096
FRAMES = 6
KERNELS = 4

OWN_FILE = (lambda: None).__code__.co_filename


class Wrong(Exception):
    """A result that is not the reference's. `difference` is None where it is not finite, or not a number at all."""

    def __init__(self, message, difference=None, tolerance=None):
        super().__init__(message)
        self.difference = difference
        self.tolerance = tolerance


class Channel:
    """Writes protocol lines to a descriptor, each with as few write(2) as it takes."""

    def __init__(self, fd):
        self.fd = fd

    def emit(self, kind, fields=None):
        value = kind if fields is None else {kind: fields}
        line = (json.dumps(value, allow_nan=False) + "\n").encode("ascii")
        try:
            while line:
                line = line[os.write(self.fd, line) :]
        except OSError as error:
            if error.errno == errno.EBADF and self.fd > 2:
                os.write(2, b"a library has closed the descriptor that the smoke reports by\n")
            # Nobody reads what comes next: the entrypoint is gone, or ends us.
            os._exit(1)


def plain(value, limit=MESSAGE_LIMIT):
    """Text that every JSON parser takes: no lone surrogate, at most `limit` bytes of UTF-8. Never raises."""
    try:
        data = str(value).encode("utf-8", "backslashreplace")
    except BaseException as error:
        data = ("no text: its __str__ raised " + type(error).__name__).encode("ascii", "replace")
    # Cut within a character, the rest of that character goes too.
    return data[:limit].decode("utf-8", "ignore")


def type_name(error):
    """`ImportError`, `torch.OutOfMemoryError`."""
    kind = type(error)
    module = getattr(kind, "__module__", None)
    name = getattr(kind, "__qualname__", kind.__name__)
    return plain(name if module in (None, "builtins", "__main__") else "{}.{}".format(module, name), 256)


def message_of(error):
    """The exception's text, and that of what it was raised from where it adds something."""
    text = plain(error)
    cause, depth = error.__cause__, 0
    while cause is not None and depth < 4:
        why = plain(cause)
        if why and why not in text:
            text = "{} (from {}: {})".format(text, type_name(cause), why)
        cause, depth = cause.__cause__, depth + 1
    return plain(text)


def frames_of(error, importing):
    """The innermost calls, outermost first, without the import system's; ours where an operation has no others."""
    ours, others = [], []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        # A RecursionError has a thousand of them, so only the last ones are kept along the way.
        kept = ours if code.co_filename == OWN_FILE else others
        if not code.co_filename.startswith("<frozen importlib"):
            kept.append((code.co_filename, trace.tb_lineno, code.co_name))
            del kept[:-FRAMES]
        trace = trace.tb_next
    return [plain("{}:{} in {}".format(*frame), 512) for frame in (others if others or importing else ours)]


def failure_of(error, importing):
    """The fields of a `failed` line, `ms` apart."""
    if isinstance(error, Wrong):
        fields = {"kind": "wrong", "message": plain(error)}
        if error.difference is not None:
            fields["difference"] = error.difference
        if error.tolerance is not None:
            fields["tolerance"] = error.tolerance
        return fields
    kind = "import" if importing or isinstance(error, ImportError) else "error"
    return {"kind": kind, "error": type_name(error), "message": message_of(error), "frames": frames_of(error, importing)}


def import_eagerly(name):
    """Under `-X lazy_imports=all` (Python 3.15, PEP 810) an import alone would load nothing of what the module imports."""
    if not hasattr(sys, "set_lazy_imports"):
        __import__(name)
    else:
        mode = sys.get_lazy_imports()
        sys.set_lazy_imports("normal")
        try:
            __import__(name)
        finally:
            sys.set_lazy_imports(mode)
    # A folder that an uninstall left behind can be imported, as a namespace package.
    module = sys.modules.get(name)
    if hasattr(module, "__path__") and getattr(module, "__file__", None) is None:
        text = "No module named {!r}, only a folder without __init__.py: {}"
        raise ModuleNotFoundError(text.format(name, ", ".join(getattr(module, "__path__", ()))))


class Smoke:
    """One smoke. `emit(kind, fields)` takes the lines; `imports` may be called more than once, `gpu` once."""

    def __init__(self, entries, devices, emit):
        # Torch goes first: the others need it, and it decides which CUDA libraries are loaded.
        self.entries = sorted(entries, key=lambda entry: entry != "torch")
        self.all_devices = devices == "all"
        self.emit = emit
        # Why an entry is not gone on with; it was told already.
        self.over = {}
        # Whether torch was imported; the reason where it was tried in vain.
        self.torch = None
        self.imported = set()
        # Why nothing can be done with CUDA any more.
        self.broken = None

    def step(self, entry, step, work, device=None, importing=False):
        """Runs one step; `work` returns fields for `passed`, or nothing. Whether it went well."""
        label = {"entry": entry, "step": step}
        if device is not None:
            label["device"] = device
        self.emit("begin", label)
        began = time.perf_counter()
        try:
            fields = work() or {}
        # SystemExit and KeyboardInterrupt as well: a library that leaves is a failed step, not the end of the smoke.
        except BaseException as error:
            failed = {"ms": milliseconds(began)}
            failed.update(failure_of(error, importing))
            where = "" if device is None else " on device {}".format(device)
            self.over[entry] = "`{}`{} failed".format(step, where)
            self.emit("failed", failed)
            return False
        self.emit("passed", dict(fields, ms=milliseconds(began)))
        return True

    def skip(self, entry, reason):
        self.over[entry] = reason
        self.emit("skipped", {"entry": entry, "reason": plain(reason)})

    def left(self):
        return [entry for entry in self.entries if entry not in self.over]

    # Imports.

    def imports(self, entries=None, after=None):
        """Imports those of the entries, all by default, unless it was done; calls `after(module)` after each one."""
        unset = NVML_CHECK not in os.environ
        if unset:
            os.environ[NVML_CHECK] = "1"
        try:
            for entry in self.left():
                if entry not in self.imported and (entries is None or entry in entries):
                    self.imported.add(entry)
                    self.import_entry(entry, after or (lambda module: None))
        finally:
            if unset:
                os.environ.pop(NVML_CHECK, None)

    def import_entry(self, entry, after):
        if entry not in ENTRIES:
            self.skip(entry, "this smoke does not know it")
            return
        if ENTRIES[entry].runtime is not TORCH:
            pass
        elif self.torch is None:
            went_well = self.import_module(entry, "torch", after)
            self.torch = True if went_well else "`import torch` failed, and it needs torch"
            if not went_well:
                return
            if entry == "torch" and not self.check_numpy(entry):
                return
        elif self.torch is not True:
            self.skip(entry, self.torch)
            return
        if entry == "spconv" and not self.check_cumm(entry):
            return
        for module in ENTRIES[entry].imports:
            if not self.import_module(entry, module, after):
                return

    def import_module(self, entry, name, after):
        went_well = self.step(entry, "import " + name, lambda: import_eagerly(name), importing=True)
        for told in TELLS.get(name, (name,)) if went_well else ():
            module = sys.modules.get(told)
            if module is not None:
                fields = {"name": told}
                fields["version"] = plain(getattr(module, "__version__", None) or "", 256)
                fields["path"] = plain(getattr(module, "__file__", None) or "")
                self.emit("module", fields)
        after(name)
        return went_well

    def check_cumm(self, entry):
        """The header that cumm's own compilations include. No cumm at all is for `import spconv.pytorch` to say."""
        from importlib.util import find_spec

        try:
            spec = find_spec("cumm")
            folders = list(spec.submodule_search_locations or ()) if spec else []
        except Exception:
            folders = []
        if not folders:
            return True

        def work():
            for folder in folders:
                if os.path.isfile(os.path.join(folder, CUMM_HEADER)):
                    return
            raise FileNotFoundError(2, "cumm's header is missing", os.path.join(folders[0], CUMM_HEADER))

        return self.step(entry, "cumm headers", work, importing=True)

    def check_numpy(self, entry):
        """torch built for numpy 1 imports beside numpy 2 with a warning, and its tensors do not become arrays."""
        torch, numpy = sys.modules["torch"], sys.modules.get("numpy")
        # torch imports numpy itself where it is installed.
        if numpy is None:
            return True

        def work():
            try:
                got = torch.ones(2).numpy().tolist()
            except Exception as error:
                versions = (getattr(module, "__version__", None) for module in (torch, numpy))
                text = "tensor.numpy() fails with torch {} and numpy {}: {}"
                raise ImportError(text.format(*versions, message_of(error))) from None
            exactly("tensor.numpy()", got, [1.0, 1.0])

        return self.step(entry, "tensor.numpy()", work, importing=True)

    # What needs the GPU.

    def skip_gpu(self, reason):
        for entry in self.left():
            self.skip(entry, reason)

    def gpu(self, alone=False, count=1):
        """Runs what is left on the first device, or on all of them one after the other; `count` are known of.

        With `alone` CUDA is shown the first one and no other, unless an import has initialised it by now.
        """
        entries = self.left()
        if not entries:
            return
        # The entries of one process have the same.
        runtime = ENTRIES[entries[0]].runtime
        if alone:
            show_first_alone()
        devices = []
        if not self.step(entries[0], "init", lambda: devices.extend(self.find_devices(runtime, count))):
            self.skip_gpu("CUDA could not be initialised")
            return
        for device in devices:
            self.emit("device", describe(runtime, device))
        watch = watch_nvrtc()
        for device in devices:
            for entry in self.left():
                steps = ENTRIES[entry].steps
                for number, (step, run) in enumerate(steps):
                    watch.began |= entry == "spconv" and not self.broken
                    more = number + 1 < len(steps) or device != devices[-1]
                    self.gpu_step(runtime, entry, step, run, device, more)
                    if entry in self.over:
                        break
                # Told after a failure too: the compilation may be what failed.
                if entry == "spconv" and watch.began and (entry in self.over or device == devices[-1]):
                    self.emit("jit", watch.told())

    def gpu_step(self, runtime, entry, step, run, device, more):
        if self.broken:
            self.skip(entry, self.broken)
            return

        def work():
            fields = runtime.run(run, device) or {}
            # On each device: a receipt may be read where the others are gone.
            if entry == "spconv" and step == ENTRIES[entry].steps[-1][0]:
                fields["says"] = "spconv forward OK"
            return fields

        if self.step(entry, step, work, device):
            return
        failed = self.over[entry]
        try:
            runtime.synchronize(device)
        except BaseException as error:
            first = (message_of(error).splitlines() or [""])[0]
            self.broken = "CUDA is unusable since {}: {}".format(failed, first)
        if more:
            self.skip(entry, "not gone on with, since " + failed)

    def find_devices(self, runtime, count):
        count = runtime.start(count)
        if count < 1:
            raise RuntimeError("{} sees no CUDA device".format(runtime.name))
        return range(count) if self.all_devices else range(1)


def show_first_alone():
    """In the words of whoever set the list: torch 1.13 understands numbers alone."""
    name = "CUDA_VISIBLE_DEVICES"
    os.environ[name] = os.environ.get(name, "0").split(",")[0]


def milliseconds(began):
    return round((time.perf_counter() - began) * 1000, 3)


def describe(runtime, device):
    """The fields of a `device` line; what the framework does not tell stays empty."""
    fields = {"ordinal": device, "name": "", "uuid": ""}
    try:
        name, uuid = runtime.describe(device)
        fields["name"], fields["uuid"] = plain(name, 256), plain(uuid, 256)
    except Exception:
        pass
    return fields


class Torch:
    """The framework that the steps of torch, and of what is built on it, run in."""

    name = "torch"

    def start(self, count):
        """Readies CUDA; the number of its devices. `count` is what the entrypoint knows of."""
        import torch

        # The references are computed on the CPU. One thread is enough, and a team of OpenMP threads that was made
        # before a fork would hang the child.
        torch.set_num_threads(1)
        torch.cuda.init()
        return torch.cuda.device_count()

    def describe(self, device):
        import torch

        found = torch.cuda.get_device_properties(device)
        uuid = str(getattr(found, "uuid", None) or "")
        # Torch leaves the prefix out. For a slice of a GPU it could be either kind's, so none is made up.
        bare = uuid and not uuid.startswith(("GPU-", "MIG-")) and " MIG " not in found.name
        return found.name, "GPU-" + uuid if bare else uuid

    def run(self, step, device):
        """Runs a step: it starts the work on the device and returns what compares the result."""
        import torch

        torch.cuda.set_device(device)
        with torch.no_grad():
            check = step(torch, torch.device("cuda", device))
            # What was only queued so far fails here, in its own step.
            torch.cuda.synchronize(device)
            return check()

    def synchronize(self, device):
        """Raises where CUDA is unusable since a step that failed."""
        import torch

        torch.cuda.synchronize(device)


TORCH = Torch()


# Run-time compilation.


class Watch:
    """Counts the calls of what it was put around; they go on as before."""

    def __init__(self):
        self.calls = 0
        self.kernels = []
        # How many functions are watched.
        self.places = 0
        # Whether a step ran that could have called one.
        self.began = False

    def around(self, function):
        def watched(*args, **kwargs):
            self.calls += 1
            if len(self.kernels) < KERNELS:
                self.kernels.append(plain(args[-1] if args else "", 256))
            return function(*args, **kwargs)

        self.places += 1
        return watched

    def told(self):
        return {"calls": self.calls if self.places else None, "kernels": self.kernels}


def watch_nvrtc():
    """Wraps each `_compile_nvrtc_module` of spconv's kernel tuners: all of spconv 2.3's use of NVRTC goes through one.

    To be called in a process that ends with the smoke: they stay wrapped.
    """
    watch = Watch()
    algo = sys.modules.get("spconv.algo")
    name = "_compile_nvrtc_module"
    for owner in list(vars(algo).values()) if algo else ():
        function = vars(owner).get(name) if isinstance(owner, type) else None
        try:
            if isinstance(function, staticmethod):
                setattr(owner, name, staticmethod(watch.around(function.__func__)))
            elif isinstance(function, classmethod):
                setattr(owner, name, classmethod(watch.around(function.__func__)))
            elif callable(function):
                setattr(owner, name, watch.around(function))
        except Exception:
            # A class that does not take attributes: then that one is not watched.
            watch.places -= 1
    if algo and callable(vars(algo).get(name)):
        setattr(algo, name, watch.around(vars(algo)[name]))
    return watch


# Steps on the GPU: each starts the work on the device and returns what compares its result once it is there.


def scrambled(torch, count, seed):
    """The same 32-bit integers on every machine and with every torch: no generator is asked."""
    number = torch.arange(count, dtype=torch.int64) + seed * 1000003
    # Multipliers below 2**31 keep the products within int64.
    for multiplier in (0x7FEB352D, 0x45D9F3B, 0x297A2D39):
        number = ((number ^ (number >> 16)) * multiplier) & 0xFFFFFFFF
    return number ^ (number >> 15)


def values(torch, seed, *shape):
    """Numbers in [-1, 1) that look random, as float64."""
    count = 1
    for length in shape:
        count *= length
    return scrambled(torch, count, seed).to(torch.float64).div(2147483648.0).sub(1.0).reshape(shape)


def compare(torch, got, want, tolerance=TOLERANCE):
    """The largest difference, relative to the reference's largest magnitude; raises Wrong beyond the tolerance."""
    got = got.detach().to("cpu", torch.float64)
    same_shape(got.shape, want.shape, tolerance)
    all_finite(int((~torch.isfinite(got)).sum()), got.numel(), tolerance)
    return near(float((got - want).abs().max() / want.abs().max()), tolerance)


def same_shape(got, want, tolerance):
    if got != want:
        shapes = "x".join(map(str, got)), "x".join(map(str, want))
        raise Wrong("a result of shape {} instead of {}".format(*shapes), None, tolerance)


def all_finite(bad, count, tolerance):
    if bad:
        raise Wrong("{} of {} values are not finite".format(bad, count), None, tolerance)


def near(difference, tolerance):
    if not difference <= tolerance:
        text = "the result differs from the reference by {:.3g} of its largest value, {:.3g} is allowed"
        raise Wrong(text.format(difference, tolerance), difference, tolerance)
    return {"difference": difference, "tolerance": tolerance}


def exactly(what, got, want):
    if got != want:
        raise Wrong("{}: {} instead of {}".format(what, got, want))


def matmul(torch, device, dtype):
    # What the device gets is rounded first, so that the reference starts from the same numbers.
    left = values(torch, 1, 64, 96).to(dtype)
    right = values(torch, 2, 96, 80).to(dtype)
    got = left.to(device) @ right.to(device)
    return lambda: compare(torch, got, left.double() @ right.double())


BATCH, SIDE, CHANNELS_IN, CHANNELS_OUT = 2, 8, 16, 32


def sparse_sites(torch):
    """Active sites, `[batch, z, y, x]` as int32: about a third of the grid, corners and edges among them."""
    count = BATCH * SIDE**3
    ordinal = torch.arange(count, dtype=torch.int64)
    active = scrambled(torch, count, 6) < 0x55555555
    active[0] = active[-1] = True
    ordinal = ordinal[active]
    parts = [ordinal // SIDE**3, ordinal // SIDE**2 % SIDE, ordinal // SIDE % SIDE, ordinal % SIDE]
    return torch.stack(parts, dim=1).to(torch.int32)


def dense_kernel(weight, into, out):
    """spconv's weight as conv3d's `[out, in, z, y, x]`. spconv 2 keeps `[out, z, y, x, in]` (KRSC); older layouts
    are told apart by their shapes, since `into`, `out` and the kernel's size all differ."""
    if weight.shape[0] == out and weight.shape[4] == into:
        return weight.permute(0, 4, 1, 2, 3)
    if weight.shape[3] == into and weight.shape[4] == out:
        return weight.permute(4, 3, 0, 1, 2)
    if weight.shape[3] == out and weight.shape[4] == into:
        return weight.permute(3, 4, 0, 1, 2)
    raise Wrong("a weight of the unknown shape {}".format("x".join(map(str, weight.shape))))


def dense_reference(torch, features, sites, weight, bias):
    """What a submanifold convolution must give at its sites: the dense one over the grid, zero where nothing is.

    `features` are channel-last, `[sites, channels]`; all in float64 on the CPU.
    """
    batch, z, y, x = sites.long().unbind(1)
    grid = torch.zeros(BATCH, features.shape[1], SIDE, SIDE, SIDE, dtype=torch.float64)
    grid[batch, :, z, y, x] = features
    kernel = dense_kernel(weight, features.shape[1], bias.shape[0])
    dense = torch.nn.functional.conv3d(grid, kernel, bias, padding=kernel.shape[2] // 2)
    return dense[batch, :, z, y, x]


def spconv_forward(torch, device, dtype, bias=True, **options):
    import spconv.pytorch as spconv

    sites = sparse_sites(torch)
    features = values(torch, 3, sites.shape[0], CHANNELS_IN).to(dtype)
    layer = spconv.SubMConv3d(CHANNELS_IN, CHANNELS_OUT, 3, bias=bias, **options).eval()
    weight = values(torch, 4, *layer.weight.shape).mul(0.1).to(dtype)
    added = values(torch, 5, CHANNELS_OUT).mul(1.0 if bias else 0.0).to(dtype)
    layer.weight.data = weight.clone()
    if bias:
        layer.bias.data = added.clone()
    layer = layer.to(device)
    given = spconv.SparseConvTensor(features.to(device), sites.to(device), [SIDE] * 3, BATCH)
    got = layer(given)

    def check():
        exactly("the sites of the result", got.indices.cpu().tolist(), sites.tolist())
        want = dense_reference(torch, features.double(), sites, weight.double(), added.double())
        return compare(torch, got.features, want)

    return check


# Overlaps: second and first 0.82, fourth and third 0.68, fifth with none. The scores are not in the boxes' order.
BOXES = [[0, 0, 100, 100], [0, 10, 100, 110], [200, 200, 260, 260], [206, 206, 266, 266], [400, 0, 440, 40]]
SCORES = [0.7, 0.9, 0.5, 0.6, 0.8]
KEPT = [1, 4, 3]


def torchvision_nms(torch, device):
    from torchvision.ops import nms

    boxes = torch.tensor(BOXES, dtype=torch.float32).to(device)
    got = nms(boxes, torch.tensor(SCORES).to(device), 0.5)
    return lambda: exactly("the boxes kept", got.tolist(), KEPT)


def mmcv_nms(torch, device):
    from mmcv.ops import nms

    boxes = torch.tensor(BOXES, dtype=torch.float32).to(device)
    got = nms(boxes, torch.tensor(SCORES).to(device), 0.5)[1]
    return lambda: exactly("the boxes kept", got.tolist(), KEPT)


def scatter(torch, device, reduce, want):
    from torch_scatter import scatter as scattered

    source = torch.tensor([[1.0, 2.0], [3.0, -4.0], [5.0, 6.0], [-7.0, 8.0]]).to(device)
    got = scattered(source, torch.tensor([0, 2, 0, 2]).to(device), dim=0, dim_size=3, reduce=reduce)
    return lambda: exactly("the " + reduce, got.tolist(), want)


def attention_of(torch, query, key, value):
    """softmax(QK^T / sqrt(d)) V of one head, densely."""
    scores = (query @ key.permute(1, 0)).div(math.sqrt(query.shape[1]))
    return torch.softmax(scores, 1) @ value


def compare_attention(torch, got, query, key, value):
    """Holds attention over `[batch, sites, heads, width]` against the dense one of each head."""
    exactly("the shape of the result", list(got.shape), list(query.shape))
    given = [given.double().unbind(0) for given in (query, key, value)]
    told = []
    for row, of_batch in enumerate(got.unbind(0)):
        for head, of_head in enumerate(of_batch.unbind(1)):
            want = attention_of(torch, *(part[row].unbind(1)[head] for part in given))
            told.append(compare(torch, of_head, want))
    return max(told, key=lambda fields: fields["difference"])


def attention(torch, device, dtype, run, seed, batch, queries, keys):
    """Runs attention of two heads. Large queries prefer few keys to others: with equal weights nearly every mistake would
    be a mean of the same values.
    """
    heads, width = 2, 32
    query = values(torch, seed, batch, queries, heads, width).mul(8.0).to(dtype)
    key = values(torch, seed + 1, batch, keys, heads, width).to(dtype)
    value = values(torch, seed + 2, batch, keys, heads, width).to(dtype)
    got = run(query.to(device), key.to(device), value.to(device))
    return lambda: compare_attention(torch, got, query, key, value)


def flash_attention(torch, device, dtype):
    from flash_attn import flash_attn_func

    # The keys are more than the 128 that flash-attn takes at once.
    return attention(torch, device, dtype, flash_attn_func, seed=7, batch=2, queries=12, keys=150)


def xformers_attention(torch, device, dtype):
    from xformers.ops import memory_efficient_attention

    return attention(torch, device, dtype, memory_efficient_attention, seed=10, batch=1, queries=24, keys=160)


def quantized(torch, device, code, quantize, dequantize):
    """Numbers that the code has, so that they come back as they were: blocks of 64, each with a scale of its own.

    The scales are powers of two, and each block has the code's largest number, which is 1 and says the scale.
    """
    blocks, width = 64, 64
    places = scrambled(torch, blocks * width, 13).tolist()
    numbers = []
    for block in range(blocks):
        row = [1.0] + [code[place % len(code)] for place in places[block * width + 1 : (block + 1) * width]]
        numbers.append([number * 2.0 ** (block * 5 % 8 - 4) for number in row])
    given = torch.tensor(numbers, dtype=torch.float16)
    got = dequantize(*quantize(given.to(device)))
    # float16 keeps 11 bits.
    return lambda: compare(torch, got, given.double(), 1e-3)


def bitsandbytes_4bit(torch, device):
    from bitsandbytes import functional

    return quantized(
        torch,
        device,
        functional.get_4bit_type("nf4", device="cpu").tolist(),
        lambda given: functional.quantize_4bit(given, blocksize=64, quant_type="nf4"),
        functional.dequantize_4bit,
    )


def bitsandbytes_8bit(torch, device):
    from bitsandbytes import functional

    return quantized(
        torch,
        device,
        functional.create_dynamic_map().tolist(),
        lambda given: functional.quantize_blockwise(given, blocksize=64),
        functional.dequantize_blockwise,
    )


# Triton compiles a function by the lines that `inspect` finds for it.
TRITON_NAME = "<cuda-entrypoint triton>"
TRITON_TEXT = """
import triton
import triton.language as tl


@triton.jit
def product(left, right, out, SIZE: tl.constexpr):
    place = tl.arange(0, SIZE)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    tl.store(out + place, tl.dot(tl.load(left + place), tl.load(right + place)))
"""


def triton_product(torch, device, dtype):
    import linecache

    # Without a time of change the lines are kept though there is no such file.
    lines = TRITON_TEXT.splitlines(True)
    linecache.cache[TRITON_NAME] = (len(TRITON_TEXT), None, lines, TRITON_NAME)
    names = {"__name__": "_cuda_entrypoint_triton"}
    exec(compile(TRITON_TEXT, TRITON_NAME, "exec"), names)
    left, right = (values(torch, seed, 32, 32).to(dtype) for seed in (15, 16))
    got = torch.empty(32, 32, dtype=torch.float32, device=device)
    names["product"][(1,)](left.to(device), right.to(device), got, SIZE=32)
    return lambda: compare(torch, got, left.double() @ right.double())


class Entry:
    """One entry of the smoke.

    `imports` is what `import` is called with, torch apart, which all entries of this file need. `steps` are the names and
    functions of its steps on the GPU. `early` entries are imported in the service's own process where it hands off to
    itself. `runtime` is the framework that the steps run in.
    """

    def __init__(self, imports, steps, early=False, runtime=TORCH):
        self.imports, self.steps, self.early, self.runtime = imports, steps, early, runtime


# In the order of src/packages.rs, which has a row for each of them.
ENTRIES = {
    "torch": Entry(
        (),
        (
            ("matmul float32", lambda torch, device: matmul(torch, device, torch.float32)),
            ("matmul float16", lambda torch, device: matmul(torch, device, torch.float16)),
        ),
        early=True,
    ),
    "spconv": Entry(
        ("spconv.pytorch",),
        (
            ("forward float32", lambda torch, device: spconv_forward(torch, device, torch.float32)),
            ("forward float16", lambda torch, device: spconv_forward(torch, device, torch.float16)),
        ),
        early=True,
    ),
    "torchvision": Entry(("torchvision",), (("nms", torchvision_nms),)),
    # torch-scatter's sum is torch's own scatter_add; only the others use its kernels, which a build without nvcc lacks.
    "torch-scatter": Entry(
        ("torch_scatter",),
        (
            ("scatter sum", lambda torch, device: scatter(torch, device, "sum", [[6.0, 8.0], [0.0, 0.0], [-4.0, 4.0]])),
            ("scatter max", lambda torch, device: scatter(torch, device, "max", [[5.0, 6.0], [0.0, 0.0], [3.0, 8.0]])),
        ),
    ),
    # The second import loads mmcv._ext, the compiled half.
    "mmcv": Entry(("mmcv", "mmcv.ops"), (("nms", mmcv_nms),)),
    "flash-attn": Entry(
        ("flash_attn",),
        (
            ("attention float16", lambda torch, device: flash_attention(torch, device, torch.float16)),
            # Every GPU that flash-attn serves has it.
            ("attention bfloat16", lambda torch, device: flash_attention(torch, device, torch.bfloat16)),
        ),
    ),
    # Compiles, with the image's C compiler at the first start, and with its own ptxas.
    "triton": Entry(
        ("triton",),
        (("dot float16", lambda torch, device: triton_product(torch, device, torch.float16)),),
    ),
    # Without its own kernels `import xformers.ops` warns and goes on.
    "xformers": Entry(
        ("xformers", "xformers.ops"),
        (("attention float16", lambda torch, device: xformers_attention(torch, device, torch.float16)),),
    ),
    "bitsandbytes": Entry(
        ("bitsandbytes",),
        (("quantize 8 bits", bitsandbytes_8bit), ("quantize 4 bits", bitsandbytes_4bit)),
    ),
}
if "frameworks" in globals():
    ENTRIES = frameworks()  # noqa: F821


def describe_python():
    version = ".".join(map(str, sys.version_info[:3]))
    return {"version": version, "executable": plain(sys.executable or "")}


def keep(number, mode):
    """Takes a standard descriptor for ourselves: whoever uses it from here on has `/dev/null`, or standard error."""
    import fcntl

    # Never in the place of another one that is closed.
    kept = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)
    if mode is None:
        os.dup2(2, number)
    else:
        null = os.open(os.devnull, mode)
        os.dup2(null, number)
        os.close(null)
    return kept


def read_line(fd):
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(fd, 1)
        if not byte:
            return None
        line += byte
    return line


def main():
    import faulthandler
    import signal

    try:
        results, orders = keep(1, None), keep(0, os.O_RDONLY)
    except OSError:
        # A descriptor was closed: whoever started this does not want to hear.
        os._exit(1)

    def forget():
        # A process that a library leaves behind must not keep the protocol open.
        os.close(results)
        os.close(orders)

    os.register_at_fork(after_in_child=forget)
    # The entrypoint forwards an interrupt to our group: it ends this process, and is no failed step.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    faulthandler.enable(file=2)
    plan = json.loads(sys.argv[1])
    # Libraries may look at it.
    del sys.argv[1:]

    channel = Channel(results)
    smoke = Smoke(plan["entries"], plan["devices"], channel.emit)
    channel.emit("python", describe_python())
    smoke.imports()
    channel.emit("ready")
    line = read_line(orders)
    if line is None:
        os._exit(0)
    order = json.loads(line)
    if order["gpu"]:
        smoke.gpu(order.get("alone"), order.get("count", 1))
    else:
        smoke.skip_gpu(order.get("reason") or "no GPU is used")
    channel.emit("done")


if __name__ == "__main__":
    code = 0
    try:
        main()
    except BaseException:
        import traceback

        # EX_SOFTWARE: what fails here is ours, or the plan is not one.
        code = 70
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            pass
    # No teardown: it can take long or crash, and proves nothing.
    os._exit(code)
