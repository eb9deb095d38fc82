"""Scenes: images too large to be looked at whole, read in windows whose results have no seams."""

from importlib.util import find_spec

from tinyyolo.config import UserError


def has(package: str) -> bool:
    """Whether a package is installed."""
    return find_spec(package) is not None


def need(package: str, what: str, source: str = "'tinyyolo[geo]'") -> None:
    """Raise UserError where a package is not installed; `what` is what needs it, `source` what pip installs it by."""
    if not has(package):
        raise UserError(f"{what} needs the package {package}: pip install {source}")
