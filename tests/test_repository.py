"""Files that stand about the code: they say what is so."""

from pathlib import Path

import yaml

from tinyyolo import __version__

ROOT = Path(__file__).parent.parent


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__ and citation["license"] == "AGPL-3.0-only"
    assert citation["preferred-citation"]["authors"][0]["family-names"] == "Xu"


def test_the_issue_forms_can_be_filled_in():
    forms = [file for file in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if file.stem != "config"]
    assert len(forms) == 2
    for form in forms:
        content = yaml.safe_load(form.read_text(encoding="utf-8"))
        assert (
            content["name"] and content["description"] and all(part["attributes"]["label"] for part in content["body"])
        )


def test_the_image_installs_what_there_is():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    extras = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert "'/src[geo]'" in text and '"geo": [' in extras
    assert text.index("torch torchvision") < text.index("/src[geo]"), "else pip takes the 6 GB build first"
