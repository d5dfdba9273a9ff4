"""install.py as a WebUI runs it: its own process, in an environment with pins that must not move.

The environment is real (a virtual environment with its own pip); the packages in it and the index
are made here, so that no network is needed and every conflict can be provoked.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import packaging
import pytest

ROOT = Path(__file__).parents[2]

OURS = {
    "bayesian-optimization": "3.4.0",
    "dynamicprompts": "0.31.0",
    "msgspec": "0.22.0",
    "threadpoolctl": "3.8.0",
}
"""What install.py has to add to an environment like A1111's."""

HOST_PACKAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "numpy": ("1.26.2", ()),
    "scipy": ("1.16.3", ("numpy<2.6",)),
    "PyYAML": ("6.0.3", ()),
    "filelock": ("3.20.0", ()),
    "Jinja2": ("3.1.6", ()),
    "torch": ("2.1.2+cu121", ("filelock",)),
}

# what run_pip of A1111 1.10.1 does, so far as an extension can tell
LAUNCH = """
import subprocess, sys
open("launched", "w").close()
def run_pip(command, desc=None):
    if "--skip-install" in open("flags").read():
        return
    print(f"Installing {desc}")
    done = subprocess.run(f'"{sys.executable}" -m pip {command} --prefer-binary', shell=True,
                          capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"Couldn't install {desc}.\\n{done.stdout}\\n{done.stderr}")
"""


def wheel(folder: Path, name: str, version: str, requires: Sequence[str] = ()) -> Path:
    """Write the wheel of a package without content."""
    stem = f"{name.replace('-', '_')}-{version}"
    files = {
        f"{name.replace('-', '_').lower()}.py": "",
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + "".join(f"Requires-Dist: {item}\n" for item in requires),
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in files.items()
    )
    files[f"{stem}.dist-info/RECORD"] = record + f"{stem}.dist-info/RECORD,,\n"
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name_inside, text in files.items():
            archive.writestr(name_inside, text)
    return path


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


class HostEnvironment:
    """A WebUI's folder with its virtual environment and a package index on disk."""

    def __init__(self, folder: Path) -> None:
        self.webui = folder / "web ui"
        self.index = folder / "index"
        self.extension = folder / "extensions" / "automerge"
        self.python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        for path in (self.webui, self.index, self.extension / "lib_automerge" / "host"):
            path.mkdir(parents=True)
        venv.create(folder / "venv", with_pip=True)
        (self.webui / "launch.py").write_text(LAUNCH)
        (self.webui / "requirements_versions.txt").write_text("numpy==1.26.2\n")
        self.flags("")
        for name in ("install.py", "requirements.txt"):
            shutil.copy(ROOT / name, self.extension)
        for name in ("__init__.py", "host/__init__.py", "host/requirements.py"):
            shutil.copy(ROOT / "lib_automerge" / name, self.extension / "lib_automerge" / name)
        self._packaging()
        for name, (version, requires) in HOST_PACKAGES.items():
            self.pip("install", "--no-deps", str(wheel(self.index, name, version, requires)))

    def _packaging(self) -> None:
        """The one real package that a WebUI brings and install.py uses."""
        found = metadata.distribution("packaging")
        source = Path(packaging.__file__).parent
        shutil.copytree(source, self.site / "packaging")
        info = f"packaging-{found.version}.dist-info"
        shutil.copytree(Path(str(found.locate_file(info))), self.site / info)

    @property
    def site(self) -> Path:
        """site-packages."""
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        done = subprocess.run([self.python, "-c", code], capture_output=True, text=True, check=True)
        return Path(done.stdout.strip())

    def flags(self, flags: str) -> None:
        (self.webui / "flags").write_text(flags)

    def offer(self, name: str, version: str, *requires: str) -> None:
        """Put a package into the index."""
        wheel(self.index, name, version, requires)

    def offer_ours(self) -> None:
        """Fill the index as the real one is: newer versions of host packages are there too."""
        self.offer("bayesian-optimization", "3.4.0", "numpy>=1.25", "scikit-learn", "colorama")
        self.offer("scikit-learn", "1.7.0", "numpy>=1.22", "joblib")
        self.offer("scikit-learn", "1.9.0", "numpy>=2.0", "joblib")
        self.offer("numpy", "2.4.0")
        self.offer("joblib", "1.6.0")
        self.offer("colorama", "0.4.6")
        self.offer("dynamicprompts", "0.31.0", "jinja2~=3.1")
        self.offer("Jinja2", "3.2.0")
        self.offer("msgspec", "0.22.0")
        self.offer("threadpoolctl", "3.8.0")

    def pip(self, *arguments: str) -> str:
        environment = os.environ | self._offline()
        command = [str(self.python), "-m", "pip", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        return done.stdout

    def freeze(self) -> set[str]:
        return set(self.pip("freeze", "--all").split("\n")) - {""}

    def install(self) -> tuple[int, str]:
        """Run install.py as the WebUI does; its exit code and everything that it printed."""
        environment = os.environ | self._offline() | {"PYTHONPATH": str(self.webui)}
        done = subprocess.run(
            [self.python, self.extension / "install.py"],
            cwd=self.webui,
            env=environment,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr

    def _offline(self) -> dict[str, str]:
        return {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.index),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_EXTRA_INDEX_URL": "",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    @property
    def problem(self) -> Path:
        return self.extension / "install-problem.txt"

    @property
    def launched(self) -> bool:
        return (self.webui / "launched").exists()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> HostEnvironment:
    return HostEnvironment(tmp_path_factory.mktemp("host"))


@pytest.fixture
def host(template: HostEnvironment) -> HostEnvironment:
    """The environment with what the WebUI pins, whatever an earlier test added."""
    kept = {*HOST_PACKAGES, "packaging", "pip", "setuptools"}
    installed = {line.partition("==")[0].partition(" @")[0] for line in template.freeze()}
    if installed - kept:
        template.pip("uninstall", "--yes", *(installed - kept))
    shutil.rmtree(template.index)
    template.index.mkdir()
    template.flags("")
    template.problem.unlink(missing_ok=True)
    (template.webui / "launched").unlink(missing_ok=True)
    return template


def ours(freeze: set[str]) -> set[str]:
    return {line for line in freeze if line.partition("==")[0] in OURS}


def test_only_our_packages_come_and_nothing_moves(host: HostEnvironment) -> None:
    host.offer_ours()
    before = host.freeze()
    code, printed = host.install()
    after = host.freeze()
    assert code == 0, printed
    assert before <= after
    added = {line.partition("==")[0] for line in after - before}
    assert added == {*OURS, "scikit-learn", "joblib", "colorama"}
    assert "scikit-learn==1.7.0" in after  # the newer one wants another numpy
    assert not host.problem.exists()


def test_a_second_start_is_silent_and_asks_no_launcher(host: HostEnvironment) -> None:
    host.offer_ours()
    host.install()
    (host.webui / "launched").unlink()
    began = time.monotonic()
    assert host.install() == (0, "")
    assert time.monotonic() - began < 2  # 0.13 s on a free core; pip or torch would take longer
    assert not host.launched


def test_a_conflict_with_the_host_leaves_everything_as_it_was(host: HostEnvironment) -> None:
    host.offer_ours()
    (host.index / "scikit_learn-1.7.0-py3-none-any.whl").unlink()
    before = host.freeze()
    code, printed = host.install()
    assert code == 0
    assert host.freeze() == before
    last = printed.strip().split("\n")[-1]
    assert "bayesian-optimization" in last
    assert "Traceback" not in printed
    problem = host.problem.read_text()
    assert problem.startswith(last)
    assert "numpy" in problem  # what pip said is kept for the tab
    host.offer("scikit-learn", "1.7.0", "joblib")
    assert host.install()[0] == 0
    assert not host.problem.exists()


def test_no_network_is_one_sentence(host: HostEnvironment) -> None:
    before = host.freeze()
    code, printed = host.install()
    assert code == 0
    assert host.freeze() == before
    assert "internet" in printed.strip().split("\n")[-1]
    assert "Traceback" not in printed


def test_skip_install_installs_nothing_and_says_so(host: HostEnvironment) -> None:
    host.offer_ours()
    host.flags("--skip-install")
    before = host.freeze()
    code, printed = host.install()
    assert code == 0
    assert host.freeze() == before
    assert "--skip-install" in printed
    assert "msgspec" in host.problem.read_text()


def test_ours_moves_within_our_bounds_but_not_if_somebody_else_holds_it(
    host: HostEnvironment,
) -> None:
    host.offer_ours()
    old = wheel(host.index, "msgspec", "0.10.0")
    host.pip("install", str(old))
    code, printed = host.install()
    assert "msgspec==0.22.0" in host.freeze(), printed

    host.pip("install", str(old))
    host.pip("install", str(wheel(host.index, "other-extension", "1.0", ["msgspec"])))
    before = host.freeze()
    code, printed = host.install()
    assert code == 0
    assert host.freeze() == before
    assert "msgspec (needed <1,>=0.18, found 0.10.0)" in printed


def test_damaged_and_linked_installations_are_no_obstacle(host: HostEnvironment) -> None:
    host.offer_ours()
    linked = wheel(host.webui, "torchvision", "0.28.0+stub")
    host.pip("install", str(linked))
    for name in ("~umpy-1.0.dist-info", "broken-1.0.dist-info"):
        (host.site / name).mkdir()
    (host.site / "old.egg-info").write_text("Name: old\nVersion: 2004-beta-of-joe\n")
    try:
        before = host.freeze()
        code, printed = host.install()
        assert code == 0
        after = host.freeze()
        assert before <= after
        assert ours(after) == {f"{name}=={version}" for name, version in OURS.items()}, printed
        assert any(line.startswith("torchvision @ file:") for line in after)
    finally:
        for name in ("~umpy-1.0.dist-info", "broken-1.0.dist-info"):
            (host.site / name).rmdir()
        (host.site / "old.egg-info").unlink()


def test_the_list_is_bounded_on_both_sides_and_agrees_with_the_project() -> None:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    from packaging.requirements import Requirement

    from lib_automerge.host import requirements

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {r.name: r.specifier for r in map(Requirement, project["dependencies"])}
    for item in requirements.read(requirements.LIST):
        operators = {clause.operator for clause in item.specifier}
        assert operators == {">=", "<"}, item
        assert wanted[item.name] == item.specifier
