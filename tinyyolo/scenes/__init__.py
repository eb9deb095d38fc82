"""Scenes: images too large to be looked at whole, read in windows whose results have no seams."""

from importlib.util import find_spec

from tinyyolo.config import UserError


def has(package: str) -> bool:
    """Whether a package of the extra `geo` is installed."""
    return find_spec(package) is not None


def need(package: str, what: str) -> None:
    """Raise UserError where a package of the extra `geo` is not installed; `what` is what needs it."""
    if not has(package):
        raise UserError(f"{what} needs the package {package}: pip install 'tinyyolo[geo]'")
