"""What the service's Python runs first of all: in a zip in front of `PYTHONPATH`, under the name of `encodings`.

Every Python imports that package before anything of the image's: before `site`, `.pth` files and `sitecustomize`. So no
code of the image can keep this from being run, and `PYTHONPATH` is as it was before any of it is. A Python that is told
to ignore the variable, or one to which it did not come through, does not run this, and stays silent: the entrypoint,
which waits for the first word, ends it.

A line before this text sets ZIP, ORDERS and RESULTS, paths of the entrypoint's descriptors, and PYTHON_PATH, what the
variable was as bytes, or None. At this time no codec is there, and of the modules the built-in ones alone. The part up to
the reply has to run on any Python, so that one that is too old can say so.
"""

import posix
import sys


def open_high(path, flags):
    """A descriptor that is not inherited, under a high number: what packages open and keep has the number that it has
    without a hand-off."""
    fd = posix.open(path, flags | 0o2000000)  # O_CLOEXEC, which Python 2 does not name
    for number in range(200, 300):
        try:
            posix.fstat(number)
        except OSError:
            try:
                posix.dup2(fd, number, False)
            except (OSError, TypeError):
                # A limit on descriptors is lower; Python 2 has two arguments, and is about to be ended.
                break
            posix.close(fd)
            return number
    return fd


def arrive():
    results = open_high(RESULTS, posix.O_WRONLY)  # noqa: F821
    orders = open_high(ORDERS, posix.O_RDONLY)  # noqa: F821
    version = sys.version_info
    fields = (posix.getpid(), version[0], version[1], "true" if sys.flags.no_site else "false")
    hello = '{"hello": {"pid": %d, "major": %d, "minor": %d, "no_site": %s}}\n' % fields
    posix.write(results, hello if str is bytes else hello.encode("ascii"))
    # The entrypoint lets this go on, or ends it.
    if posix.read(orders, 2) != b"+\n":
        posix._exit(70)
    return orders, results


def leave_no_trace():
    import zipimport

    while ZIP in sys.path:  # noqa: F821
        sys.path.remove(ZIP)  # noqa: F821
    sys.path_importer_cache.pop(ZIP, None)  # noqa: F821
    zipimport._zip_directory_cache.pop(ZIP, None)  # noqa: F821


class HandOff:
    """Stands where the import system looks for `sitecustomize`: the time at which packages can be imported, and the last
    one before the service's own code. The image's own is found as ever when this is done."""

    def __init__(self, orders, results):
        self.orders = orders
        self.results = results
        self.pid = posix.getpid()

    def find_spec(self, name, path=None, target=None):
        if name != "sitecustomize":
            return None
        try:
            sys.setprofile(None)
            sys.meta_path.remove(self)
            self.hand_off()
        except BaseException:
            # `site` would pass over it, and the service begin.
            posix._exit(70)
        # The list that is being gone through is one shorter: nobody is to be left out.
        for finder in list(sys.meta_path):
            spec = finder.find_spec(name, path, target) if hasattr(finder, "find_spec") else None
            if spec is not None:
                return spec
        return None

    def hand_off(self):
        import zipimport

        zipped = zipimport.zipimporter(ZIP)  # noqa: F821
        smoke, handoff = zipped.get_code("smoke"), zipped.get_code("handoff")
        leave_no_trace()
        names = {"__name__": "_cuda_entrypoint_smoke"}
        exec(smoke, names)
        given = {"SMOKE": names, "PID": self.pid, "ORDERS": self.orders, "RESULTS": self.results}
        exec(handoff, dict(given, __name__="_cuda_entrypoint_handoff"))

    def watch(self, frame, event, argument):
        """The service's own code, and no `sitecustomize` was looked for: something that ran in between saw to that."""
        if event == "call" and frame.f_globals.get("__name__") == "__main__":
            posix.write(self.results, b'{"fallback": {"reason": "its own code begins before sitecustomize was looked for"}}\n')
            while posix.read(self.orders, 64):
                pass
            posix._exit(70)


taken = HandOff(*arrive())
leave_no_trace()
if PYTHON_PATH is None:  # noqa: F821
    posix.unsetenv(b"PYTHONPATH")
    posix.environ.pop(b"PYTHONPATH", None)
else:
    posix.putenv(b"PYTHONPATH", PYTHON_PATH)  # noqa: F821
    posix.environ[b"PYTHONPATH"] = PYTHON_PATH  # noqa: F821
sys.meta_path.insert(0, taken)
sys.setprofile(taken.watch)

# The import system takes from here what it was asked for.
del sys.modules["encodings"]
import encodings  # noqa: E402, F401
