"""Engines as actors of a Ray cluster: `engine: {kind: ray, of: ...}`. Ray places them, starts them again and moves the data.

Every replica is one actor with a `Host`, run from here by a `RemoteEngine`; `Replicas` gives them their work. An actor that
dies, alone or with its node, is started again by Ray where there is room; until then the others draw what it held. With no
room anywhere the run waits and says what for.

Ray is imported when such an engine is made, and not before.
"""

from __future__ import annotations

import os
import pickle
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gsi
from gsi.config.engines import RayEngine as Settings
from gsi.engines.pool import Replicas, complain
from gsi.engines.remote import Host, Info, RemoteEngine, Reply
from gsi.types import Engine, EngineLost, GsiError, Request

VERSION = "2.60"  # of Ray; a cluster and its drivers must have the same
HEAD_GONE, LOOK_UP = 20.0, 3.0  # seconds that the head may be out of reach, and between two looks
STARTS = 5  # tries to start a cluster on this machine
PATIENCE = 30.0  # seconds between two messages about what is waited for


def load_ray() -> Any:
    """Ray itself. Raises GsiError, naming the extra, where it is not there or another version."""
    fix = "pip install 'guided-self-improvement[ray]'"
    try:
        import ray
    except ImportError as e:
        raise GsiError(f"engine ray: Ray is not installed here ({e}); {fix}, in the same version on every node of the cluster") from None
    if not ray.__version__.startswith(f"{VERSION}."):
        raise GsiError(
            f"engine ray: Ray {ray.__version__} is installed here, this version of gsi works with {VERSION}; {fix}, on every node"
        )
    return ray


def connect(address: str | None) -> Any:
    """Ray, connected to the cluster at `address`; None = RAY_ADDRESS, a cluster that this machine is part of, or one of its own."""
    ray = load_ray()
    if (address or os.environ.get("RAY_ADDRESS", "")).startswith("ray://"):
        raise GsiError(
            "engine.address: ray:// is Ray's client, which this engine does not use; run the command on a node of the cluster (`ray job submit`), with address: auto"
        )
    if not ray.is_initialized():
        os.environ.setdefault("RAY_agent_register_timeout_ms", "300000")  # a node of this process's own: on a busy machine 30 s are too few
        for tries in range(1, STARTS + 1):
            try:
                ray.init(
                    address=address, log_to_driver=False, configure_logging=False, include_dashboard=False if address is None else None
                )
                break
            except Exception as e:
                # a bare one is what Ray raises when a node of its own does not come up in 30 s: the machine is busy
                late = type(e) is Exception
                if late and tries < STARTS:
                    ray.shutdown()
                    continue
                if not late and not isinstance(e, ConnectionError | ValueError | RuntimeError):
                    raise
                raise GsiError(f"engine.address: no Ray cluster at {address or 'RAY_ADDRESS'}: {e}; `ray start --head` starts one") from e
    return ray


def demand(settings: Settings, ray: Any) -> dict[str, float]:
    """Resources of one replica: as configured, else its GPUs where the cluster has any, and one CPU."""
    if settings.resources is not None:
        return dict(settings.resources)
    of = settings.of
    gpus = of.replicas * getattr(of, "tensor_parallel", 1) if of.kind in ("transformers", "vllm") else 0
    return {"CPU": 1.0, **({"GPU": float(gpus)} if gpus and ray.cluster_resources().get("GPU") else {})}


def check_room(needs: Mapping[str, float], ray: Any, may_grow: bool) -> None:
    """Raises GsiError where no node of the cluster, even an idle one, could hold a replica."""
    nodes = [n for n in ray.nodes() if n["Alive"]]
    if may_grow or any(all(n["Resources"].get(k, 0) >= v for k, v in needs.items()) for n in nodes):
        return
    there = "; ".join(f"{n['NodeManagerAddress']}: {_said(n['Resources'])}" for n in nodes)
    raise GsiError(
        f"engine.resources: one replica needs {_said(needs)}, and no node of the cluster has that. There are {len(nodes)} nodes ({there}). "
        "Ask for less, add a node, or set engine.may_grow: true where an autoscaler adds such nodes when asked"
    )


def _said(resources: Mapping[str, float]) -> str:
    shown = {k: v for k, v in resources.items() if not k.startswith("node:") and k != "object_store_memory"}
    return ", ".join(f"{k} {v / 2**30:.1f} GiB" if k == "memory" else f"{k} {v:g}" for k, v in sorted(shown.items())) or "nothing"


def workers(ray: Any) -> list[dict[str, Any]]:
    """The nodes that are up and have processors."""
    return [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) > 0]


def see_folder(address: str | None, folder: Path, key: str) -> None:
    """Raises GsiError, naming the config key, where a node of the cluster cannot write to a folder or sees another one under its name."""
    ray = connect(address)
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".gsi-probe-", dir=folder)
        os.close(handle)
    except OSError as e:
        raise GsiError(f"{key}: {folder} cannot be written on this machine: {e.strerror}") from None
    try:
        nodes = workers(ray)
        look = ray.remote(_problem_with)
        there = [NodeAffinitySchedulingStrategy(n["NodeID"], soft=False) for n in nodes]
        asked = [look.options(num_cpus=0, scheduling_strategy=strategy).remote(name) for strategy in there]
        for node, problem in zip(nodes, ray.get(asked), strict=True):
            if problem:
                raise GsiError(
                    f"{key}: node {node['NodeManagerAddress']} of the cluster cannot use {folder}: {problem}. Training on it needs a folder that every node "
                    "mounts and may write to: name one in train.cluster.folder"
                )
    finally:
        Path(name).unlink()


def _problem_with(probe: str) -> str | None:
    """On a node: what is wrong with the folder of a file that the driver has made."""
    if not Path(probe).exists():
        return "it is not the same folder there, what the driver wrote is not in it"
    try:
        tempfile.TemporaryFile(dir=Path(probe).parent).close()
    except OSError as e:
        return f"it cannot be written there: {e.strerror}"
    return None


class Actor:
    """A `remote.Link` to an actor that holds the engine of `make`."""

    def __init__(
        self,
        ray: Any,
        head: _Head,
        make: Any,
        name: str,
        needs: Mapping[str, float],
        options: Mapping[str, Any],
        say: Callable[[str], None],
    ):
        self.ray, self.name, self.say, self._needs = ray, f"ray, {name}", say, needs
        rest = {k: v for k, v in needs.items() if k not in ("CPU", "GPU", "memory")}
        self._make = make  # held here: an actor that starts again reads it again
        self._actor = (
            ray.remote(_RayHost)
            .options(
                **{
                    "num_cpus": needs.get("CPU", 0),
                    "num_gpus": needs.get("GPU", 0),
                    "memory": needs.get("memory"),
                    "resources": rest or None,
                    "max_restarts": -1,
                    "max_concurrency": 8,
                    "scheduling_strategy": "SPREAD",
                    **options,
                }
            )
            .remote()
        )
        self.info: Info | None = None
        self._asked = self._actor.ready.remote(self._make)
        self._since = self._said_at = time.monotonic()
        self._head = head

    def poll(self) -> Info | None:
        if self.info is None:
            done, _ = self.ray.wait([self._asked], timeout=0.5)
            if done:
                try:
                    self.info = self._get(self._asked)
                except EngineLost:  # not there yet, or gone while it started
                    self._head.check()
                    self._wait_aloud()
                    self._asked = self._actor.ready.remote(self._make)
                    time.sleep(0.5)
                    return None
                if self.info.version != gsi.__version__:
                    raise GsiError(
                        f"engine ray: node {self.info.node} has gsi {self.info.version}, this machine {gsi.__version__}; install the same version on every node"
                    )
            else:
                self._head.check()
                self._wait_aloud()
        return self.info

    def exchange(self, number: int, requests: Sequence[tuple[int, Request]], more: bool, wait: float, room_matters: bool) -> Reply:
        self._head.check()
        return pickle.loads(self._get(self._actor.exchanged.remote(packed((number, requests, more, wait, room_matters)))))

    def abandon(self) -> None:
        self._get(self._actor.abandon.remote())

    def call(self, name: str, pairs: Sequence[Any]) -> Any:
        return self._get(self._actor.call.remote(name, pairs))

    def restart(self) -> bool:
        """Ray starts dead actors again by itself; one that lives, but whose engine is broken, is ended for that."""
        if self.info is not None:
            with suppress(self.ray.exceptions.RayError):
                self.ray.kill(self._actor, no_restart=False)
        self.info, self._since = None, time.monotonic()
        self._said_at = self._since
        self._asked = self._actor.ready.remote(self._make)
        return True

    def close(self) -> None:
        """Ends the actor and waits until its memory is free, where it runs on this machine."""
        if self._head.gone:  # every call would wait for it; without it Ray ends the actors by itself
            return
        if self.info is not None:
            with suppress(self.ray.exceptions.RayError):
                self.ray.get(self._actor.close.remote(), timeout=30)
        with suppress(self.ray.exceptions.RayError):
            self.ray.kill(self._actor)
        if self.info is not None and self.info.node == self.ray.get_runtime_context().get_node_id():
            deadline = time.monotonic() + 10
            with suppress(ProcessLookupError):
                while time.monotonic() < deadline:
                    os.kill(self.info.pid, 0)
                    time.sleep(0.02)

    def _get(self, ref: Any) -> Any:
        errors = self.ray.exceptions
        while True:
            try:
                return self.ray.get(ref, timeout=5)
            except errors.GetTimeoutError:
                self._head.check()
            except errors.RayTaskError as e:
                cause = e.cause if isinstance(e.cause, GsiError) else None
                raise cause or RuntimeError(f"engine {self.name}: {e}") from None
            except (errors.RayActorError, errors.NodeDiedError, errors.OwnerDiedError, errors.ObjectLostError) as e:
                raise EngineLost(f"engine {self.name}: its actor or node is gone ({' '.join(str(e).split())[:200]})") from None

    def _wait_aloud(self) -> None:
        now = time.monotonic()
        if now - self._said_at >= PATIENCE:
            self._said_at = now
            free = _said(self.ray.available_resources())
            self.say(
                f"engine {self.name}: waits since {now - self._since:.0f} s for {_said(self._needs)}, or for its model to load; free in the cluster: {free}"
            )


class _RayHost(Host):
    def __init__(self) -> None:
        import ray

        super().__init__(ray.get_runtime_context().get_node_id())

    def exchanged(self, message: bytes) -> bytes:
        """`exchange`, packed by us."""
        return packed(self.exchange(*pickle.loads(message)))


def packed(message: Any) -> bytes:
    """Plain pickle, which takes a third of the time of Ray's own; Ray hands bytes on as they are."""
    return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)


class _Head:
    """Whether the cluster's head can be reached: without it Ray's calls wait for ever, or end this process without a word."""

    def __init__(self, ray: Any):
        host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
        self.address = (host.strip("[]"), int(port))
        self._checked = 0.0
        self.gone: GsiError | None = None
        self._lock = threading.Lock()

    def check(self) -> None:
        """Connects to it, at most once in LOOK_UP seconds. Raises GsiError when it has been out of reach for HEAD_GONE seconds."""
        with self._lock:
            if self.gone:
                raise self.gone
            if time.monotonic() - self._checked < LOOK_UP:
                return
            deadline = time.monotonic() + HEAD_GONE
            while True:
                try:
                    socket.create_connection(self.address, timeout=5).close()
                    self._checked = time.monotonic()
                    return
                except OSError as e:
                    if time.monotonic() > deadline:
                        self.gone = GsiError(
                            f"engine ray: the head of the cluster, {':'.join(map(str, self.address))}, cannot be reached ({e}). Everything graded is saved: "
                            "start it again (`ray start --head`, then the other nodes), and the same command goes on from here"
                        )
                        raise self.gone from None
                    time.sleep(1)


def ray_replicas(settings: Settings, make: Callable[[], Engine], say: Callable[[str], None] = complain, what: str = "replica") -> Replicas:
    """Replicas on the cluster, when the first of them is there; the others join the run as they come. `what` they are called in messages."""
    ray = connect(settings.address)
    needs = demand(settings, ray)
    check_room(needs, ray, settings.may_grow)
    shared = ray.put(make)  # once into the cluster's object store, not once per actor
    head = _Head(ray)
    actors = [Actor(ray, head, shared, f"{what} {i}", needs, settings.options, say) for i in range(settings.replicas)]
    try:
        info = None
        while info is None:
            info = next((i for a in actors if (i := a.poll()) is not None), None)
    except BaseException:
        for actor in actors:
            actor.close()
        raise
    return Replicas([lambda a=a: RemoteEngine(a, info) for a in actors], say, what)  # type: ignore[misc]
