"""What tests of the runtime share."""

import pytest


@pytest.fixture(scope="session")
def bundle(scrd):
    """The folder of a bundle of an untrained model. Do not write to it."""
    return scrd[1]
