"""What a result depends on besides its settings: versions, our own source, the hardware."""

import platform
import subprocess
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def versions() -> dict[str, str]:
    """Return what a result depends on besides the settings."""
    packages = ("deeptrain", "torch", "torchvision", "numpy", "hydra-core", "omegaconf")
    found = {"python": platform.python_version(), **{package: version(package) for package in packages}}
    found["source"] = _source()
    command = ["git", "-C", str(Path(__file__).resolve().parents[3]), "describe", "--always", "--dirty"]
    try:
        return {**found, "commit": subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()}
    except (OSError, subprocess.CalledProcessError):  # no git, or not a clone
        return found


def hardware_info(device: torch.device) -> dict[str, Any]:
    """Return what the bits of a result depend on besides settings and versions."""
    if device.type == "cuda":
        capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
        libraries = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        return {"device": torch.cuda.get_device_name(device), "capability": capability, **libraries}
    instructions = torch.backends.cpu.get_cpu_capability()
    return {"device": f"{device.type} {platform.machine()} {instructions}", "threads": torch.get_num_threads()}


def _source() -> str:
    """Return a digest of our own code, which also tells apart what no commit does."""
    digest, package = sha256(), Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]
