"""Starts a real WebUI with demo checkpoints and the probe extension; see README.md."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_automerge import demo
from lib_automerge.merge.readers import open_checkpoint
from lib_automerge.merge.sinks import FileSink

HERE = Path(__file__).parent
START_S = 300
FLAGS = (
    "--skip-prepare-environment",
    "--skip-python-version-check",
    "--skip-version-check",
    "--skip-torch-cuda-test",
    "--use-cpu=all",
    "--no-download-sd-model",
    "--do-not-download-clip",
    "--disable-console-progressbars",
    "--api",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "AUTOMERGE_WEBUI_DIR" not in os.environ:
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="AUTOMERGE_WEBUI_DIR names no WebUI"))


class RealWebUI:
    """A running WebUI."""

    def __init__(self, port: int, log: Path, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.log = log

    def check(self, name: str, **arguments: Any) -> Any:
        """Run `check_NAME` of `inside.py` there and return its result."""
        answer = self.post(f"/automerge_probe/{name}", arguments)
        assert "error" not in answer, f"{answer['trace']}\n{self.log.read_text()[-3000:]}"
        return answer["result"]

    def post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.load(answer)


@contextmanager
def running(folder: Path, *flags: str) -> Iterator[RealWebUI]:
    """Start a WebUI with its data in `folder` (made by `fill`), and stop it afterwards."""
    directory = Path(os.environ["AUTOMERGE_WEBUI_DIR"])
    python = os.environ.get("AUTOMERGE_WEBUI_PYTHON", str(directory / "venv/bin/python"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "webui.log"
    environment = os.environ | {
        "AUTOMERGE_REPOSITORY": str(HERE.parent.parent),
        "PYTHONPATH": os.environ.get("AUTOMERGE_WEBUI_PATH", ""),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
        "OMP_NUM_THREADS": "1",
    }
    folders = ["--data-dir", str(folder), "--models-dir", str(folder / "models")]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python, "launch.py", *FLAGS, *folders, "--port", str(port), *flags],
            cwd=directory,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        webui = RealWebUI(port, log, process)
        deadline = time.monotonic() + START_S
        while not _answers(webui):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.5)
        yield webui
    finally:
        with suppress(ProcessLookupError):  # a test may have killed it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(webui: RealWebUI) -> bool:
    # a request that comes before everything is in place makes the WebUI fail to start
    if "Startup time" not in webui.log.read_text(errors="replace"):
        return False
    try:
        return webui.check("alive") == "alive"
    except (urllib.error.URLError, ConnectionError, json.JSONDecodeError):
        return False


def fill(folder: Path) -> Path:
    """Put the checkpoints, a LoRA and the probe where a WebUI with this data folder finds them."""
    checkpoints = folder / "models" / "Stable-diffusion"
    checkpoints.mkdir(parents=True)
    demo.export(checkpoints)
    generator = torch.Generator().manual_seed(1)
    with open_checkpoint(demo.MODEL_A) as a:
        tensors = {key: a.tensor(key) for key in a.keys()}  # noqa: SIM118
        twin = {
            key: (tensor.float() * (1 + 0.3 * torch.randn(tensor.shape, generator=generator))).to(
                tensor.dtype
            )
            if tensor.is_floating_point()
            else tensor
            for key, tensor in tensors.items()
        }
        bias = "model.diffusion_model.out.2.bias"
        broken = tensors | {bias: torch.full_like(tensors[bias], float("nan"))}
        for name, content in (("t", twin), ("n", broken)):
            path = checkpoints / f"automerge-demo-{name}.safetensors"
            layout = {key: (tensor.dtype, tensor.shape) for key, tensor in content.items()}
            with FileSink(path, layout, {}, copied=layout) as sink:
                for key in sink.order:
                    sink.put(key, content[key])
            shutil.copy(checkpoints / "automerge-demo-a.yaml", path.with_suffix(".yaml"))
    _lora(folder / "models" / "Lora" / "tiny.safetensors", tensors)
    extension = folder / "extensions" / "automerge_probe"
    extension.parent.mkdir()
    extension.symlink_to(HERE / "probe")
    return folder


def _lora(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """A LoRA in kohya's format, for attention matrices of three blocks and the text encoder."""
    attention = "transformer_blocks_0_attn2_to_v", "1.transformer_blocks.0.attn2.to_v.weight"
    layers = {
        f"lora_unet_down_blocks_1_attentions_0_{attention[0]}": f"input_blocks.4.{attention[1]}",
        f"lora_unet_mid_block_attentions_0_{attention[0]}": f"middle_block.{attention[1]}",
        f"lora_unet_up_blocks_2_attentions_1_{attention[0]}": f"output_blocks.7.{attention[1]}",
    }
    layers = {name: f"model.diffusion_model.{key}" for name, key in layers.items()}
    text = "text_model.encoder.layers.11.self_attn.v_proj"
    layers[f"lora_te_{text.replace('.', '_')}"] = f"cond_stage_model.transformer.{text}.weight"
    generator = torch.Generator().manual_seed(3)
    content = {}
    for name, key in layers.items():
        weight = tensors[key].float()
        up = torch.randn(len(weight), 2, generator=generator)
        down = torch.randn(2, weight[0].numel(), generator=generator)
        size = (0.5 * weight.norm() / (up @ down).norm()).sqrt()
        content[f"{name}.lora_up.weight"] = up * size
        content[f"{name}.lora_down.weight"] = down * size
        content[f"{name}.alpha"] = torch.tensor(2.0)
    path.parent.mkdir()
    layout = {key: (tensor.dtype, tensor.shape) for key, tensor in content.items()}
    with FileSink(path, layout, {}, copied=layout) as sink:
        for key in sink.order:
            sink.put(key, content[key])


@pytest.fixture(scope="module")
def webui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealWebUI]:
    with running(fill(tmp_path_factory.mktemp("webui")), "--no-half") as started:
        yield started
