"""What kind of file system a path is on."""

from __future__ import annotations

from pathlib import Path

NETWORK = {
    "9p", "afs", "beegfs", "ceph", "cifs", "davfs", "fuse.ceph-fuse", "fuse.davfs2", "fuse.gcsfuse", "fuse.glusterfs", "fuse.goofys", "fuse.juicefs",
    "fuse.mount-s3", "fuse.s3fs", "fuse.sshfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "wekafs",
}  # fmt: skip


def network_filesystem(path: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """Name of the network file system that holds `path` (or will, once it is made); None = a local one, or this system does not say."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    target, best, kind = path.resolve(), -1, ""
    for line in lines:
        _, point, name, *_ = line.split(" ")
        folder = Path(point.replace("\\040", " "))
        if target.is_relative_to(folder) and len(folder.parts) >= best:
            best, kind = len(folder.parts), name
    return kind if kind in NETWORK else None
