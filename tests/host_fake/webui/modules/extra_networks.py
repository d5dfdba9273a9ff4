"""`<name:arguments>` tags of prompts, handed to whoever registered the name."""

import re
from collections import defaultdict

from modules import errors

extra_network_registry = {}
_TAG = re.compile(r"<(\w+):([^>]+)>")


class ExtraNetworkParams:
    def __init__(self, items=None):
        self.items = items or []
        pairs = [item.split("=", 1) for item in self.items]
        self.named = {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
        self.positional = [pair[0] for pair in pairs if len(pair) == 1]

    def __eq__(self, other):
        return self.items == other.items


class ExtraNetwork:
    def __init__(self, name):
        self.name = name


def initialize():
    extra_network_registry.clear()


def register_extra_network(extra_network):
    extra_network_registry[extra_network.name] = extra_network


def activate(p, extra_network_data):
    """Tell every registered network its arguments, an empty list where the prompt has none."""
    for name, network in extra_network_registry.items():
        try:
            network.activate(p, extra_network_data.get(name, []))
        except Exception as error:
            errors.display(error, f"activating extra network {name}")


def deactivate(p, extra_network_data):
    for network in extra_network_registry.values():
        network.deactivate(p)


def parse_prompt(prompt):
    found = defaultdict(list)
    for name, arguments in _TAG.findall(prompt):
        found[name].append(ExtraNetworkParams(arguments.split(":")))
    return _TAG.sub("", prompt), found


def parse_prompts(prompts):
    """Return the prompts without tags, and the tags of the first."""
    parsed = [parse_prompt(prompt) for prompt in prompts]
    return [text for text, _ in parsed], parsed[0][1] if parsed else None
