"""Self-attention attribution (AttAttr, AAAI 2021) for Hugging Face transformers, as a Captum plugin.

The public names stand in `__init__.pyi`; each is imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
