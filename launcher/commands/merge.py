"""The command that merges a run's adapters: parses, calls one function, prints."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from launcher.commands.options import RUN_ID, AsJson, Workspace


def merge(
    run: Annotated[str, typer.Argument(help=RUN_ID, metavar="RUN")],
    step: Annotated[
        int | None,
        typer.Argument(
            help="the snapshot of this step; default: the newest", metavar="STEP"
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", help="the folder to be made; default: RUN-STEP here", readable=False
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision", help="of the weights: bf16, fp16, fp32; default: the run's"
        ),
    ] = None,
    workspace: Workspace = None,
    json: AsJson = False,
) -> None:
    """Write a LoRA run's snapshot as a plain model's folder.

    The adapters are added to the weights. The folder loads without PEFT, in zsg as
    model.path and in anything else. In fp32 its losses are the adapters' to 1e-5. In
    bf16 the sum is rounded: 2 to 4e-4 nats. Where embedding and output layer are one
    table and one of them has an adapter, the output layer gets a weight of its own
    first. The model is loaded on this machine's CPU. Nothing is overwritten.

    \b
    Examples:
      zsg merge 3f2a
      zsg merge 3f2a 400 --to merged --precision fp32
    """
    from launcher.verification.merging import merge_run
    from launcher.views import show
    from launcher.workspace import workspaces

    merged = merge_run(
        run, lambda: workspaces.find_to_read(workspace), step, to, precision
    )
    if json:
        show.as_json(asdict(merged) | {"folder": str(merged.folder)})
        return
    show.print_result(
        f"{merged.folder}: {merged.run} after step {merged.step}, merged in {merged.dtype}"
    )
    show.print_result(
        f"a token's loss is off by at most {merged.difference:.1e} nats of what the adapters give"
    )
    if merged.untied:
        show.print_result(
            "embedding and output layer were one table and are two now"
            " (tie_word_embeddings: false)"
        )
