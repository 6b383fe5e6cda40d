"""Runs a command until it ends, or until standard input does: then the process that started this one is gone.

    python -I watchdog.py SECONDS COMMAND ARGUMENT...

Standard library only, as it runs isolated. It must lead a process group of its own: it sends SIGTERM to the whole
group, and SIGKILL once the command has ended or after SECONDS.
"""

import os
import signal
import subprocess
import sys
import threading
import time


def main(grace: float, command: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: None)  # ours is meant for the command; a handler, unlike SIG_IGN, is not inherited
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as e:
        print(f"cannot be started: {e}", file=sys.stderr)
        return 127

    def end_with_the_parent() -> None:
        while os.read(0, 1):
            pass
        os.killpg(0, signal.SIGTERM)
        time.sleep(grace)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=end_with_the_parent, daemon=True).start()
    code = child.wait()
    print(f"(ended with code {code})", file=sys.stderr, flush=True)
    os.killpg(0, signal.SIGKILL)  # whatever the command has left behind, and this process
    return code


if __name__ == "__main__":
    os._exit(main(float(sys.argv[1]), sys.argv[2:]))
