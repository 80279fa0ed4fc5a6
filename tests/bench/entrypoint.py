"""What an entrypoint in Python does that checks the same: what the budgets are measured against.

usage: [CUOBJDUMP=FILE] python entrypoint.py STACK.json COMMAND [ARG]...

Versions come from the metadata, as importlib reads it; everything else is asked of torch itself, which is why people
write such entrypoints: its CUDA, its architectures, and every copy of libcudart and libnvrtc by a call. Then it becomes
the command. Torch's own list of architectures stands for the kernels of all libraries, unless CUOBJDUMP names NVIDIA's
tool, which is how to look into them. Nobody asks the loader, looks for duplicates or reads what packages require: it
does less than what it is compared with.
"""

import ctypes
import glob
import importlib.metadata
import json
import os
import subprocess
import sys


# With kernels of their own.
LIBRARIES = [
    "spconv/core_cc.*.so", "torch/lib/libtorch_cuda.so", "torch/lib/libtorch_cuda_linalg.so", "torchvision/_C.so",
    "torchaudio/lib/libtorchaudio.so", "torchaudio/lib/libctc_prefix_decoder.so",
]


def main():
    with open(sys.argv[1]) as file:
        stack = json.load(file)
    wrong = []
    for name, rule in stack["packages"].items():
        version = importlib.metadata.version(name)
        if rule != "*" and version != rule.removeprefix("==").split("+")[0]:
            wrong.append(f"{name} is {version}, not {rule}")

    import torch

    if torch.version.cuda != stack["cuda"]["runtime"]:
        wrong.append(f"torch is built for CUDA {torch.version.cuda}")
    flags = torch._C._cuda_getArchFlags().split()
    for arch in stack["archs"].split(";"):
        major, minor = arch.split(".")
        # SASS of the same major version and an equal or lower minor one runs there.
        if not any(f"sm_{major}{lower}" in flags for lower in range(int(minor) + 1)):
            wrong.append(f"torch has no kernels for {arch}")

    tool = os.environ.get("CUOBJDUMP")
    for path in LIBRARIES if tool else []:
        [library] = glob.glob(os.path.join(os.path.dirname(os.path.dirname(torch.__file__)), path))
        listed = subprocess.run([tool, "--list-elf", library], stdout=subprocess.PIPE, text=True).stdout
        for arch in stack["archs"].split(";"):
            major, minor = arch.split(".")
            if not any(f".sm_{major}{lower}." in listed for lower in range(int(minor) + 1)):
                wrong.append(f"{path} has no kernels for {arch}")

    site = os.path.dirname(os.path.dirname(torch.__file__))
    major, minor = map(int, stack["cuda"]["runtime"].split("."))
    for pattern, ask in [("libcudart*.so*", cudart), ("libnvrtc[.-]*so*", nvrtc)]:
        for path in glob.glob(f"{site}/*.libs/{pattern}") + glob.glob(f"{site}/nvidia/*/lib/{pattern}"):
            if "builtins" not in path and ask(path) != (major, minor):
                wrong.append(f"{path} is CUDA {ask(path)}")
    for name in stack["files"]:
        if not os.path.exists(os.path.join(site, name)):
            wrong.append(f"{name} is missing")
    if wrong:
        sys.exit("\n".join(wrong))
    os.execvp(sys.argv[2], sys.argv[2:])


def cudart(path):
    number = ctypes.c_int()
    ctypes.CDLL(path).cudaRuntimeGetVersion(ctypes.byref(number))
    return number.value // 1000, number.value % 1000 // 10


def nvrtc(path):
    major, minor = ctypes.c_int(), ctypes.c_int()
    ctypes.CDLL(path).nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


main()
