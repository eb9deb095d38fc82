"""What shells complete: a real one is asked, as its own completion asks the script."""

import shutil
import subprocess

import pytest

from tinyyolo.cli import main

ASK = """source {script}
COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; COMPREPLY=(); {before}_tinyyolo 2>/dev/null; echo "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The file of a shell's script."""
    files = {}

    def of(shell, capsys):
        if shell not in files:
            assert main(["completion", shell]) == 0
            files[shell] = tmp_path_factory.mktemp("completion") / shell
            files[shell].write_text(capsys.readouterr().out)
        return files[shell]

    return of


def replies(shell, file, line, before=""):
    command = [shell, *(["-f"] if shell == "zsh" else []), "-c", ASK.format(script=file, line=line, before=before)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("tinyyolo exp", ["export"]),
        ("tinyyolo help til", ["tile"]),
        ("tinyyolo data b", ["build-aitod"]),
        ("tinyyolo train epo", ["epochs="]),
        ("tinyyolo train data=toy epochs=3 optimizer=AdamW", ["AdamW"]),
        ("tinyyolo train select=", ["best", "last"]),
        ("tinyyolo predict model=best.pt source=sc", ["scene.tif"]),
        ("tinyyolo compare scen", ["scene.tif"]),
    ],
)
def test_bash_completes(line, found, script, tmp_path, capsys):
    (tmp_path / "scene.tif").touch()
    assert replies("bash", script("bash", capsys), line) == found


def test_models_come_by_name_and_by_file(script, tmp_path, capsys):
    (tmp_path / "tinyyolo-x-mine.pt").touch()
    expected = ["tinyyolo-x.yaml", "tinyyolo-x-mine.pt"]
    assert replies("bash", script("bash", capsys), "tinyyolo val model=tinyyolo-x") == expected


def test_an_equals_sign_that_parts_no_words_stays(script, capsys):
    """In zsh, and in a bash that was told so."""
    before = "COMP_WORDBREAKS=' '; "
    assert replies("bash", script("bash", capsys), "tinyyolo train select=l", before) == ["select=last"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes(script, capsys):
    """Its own completion leaves out what does not begin as the word does."""
    file = script("zsh", capsys)
    assert "train" in replies("zsh", file, "tinyyolo tr") and "select=last" in replies(
        "zsh", file, "tinyyolo train select="
    )


def test_another_shell_is_one_line(capsys):
    assert main(["completion", "/bin/tcsh"]) == 2
    assert capsys.readouterr().err == "tinyyolo: completion: /bin/tcsh: Choices: bash, zsh\n"
