r"""The text of sd-mecha's recipes: lines that name nodes, `&0` being the first after the version.

    version 0.1.0
    model "a.safetensors" model_config="sd1-ldm" merge_space="weight"
    dict BASE=0.1 IN00=0.2
    literal &1 model_config="sd1-supermerger_blocks" merge_space="param"
    merge "weighted_sum" &0 &0 alpha=&2

Written for version 0.1.0 of the format, which sd-mecha 1.1 reads, in whole and nothing else. Lines
that begin with `#` are comments to it; ours name a model's SHA-256, of which it keeps none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import msgspec

from lib_automerge.errors import ConfigError

VERSION = "version 0.1.0"

_CONSTANTS: Mapping[str, bool | None] = {"true": True, "false": False, "null": None}
_DIGEST = re.compile(r"# SHA-256 (?P<digest>[0-9a-f]{64})(?: (?P<name>.*))?")


class Model(msgspec.Struct, frozen=True):
    """A file; `digest` and `name` are from a comment of ours before it."""

    at: int
    path: str
    config: str = ""
    space: str = ""
    digest: str = ""
    name: str = ""


class Table(msgspec.Struct, frozen=True):
    """A `dict`: names and values."""

    at: int
    values: dict[str, float | bool | str | None]


class Literal(msgspec.Struct, frozen=True):
    """A `literal`: values for the keys of a configuration."""

    at: int
    table: Table
    config: str = ""


class Merge(msgspec.Struct, frozen=True):
    """A `merge`: a method of sd-mecha with its arguments."""

    at: int
    method: str
    positional: tuple[Argument, ...]
    named: dict[str, Argument]


Node = Model | Table | Literal | Merge
Argument = float | bool | str | Node | None


def words(node: Node) -> str:
    """The node as a sentence names it."""
    kind = f'merge "{node.method}"' if isinstance(node, Merge) else type(node).__name__.lower()
    return f"node &{node.at} ({'dict' if kind == 'table' else kind})"


def refused(node: Node, why: str) -> ConfigError:
    """The error for a node that no method of ours does."""
    return ConfigError(
        f"{words(node)} of the .mecha recipe has no counterpart here: {why}. Change the recipe, or "
        "merge it with sd-mecha."
    )


def is_recipe(text: str) -> bool:
    """Tell whether a text begins as sd-mecha's recipes do."""
    return re.match(r"version \d", text.lstrip("\ufeff")) is not None


def parse(text: str) -> Node:
    """Return the last node of a recipe, which is its result.

    Raises:
        ConfigError: another version, a line that is damaged or unknown, or no node at all.
    """
    version, *lines = text.lstrip("\ufeff").rstrip().splitlines()
    if version.strip() != VERSION:
        raise ConfigError(
            f"this .mecha recipe is of {version.strip()!r}; {VERSION!r} can be read. Save it "
            "again with sd-mecha 1.1."
        )
    nodes: list[Node] = []
    comment: re.Match[str] | None = None
    for number, line in enumerate(lines, 2):
        if line.lstrip().startswith("#"):
            comment = _DIGEST.fullmatch(line.strip())
            continue
        try:
            nodes.append(_node(line, nodes, comment))
        except ConfigError as error:
            raise ConfigError(f"line {number} of the .mecha recipe: {error}") from error
        comment = None
    if not nodes:
        raise ConfigError("the .mecha recipe is empty: it has no line but its version.")
    return nodes[-1]


class Writer:
    """Collects lines; equal lines are one node."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._comments: dict[int, str] = {}

    def model(self, path: str, config: str, digest: str, name: str) -> str:
        """Add a file and return its reference.

        Raises:
            ConfigError: sd-mecha cannot read such a path.
        """
        if "=" in path or not path.isprintable():
            raise ConfigError(
                f"sd-mecha cannot read a path with '=' or a line break in it: {path!r}. Rename the "
                "file or its folder."
            )
        quoted = path.replace("\\", "\\\\").replace('"', '\\"')
        reference = self.add(f'model "{quoted}" model_config="{config}" merge_space="weight"')
        at = int(reference[1:])
        shown = name if name.isprintable() else ""
        comment = f"# SHA-256 {digest} {shown}".rstrip() if digest else ""
        if self._comments.setdefault(at, comment) != comment:
            raise ConfigError(
                f"two models are called {path}, and sd-mecha tells models apart by their paths. "
                "Add --models with their folder."
            )
        return reference

    def table(self, values: Mapping[str, float]) -> str:
        """Add numbers by name."""
        return self.add("dict " + " ".join(f"{k}={float(v)!r}" for k, v in values.items()))

    def merge(self, method: str, *arguments: str) -> str:
        """Add a merge of references and `name=value` arguments."""
        return self.add(" ".join([f'merge "{method}"', *arguments]))

    def add(self, line: str) -> str:
        """Add a line if there is none like it, and return its reference."""
        if line not in self._lines:
            self._lines.append(line)
        return f"&{self._lines.index(line)}"

    def text(self) -> str:
        """The recipe; without a line break at its end, which sd-mecha could not read."""
        lines = [VERSION]
        for at, line in enumerate(self._lines):
            comment = self._comments.get(at)
            lines += [comment, line] if comment else [line]
        return "\n".join(lines)


def _node(line: str, nodes: list[Node], comment: re.Match[str] | None) -> Node:
    command, *rest = _tokens(line) or [""]
    positional: list[Argument] = []
    named: dict[str, Argument] = {}
    for token in rest:
        name, equals, value = token.partition("=")
        if equals:
            named[name] = _argument(value, nodes)
        else:
            positional.append(_argument(token, nodes))
    at = len(nodes)
    if command == "model" and positional and isinstance(positional[0], str):
        return Model(
            at,
            positional[0],
            _text(positional[1:2], named, "model_config"),
            _text(positional[2:3], named, "merge_space"),
            comment["digest"] if comment else "",
            (comment["name"] or "") if comment else "",
        )
    if command == "dict" and not positional:
        values = {k: v for k, v in named.items() if not isinstance(v, Node)}
        if len(values) == len(named):
            return Table(at, values)
        raise ConfigError("a dict of other nodes cannot be read. Write its numbers out.")
    if command == "literal" and positional and isinstance(positional[0], Table):
        return Literal(at, positional[0], _text(positional[1:2], named, "model_config"))
    if command == "merge" and positional and isinstance(positional[0], str):
        return Merge(at, positional[0], tuple(positional[1:]), named)
    raise ConfigError(f"not a line of a recipe: {line.strip()[:80]!r}. Use the file as it was.")


def _text(positional: list[Argument], named: Mapping[str, Argument], name: str) -> str:
    value = positional[0] if positional else named.get(name)
    return value if isinstance(value, str) else ""


def _argument(token: str, nodes: list[Node]) -> Argument:
    if token in _CONSTANTS:
        return _CONSTANTS[token]
    if token.startswith('"'):
        return token[1:-1]
    if token.startswith("&"):
        at = int(token[1:]) if token[1:].isdecimal() else len(nodes)
        if at >= len(nodes):
            raise ConfigError(f"it refers to {token}, and there is no such node before it.")
        return nodes[at]
    try:
        number = float(token)
    except ValueError:
        raise ConfigError(f"neither a number nor a quoted text: {token[:40]!r}.") from None
    if not math.isfinite(number):
        raise ConfigError(f"{token} is no finite number.")
    return number


def _tokens(line: str) -> list[str]:
    """Split at spaces outside quotes; a backslash takes the next character as it is."""
    tokens: list[str] = []
    held, quoted, escaped = "", False, False
    for character in line.strip():
        if escaped:
            held, escaped = held + character, False
        elif character == "\\":
            escaped = True
        elif character == '"':
            held, quoted = held + character, not quoted
        elif character == " " and not quoted:
            tokens += [held] if held else []
            held = ""
        else:
            held += character
    if quoted:
        raise ConfigError("a quotation mark is missing.")
    return tokens + ([held] if held else [])
