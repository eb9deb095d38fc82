"""The command line as a function."""

from tinyyolo.cli import as_typed, run


def command(*words, **options):
    """`tinyyolo WORDS... key=value...` in this process; a user's mistake is raised."""
    return run([*map(str, words), *(f"{key}={as_typed(value)}" for key, value in options.items())])
