"""Has a job that `zsg submit` starts on this machine forked off a process with the
engines loaded (forked_jobs.JobServer).

Where this folder is on the path of a job, its process asks the socket that FORKED_JOBS
names and waits for the end.
"""

import json
import os
import socket
import sys

if "jobs.entry" in sys.orig_argv and "FORKED_JOBS" in os.environ:
    # The code that was submitted is this very code, not its copy.
    env = {key: value for key, value in os.environ.items() if key != "ZSG_CODE"}
    request = {"folder": sys.orig_argv[-1], "env": env, "largest_file": None}
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(os.environ["FORKED_JOBS"])
        socket.send_fds(server, [f"{json.dumps(request)}\n".encode()], [1, 2])
        while server.recv(64):  # a process id, then nothing until it ends
            pass
    os._exit(0)
