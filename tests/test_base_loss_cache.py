"""Are the losses of the base computed once, and anew where they cannot be read?"""

from pathlib import Path

import numpy as np

from jobs.training.base_loss_cache import LOSSES, publish_losses, read_losses


def test_losses_that_cannot_be_read_are_made_anew(tmp_path: Path) -> None:
    """A file of the right size with other content is set aside by who finds it, so that
    what is computed again is kept for the next."""
    folder = tmp_path / "first_losses/a"
    losses = np.array([1.5, 2.5])
    publish_losses(folder, losses)
    path = folder / LOSSES
    path.write_bytes(b"\0" * path.stat().st_size)
    assert read_losses(folder) is None and not folder.exists()

    publish_losses(folder, losses)
    found = read_losses(folder)
    assert found is not None and found.tolist() == losses.tolist()
