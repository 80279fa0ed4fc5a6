# cuda-entrypoint smoke: the container's entrypoint proves a framework on the GPU before the service starts
"""The entries of frameworks that bring CUDA of their own: JAX, CuPy, TensorFlow and ONNX Runtime.

Each is proven in a process of its own, since two of them in one process share neither the GPU's memory nor, often, one
release of CUDA's libraries. This text stands in front of smoke.py, whose names it uses.

References are computed in plain Python: none of what is to be proven takes part.
"""

import os
import struct

# Factors of products: rows, common, columns. None is another's multiple, so that a wrong stride shows.
ROWS, COMMON, COLUMNS = 16, 40, 24
# A convolution without padding: channels in and out, and the sides of image and kernel.
INTO, OUT, SIDE_IMAGE, SIDE_KERNEL = 2, 3, 9, 3
SIDE_OUT = SIDE_IMAGE - SIDE_KERNEL + 1


def noise(seed, count, half=False):
    """`count` numbers in [-1, 1) that look random and are the same everywhere, rounded to float16 or float32."""
    form = "e" if half else "f"
    numbers = []
    for place in range(count):
        number = place + seed * 1000003
        for multiplier in (0x7FEB352D, 0x45D9F3B, 0x297A2D39):
            number = ((number ^ (number >> 16)) * multiplier) & 0xFFFFFFFF
        number ^= number >> 15
        numbers.append(struct.unpack(form, struct.pack(form, number / 2147483648.0 - 1.0))[0])
    return numbers


def shaped(numbers, *shape):
    """Nested lists of that shape."""
    for length in reversed(shape[1:]):
        numbers = [numbers[start : start + length] for start in range(0, len(numbers), length)]
    return numbers


def factors(half):
    left = shaped(noise(21, ROWS * COMMON, half), ROWS, COMMON)
    return left, shaped(noise(22, COMMON * COLUMNS, half), COMMON, COLUMNS)


def product(left, right):
    columns = list(zip(*right))
    return [[sum(map(float.__mul__, row, column)) for column in columns] for row in left]


def picture_and_kernel():
    """`[1, channel, y, x]` and `[out, in, y, x]`."""
    picture = shaped(noise(23, INTO * SIDE_IMAGE**2), 1, INTO, SIDE_IMAGE, SIDE_IMAGE)
    return picture, shaped(noise(24, OUT * INTO * SIDE_KERNEL**2), OUT, INTO, SIDE_KERNEL, SIDE_KERNEL)


def convolved(picture, kernel):
    places, taps = range(SIDE_OUT), range(SIDE_KERNEL)

    def at(out, y, x):
        at_tap = ((c, j, i) for c in range(INTO) for j in taps for i in taps)
        return sum(picture[0][c][y + j][x + i] * kernel[out][c][j][i] for c, j, i in at_tap)

    return [[[[at(out, y, x) for x in places] for y in places] for out in range(OUT)]]


def shape_of(nested):
    shape = []
    while isinstance(nested, list):
        shape.append(len(nested))
        nested = nested[0] if nested else None
    return shape


def flat(nested):
    if not isinstance(nested, list):
        return [float(nested)]
    return [number for part in nested for number in flat(part)]


def close(got, want):
    """The largest difference, relative to the reference's largest magnitude. Both are nested lists."""
    same_shape(shape_of(got), shape_of(want), TOLERANCE)  # noqa: F821
    got, want = flat(got), flat(want)
    all_finite(sum(not math.isfinite(number) for number in got), len(got), TOLERANCE)  # noqa: F821
    difference = max(abs(a - b) for a, b in zip(got, want)) / max(map(abs, want))
    return near(difference, TOLERANCE)  # noqa: F821


def matmul_step(half):
    return lambda framework: lambda: close(framework.matmul(*factors(half), half), product(*factors(half)))


def convolution_step(framework):
    return lambda: close(framework.convolution(*picture_and_kernel()), convolved(*picture_and_kernel()))


class Framework:
    """What the steps run in; each has `start`, and the operations of its steps, which take and give nested lists."""

    device = 0

    def describe(self, device):
        return "", ""

    def run(self, step, device):
        self.device = device
        return step(self)()

    def synchronize(self, device):
        pass


class Jax(Framework):
    name = "jax"

    def start(self, count):
        # By itself it takes three quarters of the GPU's memory at once.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        import jax

        self.jax, self.devices = jax, jax.devices("gpu")
        return len(self.devices)

    def describe(self, device):
        return self.devices[device].device_kind, ""

    def on_device(self, nested, half=False):
        numpy = self.jax.numpy
        host = numpy.asarray(nested, dtype=numpy.float16 if half else numpy.float32)
        return self.jax.device_put(host, self.devices[self.device])

    def matmul(self, left, right, half):
        return self.jax.numpy.matmul(self.on_device(left, half), self.on_device(right, half)).tolist()

    def convolution(self, picture, kernel):
        given = self.on_device(picture), self.on_device(kernel)
        return self.jax.lax.conv_general_dilated(*given, window_strides=(1, 1), padding="VALID").tolist()

    def synchronize(self, device):
        self.device = device
        self.on_device([1.0]).block_until_ready()


class Cupy(Framework):
    name = "cupy"

    def start(self, count):
        import cupy

        self.cupy = cupy
        return cupy.cuda.runtime.getDeviceCount()

    def describe(self, device):
        return self.cupy.cuda.runtime.getDeviceProperties(device)["name"].decode(), ""

    def run(self, step, device):
        with self.cupy.cuda.Device(device):
            return super().run(step, device)

    def matmul(self, left, right, half):
        dtype = "float16" if half else "float32"
        left, right = (self.cupy.asarray(nested, dtype=dtype) for nested in (left, right))
        return self.cupy.matmul(left, right).tolist()

    def compiled(self, left, right):
        operation = self.cupy.ElementwiseKernel(
            "float32 x, float32 y", "float32 z", "z = x * y + 2.0f", "cuda_entrypoint_smoke"
        )
        return operation(*(self.cupy.asarray(nested, dtype="float32") for nested in (left, right))).tolist()

    def synchronize(self, device):
        self.cupy.cuda.Device(device).synchronize()


def compiled_step(framework):
    left, right = noise(25, 1000), noise(26, 1000)
    want = [a * b + 2.0 for a, b in zip(left, right)]
    return lambda: close(framework.compiled(left, right), want)


class Tensorflow(Framework):
    name = "tensorflow"

    def start(self, count):
        # By itself it takes nearly all of the GPU's memory.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        import tensorflow

        self.tf = tensorflow
        self.devices = tensorflow.config.list_physical_devices("GPU")
        return len(self.devices)

    def describe(self, device):
        return self.tf.config.experimental.get_device_details(self.devices[device])["device_name"], ""

    def on_gpu(self, work):
        with self.tf.device("GPU:{}".format(self.device)):
            got = work(self.tf)
        # What has no kernel for the GPU runs on the CPU in silence.
        exactly("a result on a GPU", "GPU:" in got.device, True)  # noqa: F821
        return got.numpy().tolist()

    def matmul(self, left, right, half):
        def work(tf):
            dtype = tf.float16 if half else tf.float32
            return tf.matmul(tf.constant(left, dtype), tf.constant(right, dtype))

        return self.on_gpu(work)

    def convolution(self, picture, kernel):
        # Channels last, and the kernel as [y, x, in, out].
        picture = [[[[part[y][x] for part in picture[0]] for x in range(SIDE_IMAGE)] for y in range(SIDE_IMAGE)]]
        taps = range(SIDE_KERNEL)
        kernel = [[[[of[c][j][i] for of in kernel] for c in range(INTO)] for i in taps] for j in taps]
        got = self.on_gpu(
            lambda tf: tf.nn.conv2d(tf.constant(picture, tf.float32), tf.constant(kernel, tf.float32), 1, "VALID")
        )
        return [[[[at[out] for at in row] for row in got[0]] for out in range(OUT)]]


# An ONNX model, as <https://github.com/onnx/onnx/blob/main/onnx/onnx.proto> has it: a field is its number and type, and
# the length where it is not a number. Numbers and lengths are below 128 here, and so take one byte.
FLOAT, FLOAT16 = 1, 10


def field(number, value):
    if isinstance(value, int):
        return bytes([number << 3, value])
    value = value.encode() if isinstance(value, str) else value
    return bytes([number << 3 | 2, len(value)]) + value


def onnx_tensor(name, kind, shape):
    dimensions = b"".join(field(1, field(1, length)) for length in shape)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, dimensions)))


def onnx_model(operator, kind, *shapes):
    """One operator over two inputs, `x` and `y`, with the output `z`."""
    node = field(1, "x") + field(1, "y") + field(2, "z") + field(4, operator)
    inputs = (field(11, onnx_tensor(name, kind, shape)) for name, shape in zip("xy", shapes))
    graph = field(1, node) + field(2, "smoke") + b"".join(inputs) + field(12, onnx_tensor("z", kind, shapes[2]))
    # Version 7 of the form, and 13 of the operators: what each release since 1.8 reads.
    return field(1, 7) + field(7, graph) + field(8, field(2, 13))


class Onnxruntime(Framework):
    name = "onnxruntime"
    # Whether CUDA's libraries are found by a call of its own alone.
    preloads = False

    def start(self, count):
        import onnxruntime

        self.ort = onnxruntime
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise ImportError("this build of onnxruntime has no CUDAExecutionProvider")
        return count

    def session(self, model):
        options = self.ort.SessionOptions()
        # What CUDA cannot do would run on the CPU in silence.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        options.intra_op_num_threads = 1
        # The search for the quickest algorithm takes memory, and is not what is to be proven.
        given = {"device_id": str(self.device), "cudnn_conv_algo_search": "DEFAULT"}
        providers = [("CUDAExecutionProvider", given)]
        try:
            session = self.ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
            if "CUDAExecutionProvider" in session.get_providers():
                return session
        except Exception as error:
            # Its own sentence for a provider that it could not load; why it could not is on standard error.
            if "fallback to CPU EP" not in str(error):
                raise
        raise ImportError("onnxruntime cannot load its CUDAExecutionProvider, and goes on with the CPU")

    def computed(self, model, half, left, right):
        import numpy

        dtype = numpy.float16 if half else numpy.float32
        given = {"x": numpy.asarray(left, dtype), "y": numpy.asarray(right, dtype)}
        try:
            session = self.session(model)
        except Exception:
            if self.preloads or not hasattr(self.ort, "preload_dlls"):
                raise
            self.preloads = True
            self.ort.preload_dlls()
            session = self.session(model)
        return session.run(None, given)[0].tolist()

    def matmul(self, left, right, half):
        shapes = (ROWS, COMMON), (COMMON, COLUMNS), (ROWS, COLUMNS)
        return self.computed(onnx_model("MatMul", FLOAT16 if half else FLOAT, *shapes), half, left, right)

    def convolution(self, picture, kernel):
        shapes = (1, INTO) + (SIDE_IMAGE,) * 2, (OUT, INTO) + (SIDE_KERNEL,) * 2, (1, OUT) + (SIDE_OUT,) * 2
        return self.computed(onnx_model("Conv", FLOAT, *shapes), False, picture, kernel)

    def run(self, step, device):
        fields = super().run(step, device)
        if self.preloads:
            fields["says"] = "onnxruntime OK; the service has to call onnxruntime.preload_dlls(), as the smoke test did"
        return fields


MATMULS = (("matmul float32", matmul_step(False)), ("matmul float16", matmul_step(True)))
# By cuDNN, whose absence shows in nothing else.
CONVOLUTION = (("convolution float32", convolution_step),)


def frameworks():
    """In the order of src/packages.rs, which has a row for each of them."""
    return {
        "jax": Entry(("jax",), MATMULS + CONVOLUTION, runtime=Jax()),  # noqa: F821
        "cupy": Entry(("cupy",), MATMULS + (("compiled kernel", compiled_step),), runtime=Cupy()),  # noqa: F821
        "tensorflow": Entry(("tensorflow",), MATMULS + CONVOLUTION, runtime=Tensorflow()),  # noqa: F821
        "onnxruntime": Entry(("onnxruntime",), MATMULS + CONVOLUTION, runtime=Onnxruntime()),  # noqa: F821
    }
