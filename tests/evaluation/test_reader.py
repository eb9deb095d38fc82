"""The fast reader of JSON against Python's own, number by number and fault by fault."""

import json

import numpy as np
import pytest

from tinyyolo.config import UserError
from tinyyolo.evaluation.records import read_json, read_regular

NUMBERS = [
    0,
    7,
    12.5,
    0.0504,
    717.25,
    123456.789,
    0.30000000000000004,
    717.1234130859375,
    1e-07,
    -3.5,
    12345678,
    87654321.5,
]
NUMBERS += [
    1.5e300,
    123456789.12345678,
    9007199254740991,
    0.1234567,
    0.12345678,
    1234567.8,
    99999999,
    999999.99,
    0.00000001,
]


def records(number):
    rng = np.random.default_rng(number)
    pick = lambda: NUMBERS[rng.integers(len(NUMBERS))]  # noqa: E731
    return [{"image_id": i, "bbox": [pick() for _ in range(4)], "score": pick()} for i in range(number)]


def columns_equal(columns, rows):
    for key in rows[0]:
        np.testing.assert_array_equal(columns[key], np.array([row[key] for row in rows], np.float64), err_msg=key)


@pytest.mark.parametrize("style", [{}, {"separators": (",", ":")}, {"indent": 2}, {"indent": "\t"}])
def test_the_fast_reader_decodes_every_number_as_json_does(style, monkeypatch):
    monkeypatch.setattr("tinyyolo.evaluation.records.RECORDS_AT_ONCE", 64)  # many blocks
    rows = records(5000)
    columns_equal(read_regular(json.dumps(rows, **style).encode()), rows)
    rest = {"images": [{"id": 1}], "annotations": rows, "categories": []}
    content = read_regular(json.dumps(rest, **style).encode())
    columns_equal(content["annotations"], rows)
    assert content["images"] == [{"id": 1}] and list(content) == list(rest)


def test_the_fast_reader_rounds_like_json():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.random(20_000), 800 * rng.random(20_000), 0.01 * rng.random(20_000)])
    values = np.concatenate([values, values.astype(np.float32), np.round(values, 15), np.round(values, 12)])
    rows = [{"score": value} for value in values.tolist()]
    np.testing.assert_array_equal(read_regular(json.dumps(rows).encode())["score"], values)


@pytest.mark.parametrize("token", ["0.535212049028314929", "0.430462858623480632", "0.814241447925860673"])
def test_the_fast_reader_does_not_round_twice(token):
    """Rounded to 80 bits these lie in the middle of two float64, which they do not in truth."""
    text = "[" + ", ".join([f'{{"score": {token}}}'] * 100) + "]"
    assert set(read_regular(text.encode())["score"]) == {float(token)}


def test_the_fast_reader_reads_to_the_very_end():
    rows = records(300)
    for number in range(60, 300, 7):
        columns_equal(read_regular(json.dumps(rows[:number]).encode()), rows[:number])


ROW = '{"image_id": 1, "bbox": [1, 2, 3, 4.5], "score": 0.5}'
ODD = [
    ROW.replace("image_id", "imaga_id"),
    ROW.replace("0.5", "0.5.5"),
    ROW.replace("0.5", ""),
    ROW.replace("0.5", "x.5"),
    ROW.replace("0.5", "null"),
    ROW.replace("0.5", '"0.5"'),
    ROW.replace("0.5", "1-2"),
    ROW.replace("0.5", "NaN"),
    ROW.replace("image_id", "id"),
    ROW.replace('"score": 0.5', '"score": 0.5, "note": "a"'),
    ROW.replace('"score"', '"area": 3, "score"'),
    ROW.replace("1,", "12345678901234567890,"),
    ROW.replace("[1, ", "["),
    ROW.replace('"score"', ' "score"'),
    ROW[:-1],
]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("place", [0, 1, 50, 98, 99])
def test_the_fast_reader_leaves_what_is_odd_to_json(odd, place, tmp_path):
    rows = [ROW] * 100
    rows[place] = odd
    text = ("[" + ", ".join(rows) + "]").encode()
    assert read_regular(text) is None
    (tmp_path / "odd.json").write_bytes(text)
    try:
        want = json.loads(text)
    except ValueError:
        with pytest.raises(UserError, match=r"odd\.json: malformed JSON"):
            read_json(tmp_path / "odd.json")
    else:
        assert repr(read_json(tmp_path / "odd.json")) == repr(want)


@pytest.mark.parametrize("tail", ["", ",", "]]", "]x", "}]", "] 3"])
def test_the_fast_reader_sees_what_follows_the_records(tail):
    text = "[" + ", ".join([ROW] * 100) + tail
    with pytest.raises(ValueError):
        json.loads(text)
    assert read_regular(text.encode()) is None


def test_annotations_elsewhere_in_the_file_do_not_mislead():
    rows = records(100)
    content = {"info": {"annotations": [{"a": 1}, {"a": 2}]}, "images": [], "annotations": rows}
    assert read_regular(json.dumps(content).encode()) is None
