"""The hand-off: the service's own Python proves the GPU in a forked child, before any of the service's code runs.

The entrypoint executes the service's command with this text, as `sitecustomize.py` in a zip in memory, in front of
`PYTHONPATH`; a line before it sets PLAN. `site` imports it before the service. Three processes take part:

- this one becomes the service. It imports torch and spconv, and must not touch CUDA: a child that is forked after
  that cannot use it;
- the proof, forked after the imports, runs the smoke on the GPU;
- the keeper, forked before them, holds the deadline and runs the entrypoint's verdict: it can do so while this process
  hangs in an import with the interpreter's lock held, or has crashed in one, and then it ends this process.

The service starts where the verdict's exit code is 0; any other is this process's. What goes wrong in here leads to a
verdict, too: a `fallback` line makes the entrypoint smoke in a process of its own. Then everything is put back.

PLAN's descriptors: `zip_fd` is the zip, `binary_fd` the entrypoint's executable, `results_fd` takes protocol lines, one
write each, at its end; `keep_fds` are those that the verdict inherits. `alone` is whether the proof is to be shown the
first GPU and no other. `python_path` is what `PYTHONPATH` was, or null; `pid` or `parent`, where one is given, tells the
process that was meant: others, such as those that a .pth file starts, go on without a proof of their own.
`held` are signals that the entrypoint blocked for the time until handlers stand here: the kernel takes from the first
process of a container what it does not handle.
"""

import fcntl
import json
import os
import select
import signal
import sys
import time

# They end the checks, whoever ignored them before; `docker stop` sends the first.
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
# They end a process that does not handle them, but not the first one of a container.
ENDING_BY_DEFAULT = (
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGXCPU,
    signal.SIGIO,
    signal.SIGPWR,
)
# A crash, whose step is to be told.
FAULTS = (signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGBUS, signal.SIGILL)
# The keeper's word to this process: end with the code that was left for you.
LEAVE = signal.SIGRTMAX
OURS = ENDING + ENDING_BY_DEFAULT + FAULTS + (LEAVE,)

# While packages are imported, os._exit is another one.
end_now = os._exit

EXIT_OWN_FAULT = 70
EXIT_DEADLINE = 85

# What is imported in the service's process. The other packages are for the proof alone.
HERE = ("torch", "spconv")

CUDA_ERROR_NOT_INITIALIZED = 3
# prctl(2)
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37
# For what was killed to go, in seconds. A process in an uninterruptible call of the driver never does.
KILL_PATIENCE = 5.0


class Touched(Exception):
    """CUDA was initialised in this process, or nobody knows."""


def say(text):
    try:
        os.write(2, "cuda-entrypoint: {}\n".format(text).encode("utf-8", "backslashreplace"))
    except OSError:
        pass


def to_bytes(text):
    """The bytes that the entrypoint had: what was not UTF-8 comes as lone surrogates, whatever the locale is."""
    return text.encode("utf-8", "surrogateescape")


def append(plan, line):
    """One protocol line. Raises where it cannot be written."""
    data = (json.dumps(line, allow_nan=False) + "\n").encode("ascii")
    while data:
        data = data[os.write(plan["results_fd"], data) :]


def close(fd):
    try:
        os.close(fd)
    except OSError:
        pass


def pipe():
    """Reading end, writing end. Low numbers stay free: for standard descriptors that are closed, and for what packages
    open and keep, which is to have the number that it has without us."""
    ends = []
    for end in os.pipe():
        try:
            ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 200))
        except OSError:
            # EINVAL: RLIMIT_NOFILE is lower.
            ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3))
        os.close(end)
    return ends


def leave_standard_streams():
    """For a child: standard input and output are the service's."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    try:
        os.dup2(2, 1)
    except OSError:
        # There is no standard error.
        os.dup2(null, 1)
    os.set_inheritable(0, True)
    os.set_inheritable(1, True)


def fork():
    """Python 3.12 warns where there are other threads, which here can only be a package's."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return os.fork()


def die_with(parent, number):
    """Makes this process get a signal when its parent ends. Without ctypes, others see to it a little later."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    except Exception:
        pass
    # It may have ended before that.
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def default_signals(numbers=OURS):
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)


def kill_group(leader):
    """A process that nobody has reaped yet, and its group."""
    for kill in (os.killpg, os.kill):
        try:
            kill(leader, signal.SIGKILL)
        except OSError:
            pass


def children():
    """Our children's numbers; nothing where the kernel does not list them."""
    found = set()
    try:
        for task in os.listdir("/proc/self/task"):
            with open("/proc/self/task/{}/children".format(task)) as numbers:
                found.update(map(int, numbers.read().split()))
    except OSError:
        pass
    return found


# The handlers of this process.


class MachineHandlers:
    """Handlers in machine code: they act while an import hangs with the interpreter's lock held.

    For x86-64, with ctypes and memory that may be executed; the constructor raises where one is missing. They are
    unknown to Python, so that nothing that it keeps about signals changes.
    """

    # A handler gets the signal's number in edi.
    EXIT = bytes.fromhex("83ef80 b8e7000000 0f05")  # sub edi, -128; mov eax, 231 (exit_group); syscall

    def __init__(self, keeper):
        if os.uname().machine != "x86_64" or sys.maxsize < 1 << 32:
            raise NotImplementedError("not x86-64")
        import ctypes

        self.ctypes = ctypes
        # An object of our own: argument types set here are nobody else's.
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.mmap.restype = ctypes.c_void_p
        pointer, number = ctypes.c_void_p, ctypes.c_int
        self.libc.mmap.argtypes = [pointer, ctypes.c_size_t, number, number, number, ctypes.c_long]
        self.libc.munmap.argtypes = [pointer, ctypes.c_size_t]
        self.libc.mprotect.argtypes = [pointer, ctypes.c_size_t, number]

        # Shared with the keeper, which leaves the exit code there.
        self.left = self.map(shared=True)
        ctypes.c_int.from_address(self.left).value = EXIT_DEADLINE
        # mov rax, the code's address; mov edi, [rax]; mov eax, 231 (exit_group); syscall
        leave = b"\x48\xb8" + self.left.to_bytes(8, "little") + bytes.fromhex("8b38 b8e7000000 0f05")
        # push rdi; mov edi, the keeper's pipe; mov rsi, rsp; mov edx, 1; mov eax, 1 (write); syscall: it is told the
        # signal's number. cmp eax, 1; jne exit; again: mov eax, 34 (pause); syscall; jmp again; exit: pop rdi; EXIT
        fault = b"\x57\xbf" + keeper.to_bytes(4, "little")
        fault += bytes.fromhex("4889e6 ba01000000 b801000000 0f05 83f801 7509 b822000000 0f05 ebf7 5f") + self.EXIT
        self.code = self.map(shared=False)
        places = []
        for position, code in enumerate((self.EXIT, leave, fault)):
            places.append(self.code + 256 * position)
            ctypes.memmove(places[-1], code, len(code))
        # PROT_READ and PROT_EXEC: never writable and executable at once.
        if self.libc.mprotect(self.code, 4096, 5) != 0:
            raise OSError(ctypes.get_errno(), "no memory may be executed")
        self.exit, self.leave, self.fault = places
        self.replaced = []

    def map(self, shared):
        # PROT_READ and PROT_WRITE, MAP_ANONYMOUS with MAP_SHARED or MAP_PRIVATE
        address = self.libc.mmap(None, 4096, 3, 0x20 | (1 if shared else 2), -1, 0)
        if address in (None, self.ctypes.c_void_p(-1).value):
            raise OSError(self.ctypes.get_errno(), "mmap")
        return address

    def action(self, number, new=None):
        """sigaction(2): the old one as bytes, the handler's address first."""
        # Of glibc and of musl: address, 128 bytes of mask, flags, address of the restorer.
        old = self.ctypes.create_string_buffer(152)
        if self.libc.sigaction(int(number), new, old) != 0:
            raise OSError(self.ctypes.get_errno(), "sigaction")
        return old.raw

    def handler(self, number):
        return int.from_bytes(self.action(number)[:8], "little")

    def put(self, number, handler, over_any):
        if not over_any and self.handler(number) not in (0, 1):
            # Neither SIG_DFL nor SIG_IGN: somebody handles it.
            return
        new = handler.to_bytes(8, "little") + bytes(144)
        self.replaced.append((number, handler, self.action(number, new)))

    def install(self):
        for number in ENDING:
            self.put(number, self.exit, True)
        self.put(LEAVE, self.leave, True)
        for number in ENDING_BY_DEFAULT:
            self.put(number, self.exit, False)

    def install_faults(self):
        for number in FAULTS:
            self.put(number, self.fault, False)

    def set_code(self, code):
        self.ctypes.c_int.from_address(self.left).value = code

    def restore(self):
        for number, handler, old in reversed(self.replaced):
            # A package that put its own there keeps it.
            if self.handler(number) == handler:
                self.action(number, old)
        self.libc.munmap(self.code, 4096)
        self.libc.munmap(self.left, 4096)


class PythonHandlers:
    """What is left without machine code: these wait for the interpreter, and a crash is nobody's business."""

    def __init__(self, replies, patience):
        self.replies = replies
        self.patience = patience
        self.replaced = []

    def install(self):
        for number in ENDING + (LEAVE,):
            old = signal.signal(number, self.end)
            # None is a handler that Python does not know and cannot put back.
            if old is not None:
                self.replaced.append((number, old))
        if os.getpid() == 1:
            import faulthandler

            # Nobody can kill the first process of a container. The last resort, with exit code 1.
            faulthandler.dump_traceback_later(self.patience + 30, exit=True)

    def install_faults(self):
        pass

    def end(self, number, frame):
        if number != LEAVE:
            end_now(128 + number)
        code = read_code(self.replies, 0)
        if code:
            end_now(code)

    def set_code(self, code):
        pass

    def restore(self):
        for number, old in self.replaced:
            if signal.getsignal(number) == self.end:
                signal.signal(number, old)
        if os.getpid() == 1:
            import faulthandler

            faulthandler.cancel_dump_traceback_later()


def read_code(replies, milliseconds):
    """The keeper's answer; None where none comes in that time, or ever."""
    poller = select.poll()
    poller.register(replies, select.POLLIN)
    said = b""
    while poller.poll(milliseconds):
        data = os.read(replies, 64)
        if not data:
            break
        said += data
        for line in said.split(b"\n")[:-1]:
            if line.isdigit():
                return int(line)
    return None


# The verdict.


def run_verdict(plan, started=lambda pid: None):
    """The entrypoint's exit code, once it has judged what `results_fd` holds."""
    parent = os.getpid()
    child = fork()
    if child == 0:
        try:
            become_the_verdict(plan, parent)
        except BaseException as error:
            say("the entrypoint cannot be executed for its verdict: {}".format(error))
        end_now(EXIT_OWN_FAULT)
    started(child)
    status = os.waitpid(child, 0)[1]
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def become_the_verdict(plan, parent):
    # Python ignores these two from its start on.
    default_signals(OURS + (signal.SIGPIPE, signal.SIGXFSZ))
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    die_with(parent, signal.SIGKILL)
    leave_standard_streams()
    for fd in plan["keep_fds"]:
        os.set_inheritable(fd, True)
    environment = dict(to_bytes(variable).split(b"=", 1) for variable in plan["verdict_env"])
    path = "/proc/self/fd/{}".format(plan["binary_fd"])
    os.execve(path, [to_bytes(argument) for argument in plan["verdict_argv"]], environment)


class Keeper:
    """The process that waits beside this one. Python's own handlers do here: it hangs in nothing."""

    def __init__(self, plan, parent, deadline, orders, replies, handlers):
        self.plan = plan
        self.parent = parent
        self.deadline = deadline
        self.orders = orders
        self.replies = replies
        self.handlers = handlers
        self.proof = None
        self.verdict = None

    def run(self):
        try:
            default_signals()
            signal.signal(signal.SIGUSR1, self.orphaned)
            die_with(self.parent, signal.SIGUSR1)
            self.serve()
        except BaseException as error:
            say("the hand-off's keeper failed: {}: {}".format(type(error).__name__, error))

    def orphaned(self, *_):
        """The parent ended by a signal: nothing of us stays."""
        if self.proof:
            kill_group(self.proof)
        if self.verdict:
            os.kill(self.verdict, signal.SIGKILL)
        end_now(0)

    def serve(self):
        poller = select.poll()
        poller.register(self.orders, select.POLLIN)
        pending = b""
        while True:
            left = self.deadline - time.monotonic()
            if not poller.poll(max(0, int(left * 1000) + 1)):
                if time.monotonic() >= self.deadline:
                    self.judge({"timeout": True})
                continue
            data = os.read(self.orders, 64)
            if not data:
                self.orphaned()
            faults = [byte for byte in data if byte in FAULTS]
            if faults:
                self.judge({"signal": faults[0]}, faults[0])
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                if line == b"verdict":
                    self.judge(None)
                self.proof = int(line)

    def judge(self, ended, crash=0):
        """The last thing that it does. `ended` is told here where the parent does not come to it."""
        if ended:
            # Before the proof is killed, so that its end is not taken for its own.
            os.write(self.replies, b"deadline\n")
            append(self.plan, {"ended": ended})
        if ended and self.proof:
            kill_group(self.proof)
        code = run_verdict(self.plan, lambda pid: setattr(self, "verdict", pid))
        self.verdict = None
        if crash and code == 0:
            # Whatever the verdict, there is no service any more.
            code = 128 + crash
        self.handlers.set_code(code)
        os.write(self.replies, b"%d\n" % code)
        if code and ended and not self.proof:
            self.end_parent()
        end_now(0)

    def end_parent(self):
        """It hangs in an import, or has crashed in one; else it waits for our answer, and ends by itself."""
        os.kill(self.parent, LEAVE)
        if isinstance(self.handlers, PythonHandlers):
            # These do not help where it hangs outside of Python. Its pipe closes when it ends.
            poller = select.poll()
            poller.register(self.orders, 0)
            if not poller.poll(2000):
                os.kill(self.parent, signal.SIGKILL)


# The service's process.


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
    """Raises Touched unless a forked child can use CUDA."""
    try:
        import ctypes
    except Exception as error:
        with open("/proc/self/maps", "rb") as maps:
            if b"/libcuda.so" in maps.read():
                raise Touched("{}: libcuda.so.1 is loaded and cannot be asked ({})".format(what, error))
        return
    try:
        # Only where it is loaded already.
        driver = ctypes.CDLL("libcuda.so.1", mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return
    code = driver.cuDeviceGetCount(ctypes.byref(ctypes.c_int()))
    if code != CUDA_ERROR_NOT_INITIALIZED:
        text = "{} has initialised CUDA: cuDeviceGetCount returned {} instead of {}, a forked child could not use it"
        raise Touched(text.format(what, code, CUDA_ERROR_NOT_INITIALIZED))


class HandOff:
    def __init__(self, plan):
        self.plan = plan
        self.deadline = time.monotonic() + plan["timeout_s"]
        self.keeper = None
        self.proof = None
        self.handlers = None
        self.orders = self.replies = -1
        self.mask = None
        self.waiting = set()
        self.ignored_children = False
        # Those that were there before the proof.
        self.children = set()
        # What is to be put back, where orphans were made to come to this process.
        self.subreaper = None
        # In the environment of whatever the proof executes.
        self.mark = "CUDA_ENTRYPOINT_CHILD_OF", str(os.getpid())
        # How faulthandler was: None as long as it was not touched.
        self.dumped = None

    def run(self):
        """Returns as the service, or ends the process."""
        try:
            self.guard()
            self.prove()
            code = self.verdict()
        except BaseException as error:
            code = self.fall_back(error)
        if code != 0:
            try:
                self.end_processes()
            finally:
                end_now(code)
        for put_back in (
            self.forget_zip,
            self.end_processes,
            self.restore_handlers,
            self.close_descriptors,
        ):
            try:
                put_back()
            except BaseException as error:
                say("after the hand-off, {}: {}: {}".format(put_back.__name__, type(error).__name__, error))

    def fall_back(self, error):
        """The verdict where this way did not lead to one."""
        known = isinstance(error, Touched)
        reason = str(error) if known else "{}: {}".format(type(error).__name__, error)
        try:
            # Else it would go on beside the smoke of the verdict.
            self.end_proof()
            text = reason.encode("utf-8", "backslashreplace")[:4096].decode("utf-8", "ignore")
            append(self.plan, {"fallback": {"reason": text}})
        except BaseException as second:
            # Then the verdict finds results without an end.
            say("the hand-off failed ({}) and cannot tell: {}".format(reason, second))
        try:
            return self.verdict()
        except BaseException as second:
            # It does not start unproven.
            say("the hand-off failed ({}), and so did the verdict on it: {}".format(reason, second))
            return EXIT_OWN_FAULT

    def guard(self):
        """Signals, then the keeper, then crashes."""
        plan = self.plan
        for fd in self.descriptors():
            os.set_inheritable(fd, False)
        orders, self.orders = pipe()
        self.replies, replies = pipe()
        try:
            self.handlers = MachineHandlers(self.orders)
        except Exception:
            self.handlers = PythonHandlers(self.replies, plan["timeout_s"])
        self.handlers.install()
        # Children of a process that ignores this are gone without a word.
        if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.ignored_children = True
        self.waiting = signal.sigpending()
        self.mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, OURS).difference(plan.get("held", ()))
        parent = os.getpid()
        self.keeper = fork()
        if self.keeper == 0:
            try:
                close(self.orders)
                close(self.replies)
                Keeper(plan, parent, self.deadline, orders, replies, self.handlers).run()
            finally:
                end_now(EXIT_OWN_FAULT)
        close(orders)
        close(replies)
        self.guard_faults()

    def guard_faults(self):
        """Python's faulthandler shows the calls, then ours tells the keeper."""
        import faulthandler

        was = faulthandler.is_enabled()
        by_python = sys.flags.dev_mode or "faulthandler" in sys._xoptions
        by_python = by_python or (os.environ.get("PYTHONFAULTHANDLER") and not sys.flags.ignore_environment)
        if was and not by_python:
            # Somebody's own, with a file of its own, which could not be put back.
            return
        faulthandler.disable()
        self.dumped = was
        self.handlers.install_faults()
        faulthandler.enable(file=2)

    def load(self):
        """The smoke, from the zip; nothing is left of either."""
        import _cuda_entrypoint_smoke as smoke

        self.forget_zip()
        return smoke

    def forget_zip(self):
        path = "/proc/self/fd/{}".format(self.plan["zip_fd"])
        sys.modules.pop("_cuda_entrypoint_smoke", None)
        if path in sys.path:
            sys.path.remove(path)
        sys.path_importer_cache.pop(path, None)
        cache = getattr(sys.modules.get("zipimport"), "_zip_directory_cache", {})
        cache.pop(path, None)
        before = self.plan["python_path"]
        if before is None:
            os.environb.pop(b"PYTHONPATH", None)
        else:
            os.environb[b"PYTHONPATH"] = to_bytes(before)

    def prove(self):
        plan = self.plan
        module = self.load()

        def emit(kind, fields=None):
            append(plan, kind if fields is None else {kind: fields})

        smoke = module.Smoke(plan["entries"], plan["devices"], emit)
        emit("python", module.describe_python())
        untouched("what ran before the first import, such as a .pth file,")
        first = first_path()
        if first is not None:
            sys.path.insert(0, first)
        stay = self.stay()
        try:
            smoke.imports(HERE, lambda name: untouched("`import {}`".format(name)))
        finally:
            stay()
            if first in sys.path:
                sys.path.remove(first)
        if self.decided():
            return
        self.adopt()
        ended, done = pipe()
        parent = os.getpid()
        self.proof = fork()
        if self.proof == 0:
            close(ended)
            self.be_the_proof(smoke, emit, parent, done)
        close(done)
        try:
            os.setpgid(self.proof, self.proof)
        except OSError:
            pass
        self.tell(b"%d\n" % self.proof)
        end = self.wait(ended)
        close(ended)
        if end:
            append(plan, {"ended": end})

    def stay(self):
        """Makes os._exit lead to a verdict: an import that calls it would end the service with its own code, and nobody would
        know why. Returns what puts it back."""
        importing = [os.getpid()]

        def _exit(status):
            # A package may have got hold of this one for later, and a forked child of one ends as it likes.
            if os.getpid() not in importing:
                end_now(status)
            importing.clear()
            code = EXIT_OWN_FAULT
            try:
                append(self.plan, {"ended": {"exit": status}})
                code = self.verdict() or EXIT_OWN_FAULT
                self.end_processes()
            finally:
                end_now(code)

        def put_back():
            importing.clear()
            if os._exit is _exit:
                os._exit = end_now

        os._exit = _exit
        return put_back

    def adopt(self):
        """What the proof leaves behind is to be found afterwards, as it is by the first process of a container."""
        self.children = children()
        if self.children != {self.keeper}:
            # An orphan may be one of theirs.
            return
        try:
            import ctypes

            prctl, before = ctypes.CDLL(None).prctl, ctypes.c_int()
            if prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0) == 0:
                self.subreaper = before.value
                prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        except Exception:
            pass

    def be_the_proof(self, smoke, emit, parent, done):
        code = EXIT_OWN_FAULT
        try:
            import faulthandler

            os.setpgid(0, 0)
            if self.dumped is not None:
                faulthandler.disable()
                default_signals(FAULTS)
            default_signals(ENDING + ENDING_BY_DEFAULT + (LEAVE,))
            faulthandler.enable(file=2)
            die_with(parent, signal.SIGKILL)
            close(self.orders)
            close(self.replies)
            leave_standard_streams()
            # The buffer of the other one may hold what the imports wrote and the service's process will write.
            sys.stdout = sys.stderr
            os.environ[self.mark[0]] = self.mark[1]
            smoke.imports()
            emit("ready")
            smoke.gpu(self.plan.get("alone"))
            emit("done")
            # The rest, the driver's long goodbye, is nobody's concern.
            os.write(done, b"d")
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            end_now(code)

    def decided(self):
        """Whether the keeper takes the verdict on itself, since the deadline is over."""
        poller = select.poll()
        poller.register(self.replies, select.POLLIN)
        return any(event & select.POLLIN for _, event in poller.poll(0))

    def wait(self, done):
        """How the proof ended, or None where the keeper was first."""
        poller = select.poll()
        poller.register(self.replies, select.POLLIN)
        poller.register(done, select.POLLIN)
        pause = 50
        while True:
            ready = dict(poller.poll(pause))
            if ready.get(self.replies, 0) & select.POLLIN:
                return None
            if self.replies in ready:
                # The keeper is gone, without a word.
                poller.unregister(self.replies)
            if done in ready:
                if os.read(done, 1):
                    return {"exit": 0}
                poller.unregister(done)
                pause = 2
            # The pipe may be held open by what the proof left behind, so it is looked for as well.
            end = os.waitid(os.P_PID, self.proof, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if end and self.decided():
                # The keeper says so before it kills.
                return None
            if end:
                return {"exit" if end.si_code == os.CLD_EXITED else "signal": end.si_status}

    def tell(self, order):
        try:
            os.write(self.orders, order)
        except OSError:
            # The keeper is gone. Its answer may be there.
            pass

    def verdict(self):
        """The entrypoint's exit code."""
        if self.keeper:
            self.tell(b"verdict\n")
            code = read_code(self.replies, None)
            if code is not None:
                return code
        return run_verdict(self.plan)

    def end_processes(self):
        """Nothing that was started here is left, be it running or dead."""
        if self.keeper:
            kill_one(self.keeper)
            reap(self.keeper, time.monotonic() + KILL_PATIENCE)
        self.end_proof()

    def end_proof(self):
        if not self.proof:
            return
        until = time.monotonic() + KILL_PATIENCE
        kill_group(self.proof)
        reap(self.proof, until)
        # Those of its group that came to this process, then those that had left it, and what comes to light by that.
        reap(-self.proof, until)
        strays = True
        while strays and time.monotonic() < until:
            strays = [pid for pid in children() - self.children if self.is_stray(pid)]
            for pid in strays:
                kill_one(pid)
                reap(pid, until)
        if self.subreaper is not None:
            import ctypes

            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, self.subreaper, 0, 0, 0)
        self.proof = None

    def is_stray(self, pid):
        """Whether the proof started it. The first process also adopts what `docker exec` left in the background."""
        try:
            with open("/proc/{}/environ".format(pid), "rb") as file:
                environment = file.read().split(b"\0")
        except OSError:
            return False
        # What was only forked shows the environment that this process was executed with.
        path = "PYTHONPATH=/proc/self/fd/{}".format(self.plan["zip_fd"]).encode()
        executed = "=".join(self.mark).encode()
        return any(variable == executed or variable.split(b":")[0] == path for variable in environment)

    def restore_handlers(self):
        if self.dumped is not None:
            import faulthandler

            faulthandler.disable()
        if self.handlers:
            self.handlers.restore()
        if self.dumped:
            import faulthandler

            faulthandler.enable()
        if self.ignored_children:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        if self.mask is not None:
            if signal.SIGCHLD in signal.sigpending() - self.waiting:
                # It is blocked, and our children's.
                signal.sigtimedwait([signal.SIGCHLD], 0)
            signal.pthread_sigmask(signal.SIG_BLOCK, self.mask.intersection(OURS))
        else:
            self.release()

    def release(self):
        """Lets in what was held, where no handler of ours is meant for it."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.plan.get("held", ()))

    def descriptors(self):
        plan = self.plan
        return {plan["zip_fd"], plan["binary_fd"], plan["results_fd"]}.union(plan["keep_fds"])

    def close_descriptors(self):
        for fd in self.descriptors().union({self.orders, self.replies}):
            if fd >= 0:
                close(fd)


def kill_one(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass


def reap(pid, until):
    """Waits for a child, or for all of a group (a negative number), until then."""
    while True:
        try:
            reaped = os.waitpid(pid, os.WNOHANG)[0]
        except OSError:
            return
        if reaped and pid > 0:
            return
        if not reaped:
            if time.monotonic() > until:
                say("process {} was killed and does not end".format(abs(pid)))
                return
            time.sleep(0.001)


def hand_off(plan):
    taken = HandOff(plan)
    if plan.get("pid") in (None, os.getpid()) and plan.get("parent") in (None, os.getppid()):
        taken.run()
    else:
        taken.release()
        taken.forget_zip()
        taken.close_descriptors()


try:
    hand_off(PLAN)  # noqa: F821: the line before this text
except BaseException as error:
    say("the hand-off failed: {}: {}".format(type(error).__name__, error))
    end_now(EXIT_OWN_FAULT)

# The image's own, which Python would have found without us; that there is none is an error that `site` expects. The
# import system leaves in sys.modules what this puts there, and takes away what is there where it fails.
ours = sys.modules.pop("sitecustomize")
try:
    import sitecustomize  # noqa: F401
except BaseException:
    sys.modules.setdefault("sitecustomize", ours)
    raise
