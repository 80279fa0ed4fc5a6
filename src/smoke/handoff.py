"""The hand-off: the service's own Python proves the GPU in a forked child, before any of the service's code runs.

arrive.py runs this when `sitecustomize` is looked for, with SMOKE, the names of smoke.py, PID, the process that was let
go on, and two pipes to the entrypoint: RESULTS takes protocol lines, ORDERS gives the word. A line before this text sets PLAN. This process becomes
the service. It imports torch and spconv, and must not touch CUDA: the proof, a child that is forked then, could not use
it. The proof imports the rest, waits for the word that the GPU may be touched, and runs the smoke.

The entrypoint supervises both: it sees how they end, holds the deadline, and gives the verdict. This process goes on only
when it is told to; whatever goes wrong in here is said in a `fallback` line, and then it waits to be ended.
"""

import json
import os
import signal
import sys

# While packages are imported, os._exit may become another one.
end_now = os._exit

EXIT_OWN_FAULT = 70
# What is imported in the service's process. The other packages are for the proof alone.
HERE = tuple(name for name, entry in SMOKE["ENTRIES"].items() if entry.early)  # noqa: F821
CUDA_ERROR_NOT_INITIALIZED = 3
# prctl(2)
PR_SET_PDEATHSIG = 1
# By these, what the proof leaves behind is known: the first is kept by a fork, the second by an exec.
PROOF = "entry-proof"
MARK = "CUDA_ENTRYPOINT_CHILD_OF"


class NoHandOff(Exception):
    """Why this process cannot be the one that proves."""


def emit(kind, fields=None):
    """One protocol line. Raises where it cannot be written."""
    data = (json.dumps(kind if fields is None else {kind: fields}, allow_nan=False) + "\n").encode("ascii")
    while data:
        data = data[os.write(RESULTS, data) :]  # noqa: F821


def read_line():
    """What the entrypoint says; nothing comes where it is gone, or has given this process up."""
    line = SMOKE["read_line"](ORDERS)  # noqa: F821
    if line is None:
        end_now(EXIT_OWN_FAULT)
    return line


def first_path():
    """What Python will put in front of sys.path for the service, a moment from now; None where it is nothing."""
    if getattr(sys.flags, "safe_path", False) or sys.flags.isolated:
        return None
    script = (getattr(sys, "argv", None) or [""])[0]
    try:
        if script in ("", "-c"):
            return ""
        if script == "-m":
            return os.getcwd()
        if sys.version_info >= (3, 9):
            script = os.path.abspath(script)
        for hook in sys.path_hooks:
            # A folder or a zip with a __main__.py.
            try:
                hook(script)
                return script
            except ImportError:
                pass
        return os.path.dirname(os.path.realpath(script))
    except OSError:
        return None


def untouched(what):
    """Raises NoHandOff unless a forked child can use CUDA."""
    # Where nothing has imported ctypes it is left out if possible: libffi 3.8 keeps a descriptor.
    if "ctypes" not in sys.modules:
        with open("/proc/self/maps", "rb") as maps:
            if b"/libcuda.so" not in maps.read():
                return
    try:
        import ctypes
    except Exception as error:
        raise NoHandOff("{}: libcuda.so.1 is loaded and cannot be asked ({})".format(what, error))
    try:
        # Only where it is loaded already.
        driver = ctypes.CDLL("libcuda.so.1", mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return
    code = driver.cuDeviceGetCount(ctypes.byref(ctypes.c_int()))
    if code != CUDA_ERROR_NOT_INITIALIZED:
        text = "{} has initialised CUDA: cuDeviceGetCount returned {} instead of {}, a forked child could not use it"
        raise NoHandOff(text.format(what, code, CUDA_ERROR_NOT_INITIALIZED))


def import_packages(smoke):
    untouched("what ran before the first import, such as a .pth file,")
    first = first_path()
    if first is not None:
        sys.path.insert(0, first)
    try:
        smoke.imports(HERE, lambda name: untouched("`import {}`".format(name)))
    finally:
        if first in sys.path:
            sys.path.remove(first)


def fork():
    """Python 3.12 warns where there are other threads, which here can only be a package's."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return os.fork()
        except OSError as error:
            raise NoHandOff("no process can be made for the proof: {}".format(error))


def leave_standard_streams():
    """Standard input and output are the service's."""
    try:
        empty = os.open(os.devnull, os.O_RDWR)
    except OSError:
        # There is no /dev.
        empty = os.pipe()[0]
    os.dup2(empty, 0)
    try:
        os.dup2(2, 1)
    except OSError:
        # There is no standard error.
        os.dup2(empty, 1)
    # The buffer of the other one may hold what the imports wrote and the service's process will write.
    sys.stdout = sys.stderr


def die_with(parent):
    """Has the kernel kill this process with its parent. Without ctypes the entrypoint does, as its group's or orphan."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    except Exception:
        pass
    # It may have ended before that.
    if os.getppid() != parent:
        end_now(EXIT_OWN_FAULT)


def prove(smoke, service, entrypoint):
    """The proof's process. Never returns."""
    code = EXIT_OWN_FAULT
    try:
        die_with(service)
        leave_standard_streams()
        os.environ[MARK] = str(entrypoint)
        with open("/proc/self/comm", "w") as name:
            name.write(PROOF)
        smoke.imports()
        emit("ready")
        word = json.loads(read_line())
        if word["gpu"]:
            smoke.gpu(word.get("alone"), word.get("count", 1))
        else:
            smoke.skip_gpu(word.get("reason") or "no GPU is used")
        emit("done")
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        end_now(code)


def wait_for(proof):
    """How the proof ended."""
    try:
        status = os.waitpid(proof, 0)[1]
    except OSError:
        # A package ignores SIGCHLD: gone all the same, and its last line says the rest.
        return {"exit": EXIT_OWN_FAULT}
    return {"signal": os.WTERMSIG(status)} if os.WIFSIGNALED(status) else {"exit": os.WEXITSTATUS(status)}


class Guard:
    """What is another way while packages are imported: Ctrl-C ends this process, and is no failed step; a crash shows its
    calls."""

    def __enter__(self):
        import faulthandler

        self.interrupt = signal.getsignal(signal.SIGINT)
        if self.interrupt is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        self.shows = not faulthandler.is_enabled()
        if self.shows:
            faulthandler.enable(file=2)

    def __exit__(self, *error):
        import faulthandler

        if self.shows:
            faulthandler.disable()
        if self.interrupt is signal.default_int_handler and signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
            signal.signal(signal.SIGINT, self.interrupt)


def hand_off():
    if os.getpid() != PID:  # noqa: F821
        raise NoHandOff("it was forked by what ran before the first import, such as a .pth file")
    emit("site", {"prefix": SMOKE["plain"](sys.prefix)})  # noqa: F821
    read_line()
    smoke = SMOKE["Smoke"](PLAN["entries"], PLAN["devices"], emit)  # noqa: F821
    emit("python", SMOKE["describe_python"]())  # noqa: F821
    with Guard():
        import_packages(smoke)
        service, entrypoint = os.getpid(), os.getppid()
        proof = fork()
        if proof == 0:
            prove(smoke, service, entrypoint)
        emit("ended", wait_for(proof))
        # A proof that ended before its time has left its word unread.
        while read_line() != b"+\n":
            pass


try:
    hand_off()
except BaseException as error:
    reason = str(error) if isinstance(error, NoHandOff) else "{}: {}".format(type(error).__name__, error)
    emit("fallback", {"reason": SMOKE["plain"](reason)})  # noqa: F821
    while True:
        read_line()
os.close(ORDERS)  # noqa: F821
os.close(RESULTS)  # noqa: F821
