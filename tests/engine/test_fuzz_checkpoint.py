"""Damage at random places of a sound checkpoint: one line, or every tensor as it was."""

import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.checkpoints import archive, content, records, saved
from tinyyolo.config import UserError
from tinyyolo.engine import checkpoint
from tinyyolo.export.safetensors import safetensors

PLACES = 100  # of each kind of damage and file
DAMAGES = ("flip", "zeros", "cut", "insert", "swap")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The path of a checkpoint of each format, and the tensors in it."""
    folder, held = tmp_path_factory.mktemp("sound"), checkpoint.plain(content())
    safetensors(held, folder / "a.safetensors")
    return {"pt": saved(held, folder / "a.pt"), "safetensors": folder / "a.safetensors"}, held["model"]


def damaged(whole, kind, rng):
    """The bytes of a file with one damage. Headers and lists of records are small: half of the places are there."""
    ends = rng.choice([range(len(whole)), range(2_000), range(len(whole) - 2_000, len(whole))])
    place, size = rng.choice(ends), rng.choice([1, 8, 64, 4096])
    if kind == "flip":
        return whole[:place] + bytes([whole[place] ^ (1 << rng.randrange(8))]) + whole[place + 1 :]
    if kind == "zeros":
        return whole[:place] + bytes(len(whole[place : place + size])) + whole[place + size :]
    if kind == "cut":
        return whole[:place]
    if kind == "insert":
        return whole[:place] + rng.randbytes(size) + whole[place:]
    other = rng.randrange(len(whole) - size)
    part = whole[other : other + size]
    return whole[:place] + part + whole[place + size :]


def one_line_or_whole(path, tensors):
    """Whether the file is refused in one line; if not, its tensors are as they were, bit by bit."""
    try:
        found = checkpoint.load(path)["model"]
    except UserError as error:
        assert "\n" not in str(error) and path.name in str(error)
        return True
    assert set(found) == set(tensors)
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    return False


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_damage(sound, tmp_path, suffix, kind):
    files, tensors = sound
    whole, rng, path = files[suffix].read_bytes(), random.Random(f"{suffix} {kind}"), tmp_path / f"a.{suffix}"
    told = 0
    for _ in range(PLACES):
        path.write_bytes(damaged(whole, kind, rng))
        told += one_line_or_whole(path, tensors)
    assert told > PLACES / 2


def test_records_that_changed_places(sound, tmp_path):
    """With checksums that fit: what is loaded fits the YAML, or is told."""
    files, tensors = sound
    rows, rng, path = records(files["pt"]), random.Random(0), tmp_path / "a.pt"
    for _ in range(30):
        one, other = rng.sample(range(len(rows)), 2)
        mixed = list(rows)
        mixed[one], mixed[other] = (rows[one][0], rows[other][1]), (rows[other][0], rows[one][1])
        archive(path, mixed)
        try:
            found = checkpoint.load(path)["model"]
        except UserError as error:
            assert "\n" not in str(error)
            continue
        assert all(found[name].shape == tensors[name].shape for name in tensors)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.tuples(st.integers()), inner, max_size=3)
    ),
    max_leaves=6,
)
PARTS = st.sampled_from(["format", "yaml", "names", "model", "train_args", "epoch", "resume", "metrics"])
SECTIONS = st.sampled_from(
    ["detector", "backbone", "neck", "head", "test", "train", "nc", "normalize", "published", "x"]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part=PARTS, section=SECTIONS, value=PLAIN)
def test_any_value_in_any_part(sound, tmp_path, part, section, value):
    held = torch.load(sound[0]["pt"], weights_only=True)
    for changed in ({**held, part: value}, {**held, "yaml": {**held["yaml"], section: value}}):
        path = saved(changed, tmp_path / "a.pt")
        try:
            checkpoint.to_model(checkpoint.load(path), path)
        except UserError as error:
            assert "\n" not in str(error)
