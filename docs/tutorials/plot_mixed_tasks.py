# ruff: noqa: E402 - each section imports what it introduces
"""
Prime on tasks of different kinds
=================================

One priming run may mix tasks of different kinds, label sets and losses: the paper's set :math:`\\mathbb{L}`. We prime a
tiny GPT-2 on named-entity recognition, text classification and causal language modelling together, and then fine-tune
an adapter on a new task of each kind. Everything here ran when this page was built, on the *synthetic world*;
nothing is downloaded.
"""

# %%
# A backbone that sees only what came before
# ------------------------------------------
# Token and sequence classification work on any encoder. Causal language modelling needs a backbone that does not see
# the token that it is to predict, so all three kinds stand on a GPT-2 here. We pretrain it ourselves, and pemeta can
# do that too: it is the fine-tuning of all parameters (``Full``) on a language-modelling task.
#
# ``encode_language_model`` puts texts one after the other and cuts them into blocks of tokens.

import torch
from transformers import GPT2Config, GPT2Model

from pemeta import FineTuning, Full, PEModel, SyntheticWorld, Task, encode_language_model, evaluate, finetune
from pemeta.training.pretraining import TinyTransformer, train_tokenizer

SOURCES, TARGET = ("aru", "bex"), "cim"
world = SyntheticWorld(languages=(*SOURCES, TARGET), train=300, text_sentences=1000)
text = [words for language in world.languages for words in world.text(language)]
tokenizer = train_tokenizer(text, TinyTransformer(vocab_size=600))
tokenizer.eos_token = "[SEP]"  # stands behind each text


def blocks(sentences):
    return encode_language_model([" ".join(words) for words in sentences], tokenizer, block_length=32)


config = GPT2Config(
    vocab_size=len(tokenizer),
    n_embd=64,
    n_layer=2,
    n_head=4,
    n_positions=64,
    initializer_range=0.05,
    bos_token_id=tokenizer.eos_token_id,
    eos_token_id=tokenizer.eos_token_id,
)
pretraining = Task.causal_lm("pretraining", blocks(text[:-100]))
held_out = blocks(text[-100:])
torch.manual_seed(0)
model = PEModel(GPT2Model(config), Full())
history = finetune(model, pretraining, held_out, FineTuning(epochs=6, lr=3e-3), progress=False)
backbone = model.backbone
print(f"{len(pretraining.train)} blocks, {history.seconds:.0f} s")
print(
    f"perplexity of held-out text: {evaluate(model, held_out, 'pretraining').perplexity:.1f} of {len(tokenizer)} tokens"
)

# %%
# Three kinds of tasks
# --------------------
# In each language we ask for the *names* in a sentence (a tag for each word), for its *topic* (which type of entity
# it is about, where there is only one: a class for each sentence), and for its *text* (each token from those before
# it). ``encode``, ``encode_texts`` and ``encode_language_model`` make the examples; ``Task`` adds the head and its
# loss.

from pemeta import encode, encode_texts

TYPES = ("PER", "ORG", "LOC")


def names(language, split):
    corpus = world.corpus(language)
    return encode(corpus.split(split), corpus.labels, tokenizer)


def topic(language, split):
    found = [
        (" ".join(s.words), {tag[2:] for tag in s.tags if tag != "O"}) for s in world.corpus(language).split(split)
    ]
    texts, topics = zip(*[(text, *types) for text, types in found if len(types) == 1], strict=True)
    return encode_texts(texts, topics, TYPES, tokenizer)


def running(language, split):
    return blocks([s.words for s in world.corpus(language).split(split)])


def tasks_in(language):
    return [
        Task.token_classification(f"names-{language}", names(language, "train")),
        Task.sequence_classification(f"topic-{language}", topic(language, "train"), pooling="mean"),
        Task.causal_lm(f"text-{language}", running(language, "train")),
    ]


sources = [task for language in SOURCES for task in tasks_in(language)]
for task in sources[:3]:
    print(f"{task.name}: {len(task.train)} {task.train.unit}s, {len(task.train.outputs)} outputs, {task.make_head!r}")

# %%
# Priming on all of them
# ----------------------
# The inner loop adapts the adapter and each task's own head by the task's own loss; the outer loop sums the query
# losses' gradients. The language model's output matrix is the backbone's word embedding, shared by all tasks, so its
# head is no more than a bias. Afterwards each task has the head that it adapted last.

import copy

from pemeta import Adapter, MetaPriming, prime

method = Adapter(bottleneck=16)
primed = PEModel(copy.deepcopy(backbone), method)
algorithm = MetaPriming(outer_steps=60, outer_lr=1e-3, support_size=8, query_size=8)
history = prime(primed, sources, algorithm, progress=False)
print(f"{history.sentences} examples in {history.seconds:.0f} s")
print(
    f"mean query loss {history.losses[0].outer:.2f} at the first outer step, {history.losses[-1].outer:.2f} at the last"
)
for name in primed.tasks[:3]:
    sizes = {part: tuple(value.shape) for part, value in primed.head(name).named_parameters()}
    print(f"{name}: {type(primed.head(name)).__name__} {sizes}")

# %%
# A new task of each kind
# -----------------------
# The third language's tasks are fine-tuned one by one, each from the same pretrained or primed values. What decides
# which epoch is kept is F1 of entities, accuracy, or the loss per token.

settings = FineTuning(epochs=8, lr=3e-3)
start_of = {"pretrained": PEModel(copy.deepcopy(backbone), method), "primed": primed}
kinds = [(names, "f1"), (topic, "accuracy"), (running, "perplexity")]
kept = {}
for task, (data, metric) in zip(tasks_in(TARGET), kinds, strict=True):
    test = data(TARGET, "test")
    for start, model in start_of.items():
        model = copy.deepcopy(model)
        model.add_head(task.name, task.make_head)
        before = getattr(evaluate(model, test, task.name), metric)
        finetune(model, task, data(TARGET, "validation"), settings, progress=False)
        after = getattr(evaluate(model, test, task.name), metric)
        print(f"{task.name}, {start:10}: {metric} {before:.3f} with a new head, {after:.3f} after fine-tuning")
        kept[task.name] = model
    print(f"{task.name} stores {model.num_stored(task.name)} parameters")

# %%
# F1 and accuracy are better when higher, perplexity when lower. In this run topics gain from priming, names gain
# little, and the language model loses: pretraining had seen the target's text already, and the outer loop moves the
# model towards the text of the other two languages, as the perplexity with a new head shows. One seed on one target
# is a demonstration and no measurement.
#
# ``predict`` gives for each example what its kind has to say: tags, a class, or the log-probability of each token after
# the first.

from pemeta import predict

sentence = names(TARGET, "test").sentences[0]
print("words:", *sentence.words)
print("tags:", *predict(kept[f"names-{TARGET}"], names(TARGET, "test"), f"names-{TARGET}")[0])
examples = topic(TARGET, "test")
print("classes:", *predict(kept[f"topic-{TARGET}"], examples, f"topic-{TARGET}")[:8])
print("gold:   ", *examples.labels[:8])
examples = running(TARGET, "test")
print("log-probabilities:", *(f"{p:.1f}" for p in predict(kept[f"text-{TARGET}"], examples, f"text-{TARGET}")[0][:8]))

# %%
# A head of another kind
# ----------------------
# A head that cannot stand on a backbone says so when it is added, not by a loss that means nothing:

from transformers import BertConfig, BertModel

config = BertConfig(vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=1, num_attention_heads=4)
bert = BertModel(config, add_pooling_layer=False)
try:
    PEModel(bert, method).add_head("text", sources[2].make_head)
except ValueError as error:
    print(error)
