"""Files that appear whole or not at all, what killed runs leave, and names that come from data."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tinyyolo import io
from tinyyolo.config import UserError

WRITER = """
import sys, time
from tinyyolo import io
with io.new_file(sys.argv[1], overwrite=True) as stream:
    stream.write("half")
    stream.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """A process in the middle of a write of `out/a.txt`, beside whose old content its part lies."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("old")
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "out" / "a.txt")], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"writing\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def hidden(folder):
    return [path for path in folder.iterdir() if path.name.startswith(".")]


def test_what_a_killed_writer_leaves_goes_with_the_next_write(writer, tmp_path):
    out = tmp_path / "out"
    (part,) = hidden(out)
    assert part.read_text() == "half"
    io.sweep(out)
    assert hidden(out) == [part], "a living process is writing it"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert hidden(out) == [part] and (out / "a.txt").read_text() == "old"
    with io.new_file(out / "b.txt") as stream:
        stream.write("new")
    assert sorted(path.name for path in out.iterdir()) == ["a.txt", "b.txt"]


def test_only_our_own_leftovers_are_swept(tmp_path):
    kept = [".a.txt.x7f3", "a.part", ".hidden", ".tinyyolo-convert.json"]
    for name in kept:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".tinyyolo-abc.part").symlink_to(tmp_path / "a.part")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".tinyyolo-abc.part").write_text("half")
    io.sweep(tmp_path)
    assert (tmp_path / "deep" / ".tinyyolo-abc.part").exists()
    io.sweep(tmp_path, deep=True)
    assert not (tmp_path / "deep" / ".tinyyolo-abc.part").exists()
    assert all((tmp_path / name).read_text() == "mine" for name in kept)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), io.new_file(path, overwrite=True) as stream:
        stream.write("new")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"] and path.read_text() == "old"


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "out.txt").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(UserError, match="exists"), io.new_file(tmp_path / "out.txt"):
        pass
    with io.new_file(tmp_path / "out.txt", overwrite=True) as stream:
        stream.write("new")
    assert (tmp_path / "mine.txt").read_text() == "mine" and not (tmp_path / "out.txt").is_symlink()


NO_PLACE = ["", ".", "a/", "..", "../a", "a/../../b", "/etc/a", "\\a", "..\\a", "a\0b", "a\nb", "\x1b[2J", "\ud83d"]
NO_PLACE += ["x" * 256, "船" * 86]


@pytest.mark.parametrize("name", NO_PLACE, ids=ascii)
def test_names_that_are_no_place_in_a_folder(tmp_path, name):
    with pytest.raises(UserError, match="not written") as caught:
        io.place_in(tmp_path, name)
    assert str(caught.value).isprintable(), "one line, without what moves a terminal"


@pytest.mark.parametrize("name", ["a.png", "./a.png", "train/a b.png", "..a/b..", "船/%20#.png", "x" * 255])
def test_names_that_are_a_place(tmp_path, name):
    assert io.place_in(tmp_path, name) == tmp_path / name


def test_a_link_inside_the_folder_does_not_lead_out(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="a link there leads out"):
        io.place_in(tmp_path / "out", "images/a.png")
    (tmp_path / "link").symlink_to(tmp_path / "out")  # the user's own folder may be a link
    assert io.place_in(tmp_path / "link", "a.png") == tmp_path / "link" / "a.png"


def test_names_of_classes_as_folders(tmp_path):
    names = {0: "../../x", 1: "", 2: "船", 3: "Ship", 4: "ship", 5: "..", 6: "y" * 300, 7: "a\nb", 8: "."}
    made = io.as_file_names(names)
    assert made[2] == "船" and made[3] != made[4] and len({name.casefold() for name in made.values()}) == len(names)
    for name in made.values():
        assert io.place_in(tmp_path, name).parent == tmp_path


def test_the_umask_survives_threads(tmp_path):
    before = io.current_umask()
    io.in_threads(lambda i: [io.current_umask() for _ in range(200)], range(16), "umask")
    assert io.current_umask() == before
    with io.new_file(tmp_path / "a") as stream:
        stream.write("a")
    assert Path(tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~before
    assert os.umask(before) == before


def test_where_there_are_no_locks_nothing_is_taken_for_abandoned(tmp_path, monkeypatch):
    handle, _ = io.draft_file(tmp_path)
    os.close(handle)
    assert io.abandoned(tmp_path)

    def none(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(io.fcntl, "flock", none)
    assert not io.abandoned(tmp_path)
    io.sweep(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
