"""Has a job that `zsg submit` starts on this machine forked off a process with the
engines loaded (forked_jobs.serve).

Where this folder is on the path of a job, its process asks the socket that FORKED_JOBS
names and waits for the end.
"""

import os
import socket
import sys

if "jobs.entry" in sys.orig_argv and "FORKED_JOBS" in os.environ:
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(os.environ["FORKED_JOBS"])
        socket.send_fds(
            server,
            [
                "\0".join(
                    [sys.orig_argv[-1], *map("=".join, os.environ.items())]
                ).encode()
            ],
            [1, 2],
        )
        server.recv(1)  # nothing ever comes: the fork holds the other end until it ends
    os._exit(0)
