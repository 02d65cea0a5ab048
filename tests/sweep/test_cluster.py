"""Other machines: real submitit, an sbatch that runs its array here, and a real Ray cluster of two nodes."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from deeptrain.commands.cli import train
from deeptrain.config.command_options import split_options
from deeptrain.errors import UsageError
from deeptrain.runtime import signals
from deeptrain.sweep import check, cluster, launch, launchers, server
from deeptrain.sweep.options import Options
from deeptrain.sweep.plan import Job, Plan, lay_out, save
from deeptrain.sweep.slurm import Slurm, SlurmOptions

HERE = Path(__file__).parent
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
needs_submitit = pytest.mark.skipif(find_spec("submitit") is None, reason="submitit is not installed (extra slurm)")
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (extra ray)")
pytestmark = [pytest.mark.slow, needs_fork]


@pytest.fixture
def job(tmp_path, monkeypatch):
    """What a job runs, importable by the tasks too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setattr(server, "PRELOAD", [])
    monkeypatch.setattr(cluster, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(cluster, "SEEN_SECONDS", 1.0)
    import cluster_job

    return cluster_job.run


def plan_of(*seeds: object) -> Plan:
    Path("sweep").mkdir(exist_ok=True)
    jobs = tuple(Job(Path("sweep") / f"seed={seed}", (f"seed={seed}",), {"seed": str(seed)}) for seed in seeds)
    save(plan := Plan(Path("sweep"), ("seed=...",), ("seed",), jobs))
    return plan


def ran() -> list[str]:
    return sorted(line.split()[0] for line in Path("sweep/ran.txt").read_text().splitlines())


def work(plan: Plan, command, *words: str) -> int:
    options, rest = split_options(words, Options)
    placing, _ = launchers.take_out(options.launcher, rest)
    return launch.work(plan, command, 0, [], options, launch.engine_of(options, placing, plan))


# --- Slurm ---


@needs_submitit
@pytest.mark.parametrize("kind", ["local", "debug"])
def test_submitit_runs_each_job_once_and_a_failed_one_again(job, kind, capfd):
    plan, words = plan_of(0, 1), ["launcher=slurm", f"launcher.cluster={kind}", "jobs=2"]
    assert work(plan, job, *words) == 1
    said = capfd.readouterr().out
    assert "seed=1  failed: no luck" in said and "retry=failed" in said and ran() == ["seed=0", "seed=1"]
    Path("sweep/mended").touch()
    assert work(plan, job, *words, "retry=failed") == 0 and ran() == ["seed=0", "seed=1", "seed=1"]
    assert not [path for path in Path("sweep/claims").iterdir() if not path.name.startswith(".")]


@needs_submitit
def test_at_the_time_limit_a_job_saves_and_goes_on(job):
    """submitit's own signal, to its own process: the job saves, the task is queued again and finishes the job."""
    plan = plan_of("slow")

    def limit():
        while not Path("sweep/seed=slow/waits").exists():
            time.sleep(0.05)
        found = subprocess.run(["pgrep", "-f", "submitit.core._submi[t] .*sweep/slurm"], capture_output=True, text=True)
        os.kill(int(found.stdout.split()[-1]), signal.SIGUSR2)

    clock = threading.Thread(target=limit)
    clock.start()
    assert work(plan, job, "launcher=slurm", "launcher.cluster=local") == 0
    clock.join()
    assert Path("sweep/seed=slow/saved").exists() and ran() == ["seed=slow", "seed=slow"]


SBATCH = """#!{python}
import os, re, subprocess, sys
text = open(sys.argv[1]).read()
open({home!r} + "/sbatch.txt", "w").write(text)
last = re.search(r"--array=0-(\\d+)", text)
log = re.search(r"--output=(\\S+)", text)[1]
for task in range(int(last[1]) + 1 if last else 1):
    ids = {{"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(task)}} if last else {{"SLURM_JOB_ID": "7"}}
    with open(log.replace("%A", "7").replace("%a", str(task)).replace("%j", "7").replace("%t", "0"), "w") as file:
        subprocess.Popen(["bash", sys.argv[1]], env=os.environ | ids, stdout=file, stderr=file, start_new_session=True)
print("Submitted batch job 7")
"""
SRUN = """#!{python}
import os, sys
words = [word for word in sys.argv[1:] if not word.startswith("--")]
words = words[words.index({python!r}) :]
os.execv(words[0], words)
"""


@pytest.fixture
def slurm(tmp_path_factory, monkeypatch):
    """An sbatch that starts all tasks of its array here, and notes what it was given; scancel notes its words."""
    home = tmp_path_factory.mktemp("slurm")
    texts = {
        "sbatch": SBATCH.format(python=sys.executable, home=str(home)),
        "srun": SRUN.format(python=sys.executable),
        "scancel": f'#!/bin/sh\necho "$@" >> {home}/scancel.txt\n',
        "squeue": f'#!/bin/sh\n[ -e {home}/lost ] || printf "7\\n7_0\\n7_1\\n7_2\\n"\n',
    }
    for name, text in texts.items():
        (home / name).write_text(text)
        (home / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{home}:{os.environ['PATH']}")
    return home


@needs_submitit
def test_slurm_gets_one_array_with_what_each_job_needs(job, slurm, capfd):
    needs = ["launcher.partition=gpu", "launcher.time=90", "launcher.gpus=1", "launcher.cpus=3", "launcher.mem=16"]
    Path("sweep").mkdir()
    Path("sweep/mended").touch()
    assert work(plan_of(0, 1, 2), job, "launcher=slurm", *needs, "jobs=2") == 0
    text = (slurm / "sbatch.txt").read_text()
    for line in ("array=0-2%2", "partition=gpu", "time=90", "gpus-per-node=1", "cpus-per-task=3", "mem=16GB"):
        assert f"#SBATCH --{line}" in text
    assert "#SBATCH --signal=USR2@120" in text and ran() == ["seed=0", "seed=1", "seed=2"]
    said = capfd.readouterr().out
    assert "slurm   7: 3 jobs, cpus=3 gpus=1 time=90 each; logs in sweep/slurm" in said and "3/3" in said


@needs_submitit
def test_a_refused_array_ends_in_one_line_and_leaves_no_report(job, slurm, capfd):
    (slurm / "sbatch").write_text("#!/bin/sh\necho invalid partition >&2; exit 1\n")
    with pytest.raises(UsageError, match=r"sbatch refuses the jobs .*invalid partition"):
        work(plan_of(0), job, "launcher=slurm")
    assert "no report" not in capfd.readouterr().out and not list(Path("sweep").glob("report.*"))


@needs_submitit
def test_a_task_that_slurm_has_ended_leaves_its_job_open(job, slurm, monkeypatch, capfd):
    monkeypatch.setattr("deeptrain.sweep.slurm.POLL_SECONDS", 0.1)
    (slurm / "sbatch").write_text("#!/bin/sh\necho Submitted batch job 7\n")  # as on a node that was lost
    (slurm / "lost").touch()
    assert work(plan_of(0), job, "launcher=slurm") == 0
    said = capfd.readouterr().out
    assert "seed=0  not done: Slurm has ended it, see sweep/slurm/7_0_log.out" in said
    assert "go on    python train.py resume=sweep" in said


@needs_submitit
def test_ctrl_c_leaves_the_jobs_to_slurm_and_says_how_to_follow(job, slurm, capfd):
    plan = plan_of("slow")

    def stop():
        while not Path("sweep/seed=slow/waits").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    clock = threading.Thread(target=stop)
    clock.start()
    assert work(plan, job, "launcher=slurm") == signals.EXIT_CODE
    clock.join()
    said = capfd.readouterr().out
    assert "slurm   7 stays in the queue" in said and "squeue --jobs 7" in said and "scancel 7" in said
    assert not (slurm / "scancel.txt").exists() and not Path("sweep/seed=slow/saved").exists()
    owner = json.loads(Path("sweep/claims/seed=slow").read_text())
    os.kill(owner["process"], signal.SIGTERM)  # as scancel does
    deadline = time.monotonic() + 60
    while Path("sweep/claims/seed=slow").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert Path("sweep/seed=slow/saved").exists()
    assert launch.work(plan, job, 1, [], Options()) == 0, "resume=SWEEP goes on here"


@needs_submitit
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["launcher=slurm"], "there is no Slurm on this machine"),
        (["launcher.partition=gpu"], "launcher.partition=gpu: belongs to launcher=slurm; write that beside it"),
        (["launcher=ray", "launcher.partition=gpu"], "belongs to launcher=slurm"),
        (["launcher=slurm", "launcher.tme=5"], "did you mean launcher.time?"),
        (["launcher=slurm", "launcher.time=soon"], "must be a whole number"),
        (["launcher=pbs"], "choose from local, slurm, ray"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(words, message, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(launch, "check", lambda plan, **options: (plan, [], {}))
    monkeypatch.setattr(launch.server, "call", lambda function, *arguments: 0)
    assert train(["-m", "model=fcn", "seed=0,1", *words]) == 2
    error = capfd.readouterr().err
    assert message in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_without_the_package_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr("deeptrain.sweep.slurm.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'deeptrain\[slurm\]'"):
        Slurm(SlurmOptions(), 1, None)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'deeptrain\[ray\]'"):
        launchers.engine("ray", launchers.RayOptions(), 1, None)


def test_the_machine_that_submits_needs_no_gpu(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    monkeypatch.setattr(check.server, "call", lambda function, *arguments: function(*arguments))
    plan = lay_out(["data=synthetic", "data.size=40", "model=fcn", "device=cuda", "seed=0,1"])
    with pytest.raises(UsageError, match="no CUDA device"):
        check.check(plan)
    checked, _, _ = check.check(plan, elsewhere=True)
    assert all("device=cuda" in job.words for job in checked.jobs)


def test_a_task_says_what_machines_must_share(tmp_path):
    task = cluster.Task(tmp_path, "seed=0", (), train, tmp_path / "gone")
    with pytest.raises(RuntimeError, match="all machines must share it"):
        task()


# --- Ray ---


@pytest.fixture
def two_nodes(job):
    """A Ray cluster of two nodes with one CPU each, on this machine."""
    import ray
    from ray.cluster_utils import Cluster

    found = Cluster()
    for name in ("first", "second"):
        found.add_node(num_cpus=1, env_vars={"RAN_ON": name}, include_dashboard=False)
    yield found
    ray.shutdown()
    found.shutdown()


@needs_ray
def test_a_ray_cluster_of_two_nodes_shares_the_jobs(job, two_nodes, capfd):
    plan = plan_of(0, 1, 2, 3)
    words = ["launcher=ray", f"launcher.address={two_nodes.address}", "launcher.cpus=1"]
    assert work(plan, job, *words) == 1
    said = capfd.readouterr().out
    assert "ray     2 nodes with 2 CPUs and 0 GPUs; cpus=1 gpus=0 each" in said and "seed=1  failed: no luck" in said
    assert ran() == ["seed=0", "seed=1", "seed=2", "seed=3"]
    assert {line.split()[1] for line in Path("sweep/ran.txt").read_text().splitlines()} == {"first", "second"}
    Path("sweep/mended").touch()
    assert work(plan, job, *words, "retry=failed") == 0 and ran().count("seed=1") == 2

    slow = plan_of(0, "slow")
    clock = threading.Timer(0, interrupt_once_it_waits)
    clock.start()
    assert work(slow, job, *words) == signals.EXIT_CODE
    clock.join()
    assert Path("sweep/seed=slow/saved").exists(), "Ctrl-C saves what runs"
    assert launch.work(slow, job, 1, [], Options()) == 0, "resume=SWEEP goes on here"


def interrupt_once_it_waits():
    while not Path("sweep/seed=slow/waits").exists():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)
