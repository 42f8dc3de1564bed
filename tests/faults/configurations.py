"""Wrong configurations: invalid YAML, keys and types, and numbers at the edges of their ranges."""

from __future__ import annotations

from collections.abc import Sequence

import yaml
from faults.room import Cases, Room

CASES = Cases("configuration")

# Files that are not YAML, not a mapping, or far larger once expanded

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{this}: &{this} [{', '.join([f'*{last}'] * 10)}]\n" for last, this in zip("abcdefgh", "bcdefghi", strict=True)
)
FILES = {
    "an empty file": (b"", "expected a mapping with output, .*; found None"),
    "a comment alone": (b"# nothing\n", "expected a mapping with output, .*; found None"),
    "a text": (b"just words", "expected a mapping with .*; found 'just words'"),
    "a list": (b"- output: x", "expected a mapping with .*; found \\["),
    "a number": (b"3", "expected a mapping with .*; found 3"),
    "a bracket that is not closed": (b"output: [", "is not YAML: .*line 1"),
    "a quote that is not closed": (b'output: "x', "is not YAML: .*line 1"),
    "a tab for indentation": (b"data:\n\tname: conll", "is not YAML: .*line 2"),
    "keys in disorder": (b"output: x\n  data: y", "is not YAML: .*line 2"),
    "two documents": (b"output: x\n---\noutput: y", "is not YAML: .*document"),
    "a Python object": (b"output: !!python/object/apply:os.system [echo]", "is not YAML: .*tag"),
    "a tag of its own": (b"output: !path x", "is not YAML: .*tag"),
    "a date with a thirteenth month": (b"output: 2000-13-01", "is not YAML: month must be in 1..12"),
    "a NUL byte": (b"output: x\0y", "is not YAML: .*special characters"),
    "a NUL byte in an escape": (b'output: "x\\0y"', "is not YAML: .*a character that no file can hold"),
    "half a surrogate pair": (b'output: "\\ud800"', "is not YAML: .*a character that no file can hold"),
    "Latin-1": ("output: caf\xe9".encode("latin-1"), "not UTF-8 at byte 11"),
    "UTF-16": ("output: x\n".encode("utf-16"), "not UTF-8 at byte 0"),
    "UTF-32": ("output: x\n".encode("utf-32-be") + b"\xff", "is not YAML: .*special characters|not UTF-8"),
    "a file that ends within a letter": ("output: é".encode()[:-1], "not UTF-8 at byte 8"),
    "a flag that is none": (b"output: !!bool perhaps", "is not YAML: a key or tag does not fit its value"),
    "a number that is none": (b"output: !!int ''", "is not YAML: a key or tag does not fit its value"),
    "a time that is none": (b"output: !!timestamp soon", "is not YAML: a key or tag does not fit its value"),
    "an alias to nothing": (b"output: *x", "is not YAML: .*undefined alias"),
    "an alias to itself": (b"output: &x [*x]", "aliases"),
    "a mapping within itself": (b"output: x\ndata: &d\n  name: *d", "aliases"),
    "aliases that multiply": (LAUGHS.encode() + b"output: *i", "aliases"),
    "aliases that multiply in an unknown key": (LAUGHS.encode() + b"output: x\nmore: *i", "aliases"),
    "brackets without end": (b"output: " + b"[" * 5000, "is not YAML: .*nested"),
    "lists in lists": (b"output: " + b"[" * 5000 + b"]" * 5000, "is not YAML: .*nested"),
    "forty lists in lists": (b"output: " + b"[" * 40 + b"]" * 40, "output: input should be a path"),
    "sixty lists in lists": (b"output: " + b"[" * 60 + b"]" * 60, "is not YAML: .*nested more than 50 levels deep"),
    "aliases one in the other": (
        b"a0: &a0 x\n" + b"".join(b"a%d: &a%d [*a%d]\n" % (i + 1, i + 1, i) for i in range(3000)) + b"output: *a3000",
        "its aliases expand to more than 50 levels",
    ),
    "a key that is a list": (b"[a, b]: c", "is not YAML: .*unhashable|unknown key|keys"),
    "a key that is a number": (b"1: x", "unknown key '?1|this key is required"),
    "a merge of what is no mapping": (b"<<: [1, 2]\noutput: x", "is not YAML: .*merging"),
    "noise": (bytes(range(128, 256)) * 10, "not UTF-8 at byte 0"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "not UTF-8 at byte 0"),
}
for _name, (_content, _says) in FILES.items():
    CASES.add(_name, _says, lambda room, content=_content: ("run", room.write(content)))


@CASES.case("duplicate key 'output'")
def a_duplicate_key(room: Room) -> Sequence[object]:
    return ("run", room.write(room.written() + "output: y\n"))


@CASES.case("duplicate key 'epochs'")
def a_duplicate_key_below(room: Room) -> Sequence[object]:
    return (
        "run",
        room.write(room.written(finetuning={}).replace("finetuning: {}", "finetuning: {epochs: 1, epochs: 2}")),
    )


@CASES.case("not UTF-8 at byte")
def a_configuration_cut_within_a_letter(room: Room) -> Sequence[object]:
    text = room.written(output="désordre").encode()
    return ("run", room.write(text[: text.index("é".encode()) + 1]))


@CASES.case("is not YAML|this key is required|expected a mapping|unknown|found")
def a_configuration_cut_in_half(room: Room) -> Sequence[object]:
    text = room.written()
    return ("run", room.write(text[: len(text) // 2]))


@CASES.case("cannot read .*: Is a directory; check the path")
def a_folder_in_place_of_a_configuration(room: Room) -> Sequence[object]:
    return ("run", room.tmp)


@CASES.case("cannot read .*: File name too long; check the path")
def a_name_that_is_too_long(room: Room) -> Sequence[object]:
    return ("run", "x" * 300)


@CASES.case("null byte")
def a_name_with_a_nul_byte(room: Room) -> Sequence[object]:
    return ("run", "x\0y")


# Keys and types, as KEY=VALUE overrides of a valid configuration

TYPES = {
    "outputs=x": "outputs: unknown key 'outputs'; did you mean 'output'\\?",
    "output=": "output: ",
    "output=''": "output: ",
    "output=3": "output: input should be a path; found 3",
    "output={a: b}": "output: input should be a path",
    "data=": "data: expected a data source",
    "data=3": "data: expected a data source",
    "data=conl": "data: unknown data source 'conl'; did you mean 'conll'",
    "data={path: x}": "data: expected a data source: a name, or a mapping with the key 'name'",
    "data={name: conll}": "data.path: this key is required",
    "data.path=": "data.path: ",
    "data.path=''": "data.path: ",
    "data.paths=x": "data.paths: unknown key 'paths'; did you mean 'path'",
    "data.types=PER": "data.types: ",
    "data.types=[]": "label set needs one or more",
    "data.types=[PER, PER]": "label set needs one or more different",
    "data.folders=[a]": "data.folders: ",
    "data={name: table}": "data.path: this key is required",
    "data={name: table, path: x, format: xls}": "data.format: input should be 'jsonl', 'csv', 'tsv', 'parquet' or",
    "data={name: table, path: x, columns: {word: a}}": "data.columns.word: unknown key 'word'",
    "data={name: table, path: x, splits: {dev: a}}": "data.splits.dev",
    "data={name: table, path: x, splits: {train: '{lang}.csv'}}": "data.splits: only {task} and {split} may",
    "data={name: table, path: x, separator: '--'}": "data.separator: expected one character",
    "data={name: table, path: x, validation: 1.5}": "data.validation: ",
    "data={name: table, path: x, names: [O, O]}": "data.names: two integers have the same name",
    "data={name: table, path: x, types: {PER: 3}}": "data.types: expected the name of an entity type; found 3",
    "data={name: table, path: x, scheme: BIO}": "data.scheme: input should be 'IOB2', ",
    "data={name: hub}": "data.repository: this key is required",
    "data={name: hub, repository: ''}": "data.repository: ",
    "data={name: hub, repository: a/b, config: '{x}'}": "data.config: only {task} may stand in braces; found {x}",
    "backbone=bert": "backbone: unknown backbone 'bert'",
    "backbone=pretrained": "backbone.path: this key is required",
    "backbone.path=''": "backbone.path: ",
    "backbone.attention=flash": "backbone.attention: input should be 'sdpa' or 'eager'",
    "backbone.dtype=bf16": "backbone.dtype: input should be 'float32', 'bfloat16' or 'float16'",
    "backbone={name: package, package: no_such_package}": "cannot import the package 'no_such_package'",
    "backbone={name: package, package: os, attribute: nothing}": "the package 'os' has no nothing",
    "backbone={name: tiny, transformer: {heads: 3}}": "heads must divide hidden_size",
    "backbone={name: tiny, transformer: {vocab_size: 5000}}": "vocab_size: .*less than or equal to 4096",
    "targets=cc": "targets: ",
    "targets=[]": "targets: ",
    "targets=[3]": "targets.0: .*found 3; put it in quotes",
    "targets=[no]": "targets.0: .*found False; put it in quotes",
    "targets=['']": "targets.0: ",
    "targets=[[cc]]": "targets.0: ",
    "targets=[cc, cc]": "targets: duplicate value in",
    'targets=["c\\nc"]': "targets.0: expected printable characters",
    "targets=[../cc]": "\\.\\./cc",
    "targets=[zz]": "unknown language 'zz'",
    "sources=[]": "sources is empty",
    "sources={aa: bb}": "sources: ",
    "settings=": "settings: ",
    "settings=[plain]": "settings: ",
    "settings={}": "settings: ",
    "settings.plain=adapter": "settings.plain: ",
    "settings.plain={}": "settings.plain.method: this key is required",
    "settings.plain.method=adaptor": "unknown PE method 'adaptor'; did you mean 'adapter'",
    "settings.plain.method=": "settings.plain.method: expected a PE method",
    "settings.plain.method={name: [adapter]}": "settings.plain.method: expected a PE method",
    "settings.plain.method={name: adapter, placement: inside}": "settings.plain.method.placement: ",
    "settings.plain.method={name: lora, targets: [query, heart]}": "'heart', which is neither a part \\(query, ",
    "settings.plain.method={name: lora, targets: [querry]}": "settings.plain.method.targets: .*did you mean 'query'",
    "settings.plain.method={name: lora, targets: [[query]]}": "settings.plain.method.targets.0: ",
    "settings.plain.method={name: lora, targets: []}": "settings.plain.method.targets: ",
    "settings.plain.method={name: compose, methods: [adapter]}": "settings.plain.method.methods: ",
    "settings.plain.method={name: compose, methods: [adapter, adapter]}": "settings.plain.method|pemeta_adapter",
    "settings.plain.method={name: peft, config: {}}": "settings.plain.method.config: ",
    "settings.plain.method={name: peft, config: {peft_type: LORRA}}": "unknown tuner .*did you mean 'LORA'",
    "settings.plain.methods=x": "settings.plain.methods: unknown key 'methods'; did you mean 'method'",
    "settings.plan.method=x": "unknown setting 'plan'; did you mean 'plain'",
    "settings.primed.priming=mamla": "unknown priming algorithm 'mamla'; did you mean 'maml'",
    "settings.primed.priming.primes=[theta_q]": "settings.primed.priming.primes: unknown set of parameters 'theta_q'",
    "settings.primed.priming.primes=[]": "settings.primed.priming.primes: ",
    "settings.primed.priming.primes=theta_a": "settings.primed.priming.primes: ",
    "settings.primed.priming.primes=[encoder.layers.*]": "the pattern 'encoder.layers.*' matches no parameter of θ_p",
    "settings.primed.priming.outer_loss=first": "outer_loss: input should be 'last', 'mean' or 'annealed'",
    "settings.primed.priming.annealing_steps=3": "annealing_steps needs outer_loss: annealed",
    "settings.primed.priming.source_heads=shared": "source_heads: shared needs the outer gradient",
    "settings.primed.priming.inner_rule=adamm": "unknown inner rule 'adamm'; did you mean 'adam'",
    "settings.primed.priming.inner_rule={momentum: 1}": "expected an inner rule: a name",
    "settings.primed.priming={name: reptile, query_size: 4}": "reptile has no outer loss",
    "settings.primed.priming={name: persistent, start: zero}": "start: input should be 'fresh' or 'mean'",
    "settings.primed.priming.inner_method=adaptor": "unknown PE method 'adaptor'",
    "settings.primed.priming.source_heads=new": "source_heads: input should be 'carried', 'fresh', 'zero' or 'shared'",
    "settings.plain.primed_as=nobody": "settings.plain.primed_as: unknown setting 'nobody'",
    "settings.plain.primed_as=plain": "settings.plain.primed_as: setting 'plain' has no priming of its own",
    "settings.primed.primed_as=primed": "primed_as: 'primed' and priming exclude each other",
    "settings.plain.targets=[aa]": "'aa' is not one of the grid's targets",
    "settings.plain.seeds=[7]": "7 is not one of the grid's seeds",
    "settings.plain.search=primed": "setting 'primed' has no candidates of its own",
    "settings.plain.search={lr: [1]}": "'lr': expected a key of this setting below method",
    "settings.plain.search={finetuning.lr: []}": "settings.plain.search",
    "settings.plain.search={finetuning.epoch: [1]}": "finetuning.epoch",
    "seeds=0": "seeds: ",
    "seeds=[]": "seeds: ",
    "seeds=[0, 0]": "seeds: duplicate value in",
    "seeds=[one]": "seeds.0: ",
    "seeds=[0.5]": "seeds.0: ",
    "seeds=[true]": "seeds: .*True",
    "device=warp": "device 'warp' cannot be used here",
    "device=3": "device: ",
    "device=meta": "device 'meta' cannot be used here",
    "precision=fp8": "precision: input should be 'fp32', 'tf32', 'bf16' or 'fp16'",
    "precision=16": "precision: ",
    "scored_on=train": "scored_on: input should be 'test' or 'validation'",
    "source_sizes=100": "source_sizes: ",
    "target_sizes.training=3": "target_sizes.training: unknown key 'training'; did you mean 'train'",
    "priming.inner_lrs=1": "priming.inner_lrs: unknown key 'inner_lrs'; did you mean 'inner_lr'",
    "priming=meta": "priming: expected a mapping of defaults; found 'meta'",
    "finetuning=5": "finetuning: expected a mapping of defaults; found 5",
    "report={tables: 3}": "report.tables: ",
    "report={tables: [{settings: [nobody]}]}": "unknown setting 'nobody'|report.tables",
    "report={figures: [{name: pie}]}": "unknown figure 'pie'",
    "report={comparisons: [{better: plain}]}": "report.comparisons",
    "report={title: [x]}": "report.title: ",
}
for _override, _says in TYPES.items():
    CASES.add(_override, _says, lambda room, override=_override: ("run", room.config, override))

# The edges of every number. Valid edges are in test_unusual_but_right.

WHOLE = ("0", "-1", "1.5", ".nan", ".inf", "many", "''", "true", "[1]", "{}", "100000000000000000000")
REAL = ("-1", ".nan", ".inf", "-.inf", "much", "''", "true", "[0.1]", "{}")
FLAG = ("2", "-1", "0.5", ".nan", "perhaps", "''", "[true]", "{}")
NUMBERS = {
    "finetuning.epochs": WHOLE,
    "finetuning.batch_size": WHOLE,
    "finetuning.lr": ("0", *REAL),
    "finetuning.weight_decay": REAL,
    "finetuning.warmup_steps": WHOLE[1:],
    "finetuning.max_grad_norm": ("0", *REAL),
    "finetuning.dropout": FLAG,
    "finetuning.reuse_trunk": FLAG,
    "settings.primed.priming.outer_steps": WHOLE,
    "settings.primed.priming.outer_lr": ("0", *REAL),
    "settings.primed.priming.support_size": (*WHOLE, "25"),
    "settings.primed.priming.query_size": (*WHOLE, "25"),
    "settings.primed.priming.tasks_per_batch": (*WHOLE, "3"),
    "settings.primed.priming.inner_steps": WHOLE,
    "settings.primed.priming.inner_lr": ("0", *REAL),
    "settings.primed.priming.first_order": FLAG,
    "settings.primed.priming.hybrid": ("1", *REAL),
    "settings.primed.priming.interpolate": ("1.5", *REAL),
    "settings.primed.priming.inner_rule.warmup_steps": WHOLE[1:],
    "settings.primed.priming.inner_rule.max_grad_norm": ("0", *REAL),
    "settings.plain.method.bottleneck": WHOLE,
    "settings.plain.method.init_std": REAL,
    "settings.plain.method.scale": ("0", *REAL),
    "max_length": (*WHOLE, "2", "33"),
    "threads": WHOLE,
    "checkpoint_every": WHOLE,
    "checkpoint_layers": FLAG,
    "save_tasks": FLAG,
    "streaming": FLAG,
    "target_sizes.train": WHOLE,
    "source_sizes.test": WHOLE,
}
for _key, _values in NUMBERS.items():
    for _value in _values:
        CASES.add(
            f"{_key}={_value}",
            # An invalid number is reported with its path; one that does not suit the data, by its name.
            _key.rpartition(".")[2] if _value not in {"25"} else "an episode needs",
            lambda room, override=f"{_key}={_value}": ("run", room.config, override),
        )

LORA = {"rank": WHOLE, "alpha": ("0", *REAL), "dropout": ("1", *REAL), "top_layers": (*WHOLE, "3")}
for _key, _values in LORA.items():
    for _value in _values:
        CASES.add(
            f"lora {_key}={_value}",
            f"{_key}|layers",
            lambda room, method=f"{{name: lora, {_key}: {_value}}}": (
                "validate",
                "--load",
                room.config,
                f"settings.plain.method={method}",
            ),
        )


@CASES.case("bottleneck|memory")
def an_adapter_larger_than_any_memory(room: Room) -> Sequence[object]:
    return ("validate", "--load", room.config, "settings.plain.method={name: adapter, bottleneck: 100000000000000}")


@CASES.case("memory")
def an_adapter_larger_than_any_memory_in_a_run(room: Room) -> Sequence[object]:
    del room.config["settings"]["primed"]
    return ("run", room.config, "settings.plain.method={name: adapter, bottleneck: 100000000000000}")


@CASES.case("a prompt of 1000 do not fit the backbone's 32 positions; shorten the prompt")
def a_prompt_longer_than_the_model(room: Room) -> Sequence[object]:
    return ("run", room.config, "settings.plain.method={name: prompt, length: 1000}")


@CASES.case("a prompt of 8 do not fit the backbone's 32 positions; lower max_length to 24")
def a_prompt_and_a_sentence_longer_than_the_model(room: Room) -> Sequence[object]:
    (room.data() / "cc" / "test.conll").write_text("мет\tO\n" * 40)
    return ("run", room.config, "settings.plain.method={name: prompt, length: 8}")


# The overrides themselves

OVERRIDES = {
    "oops": "expected key=value, such as finetuning.epochs=3; found 'oops'",
    "=3": "expected key=value",
    ".=3": "expected key=value",
    "a..b=3": "expected key=value",
    "finetuning.=3": "expected key=value",
    "finetuning.epochs=[": "the value is not YAML",
    "finetuning.epochs=2000-13-01": "the value is not YAML",
    "finetuning.epochs=!!python/name:os.system": "the value is not YAML",
    "finetuning.epochs=*x": "the value is not YAML",
    "targets.first=x": "targets is \\['cc'\\] and has no keys",
    "max_length.tokens=3": "max_length is 32 and has no keys",
    "finetuning.epochs.x=3": "finetuning.epochs is 2 and has no keys",
}
for _override, _says in OVERRIDES.items():
    CASES.add(f"override {_override}", _says, lambda room, o=_override: ("run", room.config, o))


@CASES.case("nested")
def an_override_with_brackets_without_end(room: Room) -> Sequence[object]:
    return ("run", room.config, "targets=" + "[" * 5000)


@CASES.case("unknown key|too long")
def a_key_of_a_megabyte(room: Room) -> Sequence[object]:
    return ("run", room.write(yaml.safe_dump({**room.config, "k" * 1_000_000: 1})))


@CASES.case("output: input should be a path")
def a_value_of_a_megabyte(room: Room) -> Sequence[object]:
    return ("run", room.write(room.written(output=["x" * 1_000_000])))


@CASES.case("cannot write .*: File name too long")
def an_output_whose_name_is_too_long(room: Room) -> Sequence[object]:
    return ("run", room.config, f"output={'x' * 300}")


@CASES.case("cannot write ")
def an_output_below_a_file(room: Room) -> Sequence[object]:
    return ("run", room.config, f"output={room.write('x', 'file')}/below")
