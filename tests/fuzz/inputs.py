"""Malformed inputs of every reader and command, drawn from a seed: a sound set, and what is changed in it."""

from __future__ import annotations

import inspect
import json
import math
import random
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.support.data_sets import clean_set, dota_set, visdrone_set, xview_set
from tinyyolo.cli import COMMANDS, leaves, resolve
from tinyyolo.config import load_model_yaml

LONG = "a" * 5000
OUTSIDE = "@outside@/x.png"  # stands for an absolute path outside the set
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
# Values that stand in place of a sound one in JSON and YAML.
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 3, 2_000_000, 1e308, -1e308, math.inf, -math.inf, math.nan, 10**30, -(10**30), 10**400),
    *(
        2**53 + 1,
        2**63,
        -(2**63),
        "",
        " ",
        "x",
        "1",
        "1e3",
        "nan",
        "a\0b",
        "\ud800",
        "~nosuchuser/x",
        LONG,
        "../../x.png",
    ),
    *([], {}, [[]], [None], {"a": 1}, [1, 2, 3], [1, 2, 3, 4, 5], "<b>", OUTSIDE, "2001-99-99", [1, [2]], "\n"),
)
# Texts that stand for a value in YAML or behind `key=`.
SCALARS = (
    *("", " ", "''", "null", "~", "yes", "no", "1e3", "0123", "12:30", "2026-11-25", "2001-99-99", "2024_11_25", "0x_"),
    *("0b_", "1e400", "-1e400", ".inf", ".nan", "9" * 30, "9" * 5000, "!!int ''", "!!float x", "!!timestamp x", "-0"),
    *("!!bool x", "!!binary x", "!!set [a]", "!!omap x", "!!null x", "&a [*a]", "&a {a: *a}", "*a", "[", "{", "[[]]"),
    *("[" * 900, "[" * 900 + "]" * 900, "{a: " * 900, "- " * 900, "? a", "<<: 1", "{<<: 1}", "{? [a] : b}", "%s{}"),
    *(
        "a\0b",
        "\x85",
        "\ud800",
        "'\\ud800'",
        '"\\ud800"',
        '"\\0"',
        "~nosuchuser",
        "~nosuchuser/x",
        LONG,
        "\t",
        "@",
        "`",
    ),
    *("!!python/object/apply:os.system [touch pwned]", "%YAML 9.9", "--- 1\n--- 2", "{}", "[]", "-1", "0", "1.5"),
    *("[1,2]", "[[1]]", "{a: 1}", "[no, 1e3]", "True", "false", "*", "é", "\u202e", "a=b", "[.nan]"),
)
LINES = (
    *(
        "",
        " ",
        ",",
        "x",
        "0",
        "0 1",
        "0 .5 .5 .1",
        "0 .5 .5 .1 .1 .9",
        "7 .5 .5 .1 .1",
        "-1 .5 .5 .1 .1",
        "0 nan 1 1 1",
    ),
    *("0 inf .5 .1 .1", "1e400 .5 .5 .1 .1", "0 1e308 1e308 1e308 1e308", "nan .5 .5 .1 .1", "0.5 .5 .5 .1 .1"),
    *("1,2,3", "1,2,3,4,5,6,7,8", "1,2,3,4,1,99,0,0", "1,2,3,4,1,4,x,0", "1,2,3,4,1,4,1e308,1e30", "1,2,nan,4,1,4,0,0"),
    *("1 2 3 4 5 6 7 8", "1 2 3 4 5 6 7 8 ship", "1 2 3 4 5 6 7 8 ship x", "1 2 3 4 5 6 7 8 ship 1e30", "gsd:", "\0"),
    *("9" * 5000 + " .5 .5 .1 .1", LONG, "\ufeff0 .5 .5 .1 .1", "0\u2028.5 .5 .1 .1", "٣ .5 .5 .1 .1", "0 .5,.5 .1 .1"),
    *("1,2,3,4,1,nan,0,0", "1,2,3,4,1,4,inf,0", "1 2 3 4 5 6 7 inf ship 0", "1_0 .5 .5 .1 .1", "0 " + "1 " * 9000),
)
MODELS = ("tinyyolo-n.yaml", "retinanet-r18-nwdrka.yaml", "faster-rcnn-r18-nwdrka.yaml", "cascade-rcnn-r18-nwdrka.yaml")
# A sound call of each command; those of a model end before any work, as there is no such checkpoint or set.
CALLS: dict[str, tuple[str, ...]] = {
    "train": ("data=missing.yaml",),
    "val": ("model=missing.pt", "data=set.yaml"),
    "predict": ("model=missing.pt", "source=images"),
    "track": ("model=missing.pt", "source=images"),
    "export": ("model=missing.pt",),
    "info": ("model=missing.yaml",),
    "models": ("x=1",),
    "data check": ("set.yaml",),
    "data stats": ("set.yaml", "figure=false"),
    "data convert": ("set.yaml", "out=out"),
    "data split": ("set.yaml", "out=cut.yaml", "val=0.5"),
    "data build-aitod": ("xview=x", "aitod=images", "out=out"),
    "analyze": ("data=set.yaml", "model=tinyyolo-n.yaml", "figures=false"),
    "evaluate": ("gt=gt.json", "dt=dt.json"),
    "report": ("gt=gt.json", "dt=dt.json", "pngs=1"),
    "compare": ("gt.json", "gt.json"),
}
RUN_KEYS = (
    "imgsz",
    "name",
    "project",
    "device",
    "classes",
    "conf",
    "cfg",
    "batch",
    "save_dir",
    "cache",
    "resume",
    "lr0",
)
RUN_KEYS += ("model", "source", "epochs", "seed", "head.assigner.topk", "split", "iou", "fraction", "scale", "freeze")


class Attempt(NamedTuple):
    """One malformed input.

    Attributes:
        kind: what is malformed, to count by.
        words: the command line; "build NAME key=value" builds a model without memory for its weights.
        files: content of files in the sound folder that are changed for it.
        what: the change in a few words.
    """

    kind: str
    words: tuple[str, ...]
    files: dict[str, bytes]
    what: str


def write_sound(root: Path) -> None:
    """A sound set of each format in `root`, objects and detections."""
    clean_set(root)
    content = json.loads((root / "train.json").read_text())
    (root / "gt.json").write_text(json.dumps(content))
    found = [{**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.5} for a in content["annotations"]]
    (root / "dt.json").write_text(json.dumps(found))
    counts = {"images": 2, "boxes": 3, "classes": {"ship": 2, "car": 1}}
    (root / "set.yaml").write_text(yaml.safe_dump(sound_yaml() | {"expected": {"train": counts}}))
    (root / "labels").mkdir()
    for stem in ("t0", "t1", "v0", "v1"):
        (root / "labels" / f"{stem}.txt").write_text("0 .5 .5 .1 .1\n1 .25 .25 .1 .2\n")
    (root / "yolo.yaml").write_text("train: images\nval: images\nnames: [ship, car]\n")
    for name, draw in {"visdrone": visdrone_set, "dota": dota_set, "xview": xview_set}.items():
        (root / name).mkdir()
        draw(root / name)


def sound_yaml() -> dict[str, Any]:
    jsons = {"train": "train.json", "val": "val.json"}
    more = {"stands_for": {"train": "train"}, "about": {"ask": "us", "get": ["a", "b"]}, "path": ".", "ignore": ["car"]}
    return {"train": "images", "val": "images", "annotations": jsons, "names": ["ship", "car"], "nc": 2, **more}


def attempts(seed: int, count: int, root: Path, only: Collection[str] | None = None) -> Iterator[Attempt]:
    """`count` malformed inputs of the sound folder `root`, each maker in turn, or `only` those of these names."""
    rng = random.Random(seed)
    makers = (of_yaml, of_yaml_text, of_truth, of_found, of_labels, of_geojson, of_words, of_model, of_bytes, of_cfg)
    makers = tuple(maker for maker in makers if only is None or maker.__name__ in only)
    for i in range(count):
        yield makers[i % len(makers)](rng, root)


def of_yaml(rng: random.Random, root: Path) -> Attempt:
    content, what = changed(rng, yaml.safe_load((root / "set.yaml").read_text()), root)
    text = yaml.safe_dump(content, allow_unicode=True).encode("utf-8", "surrogatepass")
    return Attempt("data YAML, values", on_set(rng), {"set.yaml": text}, what)


def of_yaml_text(rng: random.Random, root: Path) -> Attempt:
    key, text = rng.choice([*sound_yaml(), "base", "format", "x"]), rng.choice(SCALARS)
    lines = [f"{name}: {json.dumps(value)}" for name, value in sound_yaml().items() if name != key]
    whole = rng.choice(
        ["\n".join([*lines, f"{key}: {text}"]), f"{key}: {text}", text, BOMB + f"{key}: *a9", "base: set.yaml"]
    )
    return Attempt("data YAML, text", on_set(rng), {"set.yaml": encoded(whole)}, f"set.yaml: {whole[-90:]!r}")


def on_set(rng: random.Random, name: str = "set.yaml") -> tuple[str, ...]:
    calls = [
        ["data", "check"],
        ["data", "stats", "figure=false"],
        ["data", "convert", "out=out", "to=yolo"],
        ["analyze", "figures=false"],
    ]
    return (*rng.choice(calls), f"data={name}")


def of_truth(rng: random.Random, root: Path) -> Attempt:
    content, what = changed(rng, json.loads((root / "gt.json").read_text()), root)
    calls = [
        ("evaluate", "gt=gt.json", "dt=dt.json"),
        ("report", "gt=gt.json", "dt=dt.json", "pngs=2"),
        ("compare", "gt.json", "train.json"),
    ]
    calls += [on_set(rng), ("data", "convert", "set.yaml", "out=out", "tile=64", "overlap=8")]
    text = encoded(json.dumps(content))
    return Attempt("COCO JSON of objects", rng.choice(calls), {"gt.json": text, "train.json": text}, what)


def of_found(rng: random.Random, root: Path) -> Attempt:
    content, what = changed(rng, json.loads((root / "dt.json").read_text()), root)
    calls = [
        ("evaluate", "gt=gt.json", "dt=dt.json"),
        ("report", "gt=gt.json", "dt=dt.json"),
        ("compare", "gt.json", "dt.json"),
    ]
    return Attempt("COCO JSON of detections", rng.choice(calls), {"dt.json": encoded(json.dumps(content))}, what)


def of_labels(rng: random.Random, root: Path) -> Attempt:
    name, file = rng.choice(
        [
            ("yolo.yaml", "labels/t0.txt"),
            ("visdrone/v.yaml", "visdrone/annotations/0000000.txt"),
            ("dota/d.yaml", "dota/labelTxt/P0000.txt"),
        ]
    )
    lines = (root / file).read_text().splitlines() + rng.sample(LINES, rng.randint(1, 3))
    return Attempt("text labels", on_set(rng, name), {file: encoded("\n".join(lines))}, f"{file}: {lines[-1][:60]!r}")


def of_geojson(rng: random.Random, root: Path) -> Attempt:
    file = "xview/xView_train.geojson"
    content, what = changed(rng, json.loads((root / file).read_text()), root)
    return Attempt("GeoJSON", on_set(rng, "xview/x.yaml"), {file: encoded(json.dumps(content))}, what)


def of_words(rng: random.Random, root: Path) -> Attempt:
    words = rng.choice(list(CALLS))
    command = dict(leaves(COMMANDS))[words]
    keys = [p.name for p in inspect.signature(resolve(command)).parameters.values() if p.kind is not p.VAR_KEYWORD]
    keys = [key for key in keys if key not in ("files", "words", "keys")] if keys != [] else list(RUN_KEYS)
    key, value = rng.choice(keys or ["x"]), rng.choice(SCALARS)
    given = [word for word in CALLS[words] if not word.startswith(f"{key}=") and (key != "data" or "=" in word)]
    extra = rng.choice([f"{key}={value}"] * 8 + [value, f"{value}={key}"])
    return Attempt("command line", (*words.split(), *given, extra), {}, extra[:80])


def of_model(rng: random.Random, root: Path) -> Attempt:
    name = rng.choice(MODELS)
    spec = load_model_yaml(name)
    path = rng.choice([path for path in places(spec) if path and path[0] != "published"])
    key, value = ".".join(map(str, path)), rng.choice([*SCALARS, *(v for v in VALUES if v != 2_000_000)])
    return Attempt("model YAML", ("build", name, key, value), {}, f"{name} {key}={str(value)[:60]!r}")  # type: ignore[arg-type]


def of_bytes(rng: random.Random, root: Path) -> Attempt:
    calls = {
        "set.yaml": ("data", "stats", "figure=false", "data=set.yaml"),
        "labels/t0.txt": ("data", "stats", "figure=false", "data=yolo.yaml"),
    }
    calls |= dict.fromkeys(("gt.json", "dt.json"), ("evaluate", "gt=gt.json", "dt=dt.json"))
    calls |= dict.fromkeys(("images/t0.png", "train.json"), ("data", "check", "data=set.yaml"))
    calls |= {"tiny.pt": ("predict", "model=tiny.pt", "source=missing.png")} if (root / "tiny.pt").exists() else {}
    file = rng.choice(list(calls))
    content = bytearray((root / file).read_bytes())
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(content) + 1)
        how = rng.randrange(4)
        if how == 0:
            del content[place:]
        elif how == 1:
            content[place:place] = rng.choice(
                [b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"[" * 2000, b"{", b'"', b"&a", b"\xef\xbb\xbf", b"1e999"]
            )
        elif content:
            content[place % len(content)] = rng.randrange(256)
    return Attempt("bytes", calls[file], {file: bytes(content)}, f"{file}: bytes changed")


def of_cfg(rng: random.Random, root: Path) -> Attempt:
    key, value = rng.choice(RUN_KEYS), rng.choice(SCALARS)
    words = rng.choice(["train", "val", "predict", "track", "export"])
    text = encoded(f"{key}: {value}")
    return Attempt(
        "cfg file",
        (words, *CALLS[words], "cfg=run.yaml"),
        {"run.yaml": text},
        f"{words} cfg with {key}: {value[:60]!r}",
    )


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def changed(rng: random.Random, content: Any, root: Path) -> tuple[Any, str]:
    """`content` with a value somewhere in it replaced, removed or put twice; and what was done."""
    path = rng.choice(list(places(content)))
    value = rng.choice(VALUES)
    value = str(root.parent / "outside.png") if value == OUTSIDE else value
    if not path:
        return value, f"all={str(value)[:60]!r}"
    *parents, last = path
    holder = content
    for part in parents:
        holder = holder[part]
    how = rng.randrange(10)
    if how == 0:
        del holder[last]
        return content, f"without {path}"
    if how == 1 and isinstance(holder, list):
        holder.append(holder[last])
        return content, f"{path} twice"
    holder[last] = value
    return content, f"{path}={str(value)[:60]!r}"


def places(content: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in nested lists and mappings."""
    yield before
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in pairs:
        yield from places(value, (*before, key))
