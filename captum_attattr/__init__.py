"""Self-attention attribution (AttAttr, AAAI 2021) for Hugging Face transformers, as a Captum plugin.

The public names stand in `__init__.pyi`; each is imported when it is first used.
"""

import importlib
import threading
from typing import Any

import lazy_loader

_named, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
_lock = threading.RLock()


def __getattr__(name: str) -> Any:
    """Import a public name, one at a time: captum's modules import each other in a circle, where threads would meet."""
    with _lock:
        if name in ("tables", "tasks"):
            return importlib.import_module(f"{__name__}.{name}")
        return _named(name)
