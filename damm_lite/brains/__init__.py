"""Brains: readers of real scans, and a phantom with gliomas in four contrasts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
