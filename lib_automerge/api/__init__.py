"""The routes under `/automerge/v1/`: what the page, scripts and other programs talk to.

`docs/api.md` lists them. They hold no truth: every answer is folded from the desk.
"""

from lib_automerge.api.routes import register

__all__ = ["register"]
