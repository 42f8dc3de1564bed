"""The files that a batch crosses on its way to a gradient, and a record on its way to the report: run and watched.

``python docs/_ext/ways.py`` prints, as JSON, for each of the two the files of pemeta in the order in which functions of
theirs are first called, each with the name of that function. It works on pemeta's public names, and on the few of
``experiments`` that the record needs.
"""

import importlib
import json
import multiprocessing
import os
import pkgutil
import sys
import tempfile
from pathlib import Path

import pemeta

ROOT = Path(pemeta.__file__).parent
GRID = {
    "data": {"name": "synthetic", "train": 20, "validation": 4, "test": 4, "text_sentences": 50},
    "backbone": {
        "name": "tiny",
        "transformer": {"hidden_size": 16, "layers": 1, "heads": 2, "vocab_size": 200, "steps": 2, "batch_size": 4},
    },
    "sources": ["aru", "bex"],
    "targets": ["cim"],
    "max_length": 64,
    "device": "cpu",
    "threads": 1,
    "priming": {"outer_steps": 1, "support_size": 4, "query_size": 4},
    "finetuning": {"epochs": 1},
    "settings": {"primed": {"method": "adapter", "priming": "meta"}},
}


def import_all():
    """Import what would be imported on its first use, which would bring all that it calls then."""
    for module in pkgutil.walk_packages(pemeta.__path__, "pemeta."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


class Watched:
    """Notes the files that the block enters; what importing runs is not noted.

    Attributes:
        files: path below ``pemeta/`` to the function that was called there first, in order.

    Args:
        until: name of a function of pemeta; nothing is noted once it has returned.
    """

    def __init__(self, until=None):
        self.files, self.until = {}, until

    def __enter__(self):
        import_all()
        sys.setprofile(self._see)
        return self

    def __exit__(self, *_):
        sys.setprofile(None)

    def _see(self, frame, event, _):
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(f"{ROOT}{os.sep}"):
            return
        if event == "return":
            if code.co_name == self.until:
                sys.setprofile(None)
        elif code.co_name != "<module>":
            name = getattr(code, "co_qualname", code.co_name)  # from Python 3.11 on with the class
            self.files.setdefault(Path(code.co_filename).relative_to(ROOT).as_posix(), name)


def batch():
    """From ``prime`` to the meta-gradient of its first meta-batch."""
    from pemeta import Adapter, MetaPriming, PEModel, SyntheticWorld, Task, TinyTransformer, encode, pretrain, prime

    world = SyntheticWorld(languages=("aru", "bex"), train=20, validation=4, test=4, text_sentences=50)
    text = [words for language in world.languages for words in world.text(language)]
    backbone, tokenizer = pretrain(text, TinyTransformer(**GRID["backbone"]["transformer"]), progress=False)
    model, tasks = PEModel(backbone, Adapter(bottleneck=4)), []
    for language in world.languages:
        corpus = world.corpus(language)
        tasks.append(Task.token_classification(language, encode(corpus.train, corpus.labels, tokenizer)))
    algorithm = MetaPriming(**GRID["priming"])
    with Watched(until="accumulate") as watched:
        prime(model, tasks, algorithm, progress=False)
    return watched.files


def record():
    """From the fine-tuning of one run to the files of the report; the model is primed before."""
    from pemeta.experiments.config import GridConfig
    from pemeta.experiments.executor import Executor
    from pemeta.experiments.report_files import read_report
    from pemeta.experiments.runner import Runner
    from pemeta.reporting import to_terminal, write_report

    with tempfile.TemporaryDirectory() as folder:
        config = GridConfig(output=folder, **GRID)
        Runner(config, say=len, progress=False).run()
        executor, [run] = Executor(config, say=len, progress=False), config.runs
        with Watched() as watched:
            executor.finetune(run)
            report = read_report(Path(folder))
            to_terminal(report)
            write_report(Path(folder), report)
    return watched.files


WAYS = {"batch": batch, "record": record}

if __name__ == "__main__":
    found, start = {}, "spawn"
    if sys.platform == "linux":  # where processes can share what was imported
        import_all()
        start = "fork"
    for name, way in WAYS.items():
        # Each in a process of its own, so that nothing that one has computed spares the other a file.
        with multiprocessing.get_context(start).Pool(1) as pool:
            found[name] = pool.apply(way)
    print(json.dumps(found))
