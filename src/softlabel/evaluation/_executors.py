"""Units on a Ray cluster: a local one, or one by its address."""

import importlib
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from softlabel.core import ConfigError, MissingExtraError, Progress, Silent, SoftlabelError, UnknownNameError
from softlabel.evaluation._units import Bench, Executor, Failure, LocalExecutor, Outcome, Unit, run_unit
from softlabel.store import Store
from softlabel.training import keep_freed_memory

WORKER_DEATHS = 3  # of one unit, before it counts as failed
LISTENER_SECONDS = 5.0  # how long an address has to answer

EXECUTORS = {
    "local": "one unit after another in this process",
    "ray": "one unit per Ray worker: a local cluster, or an existing one by --address; all must see the store's folder",
}


def make_executor(name: str, *, address: str | None = None, workers: int | None = None) -> Executor:
    """The executor of that name.

    Args:
        address: of a running Ray cluster; None starts a local one.
        workers: processes of the local cluster; None is one per CPU, or per GPU where there are some.

    Raises:
        UnknownNameError: no such executor.
        ConfigError: options of Ray for another executor, or nobody listens at `address`.
        MissingExtraError: Ray is not installed.
    """
    if name not in EXECUTORS:
        raise UnknownNameError("executor", name, EXECUTORS)
    if name == "local":
        if address is not None or workers is not None:
            raise ConfigError("--address and --workers are Ray's. Add --executor ray, or leave them out.")
        return LocalExecutor()
    if address is not None and workers is not None:
        raise ConfigError("--workers are of a local cluster, and --address names one that runs. Leave one of them out.")
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers must be 1 or more. Got {workers} instead.")
    _ray()  # what is missing is told before hours of work
    try:
        _require_listener(address or "")
    except OSError as error:
        raise _unreachable(address, error) from error
    return RayExecutor(address, workers)


class RayExecutor:
    """One unit per Ray worker. A unit whose worker dies is given to another, and goes on from its checkpoints.

    Workers write to the store themselves, and the driver gets the records: the store's folder must be the same for
    all. A worker computes with one CPU thread, or one GPU.
    """

    def __init__(self, address: str | None, workers: int | None) -> None:
        self.address, self.workers = address, workers

    def run(self, units: Sequence[Unit], bench: Bench, progress: Progress) -> Iterator[Sequence[Outcome]]:
        if bench.execution.device not in ("cpu", "cuda"):
            raise ConfigError(
                f"Ray gives every worker a GPU of its own. Take --device cuda, not {bench.execution.device}."
            )
        ray = _ray()
        own, waiting = not ray.is_initialized(), dict[Any, Unit]()
        if own:
            _connect(ray, self.address, self.workers)
        try:
            on_gpu = bench.execution.torch_device.type == "cuda"
            remote = ray.remote(num_cpus=1, num_gpus=1 if on_gpu else 0, max_retries=WORKER_DEATHS)(remote_unit)
            shared = ray.put(_for_anywhere(bench))
            waiting = {remote.remote(_absolute(unit), shared): unit for unit in units}
            while waiting:
                [done], _ = ray.wait(list(waiting), num_returns=1)
                unit = waiting.pop(done)
                yield _fetch(ray, done, unit)
        finally:
            for task in waiting:  # after an error or an interruption
                ray.cancel(task)
            if own:
                ray.shutdown()


def remote_unit(unit: Unit, bench: Bench) -> Sequence[Outcome] | SoftlabelError:
    """A unit on a worker. Errors that stop the grid are returned, since Ray would wrap what is raised."""
    keep_freed_memory()
    try:
        return run_unit(unit, bench, Silent())
    except SoftlabelError as error:
        return error


def _for_anywhere(bench: Bench) -> Bench:
    """The bench with paths that mean the same in another folder, and nothing on the driver's GPU."""
    cpu = torch.device("cpu")
    teachers = {name: [teacher.to(cpu) for teacher in group] for name, group in bench.teachers.items()}
    own = {name: path.resolve() for name, path in bench.own.items()}
    return replace(bench, store=Store(bench.store.root.resolve()), teachers=teachers, own=own)


def _absolute(unit: Unit) -> Unit:
    return unit if unit.path is None else replace(unit, path=unit.path.resolve())


def _fetch(ray: Any, done: Any, unit: Unit) -> Sequence[Outcome]:
    try:
        result = ray.get(done)
    except ray.exceptions.RayError as error:
        told = str(error).strip().splitlines()
        failure = Failure(f"The worker failed: {told[-1] if told else type(error).__name__}", type(error).__name__)
        return [(cell, failure) for cell in unit.cells]
    if isinstance(result, SoftlabelError):
        raise result
    return result  # type: ignore[no-any-return]


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtraError("ray", "ray", "--executor ray") from error


def _connect(ray: Any, address: str | None, workers: int | None) -> None:
    try:
        if address is None:
            ray.init("local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        else:
            _require_listener(address)
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str | None, error: Exception) -> ConfigError:
    reason = str(error).strip().splitlines()[0]
    return ConfigError(
        f"No Ray cluster could be reached at {address or 'this machine'} ({reason}). Start one with: ray start --head, "
        f"or leave --address out for a local one."
    )


def _require_listener(address: str) -> None:
    """Raises OSError when nobody listens at HOST:PORT; Ray itself would try for many minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=LISTENER_SECONDS).close()
