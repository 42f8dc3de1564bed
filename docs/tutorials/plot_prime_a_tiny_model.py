# ruff: noqa: E402 - each section imports what it introduces
"""
Prime a tiny model
==================

We pretrain a tiny Transformer, prime it on two source languages, and fine-tune an adapter on a third language:
once without priming and once with it. Everything here ran when this page was built, on the *synthetic world*, a
family of made-up languages with named entities; nothing is downloaded.
"""

# %%
# A pretrained backbone
# ---------------------
# ``SyntheticWorld`` gives each language a corpus for named-entity recognition, with persons, organisations and
# places, and unlabelled text. Two of its languages are our sources, a third is our target.

from pemeta import SyntheticWorld

SOURCES, TARGET = ("aru", "bex"), "cim"
world = SyntheticWorld(languages=(*SOURCES, TARGET))
for language in world.languages:
    sentence = world.corpus(language).train[0]
    pairs = zip(sentence.words, sentence.tags, strict=True)
    tagged = [word if tag == "O" else f"{word}/{tag}" for word, tag in pairs]
    print(f"{language}:", *tagged[:8])

# %%
# The backbone is a BERT-shaped encoder with its tokenizer, pretrained by masked language modelling on the
# unlabelled text of all three languages. For a real encoder, write ``PEModel.from_pretrained(name, method)``
# below and take the tokenizer from transformers' ``AutoTokenizer``.

from pemeta import TinyTransformer, pretrain

text = [words for language in world.languages for words in world.text(language)]
backbone, tokenizer = pretrain(text, TinyTransformer(steps=500), progress=False)

# %%
# Tasks
# -----
# A ``Task`` is a name, training sentences as tokens, and how to make a head for them.

from pemeta import Task, encode


def encoded(language, split):
    corpus = world.corpus(language)
    return encode(corpus.split(split), corpus.labels, tokenizer)


def task(language):
    return Task.token_classification(language, encoded(language, "train"))


sources, target = [task(language) for language in SOURCES], task(TARGET)
validation, test = encoded(TARGET, "validation"), encoded(TARGET, "test")

# %%
# Without priming
# ---------------
# ``PEModel`` attaches a method to the backbone, here an adapter after its last layer. ``finetune`` gives the
# target a new head and changes the adapter (:math:`\theta_a`) and the head (:math:`\theta_h`); the backbone
# (:math:`\theta_p`) is frozen. ``PEModel`` changes the backbone that it is given, so we give it a copy.

import copy

from pemeta import Adapter, FineTuning, PEModel, evaluate, finetune

method = Adapter(bottleneck=32)
settings = FineTuning(epochs=10, lr=3e-3)

unprimed = PEModel(copy.deepcopy(backbone), method)
unprimed_history = finetune(unprimed, target, validation, settings, progress=False)
unprimed_scores = evaluate(unprimed, test, TARGET)
print(f"F1 without priming: {100 * unprimed_scores.f1:.1f}")
stored, share = unprimed.num_stored(TARGET), unprimed.fraction_stored(TARGET)
print(f"the target stores {stored} parameters, {share:.2%} of all")

# %%
# Priming
# -------
# ``prime`` runs Algorithm 1 on the source tasks (see :doc:`/concepts/priming`). For each of them an outer step draws
# an episode, adapts a clone's :math:`\theta_a` and :math:`\theta_h` on the support set in ``inner_steps`` steps, and
# takes the gradient of the query loss for :math:`\theta_a` and :math:`\theta_p`. ``MetaPriming()`` has the paper's
# settings; a model this small takes a higher outer learning rate, and fewer steps.

from pemeta import MetaPriming, prime

algorithm = MetaPriming(outer_steps=100, outer_lr=1e-3)
primed = PEModel(copy.deepcopy(backbone), method)
priming_history = prime(primed, sources, algorithm, progress=False)
first, *_, last = (step.outer for step in priming_history.losses)
print(f"{priming_history.sentences} sentences in {priming_history.seconds:.0f} s")
print(f"query loss {first:.3f} at the first outer step, {last:.3f} at the last")

# %%
# With priming
# ------------
# Fine-tuning is the same as before and starts from other values of :math:`\theta_p` and :math:`\theta_a`. The
# target's head is new, and with the same seed it is the same new head.

primed_history = finetune(primed, target, validation, settings, progress=False)
primed_scores = evaluate(primed, test, TARGET)
for name, scores in (("without", unprimed_scores), ("with", primed_scores)):
    by_type = [f"{kind} {100 * f1:.1f}" for kind, f1 in scores.f1_per_type.items()]
    print(f"F1 {name:>7} priming: {100 * scores.f1:.1f}; {', '.join(by_type)}")
print(f"the target stores {primed.num_stored(TARGET)} parameters")

# %%
# The validation F1 after each epoch shows where each of the two starts and where it ends. One seed on one target
# is a demonstration and no measurement; ``pemeta run`` does many of both and reports standard errors.

import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
epochs = range(1, settings.epochs + 1)
for name, history in (("with", primed_history), ("without", unprimed_history)):
    f1 = [100 * value for value in history.validation_scores]
    axes.plot(epochs, f1, marker="o", label=f"{name} priming")
axes.set(xlabel="fine-tuning epoch", ylabel="validation F1 (%)")
axes.set_title(f"Adapter on {TARGET}")
axes.set_ylim(bottom=0)
axes.legend()
plt.show()
