"""``pemeta export``: a fine-tuned task for transformers, peft and vLLM."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MERGED, ADAPTER = "merged", "adapter"


def export(
    folder: Annotated[
        Path, typer.Argument(help="A saved model, e.g. OUTPUT/models/SETTING-seed0.", metavar="MODEL_DIR")
    ],
    out: Annotated[Path, typer.Argument(help="The folder to write, new or with an earlier export.", metavar="OUT")],
    task: Annotated[
        str | None,
        typer.Option(help="A task in MODEL_DIR/tasks, or a task's folder; may be omitted if there is only one."),
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            "--as",
            help="merged: a plain model of transformers, with the method folded into its weights; adapter: PEFT's "
            "files, for the primed model as their base.",
        ),
    ] = MERGED,
    vllm: Annotated[
        bool, typer.Option("--vllm", help="Say what vLLM would refuse in what was written, and fail if there is any.")
    ] = False,
    max_lora_rank: Annotated[int, typer.Option(help="vLLM's option of that name, for --vllm.")] = 16,
) -> None:
    """Write a task for transformers or peft.

    Predictions are equal; vLLM, SGLang and text-embeddings servers read the same folders.
    """
    from pemeta.deploy.exporting import export_task
    from pemeta.deploy.vllm import vllm_refusals
    from pemeta.errors import ModelError

    typer.echo(export_task(folder, out, task, form))
    if not vllm:
        return
    refusals = vllm_refusals(out, max_lora_rank=max_lora_rank)
    for reason in refusals:
        typer.echo(f"vLLM: {reason}")
    if refusals:
        raise ModelError(f"vLLM would not serve {out} as it is; {refusals[0]}")
    typer.echo(f"vLLM: no reason to refuse {out}")
