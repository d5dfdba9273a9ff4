from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import yaml

from lib_automerge import cli
from lib_automerge.app import configfile
from lib_automerge.app.chains import ChainService
from lib_automerge.domain.chain import SearchStep
from lib_automerge.study.chain_store import ChainFolder
from tests.chain_host import POOL, ContentHost, chain_sections, write_pool


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    models = {name: POOL[name] for name in ("m1", "m2")}
    return write_pool(tmp_path_factory.mktemp("work") / "pool", models)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> ContentHost:
    made = ContentHost()
    monkeypatch.setattr("lib_automerge.search.insights.insights", lambda *_, **__: None)
    monkeypatch.setattr(
        "lib_automerge.host.detect.build_chain_service", lambda: ChainService(made, lambda: 0.0)
    )
    return made


def write_chain(folder: Path, **sections: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "night.yaml"
    content = {**chain_sections(["pool/*.safetensors"]), "preset": "soup", **sections}
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_chain_tells_what_it_takes_and_what_came_out(
    pool: list[str], host: ContentHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_chain(Path(pool[0]).parent.parent)
    out = tmp_path / "out"
    assert cli.main(["chain", str(config), "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "Pool: 2 models. This chain takes at most 1 search, " in told
    for line in ("Step 1: soup", "Step 2: best", "Step 3: search", "ranked: m1 is best with"):
        assert line in told
    assert told.count("evaluation 9/9") >= 1
    merged = next((out / "steps/03-search").glob("merged-*.safetensors"))
    assert f"Result:     {merged}" in told
    assert cli.main(["status", str(out)]) == 0
    assert (
        "out: finished, 3 of 3 steps done. soup (A) and m1 (B): Better" in capsys.readouterr().out
    )
    assert cli.main(["status", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"] == "search"
    assert cli.main(["report", str(out)]) == 0
    assert cli.main(["resume", str(out)]) == 0
    again = tmp_path / "again.safetensors"
    assert cli.main(["rebuild", str(out), "-o", str(again)]) == 0
    assert again.read_bytes() == merged.read_bytes()
    assert cli.main(["rebuild", str(out / "recipes/whole.json"), "-o", str(again)]) == 2
    assert "exists already" in capsys.readouterr().err
    recipe = out / "recipes/search.json"
    by_hand = tmp_path / "by-hand.safetensors"
    assert cli.main(["merge", str(recipe), "-o", str(by_hand)]) == 0
    assert by_hand.read_bytes() == merged.read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT to oneself ends the process there")
def test_ctrl_c_stops_a_chain_that_resume_takes_up(
    pool: list[str], host: ContentHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_chain(Path(pool[0]).parent.parent)
    out = tmp_path / "out"
    host.before_batch = lambda jobs: os.kill(os.getpid(), signal.SIGINT)
    assert cli.main(["chain", str(config), "--out", str(out)]) == 130
    told = capsys.readouterr()
    assert "Go on with:" in told.out
    assert f"resume {out}" in told.out
    assert "Ctrl+C again stops at once" in told.err
    assert cli.main(["status", str(out)]) == 0
    assert "stopped, 0 of 3 steps done. Next or in progress: soup." in capsys.readouterr().out
    host.before_batch = lambda jobs: None
    assert cli.main(["resume", str(out)]) == 0
    assert ChainFolder(out).state().finished is not None


def test_a_chain_that_fails_can_be_resumed_and_says_so_by_its_exit_code(
    pool: list[str], host: ContentHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lib_automerge.errors import GenerationError

    def fail(jobs: object) -> None:
        raise GenerationError("no memory is left.")

    config = write_chain(Path(pool[0]).parent.parent)
    out = tmp_path / "out"
    host.before_batch = fail
    assert cli.main(["chain", str(config), "--out", str(out)]) == 3
    assert "no memory is left" in capsys.readouterr().err
    assert cli.main(["status", str(out)]) == 0
    assert "failed, 0 of 3 steps done. no memory is left." in capsys.readouterr().out
    host.before_batch = lambda jobs: None
    assert cli.main(["resume", str(out)]) == 0


def test_a_chain_without_a_file(
    pool: list[str],
    host: ContentHost,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["chain"]) == 2
    assert "--preset, --pool and --payloads" in capsys.readouterr().err
    payloads = tmp_path / "prompts.json"
    payloads.write_text(json.dumps(chain_sections([])["payloads"]))
    stops = iter([False, False])
    monkeypatch.setattr(
        "lib_automerge.run_commands.stop_flag",
        lambda _told: __import__("contextlib").nullcontext(lambda: next(stops, True)),
    )
    arguments = ["--preset", "tree", "--pool", *pool, "--payloads", "prompts.json"]
    assert cli.main(["chain", *arguments, "--reward", "demo"]) == 130
    manifest = ChainFolder(tmp_path / "runs/tree-chain-001").manifest()
    assert manifest.config.reward.name == "demo"
    assert [member.name for member in manifest.pool] == ["m1", "m2"]


def test_options_replace_what_a_file_says(pool: list[str], tmp_path: Path) -> None:
    steps = [{"kind": "rank", "name": "only"}]
    path = write_chain(tmp_path, preset=None, steps=steps)
    text = yaml.safe_load(path.read_text())
    del text["preset"]
    path.write_text(yaml.safe_dump(text))
    config = configfile.read_chain(path, {})
    assert config.pool == (str(tmp_path / "pool/*.safetensors"),)
    assert config.steps[0].name == "only"
    config = configfile.read_chain(path, {"preset": "soup", "pool": pool})
    assert config.pool == tuple(pool)
    assert [step.name for step in config.steps] == ["soup", "best", "search"]


def test_errors_of_a_file_name_the_step(
    host: ContentHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_chain(tmp_path, preset=None)
    content = {**yaml.safe_load(path.read_text()), "steps": [{"kind": "rank", "nmae": "x"}]}
    path.write_text(yaml.safe_dump(content))
    assert cli.main(["chain", str(path)]) == 2
    assert "step 1: " in capsys.readouterr().err
    path.write_text("pool: [")
    assert cli.main(["chain", str(path)]) == 2
    assert "is not YAML" in capsys.readouterr().err
    path.write_text("- 1")
    assert cli.main(["chain", str(path)]) == 2
    assert "not a mapping" in capsys.readouterr().err
    assert cli.main(["resume", str(tmp_path)]) == 2
    assert cli.main(["rebuild", str(tmp_path), "-o", str(tmp_path / "x.safetensors")]) == 2


def test_the_example_is_a_chain() -> None:
    path = Path(__file__).parents[2] / "docs" / "chain.yaml"
    config = configfile.read_chain(path, {})
    assert config.name == "soup-night"
    final = config.steps[-1]
    assert isinstance(final, SearchStep)
    assert final.search.evaluations == 80
    assert not config.keep_intermediate
