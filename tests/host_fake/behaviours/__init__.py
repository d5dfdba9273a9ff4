"""What a WebUI does, as functions that run alike inside a real one and on the fake.

Nothing here imports anything but the WebUI's own modules, torch and the standard library.
"""

from . import changes, files, generation, models, networks, options, trouble, waiting  # noqa: F401
from .bench import ALL, Behaviour, Bench

__all__ = ["ALL", "Behaviour", "Bench"]
