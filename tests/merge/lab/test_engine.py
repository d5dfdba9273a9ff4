from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lib_automerge.errors import CancelledError, ConfigError, ModelError, StorageError
from lib_automerge.merge.lab import budget, catalogue, dropping, engine, output, ranking, selection
from lib_automerge.merge.lab.job import Progress
from lib_automerge.merge.lab.stack import Reading, Stack
from tests.lab_merges import PLAIN, merge_to, merged, random_models, source, write

SHAPES = {"conv": (9, 7, 3, 3), "linear": (83, 211), "bias": (19,), "scalar": (), "one": (1, 50)}

PARAMETERS: dict[str, dict[str, Any]] = {
    "ties": {"k": 0.3},
    "dare": {"p": 0.5, "vote": "sum"},
    "cosine_a": {"weight": 0.2},
    "cosine_b": {"weight": 0.2},
}


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    tensors = random_models(5, SHAPES, torch.float16)
    return [write(tmp_path / f"m{n}.safetensors", model) for n, model in enumerate(tensors)]


def used(method: str, models: list[Path]) -> list[Path]:
    return models[: len(catalogue.get(method).roles) or len(models)]


@pytest.mark.parametrize("method", PLAIN)
def test_bytes_do_not_depend_on_threads_chunks_or_memory(
    method: str, models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = used(method, models)
    parameters = PARAMETERS.get(method, {})
    whole = merge_to(tmp_path / "0", method, files, parameters, chunk=1 << 20).read_bytes()
    variants: list[dict[str, Any]] = [
        {"chunk": 211},
        {"chunk": 37},
        {"chunk": 4096, "threads": 2},
    ]
    for number, options in enumerate(variants, 1):
        path = tmp_path / str(number)
        assert merge_to(path, method, files, parameters, **options).read_bytes() == whole, options
    # next to no memory: tensors are read in parts, ranks taken bucket by bucket and in windows
    monkeypatch.setattr(engine, "_SMALL", 0)
    monkeypatch.setattr(ranking, "_LEAST", 1000)
    monkeypatch.setattr(engine, "left_of", lambda *_: 60_000)
    scarce = merge_to(tmp_path / "scarce", method, files, parameters, chunk=500)
    assert scarce.read_bytes() == whole


@pytest.mark.parametrize("method", ["model_stock", "geometric_median"])
def test_whole_models_give_the_same_bytes_however_they_are_cut(
    method: str, models: list[Path], tmp_path: Path
) -> None:
    parameters = {"scope": "model"}
    one = merge_to(tmp_path / "1", method, models, parameters, chunk=333).read_bytes()
    two = merge_to(tmp_path / "2", method, models, parameters, threads=2).read_bytes()
    assert one == two


def test_an_average_does_not_depend_on_the_order(models: list[Path], tmp_path: Path) -> None:
    one = merge_to(tmp_path / "1", "average", models).read_bytes()
    two = merge_to(tmp_path / "2", "average", models[::-1]).read_bytes()
    assert one == two


def test_number_types_can_be_mixed(tmp_path: Path) -> None:
    dtypes = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn)
    values = torch.linspace(-2, 2, 33).view(3, 11)
    models = [{"w": values.to(dtype)} for dtype in dtypes]
    found = merged(tmp_path, "average", models)["w"]
    expected = torch.stack([model["w"].double() for model in models]).mean(0)
    assert torch.allclose(found, expected, atol=1e-15)


@pytest.mark.parametrize("number_type", ["F8_E4M3", "F8_E5M2", "BF16", "F16", "F32"])
def test_the_result_is_stored_as_asked(number_type: str, tmp_path: Path) -> None:
    models = random_models(3, {"w": (40, 30)}, torch.float32)
    exact = merged(tmp_path, "average", models)["w"]
    stored = merged(tmp_path, "average", models, number_type=number_type)["w"]
    gap = {"F8_E4M3": 2e-2, "F8_E5M2": 2e-2, "BF16": 1e-3, "F16": 1e-4, "F32": 1e-8}[number_type]
    assert torch.allclose(stored.double(), exact, atol=gap)
    assert stored.element_size() == {"F8": 1, "BF": 2, "F1": 2, "F3": 4}[number_type[:2]]


def test_the_size_of_the_memory_holds_for_many_models(tmp_path: Path) -> None:
    lent: list[int] = []

    class Watched(budget.Budget):
        def lent(self, wanted: int) -> Any:
            lent.append(min(wanted, self.total))
            return super().lent(wanted)

    tensors = random_models(40, {"w": (300, 300)}, torch.float16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "Budget", Watched)
        patch.setattr(engine, "left_of", lambda *_: 1 << 20)
        merged(tmp_path, "ties", tensors, chunk=4096)
    # 40 models of 180 kB each do not fit into the megabyte
    assert lent == [1 << 20]


def stack_of(path: Path, memory: int, chunk: int = 1000) -> Stack:
    return Stack("w", [source(path)], based=False, memory=memory, reading=Reading(chunk=chunk))


@pytest.mark.parametrize("kind", ["normal", "few values", "zeros", "sorted", "spike"])
def test_thresholds_are_exact(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    values = {
        "normal": np.abs(random.standard_normal(50_000)),
        "few values": random.integers(0, 4, 50_000).astype(float),
        "zeros": np.zeros(50_000),
        "sorted": np.sort(random.standard_normal(50_000) ** 2),
        "spike": np.concatenate([np.zeros(49_000), random.random(1000)]),
    }[kind]
    path = write(tmp_path / "w.safetensors", {"w": torch.tensor(values)})
    stack = stack_of(path, 1 << 20)
    ordered = np.sort(values)[::-1]

    def magnitudes(start: int, stop: int) -> Any:
        return values[start:stop].copy()

    for count in (1, 2, 500, 1001, 10_000, 25_000, 49_999, 50_000):
        expected = ordered[count - 1]
        ties = count - int(np.count_nonzero(values > expected))
        assert selection.threshold(stack, magnitudes, count) == (expected, ties)
        assert selection._by_digits(stack, magnitudes, count) == (expected, ties)
        # a sample that misleads must not matter
        with monkeypatch.context() as patch:
            patch.setattr(selection, "_brackets", lambda *_: [(0.3, 0.4)])
            assert selection.threshold(stack, magnitudes, count) == (expected, ties)


@pytest.mark.parametrize("values", ["normal", "few", "zeros"])
@pytest.mark.parametrize("memory", [1 << 22, 3000 * ranking.BYTES])
def test_ranks_are_exact_in_any_memory(
    values: str, memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "_LEAST", 10)
    random = np.random.default_rng(0)
    size = 20_000
    numbers = {
        "normal": np.abs(random.standard_normal(size)),
        "few": random.integers(0, 5, size).astype(float),
        "zeros": np.zeros(size),
    }[values]
    path = write(tmp_path / "w.safetensors", {"w": torch.tensor(numbers)})
    expected = np.empty(size, int)
    expected[np.lexsort((np.arange(size), numbers))] = np.arange(1, size + 1)
    stack = stack_of(path, 1 << 20)
    for start, stop in ((0, size), (8192, 16384)):
        found = ranking.ordinal_ranks(stack, lambda a, b: numbers[a:b].copy(), start, stop, memory)
        assert np.array_equal(found, expected[start:stop])


def test_draws_of_a_slice_are_those_of_the_whole() -> None:
    whole = dropping.draws(5, 2, "key", 0, 1000)
    for start, stop in ((0, 1), (3, 700), (8, 16), (999, 1000)):
        assert np.array_equal(dropping.draws(5, 2, "key", start, stop), whole[start:stop])
    assert abs(whole.mean() / dropping.RANGE - 0.5) < 0.05


def test_draws_stay_the_same_between_versions() -> None:
    # recipes are merged again by their seed: these numbers must never change
    assert dropping.draws(0, 0, "w", 0, 3).tolist() == DRAWN


DRAWN = [4050552938, 202516545, 4157020983]


def bad_models(tmp_path: Path) -> list[Path]:
    models = random_models(3, {"w": (40, 3), "v": (3,)}, torch.float16)
    models[1]["w"][7, 1] = float("nan")
    models[1]["w"][0, 0] = float("-inf")
    return [write(tmp_path / f"m{n}.safetensors", model) for n, model in enumerate(models)]


@pytest.mark.parametrize("method", ["average", "ties", "geometric_median", "dgmla", "iso"])
def test_nan_is_refused_by_name(method: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ModelError, match=r"m1\.safetensors: 'w' holds NaN or infinite"):
        merge_to(out, method, bad_models(tmp_path), threads=2)
    assert not list(tmp_path.glob("*out*")) + list(tmp_path.glob(".*"))


def test_nan_is_taken_as_zero_if_asked(tmp_path: Path) -> None:
    paths = bad_models(tmp_path)
    found = load_file(merge_to(tmp_path / "out", "average", paths, zero_bad=True))["w"]
    others = [load_file(path)["w"].double() for path in paths]
    assert found[7, 1].item() == pytest.approx((others[0][7, 1] + others[2][7, 1]).item() / 3)
    assert torch.isfinite(found).all()


def test_a_result_that_overflows_is_refused(tmp_path: Path) -> None:
    models = [{"w": torch.full((3,), value)} for value in (0.0, 3e4)]
    with pytest.raises(ModelError, match="overflow F16"):
        merged(tmp_path, "amplified_difference", models, {"amount": 10.0}, number_type="F16")


def test_a_file_that_changes_is_noticed(models: list[Path], tmp_path: Path) -> None:
    def touch(_progress: Progress) -> None:
        os.utime(models[2], ns=(1, 1))

    out = tmp_path / "out"
    with pytest.raises(ModelError, match=r"m2\.safetensors changed while it was read"):
        merge_to(out, "average", models, progress=touch)
    assert not out.exists()
    assert not list(tmp_path.glob(".out*"))


def test_a_file_that_shrinks_is_noticed(models: list[Path], tmp_path: Path) -> None:
    def cut(_progress: Progress) -> None:
        with models[2].open("r+b") as file:
            file.truncate(9000)

    with pytest.raises(ModelError, match="changed while it was read"):
        merge_to(tmp_path / "out", "average", models, progress=cut)


def stopper(after: int) -> Any:
    """Returns a listener and a question that says stop after some progress."""
    told: list[Progress] = []
    return told.append, lambda: len(told) >= after


@pytest.mark.parametrize("threads", [1, 2])
def test_a_cancelled_merge_can_be_taken_up(
    threads: int, models: list[Path], tmp_path: Path
) -> None:
    whole = merge_to(tmp_path / "whole", "ties", models, {"k": 0.3}).read_bytes()
    out = tmp_path / "out"
    listener, cancelled = stopper(5)
    with pytest.raises(CancelledError, match=r"kept in .*\.out\.partial .* --resume"):
        merge_to(
            out, "ties", models, {"k": 0.3}, progress=listener, cancelled=cancelled,
            threads=threads, chunk=4096,
        )  # fmt: skip
    assert not out.exists()
    done: list[Progress] = []
    merge_to(out, "ties", models, {"k": 0.3}, resume=True, progress=done.append)
    assert out.read_bytes() == whole
    assert done[0].skipped > 0
    assert done[-1].done == done[-1].total
    assert not list(tmp_path.glob(".out*"))


def test_what_was_finished_is_not_merged_again(models: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    listener, cancelled = stopper(5)
    with pytest.raises(CancelledError):
        merge_to(out, "average", models, progress=listener, cancelled=cancelled, chunk=4096)
    # what is in the kept file is believed: a changed byte of a finished tensor stays
    partial = tmp_path / ".out.partial"
    content = bytearray(partial.read_bytes())
    start = len(content) - 8
    content[start : start + 8] = b"\x00" * 7 + b"\x40"
    partial.write_bytes(content)
    journal = (tmp_path / ".out.journal").read_text()
    last = max(load_file(models[0]), key=lambda key: key)
    if f'"{last}"' in journal:
        merge_to(out, "average", models, resume=True)
        assert out.read_bytes()[-8:] == b"\x00" * 7 + b"\x40"


def test_what_a_keyboard_interrupt_leaves_is_told(models: list[Path], tmp_path: Path) -> None:
    told: list[Progress] = []

    def interrupt(progress: Progress) -> None:
        told.append(progress)
        if len(told) == 5:
            raise KeyboardInterrupt

    with pytest.raises(CancelledError, match=r"kept in .*\.out\.partial"):
        merge_to(tmp_path / "out", "average", models, progress=interrupt, chunk=4096)


def test_another_merge_is_not_taken_up(models: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="nothing to resume"):
        merge_to(out, "average", models, resume=True)
    listener, cancelled = stopper(5)
    with pytest.raises(CancelledError):
        merge_to(out, "average", models, progress=listener, cancelled=cancelled, chunk=4096)
    journal = tmp_path / ".out.journal"
    journal.write_text(journal.read_text().replace('"test"', '"other"'))
    with pytest.raises(ConfigError, match="of another merge"):
        merge_to(out, "average", models, resume=True)
    # without resume it begins anew
    assert merge_to(out, "average", models).exists()


def test_a_torn_journal_is_read_up_to_the_tear(models: list[Path], tmp_path: Path) -> None:
    whole = merge_to(tmp_path / "whole", "average", models).read_bytes()
    out = tmp_path / "out"
    listener, cancelled = stopper(5)
    with pytest.raises(CancelledError):
        merge_to(out, "average", models, progress=listener, cancelled=cancelled, chunk=4096)
    with (tmp_path / ".out.journal").open("ab") as file:
        file.write(b'{"keys":["li')
    merge_to(out, "average", models, resume=True)
    assert out.read_bytes() == whole


def test_a_cancel_before_anything_is_finished_leaves_nothing(
    models: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(CancelledError):
        merge_to(tmp_path / "out", "average", models, cancelled=lambda: True)
    assert not list(tmp_path.glob("*out*")) + list(tmp_path.glob(".out*"))


def test_two_merges_do_not_write_one_file(models: list[Path], tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait(_progress: Progress) -> None:
        begun.set()
        go_on.wait(20)

    out = tmp_path / "out"
    worker = threading.Thread(
        target=merge_to, args=(out, "average", models), kwargs={"progress": wait}
    )
    worker.start()
    assert begun.wait(20)
    with pytest.raises(StorageError, match="being written by another merge"):
        merge_to(out, "average", models)
    go_on.set()
    worker.join()
    assert out.exists()


def test_a_file_that_appears_meanwhile_costs_nothing(models: list[Path], tmp_path: Path) -> None:
    whole = merge_to(tmp_path / "whole", "average", models).read_bytes()
    out = tmp_path / "out"
    with pytest.raises(StorageError, match=r"complete and kept in .*\.out\.partial"):
        merge_to(out, "average", models, progress=lambda _: None if out.exists() else out.touch())
    assert out.read_bytes() == b""
    out.unlink()
    assert merge_to(out, "average", models, resume=True).read_bytes() == whole
    assert not list(tmp_path.glob(".out*"))


def test_an_output_that_cannot_be_completed_leaves_nothing(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lib_automerge.merge.lab.output.os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        merge_to(tmp_path / "out", "average", models)
    assert not list(tmp_path.glob("*out*")) + list(tmp_path.glob(".out*"))


def test_the_lock_is_removed_while_it_is_held(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = output.filelock.FileLock.release
    there: list[bool] = []

    def watched(self: Any, force: bool = False) -> None:
        if self.is_locked:
            there.append(Path(self.lock_file).exists())
        release(self, force)

    monkeypatch.setattr(output.filelock.FileLock, "release", watched)
    merge_to(tmp_path / "out", "average", models)
    assert there == [False]


@pytest.mark.parametrize("options", [{"threads": 0}, {"threads": -1}, {"chunk": 0}])
def test_no_threads_and_no_chunks_are_refused(
    options: dict[str, int], models: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"is -?\d. Give 1 or more"):
        merge_to(tmp_path / "out", "average", models, **options)


def test_a_file_is_never_replaced(models: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("mine")
    with pytest.raises(StorageError, match="exists already"):
        merge_to(out, "average", models)
    assert out.read_text() == "mine"


def test_a_small_disk_is_told_before_the_first_byte(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "lib_automerge.merge.sinks.shutil.disk_usage", lambda _path: type("U", (), {"free": 99})
    )
    with pytest.raises(StorageError, match="not enough space"):
        merge_to(tmp_path / "out", "average", models)
    assert not list(tmp_path.glob("*out*")) + list(tmp_path.glob(".out*"))


def test_the_journal_is_written_while_the_file_grows(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "SYNCED", 1)
    lines: list[int] = []

    def look(_progress: Progress) -> None:
        # the journal is written in the background
        time.sleep(0.05)
        lines.append((tmp_path / ".out.journal").read_bytes().count(b"\n"))

    merge_to(tmp_path / "out", "average", models, progress=look)
    assert 2 < max(lines) <= 1 + len(SHAPES)


def test_a_disk_that_fails_in_the_background_is_told(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "SYNCED", 1)
    failed: list[int] = []
    sync = os.fsync

    def once(file: int) -> None:
        failed.append(file)
        if len(failed) == 1:
            raise OSError(5, "Input/output error")
        sync(file)

    monkeypatch.setattr("lib_automerge.merge.lab.output.os.fsync", once)
    with pytest.raises(StorageError, match="Input/output error"):
        merge_to(tmp_path / "out", "average", models)
    assert not list(tmp_path.glob("*out*")) + list(tmp_path.glob(".out*"))


def test_progress_goes_up_to_the_end(models: list[Path], tmp_path: Path) -> None:
    for method, parameters in (("average", {}), ("model_stock", {"scope": "model"})):
        told: list[Progress] = []
        out = tmp_path / method
        merge_to(out, method, models, parameters, progress=told.append, chunk=4096, threads=2)
        done = [each.done for each in told]
        assert done == sorted(done)
        assert done[-1] == told[-1].total
        inputs = sum(path.stat().st_size for path in models)
        assert told[-1].total >= 0.8 * inputs
        assert told[-1].left == 0.0


def test_too_little_memory_is_told(models: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"too little for this merge. Give it \d+ MiB"):
        merge_to(tmp_path / "out", "average", models, memory=1 << 20)


@pytest.mark.parametrize(
    ("text", "size"), [("2GiB", 2 << 30), ("1.5 GiB", 3 << 29), ("700MB", 700_000_000), ("64", 64)]
)
def test_memory_is_read(text: str, size: int) -> None:
    assert budget.parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "much", "2 GiBs", "GiB", "nan", "inf"])
def test_memory_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ConfigError, match="memory cannot be read"):
        budget.parse_memory(text)


def test_memory_is_lent_in_turn() -> None:
    shared = budget.Budget(100)
    order: list[int] = []
    inside = 0
    lock = threading.Lock()

    def take(number: int, wanted: int) -> None:
        nonlocal inside
        with shared.lent(wanted) as got:
            with lock:
                inside += got
                assert inside <= 100
                order.append(number)
            with lock:
                inside -= got

    workers = [threading.Thread(target=take, args=(n, 30 + 40 * n)) for n in range(5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(10)
    assert sorted(order) == [0, 1, 2, 3, 4]


def test_empty_tensors_pass_through(tmp_path: Path) -> None:
    models: list[dict[str, Tensor]] = [{"w": torch.ones(2), "e": torch.ones(0, 4)} for _ in "abc"]
    for method in PLAIN:
        roles = catalogue.get(method).roles
        found = merged(tmp_path, method, models[: len(roles) or 3], chunk=7)
        assert found["e"].shape == (0, 4)
        assert torch.isfinite(found["w"]).all()


@pytest.mark.parametrize(("method", "needed"), [("iso", 34), ("cosine_a", 64)])
def test_what_a_method_needs_is_asked_for_before_it_begins(
    method: str, needed: int, tmp_path: Path
) -> None:
    shape = (256, 1 << 14) if method == "iso" else (1, 1 << 21)
    files = [
        write(tmp_path / f"m{n}", {"w": torch.zeros(shape, dtype=torch.float16)}) for n in "ab"
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "LEAST", 1 << 20)
        with pytest.raises(ConfigError, match=r"too little for this merge. Give it \d+") as caught:
            merge_to(tmp_path / "out", method, files, memory=1)
        with pytest.raises(ConfigError) as small:
            merge_to(tmp_path / "out", "average", files, memory=1)
    one, two = (int(str(error.value).split("Give it ")[1].split()[0]) for error in (caught, small))
    assert one - two > 0.9 * needed
