"""Files that would run a program if they were believed, through every door that opens a file: nothing runs."""

import builtins
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.checkpoints import archive, content, records, saved
from tests.test_cli import call
from tinyyolo import Model
from tinyyolo.config import UserError
from tinyyolo.engine import checkpoint

MARK = "executed"


class Planted:
    """What pickles as a call of `function`."""

    def __init__(self, function, *words):
        self.call = function, words

    def __reduce__(self):
        return self.call


PAYLOADS = {
    "system": Planted(os.system, f"touch {MARK}"),
    "eval": Planted(builtins.eval, f"open({MARK!r}, 'w')"),
    "exec": Planted(builtins.exec, f"open({MARK!r}, 'w')"),
    "open": Planted(open, MARK, "w"),
    "in torch": Planted(torch.save, [1], MARK),
}
TAGS = {
    "call": f"!!python/object/apply:os.system ['touch {MARK}']",
    "new": f"!!python/object/new:os.system ['touch {MARK}']",
    "eval": f"!!python/object/apply:eval [\"open('{MARK}', 'w')\"]",
    "name": "!!python/name:os.system",
}


def pickles(folder: Path) -> list[Path]:
    """A file for each payload in each place of a checkpoint, and in each way of writing it."""
    folder.mkdir()
    sound = saved(checkpoint.plain(content()), folder / "sound.pt")
    rows = records(sound)
    held = content()
    for name, payload in PAYLOADS.items():
        for protocol in (0, 2, 4):
            (folder / f"{name} {protocol}.pt").write_bytes(pickle.dumps({"model": payload}, protocol))
        saved({**held, "train_args": {"augmentations": [payload]}}, folder / f"{name} args.pt")
        saved({**held, "names": {0: payload, 1: "a"}}, folder / f"{name} names.pt")
        saved({"state_dict": {"a": torch.zeros(1)}, "meta": payload}, folder / f"{name} meta.pth")
        torch.save(payload, folder / f"{name} old.pth", _use_new_zipfile_serialization=False)
        instead = [(key, pickle.dumps(payload, 2) if key.endswith("data.pkl") else data) for key, data in rows]
        archive(folder / f"{name} record.pt", instead)
        np.save(folder / f"{name}.npy", np.array([payload], object), allow_pickle=True)
        (folder / f"{name}.npy").rename(folder / f"{name} numpy.pt")
    sound.unlink()
    return sorted(folder.iterdir())


def one_line(capsys, *words):
    code, out, err = call(*words, capsys=capsys)
    assert code == 2 and len(err.strip().splitlines()) == 1 and "Traceback" not in out + err, (words, err)
    assert not Path(MARK).exists(), f"{words}: it ran"
    return err


def test_the_planted_ones_would_run(tmp_path):
    """The tests below would pass with files that do nothing."""
    for name in PAYLOADS:
        pickle.loads(pickle.dumps(PAYLOADS[name]))
        Path(MARK).unlink()


def test_pickles_as_checkpoints(tmp_path, tiny_set, capsys):
    files = pickles(tmp_path / "files")
    assert len(files) == 45
    for i, file in enumerate(files):
        doors = [
            ("predict", f"model={file}", f"source={tiny_set.parent / 'images'}"),
            ("val", f"model={file}", f"data={tiny_set}"),
            ("export", f"model={file}"),
            ("info", f"model={file}"),
            ("train", f"model={file}", f"data={tiny_set}", "epochs=1"),
            ("train", f"resume={file}"),
            ("train", "model=tinyyolo-n.yaml", f"pretrained={file}", f"data={tiny_set}", "epochs=1"),
            ("info", "model=tinyyolo-n.yaml", f"backbone.weights={file}"),
        ]
        for words in {doors[0], doors[1 + i % (len(doors) - 1)]}:  # each door with each kind, not each with each
            assert file.name in one_line(capsys, *words)
    with pytest.raises(UserError, match="no checkpoint: it looks like text"):
        Model("tinyyolo-n.yaml").load(files[0])


@pytest.mark.parametrize("name", PAYLOADS)
def test_pickles_where_others_are_looked_for(tmp_path, tiny_set, name, capsys):
    for file in ("evil.json", "evil.yaml", "evil.npy", "evil.png", "evil.txt", "evil.pkl"):
        (tmp_path / file).write_bytes(pickle.dumps({"images": PAYLOADS[name]}))
    np.save(tmp_path / "evil.npy", np.array([PAYLOADS[name]], object), allow_pickle=True)
    (tmp_path / "gt.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    sound = saved(checkpoint.plain(content()), tmp_path / "sound.pt")
    for words in [
        ("evaluate", "gt=evil.json", "dt=evil.json"),
        ("evaluate", "gt=gt.json", "dt=evil.json"),
        ("report", "gt=evil.json", "dt=evil.json", f"images={tmp_path}"),
        ("compare", "evil.json", "evil.json"),
        ("data", "check", "evil.yaml"),
        ("data", "stats", "evil.yaml"),
        ("info", "model=evil.yaml"),
        ("train", "model=tinyyolo-n.yaml", "data=evil.yaml"),
        ("train", "cfg=evil.yaml"),
        *[("predict", f"model={sound}", f"source={file}") for file in ("evil.png", "evil.npy", "evil.txt", "evil.pkl")],
    ]:
        one_line(capsys, *words)


@pytest.mark.parametrize("name", TAGS)
def test_tags_in_every_yaml(tmp_path, name, capsys):
    tagged = tmp_path / "evil.yaml"
    tagged.write_text(f"detector: {TAGS[name]}\nnames: {TAGS[name]}\n")
    (tmp_path / "child.yaml").write_text("base: evil.yaml\n")
    for words in [
        ("info", "model=evil.yaml"),
        ("info", "model=child.yaml"),
        ("train", "data=evil.yaml"),
        ("train", "data=child.yaml"),
        ("train", "cfg=evil.yaml"),
        ("data", "check", "evil.yaml"),
        ("data", "stats", "evil.yaml"),
        ("data", "convert", "evil.yaml", "to=coco", "out=out"),
    ]:
        one_line(capsys, *words)
    for key in ("head", "data", "epochs", "name"):  # a value on the command line is YAML as well
        call("info", f"{key}={TAGS[name]}", capsys=capsys)
        assert not Path(MARK).exists()
