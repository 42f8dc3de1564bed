"""Exports of tasks in folders, as a command does them."""

from __future__ import annotations

from pathlib import Path

from pemeta.backbone.tokenizers import load_tokenizer
from pemeta.deploy.export import to_transformers
from pemeta.deploy.folders import find_task, local_folder, only_task
from pemeta.deploy.peft_files import save_peft
from pemeta.errors import ConfigError, OutputError, unknown_name
from pemeta.model.manifest import MANIFEST, read_manifest, resolve_base
from pemeta.model.model_files import check_replaceable
from pemeta.model.pe_model import PEModel
from pemeta.model.task_classes import class_of
from pemeta.utils.files import follow_umask, replaced_folder
from pemeta.utils.hub import quiet

FORMS = ("merged", "adapter")


def export_task(path: str | Path, out: Path, task: str | Path | None = None, form: str = "merged") -> str:
    """Write a task of a saved model as a folder for other packages, and say in a line what it is.

    Args:
        path: the model's folder, or its name on the hub.
        out: the folder to write, completely or not at all; an earlier export in it is replaced.
        task: a name in the model's ``tasks/``, or a task's folder; may be omitted if there is only one.
        form: ``merged``, a plain model of transformers, or ``adapter``, PEFT's files for the primed model as the base.

    Raises:
        ConfigError: there is no such form.
        ModelError: there is no such task, or it has no such form.
        OutputError: the folder holds something else, or cannot be written.
    """
    if form not in FORMS:
        raise ConfigError(unknown_name("form of an export", form, FORMS))
    path = local_folder(path)
    base = resolve_base(path, read_manifest(path))
    folder = find_task(path, task or only_task(path))
    model = PEModel.from_pretrained(path)
    name = model.load_task(folder)
    model.eval()
    loader = getattr(class_of(model.head_spec(name)), "auto", None)
    auto = getattr(loader, "__name__", "AutoModel")
    if form == "adapter":
        save_peft(model, out, task=name, base=base)
        what, how = f"an adapter of peft on {base}", f"peft.PeftModel.from_pretrained({auto}..., {str(out)!r})"
    else:
        if (out / MANIFEST).exists():
            raise OutputError(f"{out} is a model saved by pemeta, which an export would replace; give another folder")
        if out.is_dir() and Path(base).is_dir() and out.samefile(base):
            raise OutputError(f"{out} is the task's own base, which an export would replace; give another folder")
        check_replaceable(out, "config.json", "an exported model")
        merged = to_transformers(model, name, load_tokenizer(base))
        with replaced_folder(out) as temporary, quiet():
            merged.save_pretrained(temporary)
            follow_umask(temporary)
        what, how = f"a {type(merged).__name__}", f"{auto}.from_pretrained({str(out)!r})"
    size = sum(file.stat().st_size for file in out.iterdir() if file.is_file())
    return f"{out}: {what}, {size / 1e6:.1f} MB; load it with {how}"
