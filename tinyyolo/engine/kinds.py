"""What the value of a key can be: a test and the words that a message says it in."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tinyyolo.config import suggest

SHOW = 60  # characters of a refused value in a message


class Kind:
    """A set of values.

    Args:
        words: what they are, after "expected".
        holds: whether a value is one of them.
        none: whether None is.

    Examples:
        >>> Number(0, 1).words, Number(0, 1)(0.5), Number(0, 1)("fast"), Number(1, whole=True)(True)
        ('a number from 0 to 1', True, False, False)
    """

    def __init__(self, words: str, holds: Callable[[Any], bool], none: bool = False):
        self.words, self.holds, self.none = words, holds, none

    def __call__(self, value: Any) -> bool:
        return (value is None and self.none) or bool(self.holds(value))

    def refusal(self, value: Any) -> str:
        """What a message says of a value that is none of them."""
        return f"expected {self.words}"


class Number(Kind):
    """Numbers from `low` to `high`, whole ones with `whole`."""

    def __init__(self, low: float, high: float = math.inf, *, whole: bool = False, none: bool = False):
        what = "a whole number" if whole else "a number"
        words = f"{what} of at least {low:g}" if high == math.inf else f"{what} from {low:g} to {high:g}"

        def holds(value: Any) -> bool:
            number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            return number and math.isfinite(value) and low <= value <= high

        super().__init__(words, holds, none)


class OneOf(Kind):
    """Some values; words in any case."""

    def __init__(self, *choices: Any):
        self.choices = choices
        words = ", ".join(map(shown, choices))
        super().__init__(words if len(choices) == 1 else f"one of {words}", self.has)

    def has(self, value: Any) -> bool:
        """Whether it is one of them; 1 is not true."""
        same = str(value).lower() if isinstance(value, str) else value
        return any(
            type(same) is type(one) and same == (one.lower() if isinstance(one, str) else one) for one in self.choices
        )

    def refusal(self, value: Any) -> str:
        """The nearest choice."""
        return f"unknown; {suggest(value, map(shown, self.choices))}"


def shown(value: Any) -> str:
    """A value in a message."""
    return str(value).lower() if isinstance(value, bool) else str(value)[:SHOW]


def is_list(value: Any, kind: Callable[[Any], bool], *lengths: int) -> bool:
    """Whether `value` is a list of such values, of one of these lengths if there are any."""
    return isinstance(value, (list, tuple)) and all(map(kind, value)) and (not lengths or len(value) in lengths)


ANY = Kind("", lambda value: True)
SWITCH = Kind("true or false", lambda value: isinstance(value, bool))
TEXT = Kind("text", lambda value: not isinstance(value, (bool, int, float, list, tuple, dict)))
COUNT = Number(0, whole=True)
EPOCHS = Number(1, whole=True)
FACTOR = Number(0, 1)
SIDE = Number(32, whole=True)
IMGSZ = Kind("a whole number of at least 32, or [height, width]", lambda v: SIDE(v) or is_list(v, SIDE, 1, 2))
BATCH = Kind(
    "images per step (1 or more), -1 or a share of GPU memory",
    lambda v: Number(-1)(v) and (v == -1 or 0 < v < 1 or EPOCHS(v)),
)
CLASS = Kind("", lambda v: isinstance(v, str) or COUNT(v))
CLASSES = Kind("classes such as ship, 0 or [ship,2]", lambda v: CLASS(v) or is_list(v, CLASS))
SCALE = Kind("a number from 0 to 1, or [least, most]", lambda v: FACTOR(v) or is_list(v, Number(0), 2))
SHARE = Kind("a share from 0 to 1, or a number of images", lambda v: v != 0 and (FACTOR(v) or EPOCHS(v)))
FREEZE = Kind(
    "how many parts, a list of their numbers, or of names such as [backbone]",
    lambda v: COUNT(v) or isinstance(v, str) or is_list(v, lambda one: COUNT(one) or isinstance(one, str)),
)
INDEX = Kind("a list of whole numbers, such as [0]", lambda v: is_list(v, Number(-math.inf, whole=True)))
STEPS = Kind("a list of epochs, such as [8,11]", lambda v: is_list(v, EPOCHS), none=True)
OPTIMIZER = OneOf("SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "MuSGD", "auto")
START = Kind("true, false or the path of a checkpoint", lambda v: isinstance(v, bool) or (TEXT(v) and v != ""))
AUGMENTATIONS = Kind(
    "a list of albumentations transforms",
    lambda v: isinstance(v, (list, tuple)) and not any(isinstance(one, (str, int, float)) for one in v),
)
