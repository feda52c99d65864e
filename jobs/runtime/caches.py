"""Keeps what engines compile, and later load as code, in folders that are the user's alone.

Their names are known to all: of Triton, torch's inductor and its extensions they lie in
a node's /tmp, where anybody may make them first.
"""

import logging
import os
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

from jobs.files import ownership

logger = logging.getLogger(__name__)

# Of what torch would put into /tmp under a name that everybody knows, if nothing else is said.
INDUCTOR = "TORCHINDUCTOR_CACHE_DIR"
VARIABLES = ("TRITON_CACHE_DIR", "TORCH_EXTENSIONS_DIR", INDUCTOR)


def make_caches_private(environ: MutableMapping[str, str] = os.environ) -> None:
    """Has every cache of compiled code be in a folder that nobody else may write:
    another one where others may."""
    environ.setdefault(INDUCTOR, f"{tempfile.gettempdir()}/zsg-{os.getuid()}/inductor")
    for name in VARIABLES:
        if name in environ:
            folder = Path(environ[name]).absolute()
            private_folder = ownership.find_private_cache(folder)
            if private_folder != folder:
                logger.warning(
                    f"{name}: {folder} is not yours alone; this job compiles into {private_folder}"
                )
                environ[name] = str(private_folder)
