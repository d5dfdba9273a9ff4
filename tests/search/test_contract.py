"""Every registered proposer keeps the contract."""

from __future__ import annotations

import pytest

from lib_automerge.errors import ConfigError
from lib_automerge.search.proposers import DEFAULT, create, missing, names
from tests.contracts.proposer import ProposerContract, single


@pytest.fixture(params=names())
def name(request: pytest.FixtureRequest) -> str:
    absent = missing(str(request.param))
    if absent:
        pytest.skip(f"{', '.join(absent)} is not installed")
    return str(request.param)


class TestEveryProposer(ProposerContract):
    """The contract, once for each name in the registry."""


def test_the_default_comes_first() -> None:
    assert names()[0] == DEFAULT == "bayes"


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown optimizer: 'bayse'\. Did you mean 'bayes'\?"):
        create("bayse", single(), seed=0)
