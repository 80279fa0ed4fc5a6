import nested

__version__ = "1.24.0"

# Whether CUDA's libraries are found: at once, by preload_dlls alone, or never.
found = "at once"


def get_available_providers():
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def preload_dlls():
    global found
    if found == "by preload_dlls":
        found = "at once"


class SessionOptions:
    def __init__(self):
        self.entries = {}

    def add_session_config_entry(self, key, value):
        self.entries[key] = value


class InferenceSession:
    def __init__(self, model, options, providers, enable_fallback):
        if found != "at once":
            if options.entries.get("session.disable_cpu_ep_fallback") == "1":
                raise RuntimeError(
                    "This session contains graph nodes that are assigned to the default CPU EP, "
                    "but fallback to CPU EP has been explicitly disabled by the user."
                )
            raise NotImplementedError("the smoke is to refuse the CPU")
        ((self.provider, settings),) = providers
        self.place = int(settings["device_id"])
        self.operation = nested.matmul if b"MatMul" in model else nested.convolution

    def get_providers(self):
        return [self.provider, "CPUExecutionProvider"]

    def run(self, names, given):
        return [self.operation(*(nested.Array(given[name].nested, given[name].kind, self.place) for name in "xy"))]
