"""Which configurations of sd-mecha are which architecture here, and how blocks are called there."""

from __future__ import annotations

import msgspec


class Config(msgspec.Struct, frozen=True):
    """What sd-mecha calls an architecture.

    Attributes:
        keys: the configuration of its checkpoints, whose keys are our canonical ones.
        blocks: the configuration of its weights by block.
        converter: the method that spreads weights by block over keys.
        order: the order of `domain.weights` that says where the blocks that it lacks belong.
    """

    keys: str
    blocks: str
    converter: str
    order: str


CONFIGS = {
    "sd1": Config("sd1-ldm", "sd1-supermerger_blocks", "convert_sd1_blocks_to_ldm", "mecha"),
    "sdxl": Config("sdxl-sgm", "sdxl-supermerger_blocks", "convert_sdxl_blocks_to_sgm", "mecha-xl"),
}
"""Architecture -> its configurations; the architectures that are not here sd-mecha lacks."""

SINGLETON = "singleton-mecha"
"""The configuration of one value for all keys, under the name `key`."""
TO_ALL = "convert_singleton"
