"""Execution of the commands of a study, each in its own process, several in parallel; completed ones are skipped."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from geovlm_ray.core.files import read_object, write_atomically
from geovlm_ray.evaluation.studies.rotated import write_rotated
from geovlm_ray.evaluation.studies.runs import Command, StudyPlan

OnProgress = Callable[[int, str], None]


def run_all(plan: StudyPlan, jobs: int, on_progress: OnProgress) -> dict[str, str]:
    """Run everything that is missing; return the last log line of each failed command, by name."""
    if plan.study.data == "rotated":
        write_rotated(plan.rotated_folder)
    plan.logs.mkdir(parents=True, exist_ok=True)
    variants = plan.study.variants
    tunings = [plan.sft_command(name, seed) for name, seed in plan.runs if variants[name].sft is not None]
    runs = [plan.run_command(name, seed) for name, seed in plan.runs]
    jobs = 1 if plan.cluster else jobs
    return run_commands(tunings, plan.logs, jobs, on_progress) | run_commands(runs, plan.logs, jobs, on_progress)


def run_commands(commands: Sequence[Command], logs: Path, jobs: int, on_progress: OnProgress) -> dict[str, str]:
    """Run the commands that did not complete before; return the last log line of each failed one, by name.

    If this process is interrupted, the running commands are interrupted, too, and waited for.
    """
    failed = {}
    on_progress(0, f"of {len(commands)} runs done")
    processes = _Processes()
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(_run_command, command, logs, processes): command for command in commands}
        try:
            for done, run in enumerate(as_completed(running), 1):
                failure = run.result()
                if failure is not None:
                    failed[running[run].name] = failure
                on_progress(done, f"of {len(commands)} runs done")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.terminate()
            raise
    return failed


class _Processes:
    """Running processes, which can be terminated together; those started later are terminated at once."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._ended = False

    @contextmanager
    def started(
        self, command: Sequence[str], output: IO[str], env: Mapping[str, str]
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Start a process in a group of its own, which Ctrl-C does not reach."""
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=env, process_group=0)
        with self._lock:
            self._running.add(process)
            if self._ended:
                process.terminate()
        try:
            yield process
        finally:
            with self._lock:
                self._running.discard(process)

    def terminate(self) -> None:
        """Send SIGTERM to all."""
        with self._lock:
            self._ended = True
            for process in self._running:
                process.terminate()


def is_complete(command: Command, logs: Path) -> bool:
    """Whether the same command has completed with the same configuration and files."""
    return command.result.is_file() and _completed(command, logs) == [*command.arguments, command.digest]


def _completed(command: Command, logs: Path) -> list[str]:
    """Arguments and digest of the command of this name that completed; empty if none did."""
    file = _usage_file(logs, command.name)
    usage = read_object(file) if file.is_file() else {"command": []}
    return [*usage["command"], *([usage["digest"]] if "digest" in usage else [])]


def cpu_share(logs: Path, name: str) -> float:
    """CPU seconds per second of the process that completed a command; nan if it was not measured."""
    file = _usage_file(logs, name)
    if not file.is_file():
        return math.nan
    usage = read_object(file)
    return float(usage["cpu_seconds"]) / float(usage["seconds"])


def _usage_file(logs: Path, name: str) -> Path:
    return logs / f"{name}.json"


def _run_command(command: Command, logs: Path, processes: _Processes) -> str | None:
    """Run a command unless the same one completed before; return None on success, else the last line of its log."""
    if is_complete(command, logs):
        return None
    arguments, log = list(command.arguments), logs / f"{command.name}.log"
    if command.result.is_file() and _completed(command, logs)[: len(arguments)] == arguments:
        return (
            f"{command.result.parent} was made with other settings in the recipe, or other data, model or reward; "
            "remove it or choose another --out"
        )
    python_path = [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH")]
    begun = time.perf_counter()
    # Parallel runs use one core each.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, python_path))}
    words = [sys.executable, "-m", "geovlm_ray", *arguments]
    with log.open("w") as output, processes.started(words, output, env) as process:
        # Unlike Popen.wait, this returns the CPU time of the process.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {process.returncode}"
    seconds = {"seconds": time.perf_counter() - begun, "cpu_seconds": usage.ru_utime + usage.ru_stime}
    completed = {"command": arguments, "digest": command.digest, **seconds}
    write_atomically(_usage_file(logs, command.name), json.dumps(completed) + "\n")
    return None
