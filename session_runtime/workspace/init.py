"""Process 1 of the workspace's container: reaps orphans and restarts the server. Python 3.9, standard library only."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

END_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

FROM_OUTSIDE = (0, 0x80)
"""`si_code` of kill(2) and of the kernel (SI_USER, SI_KERNEL), which no process can give to a signal that it makes up itself
(rt_sigqueueinfo(2))."""

RESTART_SECONDS = 0.1
"""Pause before a server that was killed is started again."""


def become_init() -> None:
    """As process 1 of a container: continue in a child, and do in this process what only process 1 can do.

    - Reap orphans. asyncio waits for its own children by their ids, so a reaper in the same process would take their exit
      statuses away.
    - Start the server again when a command has ended it (`kill -9 -1`), and continue it when one has stopped it; the
      kernel keeps those signals from process 1. If the container ended instead, the kubelet would start it again, but
      after a pause that doubles each time, up to five minutes. For the same reason only a signal from outside of the
      container ends it: one that a command sends (`kill 1`) is ignored.

    This returns in the children only. The parent exits with the status of a child that was asked to exit or exited by itself.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, (*END_SIGNALS, signal.SIGCHLD))
    while True:
        child = os.fork()
        if child == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (*END_SIGNALS, signal.SIGCHLD))
            return
        code, told = _outlive(child)
        if told or code - 128 not in (*END_SIGNALS, signal.SIGKILL):
            os._exit(code)
        print(f"the workspace's server exited on signal {code - 128}; restarting it", file=sys.stderr, flush=True)
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # what ended this server must not meet the next
        time.sleep(RESTART_SECONDS)


def _outlive(child: int) -> tuple[int, bool]:
    """Reap every process that ends, and pass signals on, until the child has ended.

    Returns its exit code, as a shell would give it, and whether it was told to end.
    """
    told = False
    while True:
        received = signal.sigwaitinfo((*END_SIGNALS, signal.SIGCHLD))
        if received.si_signo != signal.SIGCHLD:
            if _is_from_outside(received):
                told = True
                os.kill(child, received.si_signo)
            continue
        with contextlib.suppress(ChildProcessError):
            while True:
                process, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
                if process == 0:
                    break
                if process == child and os.WIFSTOPPED(status):
                    os.kill(child, signal.SIGCONT)
                elif process == child:
                    return (128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)), told


def _is_from_outside(received: signal.struct_siginfo) -> bool:
    """Whether a signal comes from outside of this process's PID namespace, as the container runtime's do.

    The kernel names no sender from there (pid_namespaces(7): `si_pid` is 0). While one that is ignored is pending, another one
    of its kind is lost: a command that sends them without end makes the kubelet wait for its grace period, and then kill.
    """
    return received.si_pid == 0 and received.si_code in FROM_OUTSIDE
