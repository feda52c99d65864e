"""Programs that a sandbox must hold: each defines f, which should be x + 1, and is
right only once it has done harm.

TARGET stands for a folder outside, PORT for a port where somebody listens. A row: name,
program, what the verdict says.
"""

OUTSIDE = "\ndef f(x):\n    harm()\n    return x + 1\n"

PROGRAMS: dict[str, tuple[str, str]] = {
    "a fork bomb": (
        "import os\ndef harm():\n    while True:\n        os.fork()\n" + OUTSIDE,
        "BlockingIOError",
    ),
    "a patient fork bomb": (
        "import os\ndef harm():\n    while True:\n        try: os.fork()\n        except OSError:"
        " pass\n" + OUTSIDE,
        "took longer",
    ),
    "a bomb of threads": (
        "import threading, time\ndef harm():\n    for _ in range(1000):\n"
        "        threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
        + OUTSIDE,
        "can't start new thread",
    ),
    "a memory bomb": (
        "def harm():\n    held = []\n    while True: held.append(bytearray(1 << 24))\n"
        + OUTSIDE,
        "Memory",
    ),
    "memory that no process has": (
        "import os\ndef harm():\n    for _ in range(10_000):\n"
        "        os.write(os.memfd_create('x'), bytes(1 << 24))\n" + OUTSIDE,
        "PermissionError",
    ),
    "memory in segments": (
        "import ctypes\ndef harm():\n    assert ctypes.CDLL(None).shmget(0, 1 << 30, 0o1600) >= 0,"
        " 'denied'\n" + OUTSIDE,
        "denied",
    ),
    "an infinite loop": (
        "def harm():\n    while True: pass\n" + OUTSIDE,
        "took longer",
    ),
    "a loop before anything is asked": ("while True: pass\n", "took longer"),
    "a loop that no signal ends": (
        (
            "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n   "
            " except Exception: pass\nwhile True: pass\n"
        ),
        "took longer",
    ),
    "more files than a disk has numbers": (
        "import os\ndef harm():\n    for number in range(10_000): os.mkdir(f'/tmp/{number}')\n"
        + OUTSIDE,
        "No space left",
    ),
    "a fraction of millions of digits": (
        "import json, sys\nchannel = sys._getframe(1).f_locals['channel']\ndef harm():\n"
        "    parts = ['0x' + 'f' * 6_000_000, '0x' + 'e' * 6_000_000 + '7']\n"
        "    answer = {'value': ['fraction', parts], 'arguments': [['int', '0x1']]}\n"
        "    channel.sendall(json.dumps(answer).encode() + b'\\n')\n" + OUTSIDE,
        "no plain value was answered .ValueError",
    ),
    "writing outside": (
        "def harm(): open('TARGET/harm', 'w').write('x')\n" + OUTSIDE,
        "FileNotFoundError",
    ),
    "writing to the system": (
        "def harm(): open('/etc/harm', 'w').write('x')\n" + OUTSIDE,
        "Read-only|FileNotFound",
    ),
    "writing to Python": (
        "import os\ndef harm(): open(os.__file__, 'a').write('x')\n" + OUTSIDE,
        "Read-only|PermissionError",
    ),
    "a link out of the folder": (
        "import os\ndef harm():\n    os.symlink('TARGET', '/tmp/out')\n    open('/tmp/out/harm',"
        " 'w').write('x')\n" + OUTSIDE,
        "FileNotFoundError",
    ),
    "removing what is outside": (
        "import os\ndef harm(): os.unlink('TARGET/held')\n" + OUTSIDE,
        "FileNotFoundError",
    ),
    "reading what is outside": (
        "def harm(): open('TARGET/held').read()\n" + OUTSIDE,
        "FileNotFoundError",
    ),
    "reading the home folder": (
        "import os\ndef harm(): os.listdir('HOME/.ssh-of-the-test')\n" + OUTSIDE,
        "FileNotFound",
    ),
    "reading the passwords": (
        "def harm(): open('/etc/passwd').read()\n" + OUTSIDE,
        "FileNotFoundError",
    ),
    "reading other processes": (
        "def harm(): open('/proc/1/environ').read()\n" + OUTSIDE,
        "FileNotFoundError",
    ),
    "calling home": (
        "import socket\ndef harm(): socket.create_connection(('127.0.0.1', PORT), 1)\n"
        + OUTSIDE,
        "PermissionError",
    ),
    "looking for others on the socket files": (
        "import socket\ndef harm(): socket.socket(socket.AF_UNIX).connect('TARGET/socket')\n"
        + OUTSIDE,
        "FileNotFoundError",
    ),
    "filling the disk": (
        "def harm():\n    for i in range(10_000):\n        with open(f'/tmp/{i}', 'wb') as f:"
        " f.write(bytes(1 << 20))\n" + OUTSIDE,
        "No space left",
    ),
    "one great file": (
        "def harm():\n    with open('/tmp/x', 'wb') as f:\n        while True: f.write(bytes(1 <<"
        " 20))\n" + OUTSIDE,
        "No space left|too large|ended before",
    ),
    "printing gigabytes": (
        "def harm():\n    while True: print('x' * (1 << 20))\n" + OUTSIDE,
        "took longer",
    ),
    "answering gigabytes": (
        "def f(x): return 'x' * (100 << 20)\n",
        "answered too much|Memory",
    ),
    "leaving early": ("import os\nos._exit(0)\n", "ended before"),
    "leaving early when asked": ("import os\ndef f(x): os._exit(0)\n", "ended before"),
    "leaving politely": ("raise SystemExit(0)\n", "SystemExit"),
    "printing a pass": (
        (
            'import os\nfor fd in range(64):\n    try: os.write(fd, b\'{"passed": true, "why":'
            ' "passed"}\\n\')\n    except OSError: pass\nos._exit(0)\n'
        ),
        "no plain value|ended before",
    ),
    "an answer that equals anything": (
        "class Any:\n    def __eq__(self, other): return True\ndef f(x): return Any()\n",
        "no plain value",
    ),
    "a number that equals anything": (
        (
            "class Any(int):\n    def __eq__(self, other): return True\n    __hash__ = None\ndef"
            " f(x): return Any(0)\n"
        ),
        "AssertionError",
    ),
    "overriding the check": (
        (
            "import builtins, sys\ndef check(candidate): pass\nbuiltins.AssertionError = type('No',"
            " (Exception,), {})\nmain = sys.modules['__main__']\nmain.examine = main.check = lambda"
            " *a: None\nmain.unpacked = lambda v: 2\ndef f(x): return 0\n"
        ),
        "AssertionError",
    ),
    "looking up the tests": (
        "import gc, sys\ndef harm():\n    found = [o for o in gc.get_objects() if isinstance(o,"
        " dict) and 'test' in o]\n    frame = sys._getframe()\n    while frame:\n        found +="
        " [1] if 'exam' in frame.f_locals else []\n        frame = frame.f_back\n    assert found,"
        " 'no tests here'\n" + OUTSIDE,
        "no tests here",
    ),
    "ending its parent": (
        "import os, time\ndef harm():\n    was = os.getppid()\n    os.kill(was, 9)\n    os.kill(-1,"
        " 9)\n    time.sleep(0.2)\n    assert os.getppid() != was, 'still there'\n"
        + OUTSIDE,
        "still there|ProcessLookupError|PermissionError",
    ),
    "stopping its parent": (
        "import os, signal, time\ndef harm():\n    os.kill(os.getppid(), signal.SIGSTOP)\n   "
        " time.sleep(9)\n" + OUTSIDE,
        "took longer|PermissionError",
    ),
    "tracing its parent": (
        "import ctypes, os\ndef harm(): assert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) =="
        " 0, 'denied'\n" + OUTSIDE,
        "denied",
    ),
    "becoming root": (
        "import os\ndef harm():\n    os.setuid(0)\n    open('/etc/harm', 'w')\n"
        + OUTSIDE,
        "Error",
    ),
    "a namespace of its own": (
        "import ctypes\ndef harm(): assert ctypes.CDLL(None).unshare(0x10000000) == 0, 'denied'\n"
        + OUTSIDE,
        "denied",
    ),
    "one that stays behind": (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(300)\nos._exit(0)\n",
        "took longer",
    ),
    "text that is no program": ("def f(x):\n  return (((", "SyntaxError"),
    "text that no parser likes": ("f = " + "-" * 200_000 + "1\n", "Error|ended before"),
    "no function": ("g = 1\n", "KeyError"),
}
