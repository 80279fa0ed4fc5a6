"""What a service can see of the world that it was started into, as JSON on standard output.

The tests run a service with and without the hand-off and compare. torch and spconv are imported first, as the service
would do; what they bring along is the same both ways.
"""

import faulthandler
import fcntl  # noqa: F401
import gc
import importlib.util  # noqa: F401
import json
import multiprocessing
import os
import select  # noqa: F401
import signal
import subprocess
import sys
import threading
import traceback
import warnings
import zipimport

try:
    import ctypes  # noqa: F401
except ImportError:
    pass
import torch  # noqa: F401
import spconv.pytorch  # noqa: F401


def text(value):
    return os.fsencode(value).decode("utf-8", "backslashreplace") if isinstance(value, str) else str(value)


def descriptors():
    found = {}
    for number in sorted(map(int, os.listdir("/proc/self/fd"))):
        try:
            target = os.readlink("/proc/self/fd/{}".format(number))
        except OSError:
            continue  # the folder itself
        # The numbers of pipes and sockets differ from run to run.
        found[number] = "{} {}".format(target.split(":[")[0], os.get_inheritable(number))
    return found


def status():
    with open("/proc/self/status") as file:
        pairs = (line.split(":", 1) for line in file)
        wanted = ("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "Threads", "Umask", "Name")
        return {key: value.strip() for key, value in pairs if key in wanted}


def children():
    with open("/proc/self/task/{}/children".format(os.getpid())) as file:
        return file.read().split()


def main_module():
    main = sys.modules["__main__"]
    seen = {}
    for name in ("__name__", "__file__", "__package__", "__cached__", "__loader__", "__spec__", "__doc__"):
        value = getattr(main, name, "absent")
        seen[name] = type(value).__name__ if name == "__loader__" else repr(value).split(" at 0x")[0]
    spec = getattr(main, "__spec__", None)
    if spec:
        seen["__spec__"] = [spec.name, spec.origin, spec.parent]
    return seen


def customized():
    module = sys.modules.get("sitecustomize")
    if module is None:
        return None
    return [module.__file__, module.__spec__.origin, type(module.__loader__).__name__, module.__name__]


def raised():
    try:
        raise ValueError("as always")
    except ValueError:
        return traceback.format_exc()


def in_child(queue):
    environ = sorted(text("{}={}".format(*item)) for item in os.environ.items())
    queue.put([sys.path, environ, sorted(map(text, sys.argv)), descriptors_but_pipes()])


def descriptors_but_pipes():
    return [number for number, target in descriptors().items() if "pipe" not in target and "sema" not in target]


def of_processes():
    seen = {}
    for method in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context(method)
        queue = context.SimpleQueue()
        process = context.Process(target=in_child, args=(queue,))
        process.start()
        seen[method] = queue.get()
        process.join()
        seen[method].append(process.exitcode)
    return seen


def of_commands():
    show = "import os, sys; print(sys.path, sorted(os.environ), os.listdir('/proc/self/fd'), sorted(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", show], stdout=subprocess.PIPE, close_fds=False, check=True).stdout
    env = subprocess.run(["env"], stdout=subprocess.PIPE, check=True).stdout
    return [shown.decode(), env.decode("utf-8", "backslashreplace").splitlines()]


def observe(processes=False, numbers=True):
    known = [number for number in signal.valid_signals() if isinstance(number, signal.Signals)]
    timers = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
    streams = [stream for stream in (sys.stdin, sys.stdout, sys.stderr) if stream]
    seen = {
        "argv": sys.argv,
        "orig_argv": getattr(sys, "orig_argv", None),
        "cmdline": open("/proc/self/cmdline").read().split("\0"),
        "flags": repr(sys.flags),
        "xoptions": sys._xoptions,
        "warnoptions": sys.warnoptions,
        "main": main_module(),
        "path": sys.path,
        "caches": sorted(map(str, sys.path_importer_cache)),
        "zips": sorted(zipimport._zip_directory_cache),
        "finders": [repr(item).split(" at 0x")[0] for item in sys.meta_path + sys.path_hooks],
        "modules": sorted(sys.modules),
        "files": sorted(str(getattr(module, "__file__", None)) for module in list(sys.modules.values())),
        "sitecustomize": customized(),
        "environ": [text("{}={}".format(*item)) for item in os.environ.items()],
        "descriptors": descriptors(),
        "signals": {number.name: repr(signal.getsignal(number)).split(" at 0x")[0] for number in known},
        "status": status(),
        "mask": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
        "timers": [signal.getitimer(timer) for timer in timers],
        "wakeup": signal.set_wakeup_fd(-1),
        "children": children() if numbers else len(children()),
        "threads": [len(os.listdir("/proc/self/task")), [thread.name for thread in threading.enumerate()]],
        "cwd": os.getcwd(),
        "warnings": [repr(item) for item in warnings.filters],
        "faulthandler": faulthandler.is_enabled(),
        "gc": [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()],
        "limits": [sys.getrecursionlimit(), sys.getswitchinterval()],
        "hooks": [sys.excepthook.__name__, sys.displayhook.__name__, sys.unraisablehook.__name__],
        "streams": [[stream.name, stream.encoding, stream.errors, stream.line_buffering] for stream in streams],
        "multiprocessing": multiprocessing.get_start_method(allow_none=True),
        "traceback": raised(),
        "maps": sorted({line.split()[-1] for line in open("/proc/self/maps") if "memfd" in line or "rwx" in line}),
    }
    if processes:
        seen["processes"] = of_processes()
        seen["commands"] = of_commands()
    print(json.dumps(seen, indent=1, sort_keys=True))
