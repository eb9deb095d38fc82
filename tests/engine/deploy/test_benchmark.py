"""A checkpoint beside its exports: the same figures, and a table, a file and a picture."""

import json

import pytest

from tests.export.test_onnx import best  # noqa: F401 - a fixture
from tests.test_cli import call


def test_an_unknown_row_is_named(best, tiny_set, capsys):  # noqa: F811
    code, _, err = call("benchmark", best, tiny_set, "formats=[onx]", capsys=capsys)
    assert code == 2 and "formats=onx: unknown; did you mean 'onnx'" in err


@pytest.mark.slow
def test_the_rows_find_the_same(best, tiny_set, tmp_path, capsys):  # noqa: F811
    code, out, err = call(
        "benchmark", best, tiny_set, "imgsz=96", "formats=[checkpoint,onnx]", f"project={tmp_path}", capsys=capsys
    )
    assert code == 0, err
    said = json.loads((tmp_path / "benchmark" / "benchmark.json").read_text())
    own, other = said["rows"]["checkpoint"], said["rows"]["onnx"]
    assert said["imgsz"] == 96 and own["AP"] == pytest.approx(other["AP"], abs=1e-4) and own["AP"] >= 0
    assert all(row["ms"] > 0 and row["disk_mb"] > 0 and row["memory_mb"] > 50 for row in (own, other))
    assert (tmp_path / "benchmark" / "benchmark.png").is_file() and "onnx " in out
