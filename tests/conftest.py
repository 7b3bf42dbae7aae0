import os
from pathlib import Path

import numpy as np
import pytest
import torch

SHARED = Path(os.environ.get("DAMM_SHARED", Path(__file__).parents[2] / "shared"))


def pytest_addoption(parser):
    parser.addoption("--torture", action="store_true", help="the long version of the tests that are marked so")


@pytest.fixture
def torture(request):
    """Whether the long version of a test is asked for; its result then goes into the table of the status page."""
    return request.config.getoption("torture")


@pytest.fixture(scope="session")
def shared():
    """The folder with reference numbers and real images, which the repository cannot hold."""
    if not SHARED.is_dir():
        pytest.skip(f"no shared folder at {SHARED}; set DAMM_SHARED to one")
    return SHARED


@pytest.fixture(scope="session")
def vectors(request):
    """Load one file of the release's reference numbers as a dict of tensors; the largest are in the shared folder."""

    def load(name):
        path = Path(__file__).parent / "vectors" / f"{name}.npz"
        if not path.is_file():
            path = request.getfixturevalue("shared") / "spec" / "vectors" / path.name
        with np.load(path) as arrays:
            return {key: torch.from_numpy(np.array(arrays[key])) for key in arrays}

    return load


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
