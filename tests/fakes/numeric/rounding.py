"""What a type of numbers can hold, by the C types of the standard library."""

import array
import math
import struct

# An array of these types refuses what is too large for it.
ARRAYS = {"int32": "i", "int64": "q", "float32": "f", "float64": "d"}
# Significant bits: TF32 is what the matrix units of a GPU may make of the factors of float32; nobody computes float32
# with as few as E4M3, one of the formats of 8 bits, has.
SIGNIFICANT = {"tf32": 11, "bfloat16": 8, "e4m3": 4}


def half(number):
    """By way of float32, as torch does it."""
    number = array.array("f", [number])[0]
    try:
        return struct.unpack("e", struct.pack("e", number))[0]
    except OverflowError:
        return math.copysign(math.inf, number)


def shortened(number, bits):
    """Rounded to so many significant bits, whatever the exponent."""
    if not math.isfinite(number):
        return number
    fraction, exponent = math.frexp(number)
    return math.ldexp(round(math.ldexp(fraction, bits)), exponent - bits)


def rounded(kind, numbers):
    """A list of what is left of these numbers in that type.

    An integer that is too large raises: torch would go on with its lower bits, and the smoke says of its own that they
    never are.
    """
    if kind in ARRAYS:
        return array.array(ARRAYS[kind], numbers).tolist()
    if kind == "bool":
        return list(map(bool, numbers))
    if kind == "float16":
        return list(map(half, numbers))
    return [shortened(number, SIGNIFICANT[kind]) for number in numbers]
