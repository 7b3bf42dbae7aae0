"""What is measured with the method: ablations, rivals, trainings, tables;
`python -m damm_lite.experiments.NAME`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
