"""Who places the jobs of a sweep: this machine, Slurm or Ray; and the words of each."""

from collections.abc import Sequence
from typing import Any, Literal

from deeptrain.config.command_options import option_keys, split_options
from deeptrain.config.override import override_key
from deeptrain.errors import UsageError
from deeptrain.schema import suggest
from deeptrain.sweep.cluster import Engine
from deeptrain.sweep.on_ray import Ray, RayOptions
from deeptrain.sweep.slurm import Slurm, SlurmOptions

Launcher = Literal["local", "slurm", "ray"]
SCHEMAS = {"slurm": SlurmOptions, "ray": RayOptions}


def take_out(launcher: Launcher, words: Sequence[str]) -> tuple[Any, list[str]]:
    """Return the options of the launcher, None for local, and the other words; UsageError for those of another one."""
    options, rest = (None, list(words)) if launcher == "local" else split_options(words, SCHEMAS[launcher])
    messages = []
    for word in rest:
        if (key := override_key(word)).startswith("launcher."):
            owners = [name for name, schema in SCHEMAS.items() if key in option_keys(schema)]
            known = option_keys(SCHEMAS[launcher]) if launcher != "local" else {}
            belongs = f"belongs to launcher={' or '.join(owners)}; write that beside it, or leave it out"
            every = [key for schema in SCHEMAS.values() for key in option_keys(schema)]
            messages.append(f"{word}: {belongs if owners else suggest(key, list(known or dict.fromkeys(every)))}")
    if messages:
        raise UsageError(messages)
    return options, rest


def engine(launcher: Launcher, options: Any, threads: int, at_once: int | None) -> Engine | None:
    """Return what places the jobs elsewhere, None for this machine; UsageError if it is not there.

    threads: of a job. at_once: how many jobs run at a time; None: as many as there is room for.
    """
    if launcher == "local":
        return None
    return Slurm(options, threads, at_once) if launcher == "slurm" else Ray(options, threads, at_once)
