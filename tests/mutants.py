"""A small mutation run: change one thing of a module at a time and see whether its tests notice.

    python tests/mutants.py                                        every module of MODULES
    python tests/mutants.py tinyyolo/heads/yolo.py                 one of them
    python tests/mutants.py tinyyolo/necks/fpn.py tests/necks      any module with any tests
    python tests/mutants.py --sample 40                            40 mutants of each, drawn by --seed

A mutant is one node of the syntax tree: a comparison, an operator, a number or truth value (defaults too), `and` or
`or`, a condition turned round, a sign, `not` or a call without arguments left out, a statement removed. It never
touches the disk: a forked worker, which has the libraries loaded, imports the mutant in place of the module and runs
the tests until one fails. The survivors are printed; exit status 1 if fewer than FLOOR percent are killed.
"""

import argparse
import ast
import copy
import importlib.util
import os
import random
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLOOR = 90  # percent
MODULES = {
    "tinyyolo/heads/yolo.py": ["tests/heads/test_yolo.py"],
    "tinyyolo/heads/dense.py": ["tests/heads"],
    "tinyyolo/heads/retina.py": ["tests/heads/test_heads.py"],
    "tinyyolo/heads/rpn.py": ["tests/heads/test_heads.py"],
    "tinyyolo/heads/roi.py": ["tests/heads/test_roi.py"],
    "tinyyolo/boxes/coders.py": ["tests/boxes/test_coders.py", "tests/heads/test_yolo.py"],
    "tinyyolo/boxes/nms.py": ["tests/boxes/test_nms_votes.py", "tests/boxes/test_select.py"],
    "tinyyolo/boxes/convert.py": ["tests/boxes/test_convert.py"],
    "tinyyolo/boxes/similarity.py": ["tests/boxes/test_similarity.py"],
    "tinyyolo/assigners/ranking.py": ["tests/assigners"],
    "tinyyolo/assigners/threshold.py": ["tests/assigners"],
    "tinyyolo/evaluation/accumulate.py": ["tests/evaluation"],
    "tinyyolo/datasets/formats/coco.py": ["tests/datasets/formats/test_coco.py", "tests/evaluation/test_rules.py"],
    "tinyyolo/sizes.py": ["tests/test_sizes.py"],
}
SWAPS = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,), ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,), ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,), ast.Mod: (ast.Mult,), ast.Pow: (ast.Mult,), ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,), ast.And: (ast.Or,), ast.Or: (ast.And,),
}  # fmt: skip
SKIPPED = {"annotation", "returns", "decorator_list", "type_comment"}  # fields that no test can see
TELLS_ITSELF = (ast.Compare, ast.BoolOp, ast.UnaryOp, ast.Constant)  # conditions with mutants of their own


def replacements(node, field):
    """What may stand in place of `node`, which its parent holds in `field`."""
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            for swap in SWAPS[type(op)]:
                yield type(node)(**{**vars(node), "ops": [*node.ops[:i], swap(), *node.ops[i + 1 :]]})
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        for swap in SWAPS.get(type(node.op), ()):
            yield type(node)(**{**vars(node), "op": swap()})
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.args + node.keywords:
        yield node.func.value
    if field in ("test", "ifs") and not isinstance(node, TELLS_ITSELF):
        yield ast.UnaryOp(ast.Not(), node)
    docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    stored = isinstance(node, ast.Assign) and not any(isinstance(t, ast.Name | ast.Tuple) for t in node.targets)
    if stored or isinstance(node, ast.AugAssign | ast.Raise) or (isinstance(node, ast.Expr) and not docstring):
        yield ast.Pass()


def places(parent):
    """(holder, key, field, node) of every node that may be mutated: `holder[key]` is the node."""
    for field, value in ast.iter_fields(parent):
        if field in SKIPPED or (isinstance(parent, ast.If) and "TYPE_CHECKING" in ast.unparse(parent.test)):
            continue
        if isinstance(parent, ast.keyword) and parent.arg == "strict":
            continue  # of zip: a guard against ourselves, no rule
        holder, keys = (value, range(len(value))) if isinstance(value, list) else (vars(parent), [field])
        for key in keys:
            if isinstance(holder[key], ast.AST) and not isinstance(holder[key], ast.JoinedStr):
                yield holder, key, field, holder[key]
                yield from places(holder[key])


def mutants(path):
    """(line, old, new, code) of every mutant of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for holder, key, field, node in list(places(tree)):
        for new in replacements(node, field):
            holder[key] = ast.copy_location(copy.copy(new), node)
            code = compile(ast.fix_missing_locations(copy.deepcopy(tree)), str(path), "exec")
            yield node.lineno, brief(node), brief(new), code
            holder[key] = node


def brief(node):
    """Source of a node on one line."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 70 else text[:67] + "..."


class Mutated:
    """Import of one module from a code object."""

    def __init__(self, path, code):
        self.name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        self.path, self.code = path, code

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def create_module(self, spec):
        """The default."""

    def exec_module(self, module):
        exec(self.code, vars(module))


def start(path, code, tests):
    """Fork a worker that runs `tests` on a mutant; its exit status is pytest's. Returns its process id."""
    if pid := os.fork():
        return pid
    os.setsid()
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    status = 70
    try:
        import pytest

        sys.meta_path.insert(0, Mutated(path, code))
        # Plain: pytest would import the module itself to rewrite its assertions.
        status = pytest.main([*tests, "-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--assert=plain"])
    finally:
        os._exit(int(status))


def run(path, tests, found, workers, limit):
    """Survivors among mutants `found`: those whose tests pass. `limit` is in seconds for each."""
    waiting, running, survivors = list(found), {}, []
    while waiting or running:
        while waiting and len(running) < workers:
            mutant = waiting.pop(0)
            running[start(path, mutant[3], tests)] = mutant, time.monotonic()
        for pid, (mutant, since) in list(running.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del running[pid]
                if status == 0:
                    survivors.append(mutant)
            elif time.monotonic() - since > limit:
                os.killpg(pid, signal.SIGKILL)  # killed too: it never ends
        time.sleep(0.01)
    return sorted(survivors, key=lambda mutant: mutant[0])


def check(name, tests, args):
    """Run the mutants of one module; returns (killed, total)."""
    path = (ROOT / name).resolve()
    tests = [*tests, str(path)]  # its own doctests too
    plain, began = compile(path.read_text(encoding="utf-8"), str(path), "exec"), time.monotonic()
    if run(path, tests, [(0, "", "", plain)], 1, 600) == []:
        raise SystemExit(f"{name}: its tests fail without a mutant: {' '.join(tests)}")
    once = time.monotonic() - began
    found = list(mutants(path))
    found = random.Random(args.seed).sample(found, min(args.sample or len(found), len(found)))
    began = time.monotonic()
    survivors = run(path, tests, found, args.workers, limit=10 + 5 * once)
    for line, old, new, _ in survivors:
        print(f"{name}:{line}: {old}  ->  {new}")
    killed, took = len(found) - len(survivors), time.monotonic() - began
    print(
        f"{name}: {killed} of {len(found)} killed, {100 * killed / max(len(found), 1):.1f} %, {took:.0f} s", flush=True
    )
    return killed, len(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("module", nargs="?", help="by default all of MODULES")
    parser.add_argument("tests", nargs="*", help="by default those of MODULES")
    parser.add_argument("--sample", type=int, help="so many mutants of each module")
    for option, value in (("--seed", 0), ("--workers", os.cpu_count())):
        parser.add_argument(option, type=int, default=value)
    args = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    for library in ("hypothesis", "msgspec", "numpy", "pycocotools", "pytest", "torch", "torchvision", "ultralytics"):
        if importlib.util.find_spec(library):
            importlib.import_module(library)  # once, before the workers are forked
    sys.modules["torch"].testing.assert_close(1.0, 1.0)  # loads more
    chosen = {args.module: args.tests or MODULES[args.module]} if args.module else MODULES
    counts = [check(name, tests, args) for name, tests in chosen.items()]
    killed, total = map(sum, zip(*counts, strict=True))
    sys.exit(100 * killed < FLOOR * total)


if __name__ == "__main__":
    main()
