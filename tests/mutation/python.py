#!/usr/bin/env python3
"""Changes a Python program in one place after the other and asks its tests each time: what they let pass they do not test.

    python.py [--sample N] [--lines FROM-TO] [--jobs N] [--timeout S] FILE TEST...

Each TEST is a line for the shell; the first one that fails ends the rest. They find the changed file, with the others
of its folder, in the folder that the variable CUDA_ENTRYPOINT_MUTANT names. FILE itself is never touched. A mutant for
which a test takes longer than the timeout is one that was found. Survivors go to standard output, as `file:line: what
stood there -> what stood there instead`; with `--sample` only so many mutants are tried, always the same ones.
Needs Python 3.9.
"""

import argparse
import ast
import collections
import copy
import ctypes
import itertools
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

# A mutant that collects without an end is to fail by itself.
MEMORY = 8 << 30
FILE_SIZE = 1 << 30
PR_SET_CHILD_SUBREAPER = 36

# `start` and `end` are places in the file's bytes, `new` comes there.
Mutant = collections.namedtuple("Mutant", "line start end old new")

COMPARED = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
COMPUTED = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
# Swapped operands give something else.
ORDERED = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.MatMult, ast.LShift, ast.RShift)
REMOVED = (ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Delete, ast.Raise, ast.Break, ast.Continue)


def without(nodes, number):
    return nodes[:number] + nodes[number + 1 :]


def pairs(nodes):
    """The list with each two of it swapped."""
    for one, other in itertools.combinations(range(len(nodes)), 2):
        order = list(nodes)
        order[one], order[other] = nodes[other], nodes[one]
        yield order


def replaced(node, **fields):
    node = copy.copy(node)
    for name, value in fields.items():
        setattr(node, name, value)
    return node


def negated(node):
    return ast.UnaryOp(ast.Not(), node)


def instead_of(node):
    """Expressions to stand in the place of this one."""
    if isinstance(node, ast.Compare):
        for number, operator in enumerate(node.ops):
            for other in COMPARED[type(operator)]:
                yield replaced(node, ops=[*node.ops[:number], other(), *node.ops[number + 1 :]])
    if isinstance(node, ast.BinOp):
        text = isinstance(node.left, (ast.Constant, ast.JoinedStr)) and not isinstance(node.left.value, (int, float))
        if type(node.op) in COMPUTED and not text:
            yield replaced(node, op=COMPUTED[type(node.op)]())
        if isinstance(node.op, ORDERED):
            yield replaced(node, left=node.right, right=node.left)
        if isinstance(node.op, (ast.Sub, ast.BitXor, ast.MatMult)):
            yield replaced(node, right=node.left)
        yield node.left
        yield node.right
    if isinstance(node, ast.BoolOp):
        yield replaced(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        for number in range(len(node.values)):
            rest = without(node.values, number)
            yield replaced(node, values=rest) if len(rest) > 1 else rest[0]
    if isinstance(node, ast.UnaryOp):
        yield node.operand
    if isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield ast.Constant(not node.value)
        elif isinstance(node.value, int):
            yield ast.Constant(node.value + 1)
            if node.value > 1:
                yield ast.Constant(node.value - 1)
        elif isinstance(node.value, float):
            yield ast.Constant(node.value * 2 + 1)
            if node.value:
                yield ast.Constant(0.0)
        elif isinstance(node.value, (str, bytes)):
            something = b"x" if isinstance(node.value, bytes) else "x"
            yield ast.Constant(node.value[:0] if node.value else something)
    if isinstance(node, ast.Call):
        starred = any(isinstance(argument, ast.Starred) for argument in node.args)
        for order in pairs(node.args) if not starred else ():
            yield replaced(node, args=order)
        for number in range(len(node.keywords)):
            yield replaced(node, keywords=without(node.keywords, number))
        for number in range(len(node.args) if len(node.args) > 1 else 0):
            yield replaced(node, args=without(node.args, number))
        # `a.b()` becomes `a`, `b(a)` too.
        if isinstance(node.func, ast.Attribute):
            yield node.func.value
        elif len(node.args) == 1 and not starred:
            yield node.args[0]
    if isinstance(node, (ast.Tuple, ast.List)):
        for order in pairs(node.elts) if len(node.elts) < 7 else ():
            yield replaced(node, elts=order)
        if len(node.elts) > 1 and isinstance(node.ctx, ast.Load):
            for number in range(len(node.elts)):
                yield replaced(node, elts=without(node.elts, number))
    if isinstance(node, ast.Dict):
        for number in range(len(node.keys)):
            yield replaced(node, keys=without(node.keys, number), values=without(node.values, number))
    if isinstance(node, ast.Slice):
        for bound in ("lower", "upper"):
            if getattr(node, bound) is not None:
                yield replaced(node, **{bound: None})
    if isinstance(node, ast.Lambda):
        yield replaced(node, body=ast.Constant(None))


def mutants_of(source):
    """All of them, in the order of the file."""
    tree = ast.parse(source)
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = {}

    def put(node, text):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        was = source[start:end]
        if text.encode() not in (was, b"(" + was + b")"):
            # By what it makes of the file: two ways to the same one are one mutant.
            mutant = Mutant(node.lineno, start, end, was.decode(), text)
            found.setdefault(source[:start] + text.encode() + source[end:], mutant)

    texts = set()
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            child.above = node
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            if isinstance(body[0].value, ast.Constant) and isinstance(body[0].value.value, str):
                texts.update((body[0], body[0].value))
    for node in ast.walk(tree):
        above = getattr(node, "above", None)
        if node in texts or isinstance(above, ast.JoinedStr):
            continue
        if isinstance(node, REMOVED):
            put(node, "pass")
        if isinstance(node, ast.Return) and node.value is not None:
            put(node, "return None")
        if isinstance(node, (ast.If, ast.While, ast.IfExp)):
            put(node.test, "(" + ast.unparse(negated(node.test)) + ")")
        if isinstance(node, ast.comprehension):
            for condition in node.ifs:
                put(condition, "(" + ast.unparse(negated(condition)) + ")")
        if isinstance(node, ast.With):
            # Its body alone would need other blanks in front.
            put(node.items[0].context_expr, "__import__('contextlib').nullcontext()")
        if isinstance(node, ast.ExceptHandler) and isinstance(node.type, ast.Name):
            put(node.type, "()")
        for other in instead_of(node):
            bare = isinstance(node, ast.Slice) or isinstance(node, ast.Tuple) and within_brackets(source, starts, node)
            text = ast.unparse(ast.fix_missing_locations(other))
            if isinstance(node, ast.Tuple) and bare:
                text = text[1:-1] if text.startswith("(") else text
            put(node, text if bare or isinstance(getattr(node, "ctx", None), ast.Store) else "(" + text + ")")
    usable = []
    for changed, mutant in found.items():
        try:
            compile(changed, "mutant", "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            continue
        usable.append(mutant)
    return sorted(usable, key=lambda mutant: (mutant.start, mutant.end))


def within_brackets(source, starts, node):
    """Whether it is the index of `a[b, c]`, or the like, whose text has no parentheses of its own."""
    return source[starts[node.lineno - 1] + node.col_offset : ][:1] != b"("


def self_test():
    """What finds nothing else finds these."""
    source = b"def f(got, want, grid, z, y):\n    grid[z, :, y] = 0\n    return float((got - want).abs().max())\n"
    texts = {apply(source, mutant).decode() for mutant in mutants_of(source)}
    for part in ("got - got", "want - got", "got + want", "grid[y, :, z]", "return None", "(got - want).max()", "= (1)"):
        assert any(part in text.replace("((", "(").replace("))", ")") for text in texts), part


def apply(source, mutant):
    return source[: mutant.start] + mutant.new.encode() + source[mutant.end :]


def prepare():
    # What a mutant leaves behind comes to this process, which ends it.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def end_children():
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with open("/proc/self/task/{}/children".format(os.getpid())) as file:
            left = list(map(int, file.read().split()))
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except OSError:
                pass


def limits():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))


def survives(task):
    """The first command that finds it, counted from one; `timeout`; or None."""
    path, mutant, commands, timeout = task
    with tempfile.TemporaryDirectory(prefix="mutant") as folder:
        for name in os.listdir(os.path.dirname(path)):
            if name.endswith(".py"):
                shutil.copy(os.path.join(os.path.dirname(path), name), folder)
        with open(path, "rb") as file:
            source = file.read()
        with open(os.path.join(folder, os.path.basename(path)), "wb") as file:
            file.write(apply(source, mutant) if mutant else source)
        environment = dict(os.environ, CUDA_ENTRYPOINT_MUTANT=folder, PYTHONDONTWRITEBYTECODE="1")
        for number, command in enumerate(commands, 1):
            process = subprocess.Popen(
                command,
                shell=True,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=limits,
            )
            try:
                if process.wait(timeout) != 0:
                    return mutant, number
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return mutant, "timeout"
            finally:
                end_children()
    return mutant, None


def shown(text):
    return " ".join(text.split())


def main():
    self_test()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int)
    parser.add_argument("--lines")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--timeout", type=float, default=120)
    parser.add_argument("--list", action="store_true", help="the mutants, without a test")
    parser.add_argument("file")
    parser.add_argument("tests", nargs="*")
    options = parser.parse_args()
    path = os.path.abspath(options.file)
    with open(path, "rb") as file:
        mutants = mutants_of(file.read())
    if options.lines:
        first, last = map(int, options.lines.split("-"))
        mutants = [mutant for mutant in mutants if first <= mutant.line <= last]
    total = len(mutants)
    if options.sample:
        mutants = random.Random(1).sample(mutants, min(options.sample, total))
    if options.list:
        for mutant in mutants:
            print("{}:{}: {} -> {}".format(options.file, mutant.line, shown(mutant.old), shown(mutant.new)))
        return 0
    found = collections.Counter()
    with multiprocessing.Pool(options.jobs, prepare) as pool:
        if pool.apply(survives, ((path, None, options.tests, options.timeout),))[1] is not None:
            print("the tests fail without any change", file=sys.stderr)
            return 2
        tasks = [(path, mutant, options.tests, options.timeout) for mutant in mutants]
        for number, (mutant, finder) in enumerate(pool.imap_unordered(survives, tasks), 1):
            found[finder] += 1
            if finder is None:
                old, new = shown(mutant.old), shown(mutant.new)
                print("{}:{}: {} -> {}".format(options.file, mutant.line, old, new), flush=True)
            if number % 50 == 0:
                print("{} of {}".format(number, len(mutants)), file=sys.stderr, flush=True)
    finders = sorted((finder for finder in found if finder is not None), key=str)
    by = ", ".join("{} by {}".format(found[it], "time" if it == "timeout" else "test {}".format(it)) for it in finders)
    print("{} of {} mutants tried: {} survive; found {}".format(len(mutants), total, found[None], by))
    return 0


if __name__ == "__main__":
    sys.exit(main())
