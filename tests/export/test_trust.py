"""TorchScript is code: it runs where someone says that its maker is known, and where this process has written it."""

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.checkpoints import archive, content, records
from tests.test_cli import call
from tinyyolo import Model
from tinyyolo.config import UserError
from tinyyolo.engine import checkpoint
from tinyyolo.export import torchscript
from tinyyolo.export.torchscript import METADATA, metadata

IMAGE = np.zeros((64, 64, 3), np.uint8)


class Writer(torch.nn.Module):
    """A network that writes a file, as TorchScript can."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("executed", True, 8).sum()


SCRIPT = torch.jit.script(Writer())


def hostile(path: Path) -> Path:
    """TorchScript that writes ./executed when it runs, with the metadata of an export."""
    says = {"names": {"0": "ship"}, "imgsz": [64, 64], "test": {}, "stride": 32, "batch": 1, "task": "detect"}
    torch.jit.save(SCRIPT, path, _extra_files={METADATA: json.dumps({**says, "channels": 3, "args": {}})})
    return path


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    checkpoint.save(folder / "best.pt", content())
    return Path(Model(folder / "best.pt").export(imgsz=64))


@pytest.fixture
def of_another_process(export, monkeypatch):
    monkeypatch.setattr(torchscript, "OWN", set())
    return export


def test_what_this_process_has_written_runs(export):
    assert Model(export).predict(IMAGE, conf=0, verbose=False)[0].names == {0: "dark", 1: "bright"}


def test_that_of_another_needs_a_word(of_another_process):
    with pytest.raises(UserError, match=r"TorchScript is code .* trust=true, Model\(path, trust=True\)"):
        Model(of_another_process)
    assert Model(of_another_process, trust=True).predict(IMAGE, conf=0, verbose=False)


def test_one_changed_byte_makes_it_another_file(export, tmp_path):
    rows = [(name, data.replace(b'"stride": 32', b'"stride": 33')) for name, data in records(export)]
    with pytest.raises(UserError, match="TorchScript is code"):
        Model(archive(tmp_path / "a.torchscript", rows))


@pytest.mark.parametrize("mode", ["val", "predict"])
def test_the_command_takes_trust(of_another_process, tiny_set, mode, capsys):
    words = {"val": [f"data={tiny_set}", "plots=false"], "predict": [f"source={tiny_set.parent / 'images'}"]}[mode]
    code, _, err = call(mode, f"model={of_another_process}", *words, capsys=capsys)
    assert code == 2 and "trust=true" in err and len(err.strip().splitlines()) == 1
    code, _, err = call(mode, f"model={of_another_process}", *words, "trust=true", capsys=capsys)
    assert code == 0, err
    code, _, err = call(mode, f"model={of_another_process}", *words, "trust=maybe", capsys=capsys)
    assert code == 2 and "trust=maybe: expected true or false" in err


@pytest.mark.parametrize("mode", ["train", "export"])
def test_where_it_does_nothing_it_is_refused(export, mode, capsys):
    code, _, err = call(mode, f"model={export.with_suffix('.pt')}", "trust=true", capsys=capsys)
    assert code == 2 and f"trust=true: {mode} does not take it" in err


def test_it_belongs_to_the_model(export):
    with pytest.raises(UserError, match=r"trust=true: Model\(...\) takes it, not Model.predict"):
        Model(export.with_suffix(".pt")).predict(IMAGE, trust=True)


@pytest.mark.parametrize("name", ["a.torchscript", "a.ts", "a.pt", "a.pth", "a.safetensors"])
def test_hostile_code_does_not_run(tmp_path, name, capsys):
    path = hostile(tmp_path / name)
    for words in (("predict", f"source={tmp_path}"), ("val", "data=toy.yaml"), ("export",), ("info",)):
        code, _, err = call(words[0], f"model={path}", *words[1:], capsys=capsys)
        assert code == 2 and name in err and len(err.strip().splitlines()) == 1, err
    assert "TorchScript" in err
    assert not list(tmp_path.rglob("executed"))


def test_the_hostile_one_is_hostile(tmp_path):
    """The test above would pass with any file that does nothing."""
    torch.jit.load(hostile(tmp_path / "a.torchscript"))(torch.zeros(1))
    assert (tmp_path / "executed").is_file()


def test_one_side_alone_is_both(export, tmp_path):
    (tmp_path / "a.pt").write_bytes(export.with_suffix(".pt").read_bytes())
    assert metadata(Model(tmp_path / "a.pt").export(imgsz=[64]))["imgsz"] == [64, 64]


class TestDamaged:
    def test_a_flipped_bit(self, export, tmp_path):
        content = bytearray(export.read_bytes())
        with zipfile.ZipFile(export) as file:
            record = max(file.infolist(), key=lambda one: one.compress_size)
        lengths = content[record.header_offset + 26 : record.header_offset + 30]  # of its name and of what fills up
        start = record.header_offset + 30 + sum(struct.unpack("<HH", lengths))
        content[start + record.compress_size // 2] ^= 1
        (tmp_path / "a.torchscript").write_bytes(content)
        with pytest.raises(UserError, match=r"a\.torchscript: damaged: its record"):
            Model(tmp_path / "a.torchscript", trust=True)

    def test_code_that_torch_cannot_read(self, export, tmp_path):
        rows = [(n, b"def (" if n.endswith(".py") else data) for n, data in records(export)]
        with pytest.raises(UserError, match=r"a\.torchscript: torch cannot open it: ") as caught:
            Model(archive(tmp_path / "a.torchscript", rows), trust=True)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("says", "text"),
        [
            ("names: expected a mapping", {"names": ["a"]}),
            ("names: expected the class names 0, 1, 2", {"names": {"1": "a"}}),
            ("imgsz: expected height and width", {"imgsz": [64]}),
            (r"imgsz\[0\]: expected a whole number", {"imgsz": ["64", 64]}),
            ("left out the test settings", {"test": 3}),
            (r"its config.txt: thresholds=\[0.5\]: expected 2, one a class", {"thresholds": [0.5]}),
            ("damaged", "[" * 100_000),
            ("left out the test settings", "[]"),
        ],
    )
    def test_what_it_says_of_itself(self, export, tmp_path, says, text):
        known = metadata(export)
        text = text if isinstance(text, str) else json.dumps({**known, **text})
        rows = [(n, text.encode() if n.endswith(METADATA) else data) for n, data in records(export)]
        with pytest.raises(UserError, match=says) as caught:
            Model(archive(tmp_path / "a.torchscript", rows), trust=True)
        assert "\n" not in str(caught.value)
