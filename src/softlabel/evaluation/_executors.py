"""Units on a Ray cluster: a local one, or one by its address."""

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

from softlabel.core import ConfigError, MissingExtraError, Progress, Silent, SoftlabelError, UnknownNameError
from softlabel.evaluation._units import Bench, Executor, Failure, LocalExecutor, Outcome, Unit, run_unit
from softlabel.training import keep_freed_memory

WORKER_DEATHS = 3  # of one unit, before it counts as failed

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
        ConfigError: options of Ray for another executor.
    """
    if name not in EXECUTORS:
        raise UnknownNameError("executor", name, EXECUTORS)
    if name == "local":
        if address is not None or workers is not None:
            raise ConfigError("--address and --workers are Ray's. Add --executor ray, or leave them out.")
        return LocalExecutor()
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers must be 1 or more. Got {workers} instead.")
    return RayExecutor(address, workers)


class RayExecutor:
    """One unit per Ray worker. A unit whose worker dies is given to another, and goes on from its checkpoints.

    Workers write to the store themselves, and the driver gets the records: the store's folder must be the same for
    all. A worker computes with one CPU thread, or one GPU.
    """

    def __init__(self, address: str | None, workers: int | None) -> None:
        self.address, self.workers = address, workers

    def run(self, units: Sequence[Unit], bench: Bench, progress: Progress) -> Iterator[Sequence[Outcome]]:
        ray = _ray()
        own = not ray.is_initialized()
        if own:
            _connect(ray, self.address, self.workers)
        try:
            on_gpu = bench.execution.torch_device.type == "cuda"
            remote = ray.remote(num_cpus=1, num_gpus=1 if on_gpu else 0, max_retries=WORKER_DEATHS)(remote_unit)
            shared = ray.put(bench)
            waiting = {remote.remote(unit, shared): unit for unit in units}
            while waiting:
                [done], _ = ray.wait(list(waiting), num_returns=1)
                unit = waiting.pop(done)
                yield _fetch(ray, done, unit)
        finally:
            if own:
                ray.shutdown()


def remote_unit(unit: Unit, bench: Bench) -> Sequence[Outcome] | SoftlabelError:
    """A unit on a worker. Errors that stop the grid are returned, since Ray would wrap what is raised."""
    keep_freed_memory()
    try:
        return run_unit(unit, bench, Silent())
    except SoftlabelError as error:
        return error


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
            ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        else:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"No Ray cluster could be reached at {address or 'this machine'} ({reason}). Start one with: ray start "
            f"--head, or leave --address out for a local one."
        ) from error
