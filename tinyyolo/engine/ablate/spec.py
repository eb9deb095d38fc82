"""A spec: which runs there are, with which keys, and by which command each is trained."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from tinyyolo.config import UserError, check_kind, find_yaml, load_model_yaml, shown, suggest, with_base
from tinyyolo.datasets.spec import title_of
from tinyyolo.engine.arguments import resolve
from tinyyolo.engine.history.provenance import TOP
from tinyyolo.engine.history.records import MACHINE_KEYS, NOT_OF_MODEL, NOT_SETTINGS
from tinyyolo.engine.keys import OWN, parsed
from tinyyolo.io import as_file_name, tell

FOLDER = "cfg/specs"  # of the specs that come along
Keys = dict[str, Any]
SPEC_KEYS: dict[str, Any] = {"title": str, "note": str, "train": Keys, "seeds": list[int], "data": str | list[str]}
SPEC_KEYS |= {"rows": dict[str, Keys | None], "plot": list[str]}
ROW_KEYS: dict[str, Any] = {"set": Keys, "label": str, "peer": str, "published": dict[str, dict[str, float]]}
OF_HARNESS = {"seed": "seeds", "data": "data"}  # what it sets for each run, and where that is said instead
OF_HARNESS |= dict.fromkeys(("project", "name", "save_dir", "exist_ok", "resume"), "runs")
OF_PEERS = ("epochs", "imgsz", "batch", *MACHINE_KEYS)  # keys of `train:` that a stock model knows
PEERS = "benchmarks/peers.py"  # in a checkout


@dataclass(frozen=True)
class Job:
    """One run: a row of the spec with a seed and a data YAML."""

    row: str
    seed: int
    data: str  # as given, `{seed}` included

    @property
    def title(self) -> str:
        """The data's name in the results."""
        return title_of(Path(self.data))

    @property
    def key(self) -> tuple[str, int, str]:
        """What makes a run the same run."""
        return self.row, self.seed, self.title

    @property
    def name(self) -> str:
        """Folder of the run."""
        return f"{self.row}-{self.title}-{self.seed}".replace("{seed}", "split")

    @property
    def file(self) -> str:
        """The data YAML: absolute where it is a file, else its name in data/."""
        path = Path(self.data.replace("{seed}", str(self.seed))).expanduser()
        return str(path.absolute()) if path.is_file() else str(path)


def read_spec(name: str | Path) -> tuple[Path, dict[str, Any]]:
    """A spec by path or name, with its `base` applied, and its path.

    Raises:
        UserError: unreadable, an unknown key, or no rows.
    """
    path = find_yaml(name, FOLDER)
    spec = with_base(path, FOLDER)
    check(spec, SPEC_KEYS, f"{path}: ")
    if not spec.get("rows"):
        raise UserError(f"{path}: rows: expected a mapping name: {{set: ...}}, found {shown(spec.get('rows'))}")
    refuse(spec.get("train") or {}, f"{path}: train.")
    for row, given in spec["rows"].items():
        if as_file_name(row) != row:  # the run's folder is called by it
            raise UserError(f"{path}: rows: {shown(row)}: a row's name is part of a file's name")
        check(given or {}, ROW_KEYS, f"{path}: rows.{row}.")
        refuse((given or {}).get("set") or {}, f"{path}: rows.{row}.set.")
    return path, spec


def check(section: Mapping[str, Any], kinds: Mapping[str, Any], where: str) -> None:
    """Raise UserError for an unknown key of a section, or a value of another kind."""
    for key, value in section.items():
        if key not in kinds:
            raise UserError(f"{where}{key}: unknown key; {suggest(key, kinds)}")
        try:
            check_kind(value, kinds[key] | None, key)
        except UserError as error:
            raise UserError(f"{where}{error}") from error


def refuse(keys: Mapping[str, Any], where: str) -> None:
    """Raise UserError for a key of the training that is not for a spec or its user to set."""
    for key in keys:
        if key in OF_HARNESS:
            raise UserError(f"{where}{key}: each run has its own; use {OF_HARNESS[key]}=")


class Spec:
    """A spec and the keys that the user gave beside it.

    Args:
        name: path, or a name in cfg/specs.
        runs: folder of the training runs.
        given: keys of `train` in place of the spec's.

    Raises:
        UserError: see `read_spec`; or a key that is the harness's to set.
    """

    def __init__(self, name: str | Path, runs: Path, given: Mapping[str, Any] | None = None):
        self.path, self.content = read_spec(name)
        self.name, self.runs = self.path.stem, (runs / self.path.stem).absolute()
        self.rows: dict[str, dict[str, Any]] = {row: dict(of or {}) for row, of in self.content["rows"].items()}
        refuse(given or {}, "ablate: ")
        self.given = parsed(given or {})

    def jobs(self, only: Sequence[str] = (), seeds: Sequence[int] = (), data: Sequence[str] = ()) -> list[Job]:
        """All runs asked for, one seed of every row first.

        Raises:
            UserError: no such row, no data, or a stock model where there is no checkout.
        """
        for row in only:
            if row not in self.rows:
                raise UserError(f"only={row}: no such row; {suggest(row, self.rows)}")
        said = self.content.get("data") or []
        files = list(data) or ([said] if isinstance(said, str) else list(said))
        if not files:
            raise UserError(f"{self.path}: the spec names no data: data=my.yaml")
        rows, numbers = list(only) or list(self.rows), list(seeds) or self.content.get("seeds") or [0]
        for row in rows:
            of, peer = self.rows[row].get("set") or {}, self.rows[row].get("peer")
            if peer and not (TOP / PEERS).is_file():
                raise UserError(f"{row}: peer={peer}: {PEERS} trains it, which a checkout has; only= leaves it out")
            for key in self.given.keys() & of.keys():
                own, other = shown(of[key]), shown(self.given[key])
                tell(f"{row}: {key}={own} is the row's own; {key}={other} is not used for it")
            if peer and (lost := [key for key in self.given if key not in OF_PEERS]):
                tell(f"{row}: a stock model knows no {', '.join(lost)}: not used")
        return [Job(row, seed, file) for file, seed, row in product(files, numbers, rows)]

    def is_peer(self, job: Job) -> bool:
        """Whether a stock model is trained, not one of ours."""
        return "peer" in self.rows[job.row]

    def keys(self, job: Job) -> dict[str, Any]:
        """The keys of the run's command but for where it writes."""
        row = self.rows[job.row]
        common = {**(self.content.get("train") or {}), **self.given}
        if self.is_peer(job):
            common = {key: common[key] for key in OF_PEERS if key in common} | {"model": row["peer"]}
        return {**common, **(row.get("set") or {}), "data": job.file, "seed": job.seed}

    def command(self, job: Job) -> list[str]:
        """The words of the run's command."""
        where: dict[str, Any] = {"project": shown_path(self.runs), "name": job.name}
        program = ["python", PEERS] if self.is_peer(job) else ["tinyyolo", "train"]
        where |= {} if self.is_peer(job) else {"exist_ok": True}
        return [*program, *[f"{key}={text(value)}" for key, value in {**self.keys(job), **where}.items()]]

    def settings(self, job: Job) -> dict[str, Any]:
        """Every setting that decides the result, a model's own defaults included.

        Raises:
            UserError: a key or value that the command would refuse.
        """
        keys = self.keys(job)
        if self.is_peer(job):
            return {key: value for key, value in keys.items() if key not in NOT_SETTINGS} | {"peer": keys["model"]}
        if "model" not in keys:
            raise UserError(f"{self.path}: train.model is missing")
        model = load_model_yaml(keys["model"], {k: v for k, v in keys.items() if "." in k})
        plain = {k: v for k, v in keys.items() if "." not in k and k not in {"model", "data"}}
        args = resolve("train", model.get("train") or {}, plain)
        # A key that is new to tinyyolo and left at its default changes no result, and so no fingerprint.
        args = {key: value for key, value in args.items() if key not in OWN or value != OWN[key]}
        if args.get("tile") == "off":  # what runs did that were recorded before images were cut
            del args["tile"]
        # Runs were from scratch and said `true` before there were weights to start from; now `true` names these.
        starts: dict[Any, Any] = {False: True, True: "shipped"}
        args["pretrained"] = starts.get(args["pretrained"], args["pretrained"])
        settings = {key: value for key, value in args.items() if key not in NOT_SETTINGS}
        return settings | {"model": {k: v for k, v in model.items() if k not in NOT_OF_MODEL}}

    def published(self) -> dict[str, dict[str, dict[str, float]]]:
        """Row -> data set -> published figures in percent."""
        return {row: of["published"] for row, of in self.rows.items() if of.get("published")}


def text(value: Any) -> str:
    """A value as the command line takes it.

    Examples:
        >>> text(True), text(None), text(0.5), text({"type": "shape", "ratio": 4.0}), text([8, 11])
        ('true', 'null', '0.5', '{type: shape, ratio: 4.0}', '[8, 11]')
    """
    if isinstance(value, (Mapping, list, tuple)):
        return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=float("inf")).strip()
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)


def shown_path(path: Path) -> str:
    """Relative to the current folder where it lies in it, else its last part."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def recorded(words: Sequence[str], job: Job) -> str:
    """The command as others can use it: data by its file name, not by its place on this machine."""
    return shlex.join(f"data={Path(job.file).name}" if word.startswith("data=") else word for word in words)
