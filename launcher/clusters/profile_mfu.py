"""Decides in which file of a profile a measured `gpu.mfu` is to stand, and how."""

from pathlib import Path

from launcher.clusters.profile_files import Layers
from launcher.clusters.profiles import Profile
from launcher.workspace.shipped import find_shipped
from launcher.workspace.yaml_number import NumberChange, plan_number
from zsg_core.errors import UserError

DIGITS = 3


def refuse_without_gpu(profile: Profile) -> None:
    """UserError for a profile in which there is no place for it."""
    if profile.gpu is None:
        raise UserError(
            f"--write-mfu: profile {profile.name!r} describes no GPUs, so there is no gpu.mfu to"
            " write; on CPU nodes nothing is estimated by it"
        )


def refuse_shipped(layers: Layers) -> None:
    """UserError for a profile that is part of zsg: the next installation replaces it."""
    path = layers.files[0]
    if path.resolve().is_relative_to(find_shipped("cluster_profiles").resolve()):
        raise UserError(
            f"--write-mfu: profile {path.stem!r} is one that zsg brings, and is not changed; write"
            f" one of your own, cluster_profiles/NAME.yaml with `name: NAME` and `inherits:"
            f" {path.stem}`, and give it by --profile"
        )


def plan_mfu(layers: Layers, mfu: float) -> NumberChange:
    """The change of the profile's own file, whatever it inherits. UserError where the
    file cannot be changed, and for a share that is none."""
    refuse_shipped(layers)
    rounded = f"{mfu:.{DIGITS}f}".rstrip("0").rstrip(".")
    if not 0 < float(rounded) <= 1:
        raise UserError(
            f"--write-mfu: {mfu:.3g} of gpu.tflops was measured, which is no share of a peak: is"
            " gpu.tflops in the profile that of the GPUs that the nodes have?"
        )
    return plan_number(Path(layers.files[0]), "gpu", "mfu", rounded)
