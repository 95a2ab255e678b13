"""Commands run in forked children of this process, with limits on time and memory, as a user would see them."""

from __future__ import annotations

import os
import resource
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from geovlm_ray.cli import main

GIB = 2**30
STREAMS = ("stdin", "stdout", "stderr")
FAILED = 70
"""Exit code after a traceback."""
MAX_CPU_SECONDS, MAX_SECONDS = 30, 120
"""Seconds of CPU, and in all on a busy machine, after which a signal kills a command."""
MAX_GROWTH = 2 * GIB
"""Bytes of private memory that a child may add to that of this process."""


@dataclass(frozen=True)
class Finished:
    """What a command did: exit code (negative: the signal that killed it), output, and peak memory."""

    code: int
    output: str
    error: str
    peak_bytes: int


def run_forked(arguments: list[str], folder: Path, stdin: bytes = b"") -> Finished:
    """Run a command in ``folder``; the modules that it needs are best imported before, in this process."""
    for name, content in zip(STREAMS, (stdin, b"", b""), strict=True):
        (folder / f".{name}").write_bytes(content)
    child = os.fork()
    if not child:
        _be_command(arguments, folder)
    _, status, usage = os.wait4(child, 0)
    output, error = ((folder / f".{name}").read_bytes().decode("utf-8", "surrogateescape") for name in STREAMS[1:])
    return Finished(os.waitstatus_to_exitcode(status), output, error, usage.ru_maxrss * 1024)


def _be_command(arguments: list[str], folder: Path) -> NoReturn:
    """Run the command as the whole process."""
    code = FAILED
    try:
        os.setsid()
        os.chdir(folder)
        for number, name in enumerate(STREAMS):
            os.dup2(os.open(f".{name}", os.O_RDWR), number)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode, closefd=False) for n, mode in enumerate("rww"))
        resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + MAX_GROWTH,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for timer, limit in ((signal.ITIMER_PROF, MAX_CPU_SECONDS), (signal.ITIMER_REAL, MAX_SECONDS)):
            signal.setitimer(timer, limit)
        for number in (signal.SIGPROF, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        code = main(arguments)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _data_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))
