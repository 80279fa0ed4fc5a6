"""The script that the fake packages of this folder act out: the JSON of the variable FAKE_TORCH_SCRIPT.

Its keys are places, such as `import torch` or `forward float16`, and `devices`, a list of `[name, uuid]`. What is done
at a place, in this order:

- `print`: to standard output, by Python and by the C library; `flood`: as many bytes to both outputs
- `close`: closes a descriptor; `eat`: reads standard input to its end; `need`: variables and the values they must have
- `note`: appends to a file the names and values of variables, and the standard descriptors' targets
- `await`: waits until that file is there; `demand`: raises unless it is; `mark`: makes it
- `dump`: writes to a file what this process was given: arguments, flags, variables, descriptors, signals
- `write`: a descriptor, a text for it, and perhaps how often; `allocate`: takes so many bytes of memory
- `leave`: ends the process at once with that status
- `daemon`: a process that keeps every descriptor for a minute, of a session of its own where it is `setsid`
- `cuda`: initialises the driver through `libcuda.so.1`, as `torch.cuda.is_available()` does: not if NVML is to be asked
- `nvrtc`: spconv compiles kernels of these names
- `broken`: every later `torch.cuda.synchronize()` raises this
- `pause`: sleeps for so many seconds; `hang`: for an hour by `sleep`, by `hold` with the interpreter's lock held, by
  `busy` in a loop of the interpreter that looks at no signal
- `raise_signal`, `exit`, `recurse`
- `raise`: the name of an exception, with `message` and perhaps `cause`
- `difference`, `not_finite`, `shape`, `list`: a result other than the right one

A list in place of actions has one set for each process that reads the script, the last one for all that come later;
the file `state` counts the processes then.

A script with an unknown place or action aborts the process: a test must not pass because its script was misspelt.
"""

import json
import os
import sys
import time

PLACES = (
    "import torch",
    "tensor.numpy()",
    "import cumm",
    "import spconv",
    "import spconv.pytorch",
    "import torchvision",
    "import torch_scatter",
    "import mmcv",
    "import mmcv.ops",
    "init",
    "matmul float32",
    "matmul float16",
    "forward float32",
    "forward float16",
    "torchvision nms",
    "scatter sum",
    "scatter max",
    "mmcv nms",
)
ACTIONS = (
    "print flood close eat need note daemon cuda nvrtc broken pause hang raise_signal exit recurse raise message cause "
    "difference not_finite shape list "
    "await demand mark dump write allocate leave"
).split()

broken = []


def load():
    script = json.loads(os.environ.get("FAKE_TORCH_SCRIPT", "{}"))
    state, turn = script.pop("state", None), 0
    if state is not None:
        with open(state, "a+") as file:
            file.write("process\n")
            file.seek(0)
            turn = len(file.readlines()) - 1
    for place, actions in script.items():
        if place == "devices":
            continue
        if state is not None and isinstance(actions, list):
            actions = script[place] = actions[min(turn, len(actions) - 1)]
        if place not in PLACES or set(actions) - set(ACTIONS):
            os.write(2, ("FAKE_TORCH_SCRIPT: {}: {}\n".format(place, actions)).encode())
            os.abort()
    return script


SCRIPT = load()


class OutOfMemoryError(RuntimeError):
    """Torch's own goes by this name."""


OutOfMemoryError.__module__ = "torch"


def make_error(name, message):
    import builtins

    kinds = {"torch.OutOfMemoryError": OutOfMemoryError, "wordless": Wordless}
    return (kinds.get(name) or getattr(builtins, name))(message)


class Wordless(Exception):
    def __str__(self):
        raise ValueError("no words")


def recurse():
    recurse()


kept = []


def wait_for(path):
    until = time.monotonic() + 60
    while not os.path.exists(path):
        if time.monotonic() > until:
            os.write(2, ("no {} came\n".format(path)).encode())
            os.abort()
        time.sleep(0.002)


def dump(path):
    seen = {"argv": sys.argv, "orig_argv": getattr(sys, "orig_argv", None), "executable": sys.executable}
    seen["prefix"], seen["path"] = sys.prefix, sys.path
    seen["flags"] = {name: getattr(sys.flags, name) for name in ("ignore_environment", "no_user_site", "no_site")}
    seen["env"] = dict(os.environ)
    seen["fds"] = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            seen["fds"][name] = os.readlink("/proc/self/fd/" + name)
        except OSError:
            pass  # that of the folder
    with open("/proc/self/status") as file:
        seen["signals"] = dict(line.split() for line in file if line.startswith("Sig"))
    with open(path, "w") as file:
        json.dump(seen, file)


def act(place, device=None):
    """Does what the script says of that place, and returns it."""
    actions = SCRIPT.get(place, {})
    c = None
    if {"print", "cuda"} & set(actions) or actions.get("hang") == "hold":
        import ctypes as c
    if "print" in actions:
        print(actions["print"])
        c.CDLL(None).puts((actions["print"] + " in C").encode())
        c.CDLL(None).fflush(None)
    for stream in (1, 2) if "flood" in actions else ():
        left = actions["flood"]
        while left > 0:
            left -= os.write(stream, b"x" * min(left, 65536))
    if "close" in actions:
        os.close(actions["close"])
    if "eat" in actions:
        sys.stdin.read()
    for name, value in actions.get("need", {}).items():
        assert os.environ.get(name) == value, "{}={}".format(name, os.environ.get(name))
    if "note" in actions:
        with open(actions["note"], "a") as file:
            seen = {name: os.environ.get(name) for name in ("PYTHONPATH", "PYTORCH_NVML_BASED_CUDA_CHECK")}
            seen["place"], seen["path"] = place, sys.path
            file.write(json.dumps(seen) + "\n")
    if "await" in actions:
        wait_for(actions["await"])
    if "demand" in actions:
        assert os.path.exists(actions["demand"]), "too early"
    if "mark" in actions:
        open(actions["mark"], "w").close()
    if "dump" in actions:
        dump(actions["dump"])
    if "write" in actions:
        fd, text, *times = actions["write"]
        for _ in range(*times or (1,)):
            os.write(fd, text.encode())
    if "allocate" in actions:
        kept.append(bytearray(actions["allocate"]))
    if "leave" in actions:
        os._exit(actions["leave"])
    if "daemon" in actions and os.fork() == 0:
        if actions["daemon"] == "setsid":
            os.setsid()
        time.sleep(60)
        os._exit(0)
    if "cuda" in actions and os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK") != "1" or actions.get("cuda") == "always":
        assert c.CDLL("libcuda.so.1").cuInit(0) == 0
    for name in actions.get("nvrtc", ()):
        sys.modules["spconv.algo"].SimpleConv._compile_nvrtc_module(name)
    if "broken" in actions:
        broken.append(actions["broken"])
    time.sleep(actions.get("pause", 0))
    if actions.get("hang") == "busy":
        sum(range(10**12))
    if actions.get("hang") == "sleep":
        time.sleep(3600)
    if actions.get("hang") == "hold":
        c.PyDLL(None).sleep(3600)
    if "raise_signal" in actions:
        os.kill(os.getpid(), actions["raise_signal"])
    if "exit" in actions:
        sys.exit(actions["exit"])
    if "recurse" in actions:
        recurse()
    if "raise" in actions:
        error = make_error(actions["raise"], actions.get("message", ""))
        if "cause" in actions:
            raise error from make_error("OSError", actions["cause"])
        raise error
    return actions
