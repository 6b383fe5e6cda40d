"""Runs inside the sandbox: a warm interpreter that forks a fresh child for every program. Imports nothing of ours.

Started by `program.py` as `python program_worker.py MODE TIMEOUT MEMORY LIBRARIES`, with the control socket as stdin. The
socket brings three descriptors per program (source, standard output, report) and takes the wait status back; the warm
interpreter itself never sees a program's text or output, so nothing of one program is in the memory of the next.

A child of MODE `isolated` is process 1 of its own pid namespace (when it ends, the kernel ends whatever it left), has
its own mounts (a scratch tmpfs that goes with it) and ipc, no capability and a system call filter: no new process, no
socket, no exec. MODE `open` has rlimits and, on Linux, the filter only.
"""

import contextlib
import ctypes
import errno
import gc
import importlib
import io
import os
import platform
import resource
import select
import signal
import socket
import struct
import sys
import types

SCRATCH_BYTES = 16 << 20  # the scratch folder, and any one file
REPORT = 3  # descriptor of the report pipe in a child
PRELOAD = (
    "cmath", "collections", "copy", "datetime", "decimal", "fractions", "functools", "heapq", "itertools", "json", "math", "operator",
    "random", "re", "statistics", "string", "time", "typing", "numpy", "numpy.linalg", "numpy.random", "sympy",
)  # fmt: skip

# name: (x86_64, aarch64, errno). fork, vfork and clone fail as if the process limit were reached.
_DENIED = {
    "fork": (57, None, errno.EAGAIN), "vfork": (58, None, errno.EAGAIN), "clone3": (435, 435, errno.ENOSYS),
    "execve": (59, 221, errno.EPERM), "execveat": (322, 281, errno.EPERM), "socket": (41, 198, errno.EPERM),
    "memfd_create": (319, 279, errno.ENOSYS), "memfd_secret": (447, 447, errno.ENOSYS),
    "io_uring_setup": (425, 425, errno.ENOSYS), "io_uring_enter": (426, 426, errno.ENOSYS), "io_uring_register": (427, 427, errno.ENOSYS),
    "ptrace": (101, 117, errno.EPERM), "process_vm_readv": (310, 270, errno.EPERM), "process_vm_writev": (311, 271, errno.EPERM),
    "pidfd_getfd": (438, 438, errno.EPERM), "kcmp": (312, 272, errno.EPERM),
    "keyctl": (250, 219, errno.EPERM), "add_key": (248, 217, errno.EPERM), "request_key": (249, 218, errno.EPERM),
    "shmget": (29, 194, errno.EPERM), "msgget": (68, 186, errno.EPERM), "semget": (64, 190, errno.EPERM), "mq_open": (240, 180, errno.EPERM),
    "mount": (165, 40, errno.EPERM), "umount2": (166, 39, errno.EPERM), "pivot_root": (155, 41, errno.EPERM), "chroot": (161, 51, errno.EPERM),
    "unshare": (272, 97, errno.EPERM), "setns": (308, 268, errno.EPERM), "open_tree": (428, 428, errno.EPERM),
    "move_mount": (429, 429, errno.EPERM), "fsopen": (430, 430, errno.EPERM), "fsconfig": (431, 431, errno.EPERM),
    "fsmount": (432, 432, errno.EPERM), "fspick": (433, 433, errno.EPERM), "mount_setattr": (442, 442, errno.EPERM),
    "bpf": (321, 280, errno.EPERM), "perf_event_open": (298, 241, errno.EPERM), "userfaultfd": (323, 282, errno.EPERM),
    "name_to_handle_at": (303, 264, errno.EPERM), "open_by_handle_at": (304, 265, errno.EPERM), "fanotify_init": (300, 262, errno.EPERM),
    "personality": (135, 92, errno.EPERM), "quotactl": (179, 60, errno.EPERM), "syslog": (103, 116, errno.EPERM), "acct": (163, 89, errno.EPERM),
}  # fmt: skip
_MACHINES = {"x86_64": (0, 0xC000003E, 56), "aarch64": (1, 0xC00000B7, 220)}  # column above, audit architecture, clone

_NEWNS, _NEWIPC, _NEWPID, _THREAD = 0x20000, 0x08000000, 0x20000000, 0x10000


def _call(function: object, *args: object) -> None:
    """A libc function that returns 0. Raises OSError."""
    if function(*args) != 0:  # type: ignore[operator]
        code = ctypes.get_errno()
        raise OSError(code, f"{function.__name__}: {os.strerror(code)}")  # type: ignore[attr-defined]


def filter_program() -> bytes:
    """The system call filter as classic BPF (struct sock_filter[]). Raises KeyError on a machine without a table."""
    column, arch, clone = _MACHINES[platform.machine()]

    def op(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("HBBI", code, yes, no, k)

    def fails(code: int) -> bytes:
        return op(0x06, 0x00050000 | code)  # SECCOMP_RET_ERRNO

    load, equal, at_least, has_bits, allow = 0x20, 0x15, 0x35, 0x45, op(0x06, 0x7FFF0000)
    out = op(load, 4) + op(equal, arch, 1) + op(0x06, 0x80000000)  # another architecture's calls: kill
    out += op(load, 0) + op(at_least, 0x40000000, 0, 1) + fails(errno.EPERM)  # x32
    for row in _DENIED.values():
        if (number := row[column]) is not None:
            out += op(equal, number, 0, 1) + fails(row[2])
    # clone may only start threads
    return out + op(equal, clone, 1) + allow + op(load, 16) + op(has_bits, _THREAD, 1) + fails(errno.EAGAIN) + allow


def _install_filter(libc: ctypes.CDLL, code: bytes) -> None:
    buffer = ctypes.create_string_buffer(code, len(code))
    fprog = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer)))
    _call(libc.prctl, 38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    _call(libc.prctl, 22, 2, fprog, 0, 0)  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def _confine(libc: ctypes.CDLL | None, isolated: bool, code: bytes | None, timeout: float, memory: int) -> None:
    """Makes this process the sandbox of one program; there is no way back."""
    os.setsid()  # or kill(0, ...) would reach the worker: a process group spans pid namespaces
    if isolated:
        assert libc is not None
        _call(libc.unshare, _NEWNS | _NEWIPC)
        # MS_NOSUID | MS_NODEV; nr_inodes bounds the kernel memory that empty files take
        _call(libc.mount, b"tmpfs", b"/tmp", b"tmpfs", 6, f"size={SCRATCH_BYTES},nr_inodes=1024,mode=700".encode())
        os.chdir("/tmp")
    cpu = int(timeout) + 2
    for kind, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, SCRATCH_BYTES),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        *([(resource.RLIMIT_NPROC, 64)] if isolated else []),  # else it would count every process of this user
        *([(resource.RLIMIT_MSGQUEUE, 0)] if hasattr(resource, "RLIMIT_MSGQUEUE") else []),
    ):
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(ValueError):  # macOS refuses some
            resource.setrlimit(kind, (value, value))
    if isolated:
        assert libc is not None
        # version 3, this process; effective, permitted and inheritable, twice 32 bits each
        _call(libc.capset, struct.pack("Ii", 0x20080522, 0), bytes(24))
    if code is not None:
        assert libc is not None
        _install_filter(libc, code)


class _Stdout(io.FileIO):
    """Descriptor 1, which knows whether anything but white space was printed."""

    printed = False

    def write(self, data) -> int:  # type: ignore[no-untyped-def]
        self.printed = self.printed or bool(bytes(data).strip())
        return super().write(data)


def _kind(e: BaseException) -> str:
    number = getattr(e, "errno", None) if isinstance(e, OSError) else None
    if isinstance(e, MemoryError) or number == errno.ENOMEM:
        return "memory"
    if isinstance(e, BlockingIOError) or (isinstance(e, RuntimeError) and "start new thread" in str(e)):
        return "process-limit"
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "disk-limit"
    if number in (errno.EPERM, errno.EACCES, errno.EROFS, errno.ENETUNREACH, errno.ENOSYS):
        return "blocked"
    return "error"


def _value(names: dict, raw: _Stdout) -> object:
    """What a program that printed nothing answers: a variable, else what `solution()` returns."""
    if raw.printed:
        return None
    for name in ("answer", "ans", "result"):
        if names.get(name) is not None and not callable(names[name]):
            return names[name]
    return names["solution"]() if callable(names.get("solution")) else None


def _execute(source: str) -> tuple[int, str, str]:
    """Runs a program as __main__; (exit status, kind, text). Only text ever leaves this process."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    raw = _Stdout(1, "w", closefd=False)
    stdout = sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "backslashreplace")
    sys.stdin, sys.stderr = open(0, closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    sys.argv = ["program.py"]
    sys.modules["random"].seed(0)  # one program, one verdict: what it draws is the same every time

    def flush() -> None:
        with contextlib.suppress(ValueError):  # the program closed it
            stdout.flush()

    try:
        try:
            exec(compile(source, "program.py", "exec"), module.__dict__)
        except SystemExit as e:
            if e.code not in (None, 0):
                raise
        flush()
        value = _value(module.__dict__, raw)
        text = "" if value is None else str(value)[:10_000]
        flush()
        return 0, "none" if value is None else "value", text
    except BaseException as e:
        module.__dict__.clear()  # room for the report
        kind = _kind(e)
        with contextlib.suppress(BaseException):
            flush()
        try:
            return 1, kind, f"{type(e).__name__}: {e}"[:300]
        except BaseException:  # an exception of the program's own making
            return 1, kind, "an exception that cannot be shown"


def _child(fds: list[int], isolated: bool, libc: ctypes.CDLL | None, code: bytes | None, timeout: float, memory: int) -> None:
    leave, write = os._exit, os.write  # as they are now
    status, kind, text = 1, "sandbox", "the program's own sandbox could not be made"
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        with open(fds[0], "rb") as f:
            source = f.read().decode("utf-8", "replace")
        null = os.open("/dev/null", os.O_RDWR)
        out, report = os.dup(fds[1]), os.dup(fds[2])
        for fd, place in ((null, 0), (out, 1), (null, 2), (report, REPORT)):
            os.dup2(fd, place)
        os.closerange(REPORT + 1, 65536)
        try:
            _confine(libc, isolated, code, timeout, memory)
        except OSError as e:
            text = str(e)
            return
        status, kind, text = 1, "error", ""
        status, kind, text = _execute(source)
    finally:
        try:
            write(REPORT, f"{kind}\n{text}".encode("utf-8", "replace"))
        finally:
            leave(status)


def _wait(pid: int, control: socket.socket) -> int:
    """The wait status of a child; it is killed when the parent says so or is gone."""
    pidfd = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    poll = select.poll()
    poll.register(control, select.POLLIN)
    if pidfd is not None:
        poll.register(pidfd, select.POLLIN)
    try:
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return status
            for fd, _ in poll.poll(None if pidfd is not None else 5):
                if fd == control.fileno():
                    os.kill(pid, signal.SIGKILL)
                    if not control.recv(1):
                        os._exit(0)  # the parent is gone
    finally:
        if pidfd is not None:
            os.close(pidfd)


def main(mode: str, timeout: str, memory: str, libraries: str) -> None:
    isolated = mode == "isolated"
    if libraries:
        sys.path.extend(libraries.split(os.pathsep))
    for name in PRELOAD:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)
        numpy.set_printoptions(legacy="1.25")  # 2.5, not np.float64(2.5)
    os.environ.clear()
    linux = sys.platform == "linux"
    libc = ctypes.CDLL(None, use_errno=True) if linux else None
    if isolated and platform.machine() not in _MACHINES:
        sys.exit(f"no system call filter for {platform.machine()}; there are {', '.join(_MACHINES)}")
    code = filter_program() if linux and platform.machine() in _MACHINES else None
    myself = os.pidfd_open(os.getpid()) if isolated else -1
    control = socket.socket(fileno=os.dup(0))
    gc.collect()
    gc.freeze()  # or every child would copy these pages at its first collection
    control.sendall(b"ready")
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1, 3)
        if not message:
            return  # the parent is gone
        if message != b"r":
            continue  # a kill that came after the end
        if isolated:
            assert libc is not None
            _call(libc.unshare, _NEWPID)  # the next child is process 1 of a new namespace ...
        pid = os.fork()
        if pid == 0:
            _child(fds, isolated, libc, code, float(timeout), int(memory))
        if isolated:
            assert libc is not None
            _call(libc.setns, myself, _NEWPID)  # ... and the one after it of another
        for fd in fds:
            os.close(fd)
        control.sendall(struct.pack("i", _wait(pid, control)))


if __name__ == "__main__":
    main(*sys.argv[1:])
