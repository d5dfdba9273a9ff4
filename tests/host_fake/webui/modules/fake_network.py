"""A tree of real torch modules whose parameter names are a checkpoint's keys.

Running it reads every parameter: the outcome is a checksum of the live bits and one smooth number
(the tone), which together decide the picture. Part of the fake alone.
"""

import re
import sys
import zlib

import torch
from torch import nn

_LAYER_NORM = re.compile(r"\.transformer_blocks\.\d+\.norm\d$|layer_norm|\.ln_|_layernorm")


FEW = 64
"""Numbers of each tensor that the tone is made of."""


class Reading:
    """What a pass over some modules saw of their weights."""

    def __init__(self):
        self.checksum = 0
        self.tone = 0.0
        self.sign = 1

    def take(self, module):
        for tensor in module._parameters.values():
            if tensor is None:
                continue
            flat = tensor.data.reshape(-1)
            self.checksum = zlib.crc32(flat.view(torch.uint8).numpy(), self.checksum)
            self.tone += self.sign * float(flat[:FEW].sum(dtype=torch.float32))
            self.sign = -self.sign

    @property
    def digest(self):
        return self.checksum, self.tone


def _lora(module):
    networks = sys.modules.get("networks")
    if networks is not None:
        networks.network_apply_weights(module)


class _Leaf:
    """Mixed into torch's layers: running one reads it; loading one forgets LoRA's backups."""

    def forward(self, reading):
        _lora(self)
        reading.take(self)
        for child in self._modules.values():
            reading.take(child)

    def _load_from_state_dict(self, *args, **kwargs):
        self.network_current_names = ()
        self.network_weights_backup = None
        self.network_bias_backup = None
        super()._load_from_state_dict(*args, **kwargs)


class Linear(_Leaf, nn.Linear): ...


class Conv2d(_Leaf, nn.Conv2d): ...


class GroupNorm(_Leaf, nn.GroupNorm): ...


class LayerNorm(_Leaf, nn.LayerNorm): ...


class Attention(_Leaf, nn.MultiheadAttention): ...


class Embedding(_Leaf, nn.Embedding): ...


class Branch(nn.Module):
    """A module that has children, and sometimes parameters of its own."""

    def forward(self, reading):
        reading.take(self)
        for child in self._modules.values():
            child(reading)


class Blocks(Branch):
    """Children that are counted, some numbers perhaps without weights."""

    def __getitem__(self, number):
        return self._modules[str(number)]

    def __iter__(self):
        return iter(self._modules.values())

    def __len__(self):
        return len(self._modules)


def build(shapes, into):
    """Add modules for all names of `shapes` to `into`; parameters are zero and need gradients."""
    tree = {}
    for name, shape in shapes.items():
        node = tree
        *parents, last = name.split(".")
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = shape
    _grow(into, tree, "")


def _grow(module, tree, path):
    for name, node in tree.items():
        if isinstance(node, tuple):
            if name == "position_ids":
                module.register_buffer(name, torch.zeros(node, dtype=torch.int64))
            else:
                module.register_parameter(name, _zeros(node))
            continue
        child = _module(node, f"{path}.{name}")
        module.add_module(name, child)


def _module(node, path):
    tensors = {name: shape for name, shape in node.items() if isinstance(shape, tuple)}
    if "in_proj_weight" in tensors:
        leaf = _bare(Attention, tensors)
        leaf.add_module("out_proj", _leaf(node["out_proj"], f"{path}.out_proj"))
        leaf.embed_dim = tensors["in_proj_weight"][1]
        leaf.num_heads = 1
        return leaf
    if tensors and len(tensors) == len(node) and "weight" in tensors:
        return _leaf(tensors, path)
    children = Blocks if not tensors and all(name.isdigit() for name in node) else Branch
    module = children()
    _grow(module, node, path)
    return module


def _leaf(tensors, path):
    shape = tensors["weight"]
    if len(shape) == 4:
        leaf = _bare(Conv2d, tensors)
        leaf.out_channels, leaf.in_channels, *size = shape
        leaf.kernel_size, leaf.stride, leaf.dilation = tuple(size), (1, 1), (1, 1)
        leaf.padding, leaf.padding_mode, leaf.groups = (size[0] // 2,) * 2, "zeros", 1
        leaf.transposed, leaf.output_padding = False, (0, 0)
    elif len(shape) == 2 and path.endswith("_embedding"):
        leaf = _bare(Embedding, tensors)
        leaf.num_embeddings, leaf.embedding_dim = shape
    elif len(shape) == 2:
        leaf = _bare(Linear, tensors)
        leaf.out_features, leaf.in_features = shape
    elif _LAYER_NORM.search(path):
        leaf = _bare(LayerNorm, tensors)
        leaf.normalized_shape, leaf.eps, leaf.elementwise_affine = tuple(shape), 1e-5, True
    else:
        leaf = _bare(GroupNorm, tensors)
        leaf.num_groups, leaf.num_channels, leaf.eps, leaf.affine = 1, shape[0], 1e-5, True
    return leaf


def _bare(kind, tensors):
    """A layer without the cost of its constructor, which would fill it with random numbers."""
    leaf = kind.__new__(kind)
    nn.Module.__init__(leaf)
    for name in ("weight", "bias"):
        leaf.register_parameter(name, None)
    for name, shape in tensors.items():
        leaf.register_parameter(name, _zeros(shape))
    return leaf


def _zeros(shape):
    return nn.Parameter(torch.zeros(shape))
