"""Hydra's flags and settings that we do not take: what to write instead."""

from typing import Literal

# Every flag of Hydra that we do not take: whether a value follows it, and the answer.
FLAGS = {
    ("--info", "-i"): (True, "--cfg job prints the whole configuration, --help lists all options: leave it out"),
    ("--package", "-p"): (True, "--cfg job prints the whole configuration: leave it out"),
    ("--config-name", "-cn"): (True, "there is one configuration; choose its parts by group=option or experiment=NAME"),
    ("--config-path", "-cp"): (True, "our options stay; write --config-dir DIR to add a folder of your own"),
    ("--hydra-help",): (False, "write --help, which lists all options and settings"),
    ("--resolve",): (False, "--cfg job prints references as they are written, which hides secrets: leave it out"),
    ("--run", "-r"): (False, "a command without -m is one run: leave it out"),
    ("--experimental-rerun",): (True, "write rerun=RUN, with the folder of a run"),
}

# Hydra's settings, by the longest of these that a key starts with.
SETTINGS = {
    "hydra": "Hydra's own settings are not taken: leave it out; --help lists ours",
    "hydra.callbacks": "callbacks are not taken: leave it out",
    "hydra.hydra_logging": "a run writes run.log into its folder: leave it out",
    "hydra.job": "a run's folder is its name: write dir=FOLDER",
    "hydra.job.chdir": "a run stays in the folder where it was started: leave it out",
    "hydra.job_logging": "a run writes run.log into its folder: leave it out",
    "hydra.launcher": "write launcher=slurm or launcher=ray beside -m; on this machine jobs=auto (docs/clusters.md)",
    "hydra.launcher.partition": "write launcher.partition=NAME beside launcher=slurm",
    "hydra.launcher.timeout_min": "write launcher.time=MINUTES beside launcher=slurm",
    "hydra.launcher.gpus_per_node": "write launcher.gpus=NUMBER beside launcher=slurm",
    "hydra.launcher.cpus_per_task": "write launcher.cpus=NUMBER beside launcher=slurm",
    "hydra.launcher.mem_gb": "write launcher.mem=GB beside launcher=slurm",
    "hydra.launcher.array_parallelism": "write jobs=NUMBER beside launcher=slurm",
    "hydra.launcher.n_jobs": "write jobs=NUMBER, or jobs=auto",
    "hydra.mode": "write -m for a sweep",
    "hydra.output_subdir": "a run writes config.yaml and overrides.yaml into its folder: leave it out",
    "hydra.run": "write dir=FOLDER",
    "hydra.searchpath": "write --config-dir DIR",
    "hydra.sweep": "write dir=FOLDER",
    "hydra.sweeper": "-m runs all combinations; python scripts/tune.py 'optimizer.lr=log(1e-4,1e-1)' searches",
    "hydra.verbose": "write --debug for the traceback of an error",
}


def flag_answer(name: str) -> str | None:
    """Say what to write instead of a flag of Hydra; None if it is not one, or one that we take."""
    return next((answer for names, (_, answer) in FLAGS.items() if name in names), None)


def takes_value(name: str) -> bool:
    """Tell whether a value follows this flag of Hydra."""
    return any(name in names and has_value for names, (has_value, _) in FLAGS.items())


# Hydra's launchers: ours, by how their names begin.
LAUNCHERS = {
    "submitit_local": "write launcher=slurm launcher.cluster=local, a try without Slurm; or jobs=auto",
    "submitit": "write launcher=slurm beside -m, with launcher.partition=, time, gpus, cpus and mem (docs/clusters.md)",
    "ray": "write launcher=ray beside -m, with launcher.address=, cpus and gpus (docs/clusters.md)",
    "joblib": "write jobs=auto beside -m: so many runs at a time on this machine",
    "rq": "write -m; resume=SWEEP takes jobs from another machine too (docs/clusters.md)",
    "basic": "write -m, which runs one job after the other: leave it out",
}


def setting_answer(key: str, value: str = "") -> str | None:
    """Say what to write instead of a setting of Hydra (`hydra.run.dir`, `hydra/launcher`); None if it is not one."""
    if key.replace("/", ".") == "hydra.launcher":
        known = next((answer for name, answer in LAUNCHERS.items() if value.startswith(name)), None)
        if known:
            return known
    names = key.replace("/", ".").split(".")
    prefixes = (".".join(names[:length]) for length in range(len(names), 0, -1))
    return next((SETTINGS[prefix] for prefix in prefixes if prefix in SETTINGS), None)


def with_our_dir(words: list[str], kind: Literal["run", "sweep"]) -> list[str]:
    """Write `hydra.run.dir=X`, or `hydra.sweep.dir=X`, as `dir=X`."""
    old = f"hydra.{kind}.dir="
    return [f"dir={word.lstrip('+').removeprefix(old)}" if word.lstrip("+").startswith(old) else word for word in words]
