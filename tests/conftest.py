"""Fixtures for every test: the devices there are, and a cache and an output folder that leave no trace."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # tests are small: threads would only wait for one another

import pytest
import torch
import undrawn

undrawn.leave_figures_undrawn()
os.fsync = lambda descriptor: None  # nobody pulls the plug on a test; some of them look whether it is called
MPS = pytest.param("mps", marks=pytest.mark.xfail(raises=TypeError, strict=False, reason="MPS has no float64"))
DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available(), *[MPS] * torch.backends.mps.is_available()]


@pytest.fixture(params=DEVICES)
def device(request) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Point the user's cache at a temporary folder, so that a test neither reads nor fills the real one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def drawn_figures():
    """Draw figures, for a test that looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, method in undrawn.DRAWN:
            patch.setattr(owner, name, method)
        yield
