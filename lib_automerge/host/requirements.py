"""Which packages a WebUI still lacks for Automerge, and how they get there without moving others.

Runs in `install.py` before anything is installed, and in the WebUI when something is missing: it
needs the standard library and `packaging`, which every WebUI brings, and nothing of ours.
"""

from __future__ import annotations

import importlib
import re
import tempfile
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parents[2]
LIST = ROOT / "requirements.txt"
PROBLEM = ROOT / "install-problem.txt"
"""What the last installation ended with: one sentence, and below it what pip said."""

HOST_LISTS = ("requirements_versions.txt", "requirements.txt")
"""Where WebUIs say what they pin, in their own folder."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def read(path: Path) -> list[Requirement]:
    """The requirements in a file, without comments, options and links."""
    found = []
    for line in path.read_text("utf-8").splitlines():
        text = line.partition("#")[0].strip()
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate():
            found.append(requirement)
    return found


def unmet(requirements: Iterable[Requirement]) -> list[Requirement]:
    """Those that are not installed, or not in a version that is asked for."""
    missing = []
    for requirement in requirements:
        try:
            version = metadata.version(requirement.name)
            met = requirement.specifier.contains(version, prereleases=True)
        except (metadata.PackageNotFoundError, InvalidVersion, TypeError):
            # a damaged installation has no version
            met = False
        if not met:
            missing.append(requirement)
    return missing


def constraints(movable: Iterable[str]) -> list[str]:
    """A pin for everything that is installed, except these: `name==version`.

    What pip could not parse (damaged installations, versions of before PEP 440) is left out: pip
    would refuse the whole file for it.
    """
    free = {canonicalize_name(name) for name in movable}
    pins: dict[str, str] = {}
    for distribution in metadata.distributions():
        name, version = _identity(distribution)
        if name is None or version is None or name in free:
            continue
        # the first on the path is the one that is imported
        pins.setdefault(name, f"{name}=={version}")
    return sorted(pins.values())


def movable(missing: Iterable[Requirement], ours: Iterable[Requirement], host: Path) -> set[str]:
    """Those of the missing that nobody else counts on in the version that is installed.

    Args:
        missing: what is absent or out of range.
        ours: all of our requirements: what only they need is ours to move.
        host: the WebUI's folder, whose pins hold whoever else needs them.
    """
    own = {canonicalize_name(requirement.name) for requirement in ours}
    taken = set[str]()
    for file in HOST_LISTS:
        if (host / file).is_file():
            taken |= {canonicalize_name(requirement.name) for requirement in read(host / file)}
    for distribution in metadata.distributions():
        name, _ = _identity(distribution)
        if name is None or name in own:
            continue
        for text in distribution.requires or ():
            # extras that nobody asked for are no need of anybody
            if "extra ==" not in text and (match := _NAME.match(text)):
                taken.add(canonicalize_name(match.group()))
    return {str(canonicalize_name(requirement.name)) for requirement in missing} - taken


def _identity(distribution: metadata.Distribution) -> tuple[str | None, str | None]:
    """Canonical name and version of an installation; None for what is damaged."""
    # a damaged one has no metadata, whatever the annotations say
    name: str | None = distribution.metadata["Name"]
    version: str | None = distribution.metadata["Version"]
    if not name or not _NAME.fullmatch(name):
        return None, None
    try:
        return canonicalize_name(name), str(Version(version or ""))
    except InvalidVersion:
        return canonicalize_name(name), None


def install(run_pip: Callable[[str, str], object], host: Path) -> str:
    """Install what is missing with one call of the WebUI's pip; returns the problem, or "".

    Never raises for what pip does. The problem is also written to `PROBLEM`, for the tab.

    Args:
        run_pip: `launch.run_pip`: arguments of pip as one command line, and a description.
        host: the WebUI's folder.
    """
    ours = read(LIST)
    missing = unmet(ours)
    details = ""
    if missing:
        try:
            with tempfile.TemporaryDirectory(prefix="automerge-") as folder:
                wanted, pins = Path(folder, "requirements.txt"), Path(folder, "constraints.txt")
                wanted.write_text("".join(f"{item}\n" for item in missing), "utf-8")
                kept = constraints(movable(missing, ours, host))
                pins.write_text("".join(f"{pin}\n" for pin in kept), "utf-8")
                run_pip(f'install -r "{wanted}" -c "{pins}"', "Automerge requirements")
        except Exception as error:
            # the WebUI must start, whatever went wrong here
            details = str(error)
        importlib.invalidate_caches()
        missing = unmet(ours)
    problem = describe(missing)
    try:
        if problem:
            PROBLEM.write_text(f"{problem}\n\n{details}".strip() + "\n", "utf-8")
        else:
            PROBLEM.unlink(missing_ok=True)
    except OSError:
        pass  # a read-only folder; the tab finds out by itself what is missing
    return problem


def describe(missing: Iterable[Requirement]) -> str:
    """What is missing and what to do, in two sentences; "" if nothing is."""
    names = ", ".join(f"{item.name}{_installed(item)}" for item in missing)
    if not names:
        return ""
    return (
        f"Automerge is not ready, packages that it needs are missing: {names}. Check the internet "
        "connection, then restart the WebUI, without --skip-install if you use that."
    )


def _installed(requirement: Requirement) -> str:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return ""
    return f" (needed {requirement.specifier}, found {version})"


def last_problem() -> str:
    """What pip said when the installation failed; "" if it is not known."""
    try:
        _, _, details = PROBLEM.read_text("utf-8").partition("\n\n")
    except OSError:
        return ""
    return details.strip()
