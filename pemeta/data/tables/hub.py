"""Data sets of the Hugging Face hub, or of folders with the same layout."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pemeta.data.sentences import Split
from pemeta.data.tables.held_out import parts_of
from pemeta.errors import DataError, reason, shortened, unknown_name
from pemeta.utils.hub import quiet


def hub_splits(
    repository: str, config: str | None, revision: str | None, splits: Mapping[Split, str] | None
) -> dict[Split, Any]:
    """The splits of a data set that there are, each as a ``Dataset``.

    Args:
        repository: Data set on the hub, or a folder with the same layout.
        config: Its configuration; None if it has only one.
        revision: Commit, branch or tag; the newest if None.
        splits: Which of its splits are which; by default those that are named so.

    Raises:
        DataError: It cannot be loaded, or has no such configuration or split.
    """
    where = _named(repository, config)
    builder = _builder(repository, config, revision)
    with _loading(where, "the data set"):
        builder.download_and_prepare()
    available = list(builder.info.splits or ())
    found = parts_of(available, splits, where)
    for split, name in found.items():
        for part in name.split("+"):
            if part.partition("[")[0].strip() not in available:
                known = shortened(unknown_name("split", part.partition("[")[0].strip(), available), 300)
                raise DataError(f"{where}: splits.{split}: {known}")
    with _loading(where, "the splits", "say which with splits: names, or parts such as train[:10%]"):
        return {split: builder.as_dataset(split=name) for split, name in found.items()}


def hub_sizes(
    repository: str, config: str | None, revision: str | None, splits: Mapping[Split, str] | None
) -> dict[Split, int] | None:
    """The number of rows in each split that there is, as the data set's card says; None if it does not.

    Raises:
        DataError: It cannot be found, or has no such configuration.
    """
    told = {name: one.num_examples for name, one in (_builder(repository, config, revision).info.splits or {}).items()}
    if not told:
        return None
    found = parts_of(list(told), splits, _named(repository, config))
    return {split: told[name] for split, name in found.items()} if set(found.values()) <= set(told) else None


def _builder(repository: str, config: str | None, revision: str | None) -> Any:
    """What makes the data set, for a configuration that it has."""
    import datasets  # here, because importing it takes a second and other data does not need it
    from datasets.packaged_modules.cache.cache import Cache

    if revision is not None and Path(repository).is_dir():
        raise DataError(f"{repository} is a folder, which has no revision {revision!r}; remove revision")
    with _loading(_named(repository, config), "the data set"):
        try:
            builder = datasets.load_dataset_builder(repository, config, revision=revision)
        except ValueError as error:
            known = re.search(r"(?:Available|available configs|in the cache): (.*)", str(error))
            if known is None:
                raise
            names = re.findall(r"'([^']*)'", known[1]) or known[1].split(", ")
            raise _which(repository, config, names) from None
    # Where the data set names no configurations, datasets would take any name, and load the same files for each. What
    # it has in its cache, for want of a network, it has under the name.
    known_names = list(builder.builder_configs) or ["default"]
    if config is not None and config not in known_names and not isinstance(builder, Cache):
        raise _which(repository, config, known_names)
    kept = str(builder.hash)
    if isinstance(builder, Cache) and _are_commits(kept, revision) and not kept.startswith(str(revision)):
        raise DataError(
            f"{_named(repository, config)}: without a network there is only revision {kept}, in the cache of datasets; "
            f"found revision: {revision}; give that one, or run once where there is a network"
        )
    return builder


def _are_commits(kept: str, revision: str | None) -> bool:
    return bool(re.fullmatch("[0-9a-f]{40}", kept) and re.fullmatch("[0-9a-f]{7,40}", revision or ""))


def _named(repository: str, config: str | None) -> str:
    return repository if config is None else f"{repository} ({config})"


def _which(repository: str, config: str | None, known: list[str]) -> DataError:
    if config is None:
        names = shortened(", ".join(known), 300)
        return DataError(f"{repository} has configurations: {names}; say which: config: NAME, or '{{task}}' for each")
    if known == ["default"]:
        if (folder := Path(repository) / config).is_dir():  # without the name, all of its folders would be read
            return DataError(
                f"{repository} names no configurations; found {config}, which is a folder in it; read that with "
                f"data: {{name: hub, repository: {folder}}}, or '{Path(repository)}/{{task}}' for each"
            )
        return DataError(f"{repository} has only one configuration; found config: {config}; remove config")
    return DataError(f"{shortened(unknown_name('configuration', config, known), 300)} in {repository}")


@contextmanager
def _loading(
    where: str,
    what: str,
    remedy: str = "check its name and the network, or read files with data: {name: table, path: ...}",
) -> Iterator[None]:
    """Load without bars and notes, and with errors as one sentence.

    Raises:
        DataError: Anything went wrong.
    """
    import datasets

    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        with quiet():
            yield
    except DataError:
        raise
    except Exception as error:  # the hub, pyarrow and datasets raise nearly anything here
        if "gated" in str(error):
            remedy = "ask for access on its page on the hub, then log in: hf auth login"
        if any(sign in str(error) for sign in ("scripts are no longer supported", "trust_remote_code")):
            remedy = (
                "fetch its Parquet files (the hub's branch refs/convert/parquet) and read them with "
                "data: {name: table, path: ...}"
            )
        cause = error.__cause__ if type(error).__name__.startswith("DatasetGeneration") and error.__cause__ else error
        raise DataError(f"cannot load {what} {where!r}: {shortened(reason(cause), 200)}; {remedy}") from None
    finally:
        if bars:
            datasets.enable_progress_bars()
