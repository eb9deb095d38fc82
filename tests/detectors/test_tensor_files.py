"""Files of tensors: what each kind of damage, disguise and hostility is told as, and that sound ones come whole."""

import collections
import json
import pickle
import resource
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.support.checkpoints import archive, records, saved
from tinyyolo.config import UserError
from tinyyolo.detectors.tensor_files import read, write_safetensors

STATE = {"a.weight": torch.arange(12.0).view(3, 4), "b": torch.tensor([7, 8])}
LEGACY = {"_use_new_zipfile_serialization": False}


def refused(path, says):
    with pytest.raises(UserError, match=says) as caught:
        read(path)
    line = str(caught.value)
    assert "\n" not in line and Path(path).name in line
    return line


def same(found, expected):
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


class TestSound:
    @pytest.mark.parametrize("options", [{}, LEGACY])
    def test_torch(self, tmp_path, options):
        torch.save({"state_dict": collections.OrderedDict(STATE), "epoch": 3}, tmp_path / "a.pth", **options)
        found = read(tmp_path / "a.pth")
        assert found["epoch"] == 3 and type(found["state_dict"]) is dict
        same(found["state_dict"], STATE)

    def test_safetensors_of_others_under_any_name(self, tmp_path):
        save_file(STATE, tmp_path / "a.pt", {"format": "pt"})
        same(read(tmp_path / "a.pt"), STATE)

    def test_safetensors_of_ours(self, tmp_path):
        write_safetensors(tmp_path / "a.safetensors", STATE, {"yaml": {"x": [1, 0.1, None, 'a "crc32":"0"']}})
        found = read(tmp_path / "a.safetensors")
        assert found["yaml"] == {"x": [1, 0.1, None, 'a "crc32":"0"']}
        same(found["model"], STATE)

    def test_a_folder_without_a_name_for_its_user(self):
        with pytest.raises(UserError, match="cannot be opened"):
            read("~nosuchuser/a.pt")


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"", "an empty file"),
        (b"lr0: 0.1\n", "text that begins with 'lr0: 0.1'"),
        ("größe".encode(), "text that begins with 'größe'"),
        (b"\n <!DOCTYPE html><html>Sign in", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12", "git lfs pull"),
        (b"\x93NUMPY\x01\x00", "an array of numpy"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "a picture"),
        (b"\x1f\x8b\x08" + bytes(99), "gzip"),
        (pickle.dumps({"model": 1}), "a bare pickle, which is code"),
        (bytes(99), "of another kind, or a damaged one"),
        (b"PK\x03\x04 cut short", "cut short or damaged: File is not a zip file"),
        (struct.pack("<Q", 2**40) + b"{}", "of another kind"),
        (struct.pack("<Q", 10**6) + b"{}", "cut short or damaged"),
    ],
)
def test_what_it_looks_like(tmp_path, head, says):
    (tmp_path / "best.pt").write_bytes(head)
    refused(tmp_path / "best.pt", f"best.pt: .*{says}")


def test_a_folder_and_a_name_too_long(tmp_path):
    refused(tmp_path, "cannot be opened: Is a directory")
    with pytest.raises(UserError, match="cannot be opened: File name too long") as caught:
        read(f"{'a' * 300}.pt")
    assert len(str(caught.value)) < 250


class TestArchive:
    @pytest.fixture
    def sound(self, tmp_path):
        return saved(STATE, tmp_path / "sound.pt")

    def test_one_flipped_bit_is_named_with_its_record(self, sound, tmp_path):
        with zipfile.ZipFile(sound) as file:
            start = file.getinfo("sound/data/0").header_offset
        content = bytearray(sound.read_bytes())
        place = content.index(STATE["a.weight"].numpy().tobytes(), start)
        content[place + 7] ^= 64  # the exponent of the second number
        (tmp_path / "bit.pt").write_bytes(content)
        assert torch.load(tmp_path / "bit.pt")["a.weight"][0, 1] != 1, "torch believes it"
        refused(tmp_path / "bit.pt", r"bit\.pt: damaged: its record sound/data/0 is not as its checksum says")

    def test_cut_short(self, sound, tmp_path):
        (tmp_path / "half.pt").write_bytes(sound.read_bytes()[:700])
        refused(tmp_path / "half.pt", "cut short or damaged")

    def test_other_archives(self, tmp_path):
        refused(
            archive(tmp_path / "a.pt", [("word/document.xml", b"<a/>")]), "a zip archive of other files, such as word"
        )

    @pytest.mark.parametrize("name", ["/etc/passwd", "../../evil", "a/../../evil", "..\\evil"])
    def test_names_that_lead_elsewhere(self, sound, tmp_path, name):
        refused(archive(tmp_path / "a.pt", [*records(sound), (name, b"x")]), "leads out of the archive")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "sound.pt"]

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_a_record_twice(self, sound, tmp_path):
        refused(archive(tmp_path / "a.pt", [*records(sound), ("sound/data/0", bytes(48))]), "is there twice")

    def test_a_bomb_of_zeros(self, sound, tmp_path):
        rows = [*records(sound), ("sound/data/9", bytes(2**24))]
        bomb = archive(tmp_path / "a.pt", rows, zipfile.ZIP_DEFLATED)
        assert bomb.stat().st_size < 2**16
        refused(bomb, "is compressed, which torch's are not")

    def test_a_record_marked_as_a_folder(self, sound, tmp_path):
        """Which torch does not read, and gives what lies in memory."""
        content = bytearray(sound.read_bytes())
        place = content.rindex(b"sound/data/0") - 8  # of its attributes, in the list at the end
        content[place] |= 0x10
        (tmp_path / "a.pt").write_bytes(content)
        refused(tmp_path / "a.pt", r"its record sound/data/0 is marked as a folder")

    def test_what_torch_reads_is_compared_once_more(self, sound, monkeypatch):
        other = {name: x + 1 for name, x in STATE.items()}
        monkeypatch.setattr(torch, "load", lambda *_, **__: other)
        refused(sound, "a tensor is not as its record's checksum says")

    def test_a_storage_that_claims_more_than_its_record(self, sound, tmp_path):
        rows = [(name, data.replace(b"K\x0ct", b"J\x00\x10\x00\x00t")) for name, data in records(sound)]
        assert rows != records(sound)
        refused(archive(tmp_path / "a.pt", rows), "record size")


class TestValues:
    def test_lists_that_hold_themselves(self, tmp_path):
        loop = []
        loop.append(loop)
        refused(saved({"names": loop}, tmp_path / "a.pt"), "its values are deeper than 64")

    def test_a_list_of_the_same_list_many_times(self, tmp_path):
        laughs = ["ha"] * 10
        for _ in range(9):
            laughs = [laughs] * 10
        path = saved({"names": laughs}, tmp_path / "a.pt")
        assert path.stat().st_size < 2**12, "10^10 words"
        refused(path, "its values are more than 1,000,000")

    def test_one_number_as_a_whole_tensor(self, tmp_path):
        huge = torch.zeros(1).expand(10**6, 10**6)
        refused(saved({"a": huge}, tmp_path / "a.pt"), r"its tensors claim 4,000,000,000,000 bytes, the file has")

    @pytest.mark.parametrize(
        "tensor",
        [
            torch.zeros(2, 2).to_sparse(),
            torch.zeros(3, device="meta"),
            torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.qint8),
        ],
        ids=["sparse", "meta", "quantized"],
    )
    def test_other_tensors(self, tmp_path, tensor):
        with pytest.raises(UserError, match=r"a\.pt: refused: "):
            read(saved({"a": tensor}, tmp_path / "a.pt"))

    def test_attributes_of_a_mapping_are_left(self, tmp_path):
        held = collections.OrderedDict(STATE)
        held.xtems = [3]  # pickle itself asks for items
        rows = records(saved({"model": held}, tmp_path / "a.pt"))
        path = archive(tmp_path / "b.pt", [(name, data.replace(b"xtems", b"items")) for name, data in rows])
        assert torch.load(path)["model"].items == [3]
        same(read(path)["model"], STATE)


FLOAT = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
HOSTILE = {
    "overlap": ({"a": FLOAT, "b": FLOAT}, 4),
    "a gap": ({"a": FLOAT, "b": {**FLOAT, "data_offsets": [8, 12]}}, 12),
    "too few bytes": ({"a": FLOAT}, 3),
    "more than is named": ({"a": FLOAT}, 9),
    "shape": ({"a": {**FLOAT, "shape": [2]}}, 4),
    "overflow": ({"a": {**FLOAT, "shape": [2**62, 2**62]}}, 4),
    "dtype": ({"a": {**FLOAT, "dtype": "F99"}}, 4),
    "twice": ('{"a":%s,"a":%s}' % (json.dumps(FLOAT), json.dumps(FLOAT)), 4),  # noqa: UP031 - braces are JSON's
    "metadata": ({"a": FLOAT, "__metadata__": {"k": 3}}, 4),
    "deep": ('{"a":' * 100_000, 4),
    "no JSON": ("{'a': 3", 4),
}


class TestSafetensors:
    @pytest.mark.parametrize("kind", HOSTILE)
    def test_headers(self, tmp_path, kind):
        header, size = HOSTILE[kind]
        text = (header if isinstance(header, str) else json.dumps(header)).encode()
        (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))
        refused(tmp_path / "a.safetensors", "damaged: ")

    def test_every_bit_of_ours_is_in_the_checksum(self, tmp_path):
        path = tmp_path / "a.safetensors"
        write_safetensors(path, STATE, {"yaml": {"lr": 0.25}, "names": ["ship"]})
        content = path.read_bytes()
        for place in range(len(content)):
            path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
            try:
                found = read(path)
            except UserError as error:
                assert "\n" not in str(error)
                continue
            # A file whose checksum has another name is one of others, which says nothing of itself.
            assert set(found) == set(STATE), place
            same({name: found[name] for name in STATE}, STATE)

    def test_the_checksum_is_of_the_file_with_these_digits_zero(self, tmp_path):
        import zlib

        path = tmp_path / "a.safetensors"
        write_safetensors(path, STATE, {"yaml": {}})
        content = path.read_bytes()
        place = content.index(b'"crc32":"') + 9
        digits = content[place : place + 8]
        assert int(digits, 16) == zlib.crc32(content[:place] + b"00000000" + content[place + 8 :])


def test_hostile_files_take_no_memory(tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    TestValues().test_a_list_of_the_same_list_many_times(tmp_path)
    TestValues().test_one_number_as_a_whole_tensor(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "kB"
