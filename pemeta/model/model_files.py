"""Saving and loading models as folders that transformers reads too: the backbone's own parameters, and θ_a beside."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pemeta.backbone.loading import load_backbone
from pemeta.backbone.output_kinds import OutputKind
from pemeta.backbone.quantised import refuse_writing
from pemeta.backbone.tokenizers import check_tokenizer, tokenizer_digest
from pemeta.errors import ModelError, OutputError
from pemeta.methods.base import PEMethod
from pemeta.model.digests import theta_p_digest as theta_p_digest
from pemeta.model.digests import values_digest
from pemeta.model.dtypes import BUFFERS, added_buffers, restore_buffers, restore_dtypes, unusual_dtypes, write_buffers
from pemeta.model.manifest import (
    FORMAT,
    MANIFEST,
    MARK,
    TASKS,
    THETA_A,
    Manifest,
    check_file,
    file_digest,
    find_file,
    find_manifest,
    read_manifest,
    resolve_base,
)
from pemeta.model.model_card import model_card
from pemeta.model.network import Network
from pemeta.model.weight_index import write_weight_index
from pemeta.utils.files import follow_umask, read_tensors, replaced_folder, write_json, write_tensors, write_text
from pemeta.utils.hub import quiet
from pemeta.utils.provenance import package_versions

AnyNetwork = TypeVar("AnyNetwork", bound=Network)


@dataclass(frozen=True)
class Loading:
    """How a model is loaded: the arguments of ``PEModel.from_pretrained`` that are the backbone's."""

    attention: str | None = None
    dtype: torch.dtype | None = None
    trust_remote_code: bool = False
    output: OutputKind | None = None


WEIGHTS = re.compile(rf"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|{re.escape(THETA_A)}|{re.escape(BUFFERS)}")
"""Files that only some models have, so that those of an earlier model must not remain."""


def describe_model(model: Network, base: str | None = None, facts: Mapping[str, Any] | None = None) -> Manifest:
    """The manifest of a model; it includes the tokenizer's digest only if the model has no ``base``."""
    values = values_digest(model)
    theta_p = model.saved_digest(values)
    return Manifest(
        methods=model.attached,
        finetuning=model.attached.index(model.method),
        theta_p_digest=theta_p,
        values_digest=None if values == theta_p else values,
        tokenizer_digest=model.tokenizer_digest if base is None else None,
        dtype=_name_of(next(model.backbone.parameters()).dtype),
        base=base,
        output=None if model.output is None or base is None else sorted(model.output.kinds)[0],
        facts=dict(facts or {}),
        packages=package_versions(),
    )


def _name_of(dtype: torch.dtype) -> Any:
    return str(dtype).removeprefix("torch.")


def save_model(
    model: Network,
    folder: Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write a model's folder completely or not at all; tasks of this θ_p and unrelated files in it are kept.

    Raises:
        ModelError: the tokenizer is not the one that the model's data was encoded with, or the backbone is quantised,
            or its word embedding has another size than when the model was made, but the output matrix has not.
        OutputError: the folder holds something else, or tasks of another θ_p or method, or it cannot be written.
    """
    refuse_writing(model)
    if model.output is not None:
        model.output.refuse_resized(model.backbone)  # or nothing could load the folder
    if tokenizer is not None:
        check_tokenizer("this model", model.tokenizer_digest, tokenizer_digest(tokenizer))
    manifest = describe_model(model, facts=facts)
    tasks = folder / TASKS
    check_replaceable(folder, MANIFEST, "a saved model")
    if tasks.is_dir() and not _fits(read_manifest(folder), manifest):
        raise OutputError(
            f"{tasks} holds tasks of the model previously saved in {folder}, which do not fit this one; give another "
            "folder, or remove the tasks"
        )
    with replaced_folder(folder) as temporary:
        write_model(model, temporary, manifest, tokenizer)
        for kept in folder.iterdir() if folder.is_dir() else ():
            if not (temporary / kept.name).exists() and not WEIGHTS.fullmatch(kept.name):
                _copy(kept, temporary / kept.name)


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder, keeping symbolic links as links."""
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target, follow_symlinks=False)


def _fits(one: Manifest, other: Manifest) -> bool:
    """Whether tasks of one model fit the other."""
    methods = [manifest.methods[manifest.finetuning] for manifest in (one, other)]
    return one.theta_p_digest == other.theta_p_digest and methods[0] == methods[1]


def write_model(
    model: Network, folder: Path, manifest: Manifest, tokenizer: PreTrainedTokenizerBase | None = None
) -> None:
    """Write a model's files into a folder."""
    plain = without_methods(model)
    own = {id(parameter) for parameter in plain.parameters()}
    added = {name: p.detach().cpu() for name, p in model.backbone.named_parameters() if id(p) not in own}
    saved = plain if model.output is None else model.output.around(plain)
    setattr(saved.config, MARK, FORMAT)  # of the copy only
    with quiet():
        saved.save_pretrained(folder)
    write_weight_index(folder)
    beside = {
        "dtypes": unusual_dtypes(saved, manifest.dtype),
        "buffers_digest": write_buffers(saved, model.backbone, folder),
    }
    manifest = manifest.model_copy(update=beside)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
        manifest = manifest.model_copy(update={"tokenizer_digest": tokenizer_digest(tokenizer)})
    follow_umask(folder)
    if added:
        write_tensors(folder / THETA_A, added)
        manifest = manifest.model_copy(update={"theta_a_digest": file_digest(folder / THETA_A)})
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    others = [method for method in model.attached if method != model.method]
    num_added, whole = sum(map(torch.numel, added.values())), None if saved is plain else saved
    card = model_card(model.backbone, [model.method, *others], num_added, manifest.facts, whole)
    write_text(folder / "README.md", card)


def without_methods(model: Network) -> PreTrainedModel:
    """A copy of the backbone without the attached methods, which shares its parameters."""
    shared = {id(tensor): tensor for tensor in (*model.backbone.parameters(), *model.backbone.buffers())}
    plain = copy.deepcopy(model.backbone, shared)
    for method in reversed(model.attached):
        method.detach(plain)
    return plain


def load_model(
    make: Callable[..., AnyNetwork],
    path: str | Path,
    method: PEMethod | None,
    seed: int = 0,
    how: Loading = Loading(),
) -> AnyNetwork:
    """Load a model of the class ``make`` from a folder or the hub: a saved model, or a plain backbone with ``method``.

    Raises:
        ModelError: it cannot be loaded, or it is a plain backbone and ``method`` is not given.
    """
    manifest = find_manifest(path)
    if manifest is None:
        return make(_load_plain(path, method, how), method, seed=seed)
    if manifest.base is not None:
        return _load_on_base(make, path, manifest, method, seed, how)
    wanted = how.dtype or getattr(torch, manifest.dtype)
    exact = wanted == getattr(torch, manifest.dtype)  # not converted to another dtype now
    backbone = load_backbone(path, how.attention, wanted, how.trust_remote_code, True)
    restore_dtypes(backbone, path, _name_of(wanted), manifest.dtypes if exact else None)
    restore_buffers(dict(backbone.named_buffers()), path, manifest.buffers_digest if exact else None)
    if method is not None and method not in manifest.methods:
        model = make(backbone, method, seed=seed)
        model.tokenizer_digest = manifest.tokenizer_digest
        return model
    model = make(backbone, manifest.methods[0])
    model.tokenizer_digest = manifest.tokenizer_digest
    for other in manifest.methods[1:]:
        model.attach(other)
    model.method = manifest.methods[manifest.finetuning]
    _load_added(model, path, manifest, keep=exact)
    values = values_digest(model)
    if exact and values != (manifest.values_digest or manifest.theta_p_digest):
        raise ModelError(
            f"θ_p in {str(path)!r} does not match {MANIFEST} beside it: one of the files was changed or belongs to "
            "another model; save it again"
        )
    if values != manifest.theta_p_digest:  # converted to another dtype, now or when it was saved
        model.record_saved_digest(values, manifest.theta_p_digest)
    model.method = method or model.method
    return model


def _load_plain(path: str | Path, method: PEMethod | None, how: Loading) -> PreTrainedModel:
    """Load a backbone that pemeta did not save, for a new method."""
    if method is None:
        raise ModelError(
            f"{str(path)!r} has no {MANIFEST}, so it is not a model saved by pemeta; give the method to attach, or "
            "a folder written by save_pretrained or `pemeta run`"
        )
    dtype = how.dtype or torch.float32
    backbone = load_backbone(path, how.attention, dtype, how.trust_remote_code, output=how.output)
    restore_dtypes(backbone, path, _name_of(dtype), None)
    if hasattr(backbone.config, MARK):
        raise ModelError(
            f"config.json of {str(path)!r} shows that pemeta saved this model, but {MANIFEST} is missing; download "
            "the whole repository, or load it with AutoModel to drop its θ_a"
        )
    return backbone


def _load_on_base(
    make: Callable[..., AnyNetwork],
    path: str | Path,
    manifest: Manifest,
    method: PEMethod | None,
    seed: int,
    how: Loading,
) -> AnyNetwork:
    """Load a model whose folder holds only tasks, with its backbone elsewhere."""
    base = resolve_base(path, manifest)
    primed = find_manifest(base)
    if primed is not None and primed.base is not None:
        raise ModelError(
            f"the base {str(base)!r} of {str(path)!r} itself refers to another base; give the folder with the weights"
        )
    its_own = manifest.methods[manifest.finetuning]
    here = how.dtype or (getattr(torch, manifest.dtype) if primed is None else None)
    how = replace(how, dtype=here, output=how.output or manifest.output)
    model = load_model(make, base, method or its_own, seed, how)
    if primed is None and method in (None, its_own) and here not in (None, getattr(torch, manifest.dtype)):
        # A plain backbone has no manifest with its digest.
        model.record_saved_digest(values_digest(model), manifest.theta_p_digest)
    return model


def _load_added(model: Network, path: str | Path, manifest: Manifest, keep: bool) -> None:
    """Load the saved values of the parameters that the methods added, and their dtypes too if ``keep``."""
    plain = without_methods(model)
    restore_buffers(added_buffers(plain, model.backbone), path, manifest.buffers_digest)
    own = {id(parameter) for parameter in plain.parameters()}
    expected = {name for name, p in model.backbone.named_parameters() if id(p) not in own}
    file = find_file(path, THETA_A)
    try:
        found = read_tensors(file)[0] if file is not None else {}
    except OutputError as error:
        raise ModelError(f"{error.args[0].rpartition(';')[0]}; save or download the model again") from None
    if set(found) != expected:
        wrong = sorted(expected ^ set(found))
        raise ModelError(
            f"{THETA_A} in {str(path)!r} does not hold exactly the parameters that its methods add: {wrong[0]} is "
            f"{'missing' if wrong[0] in expected else 'not one of them'}; save or download the model again"
        )
    if file is not None:
        check_file(file, manifest.theta_a_digest, MANIFEST)
    for name, value in found.items() if keep else ():
        parameter = model.backbone.get_parameter(name)
        parameter.data = parameter.data.to(value.dtype)
    model.load_state({f"backbone.{name}": value for name, value in found.items()})


def check_replaceable(folder: Path, mark: str, what: str) -> None:
    """Refuse to replace a folder that holds something else.

    Raises:
        OutputError: it is a file, or it is not empty and has no file ``mark``.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; give a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / mark).is_file():
        raise OutputError(f"{folder} is not empty and is not {what} (it has no {mark}); give a new or empty folder")
