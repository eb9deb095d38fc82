"""NAME.md and NAME.png: the record of an ablation as a page with its table, and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyyolo.config import find_yaml, yaml_names
from tinyyolo.engine.ablate.spec import FOLDER, Spec, shown_path
from tinyyolo.evaluation.summary.rows import class_names, grouped, one_or_all, sheet_of
from tinyyolo.evaluation.summary.sheet import markdown
from tinyyolo.io import markdown_table, new_file
from tinyyolo.plots.ablation import Panel, draw

PLOTTED = ("AP", "AP50", "AP_vt", "AP_t")
Records = Sequence[Mapping[str, Any]]


def write_page(spec: Spec, records: Records, out: Path) -> list[Path]:
    """Write the page, and the picture where there are runs; returns the files."""
    sets = {data: ordered(spec, [r for r in records if r["data"] == data]) for data in one_each(records, "data")}
    page = out / f"{spec.name}.md"
    with new_file(page, overwrite=True) as file:
        file.write(text(spec, sets, out))
    return [page, draw(panels(spec, sets), out / f"{spec.name}.png")] if sets else [page]


def one_each(records: Records, key: str) -> list[Any]:
    """The different values of a key, in order."""
    return list(dict.fromkeys(record[key] for record in records))


def ordered(spec: Spec, records: Records) -> list[Mapping[str, Any]]:
    """Records in the order of the spec's rows, then those of rows that have left it; seeds in their order."""
    rows = grouped(records)
    return [record for row in dict.fromkeys([*spec.rows, *rows]) for record in rows.get(row, [])]


def named(spec: Spec, records: Records) -> list[dict[str, Any]]:
    """Records as the table shows them: of rows that left the spec it is said; other figures of a run are own rows."""
    out = []
    for row, some in grouped(records).items():
        gone = "" if row in spec.rows else " (no longer in the spec)"
        out += [{**record, "label": some[0]["label"] + gone} for record in some]
        for name in some[0].get("others") or {}:
            label = f"{some[0]['label']}, {name.replace('_', ' ')}"
            more: dict[str, Any] = {"row": (row, name), "label": label, "per_class": {}}
            if name == "last":
                more["chosen"] = 0
            out += [{**record, **more, "metrics": (record.get("others") or {}).get(name) or {}} for record in some]
    return out


def text(spec: Spec, sets: Mapping[str, Records], out: Path) -> str:
    """The whole page."""
    content, name = spec.content, spec.name
    lines = [f"# {content.get('title') or name}", ""]
    lines += [f"{content['note'].strip()}", ""] if content.get("note") else []
    lines += [
        f"Written by `tinyyolo ablate {shown_spec(spec.path)} out={shown_path(out)} tables=true` from",
        f"[{name}.jsonl]({name}.jsonl), which has every run and metric. Percent; mean ± standard deviation over seeds.",
        "",
    ]
    lines += [f"![{name}]({name}.png)", ""] if sets else ["No run is finished.", ""]
    for data, records in sets.items():
        shown = named(spec, records)
        sheet = sheet_of(shown, behind=("M parameters", "hours"), published=spec.published())
        lines += [f"## {data}", "", about(records), "", markdown(sheet)]
        if len(class_names(records)) > 1:
            plain = [record for record in shown if record["per_class"]]
            lines += ["AP by class:", "", markdown(sheet_of(plain, per_class=True, behind=()))]
        lines += ["Commands, one a seed:", ""]
        lines += [*markdown_table(["", "seed", "commit", "seconds", "command"], map(command_row, records)), ""]
    return "\n".join(lines).rstrip() + "\n"


def shown_spec(path: Path) -> str:
    """A spec as one names it: by its name if it comes along, else by its path from the current folder."""
    return path.name if path.name in yaml_names(FOLDER) and path == find_yaml(path.name, FOLDER) else shown_path(path)


def about(records: Records) -> str:
    """What figures need to be read: data, sizes, machine."""
    sizes = {
        f"{split} {images:,} images, {objects:,} objects": None
        for record in records
        for split, (images, objects) in record["images"].items()
    }
    said = {
        "Data": "; ".join(sizes),
        "image size": one_or_all(f"{size} px" for size in one_each(records, "imgsz")),
        "epochs": one_or_all(one_each(records, "epochs")),
        "batch": one_or_all(one_each(records, "batch")),
        "seeds": one_or_all(sorted(one_each(records, "seed"))),
        "machine": "; ".join(one_each(records, "machine")),
    }
    return ". ".join(f"{what[0].upper()}{what[1:]}: {value}" for what, value in said.items()) + "."


def command_row(record: Mapping[str, Any]) -> list[str]:
    """Which command gave a run, at which commit, and how long it took."""
    seconds = f"{record['seconds']:.0f}" + (", resumed" if record["resumed"] else "")
    return [record["label"], str(record["seed"]), record["commit"] or "-", seconds, f"`{record['command']}`"]


def panels(spec: Spec, sets: Mapping[str, Records]) -> list[Panel]:
    """What the picture shows: for each data set the figures of its rows, beside those published."""
    metrics, out = spec.content.get("plot") or PLOTTED, []
    for data, records in sets.items():
        sizes, epochs = one_or_all(one_each(records, "imgsz")), one_or_all(one_each(records, "epochs"))
        seeds = one_or_all(sorted(one_each(records, "seed")))
        rows = grouped(records)
        values = {
            metric: [
                [r["metrics"][metric] for r in some if r["metrics"].get(metric, -1) >= 0] for some in rows.values()
            ]
            for metric in metrics
        }
        published = [spec.published().get(row) or {} for row in rows]
        title = f"{data}, {sizes} px, {epochs} epochs, seeds {seeds}"
        out.append(Panel(title, [some[0]["label"] for some in rows.values()], values, published))
    return out
