"""YAML as people mean it: plain values alone, in bounded depth and size.

PyYAML reads YAML 1.1, in which yes, no, on and off are truth, 0123 is 83, 12:30 is 750, 2024_11_25 is 20241125 and
2024-11-25 a date. Here these are the text that stands there; so are keys of mappings, and numbers beyond 64 bits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container
from typing import Any, ClassVar

import yaml

DEEPEST = 50  # levels; a model YAML has six
MOST_COPIED = 10_000  # values that stand in the place of all `*alias` together; ten lines can ask for 9^9
TAG = "tag:yaml.org,2002:"
NULL, BOOL, INT, FLOAT, STR, MERGE = (TAG + word for word in ("null", "bool", "int", "float", "str", "merge"))
# Kinds of unquoted words, and the characters they begin with; all others are text. 1e-3 is a number, as people expect.
WORDS = {
    NULL: (r"~|null|Null|NULL|", [*"~nN", ""]),
    BOOL: (r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    INT: (r"[-+]?(?:0|[1-9][0-9]{0,17})", [*"-+0123456789"]),  # 18 digits fit into 64 bits
    FLOAT: (
        r"(?![-+]?[0-9]+$)[-+]?(?:\.[0-9]{1,300}|(?:0|[1-9][0-9]{0,300})(?:\.[0-9]{0,300})?)(?:[eE][-+]?[0-9]{1,5})?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        [*"-+0123456789."],
    ),
    MERGE: ("<<", ["<"]),
}


class PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader without dates, sets, octal and sexagesimal numbers, keys given twice, deep nesting,
    references to themselves and those that multiply."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]  # of the class, whatever the stubs say
    yaml_constructors: ClassVar[dict[Any, Any]] = {
        key: value
        for key, value in yaml.SafeLoader.yaml_constructors.items()
        if key in (None, NULL, STR, TAG + "seq", TAG + "map")
    }

    def __init__(self, text: str):
        super().__init__(text)
        self.depth = self.size = self.copied = 0
        self.sizes: dict[str, int] = {}  # anchor -> values below it, once they are all there

    def compose_node(self, parent: Any, index: Any) -> Any:
        """As PyYAML, which follows any depth and any number of references."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self.depth += 1
        if self.depth > DEEPEST:
            raise fault(event, f"more than {DEEPEST} levels deep")
        before, reference = self.size, self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if reference and event.anchor not in self.sizes:
            raise fault(event, f"*{event.anchor} refers to itself")
        added = self.sizes[event.anchor] if reference else 1
        self.size += added
        self.copied += added * reference
        if self.copied > MOST_COPIED:
            raise fault(event, f"references by *name stand for more than {MOST_COPIED:,} values")
        if event.anchor and not reference:
            self.sizes[event.anchor] = self.size - before
        self.depth -= 1
        return node

    def compose_scalar_node(self, anchor: Any) -> Any:
        """As PyYAML, which lets escapes in quotes make text that no file can hold."""
        node: Any = super().compose_scalar_node(anchor)
        if "\0" in node.value or any("\ud800" <= c <= "\udfff" for c in node.value):
            raise fault(node, "a character that no text has")
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        """As PyYAML, which takes the last of a key's values; keys are text."""
        node: Any = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise fault(key, "expected a key, found a list or a mapping")
            if key.value in seen:
                raise fault(key, f"the key {key.value[:60]!r} stands twice")
            seen.add(key.value)
            key.tag = key.tag if key.tag == MERGE else STR
        return node

    def construct_number(self, node: Any) -> Any:
        """A number or truth from its word; the text where the number is too large for a float."""
        kind, word = node.tag, str(self.construct_scalar(node))
        if not re.fullmatch(WORDS[kind][0], word):
            raise fault(node, f"{word[:60]!r} is no {kind.removeprefix(TAG)}")
        if kind == BOOL:
            return word.lower() == "true"
        if kind == INT:
            return int(word)
        named = word[-3:].lower() in ("inf", "nan")
        value = float(word.replace(".", "", 1)) if named else float(word)
        return value if named or math.isfinite(value) else word


for tag, (pattern, first) in WORDS.items():
    PlainLoader.add_implicit_resolver(tag, re.compile(f"(?:{pattern})$"), first)
    if tag in (BOOL, INT, FLOAT):
        PlainLoader.add_constructor(tag, PlainLoader.construct_number)


def fault(place: Any, what: str) -> yaml.MarkedYAMLError:
    """An error of YAML at the place of an event or node."""
    return yaml.MarkedYAMLError(problem=what, problem_mark=place.start_mark)


def read(text: str | bytes, as_text: Container[str] | bool = False) -> Any:
    """The value of a YAML text.

    Args:
        text: one document; of bytes a mark says the encoding, else it is UTF-8.
        as_text: keys at the top under which every word but null is text as it stands there; True is all of it.

    Raises:
        yaml.YAMLError: no YAML, or one of the things that `PlainLoader` leaves out.

    Examples:
        >>> read("{names: [no, 1e3, 2024-11-25], time: 12:30, 7: 1e3}", as_text={"names"})
        {'names': ['no', '1e3', '2024-11-25'], 'time': '12:30', '7': 1000.0}
    """
    loader = PlainLoader(text)  # type: ignore[arg-type]  # which takes bytes too
    try:
        root = loader.get_single_node()
        if as_text is True:
            words_of(root)
        elif as_text and isinstance(root, yaml.MappingNode):
            for key, value in root.value:
                if key.value in as_text:
                    words_of(value)
        return None if root is None else loader.construct_document(root)
    finally:
        loader.dispose()


def words_of(node: Any) -> None:
    """Take every unquoted word below a node as text, but null and `<<`."""
    if isinstance(node, yaml.ScalarNode):
        node.tag = node.tag if node.tag in (NULL, MERGE) else STR
    elif node is not None:
        for child in node.value:
            for one in child if isinstance(child, tuple) else (child,):
                words_of(one)
