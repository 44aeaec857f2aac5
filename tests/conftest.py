"""What the tests share: every backend that this machine can run."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from reluflow import _dispatch, _threads, reference

# A run in the background of a shell ignores Ctrl-C, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long a test takes says more of the machine than of the test.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# Cases that several test modules share are plain modules beside them.
sys.path.insert(0, str(Path(__file__).parent))

NATIVE_LEVELS = _dispatch.usable_levels()


@pytest.fixture(scope="session", autouse=True)
def more_threads_than_cores():
    """Lets tests have the threads that they ask for, however few cores there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_threads, "at_most_available", lambda threads: threads)
        yield


@pytest.fixture(params=["numpy", *NATIVE_LEVELS])
def kernel(request):
    """The kernels of the NumPy reference and of every usable instruction set, in turn."""
    return reference if request.param == "numpy" else _dispatch.load(request.param)


@pytest.fixture(params=NATIVE_LEVELS)
def native(request):
    """The compiled kernels of every usable instruction set, in turn."""
    return _dispatch.load(request.param)
