"""Values by block in the lab's form: what its buttons do to them, and their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lib_automerge.domain.architectures import Architecture
from lib_automerge.errors import ConfigError
from lib_automerge.merge.lab.methods import LabMethod
from lib_automerge.merge.lab.parameters import Parameter
from lib_automerge.study.markup import Markup, element
from lib_automerge.ui.lab_fields import label_of
from lib_automerge.ui.space_rules import picked_blocks


def block_wise(method: LabMethod) -> tuple[Parameter, ...]:
    """The parameters of a method that may differ by block."""
    return tuple(parameter for parameter in method.parameters if parameter.per_block)


def named_parameter(method: LabMethod, label: str) -> Parameter:
    """The block-wise parameter with this label; without one the method's first.

    Raises:
        ConfigError: there is none.
    """
    found = block_wise(method)
    for parameter in found:
        if label_of(parameter.name) == label:
            return parameter
    if not found or label:
        raise ConfigError(f"{method.label} has no parameter {label!r} that differs by block.")
    return found[0]


def put(
    values: Mapping[str, Mapping[str, float]],
    parameter: Parameter,
    picked: Sequence[str],
    value: float | None,
    architecture: Architecture,
) -> dict[str, dict[str, float]]:
    """The values by block after some were set.

    Args:
        values: those before.
        parameter: whose values.
        picked: blocks and groups.
        value: the new one; None takes away those of these blocks.
        architecture: whose blocks they are.

    Raises:
        ConfigError: nothing is picked, or the value is out of range.
    """
    blocks = picked_blocks(picked, architecture)
    if not blocks:
        raise ConfigError("no block is chosen. Choose the blocks that the value is for.")
    if value is not None:
        assert parameter.low is not None
        assert parameter.high is not None
        if not parameter.low <= value <= parameter.high:
            raise ConfigError(
                f'"{label_of(parameter.name)}" is {value:g}. It must be from {parameter.low:g} to '
                f"{parameter.high:g}."
            )
    kept = {b: one for b, one in values.get(parameter.name, {}).items() if b not in blocks}
    new = {} if value is None else dict.fromkeys(blocks, value)
    return {name: dict(own) for name, own in values.items()} | {parameter.name: kept | new}


def table(
    method: LabMethod,
    plain: Mapping[str, object],
    values: Mapping[str, Mapping[str, float]],
    architecture: Architecture,
) -> Markup:
    """Every block with its value of every block-wise parameter, a group a body.

    Args:
        method: whose parameters.
        plain: the value of each for all blocks.
        values: those that differ, by parameter and block.
        architecture: of the models.
    """
    parameters = block_wise(method)
    head = element(
        "tr",
        element("th", "Block", scope="col"),
        *(element("th", label_of(one.name), scope="col", class_="num") for one in parameters),
    )
    bodies = [
        element(
            "tbody",
            *(
                element(
                    "tr",
                    element("th", block, scope="row"),
                    *(
                        _cell(plain.get(p.name), values.get(p.name, {}).get(block))
                        for p in parameters
                    ),
                )
                for block in members
            ),
        )
        for members in architecture.groups.values()
        if members
    ]
    caption = element("caption", f"Values by block, {architecture.label}")
    return element(
        "div",
        element("table", caption, element("thead", head), *bodies),
        class_="automerge-lab-blocks",
        tabindex="0",
    )


def _cell(plain: object, own: float | None) -> Markup:
    if own is not None:
        return element("td", element("b", f"{own:g}"), class_="num", title="set for this block")
    told = f"{plain:g}" if isinstance(plain, int | float) else "not a number"
    return element("td", told, class_="num automerge-quiet", title="the value for all blocks")
