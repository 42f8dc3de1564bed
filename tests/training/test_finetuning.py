"""Fine-tuning: what moves, which epoch is kept, the cached trunk against the plain path; scores by hand."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_models import TASKS, data, each_method, tiny

from pemeta import FineTuning, HeadOnly, LabelSet, PEModel, Sentence, evaluate, finetune, predict
from pemeta.data.metrics import entity_scores
from pemeta.errors import DataError, TrainingError
from pemeta.training.finetuning_settings import CHUNK
from pemeta.training.hidden_state_cache import with_hidden_states
from pemeta.utils.seeding import derive_seed

TASK, VALIDATION = TASKS[0], data(7)
QUICK = FineTuning(epochs=4, batch_size=5, lr=0.02)


@each_method
def test_only_theta_a_and_the_head_move(method):
    model = tiny(method)
    model.add_head("es", TASKS[1].make_head)
    before = model.state()
    history = finetune(model, TASK, VALIDATION, QUICK, progress=False)
    stored = set(model.stored_names("en"))
    # Gradients of rows of embeddings that no sentence uses are zero, but weight decay moves all of θ_a.
    moved = {n for n, p in model.named_parameters() if n not in before or not torch.equal(p, before[n])}
    assert moved <= stored
    assert {n for n in stored if n.startswith("heads.")} <= moved
    assert len(history.losses) == len(history.validation_scores) == 4
    assert history.losses[-1] < history.losses[0]


def test_the_best_epoch_on_validation_is_kept():
    """With labels that training cannot help, so that the best epoch is not the last."""
    for seed in range(10):
        model = tiny()
        history = finetune(model, TASK, VALIDATION, FineTuning(epochs=6, lr=0.1), seed=seed, progress=False)
        best = max(history.validation_scores)
        assert history.best_epoch == 1 + history.validation_scores.index(best)
        assert evaluate(model, VALIDATION, "en").f1 == best
        if history.best_epoch < 6 and history.validation_scores[-1] != best:
            return
    pytest.fail("no seed in which the last epoch is not the best; choose other data")


@each_method
def test_the_cached_trunk_changes_nothing(method, monkeypatch):
    fast, slow = tiny(method), tiny(method)
    passes = []
    lowest = [model.backbone.encoder.layer[0] for model in (fast, slow)]
    lowest[0].register_forward_pre_hook(lambda *_: passes.append("fast"))
    lowest[1].register_forward_pre_hook(lambda *_: passes.append("slow"))
    first = fast.first_layer()
    histories = [finetune(fast, TASK, VALIDATION, QUICK, progress=False)]
    monkeypatch.setattr(PEModel, "unchanging", lambda *_: None)
    histories.append(finetune(slow, TASK, VALIDATION, QUICK, progress=False))
    assert passes.count("slow") == 4 * (3 + 1)
    compared = 5  # four examples of other lengths, each by itself and as one batch
    assert passes.count("fast") == (2 + compared if method.output_only or first else 4 * (3 + 1))
    for (name, a), b in zip(fast.named_parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10, msg=name)
    assert histories[0].validation_scores == histories[1].validation_scores


def test_dropout_is_off_or_on_as_the_settings_say_and_never_cached_away():
    model = tiny(dropout=0.5)
    modes = []
    model.backbone.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    finetune(model, TASK, VALIDATION, QUICK, progress=False)
    assert not any(modes)
    modes.clear()
    finetune(model, TASK, VALIDATION, QUICK.model_copy(update={"dropout": True}), progress=False)
    assert modes.count(True) == 4 * 3


def test_the_trunk_of_another_backbone_is_not_used():
    """Hidden states that came with the data are computed anew."""
    stale = dataclasses.replace(TASK, train=with_hidden_states(tiny(HeadOnly()), TASK.train))
    states = []
    for task in (TASK, stale):
        model = tiny()
        with torch.no_grad():
            model.backbone.embeddings.word_embeddings.weight.mul_(2)
        finetune(model, task, VALIDATION, QUICK, progress=False)
        states.append(model.state(model.stored_names("en")))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_modes_are_as_they_were_whatever_happens(monkeypatch):
    model = tiny().train()
    model.backbone.eval()
    model.add_head("en", TASK.make_head)
    modes = {name: part.training for name, part in model.named_modules()}
    predict(model, VALIDATION, "en")
    finetune(model, TASK, VALIDATION, QUICK, progress=False)
    assert {name: part.training for name, part in model.named_modules()} == modes
    before = model.state(model.partition().theta_a)
    monkeypatch.setattr("pemeta.training.finetuning.evaluate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        finetune(model, TASK, VALIDATION, QUICK, progress=False)
    assert {name: part.training for name, part in model.named_modules()} == modes
    assert all(torch.equal(model.get_parameter(name), value) for name, value in before.items())


def test_labels_that_differ_are_refused():
    other = dataclasses.replace(VALIDATION, labels=LabelSet(("ORG",)))
    with pytest.raises(DataError, match="is trained on the labels O, B-PER, I-PER and validated on O, B-ORG, I-ORG"):
        finetune(tiny(), TASK, other, QUICK, progress=False)
    model = tiny()
    model.add_head("en", TASK.make_head)
    wider = dataclasses.replace(VALIDATION, labels=LabelSet(("PER", "ORG")))
    with pytest.raises(DataError, match="the head of task 'en' has 3 labels, but the data has 5"):
        evaluate(model, wider, "en")
    with pytest.raises(DataError, match="has the labels O, B-PER, I-PER, but the data O, B-ORG, I-ORG; encode it with"):
        evaluate(model, other, "en")


def batches_of(train, settings, *labels):
    return [batch.tolist() for batch in settings.batches(train, *labels)]


def padding(train, batches):
    """Positions of padding in all batches."""
    lengths = [[train.length(i) for i in batch] for batch in batches]
    return sum(len(batch) * max(batch) - sum(batch) for batch in lengths)


@pytest.mark.parametrize("bucket", [False, True])
@pytest.mark.parametrize(("size", "batch_size"), [(400, 3), (400, 16), (7, 16), (16, 16), (17, 16), (1, 1)])
def test_every_example_is_in_one_batch_of_an_epoch(bucket, size, batch_size):
    train = data(0, size=size)
    settings = FineTuning(batch_size=batch_size, bucket_by_length=bucket)
    batches = batches_of(train, settings, 0, "en", 1)
    assert sorted(i for batch in batches for i in batch) == list(range(size))
    assert len(batches) == -(-size // batch_size)
    assert sorted(map(len, batches))[1:] == [batch_size] * (len(batches) - 1)


def test_buckets_are_random_but_fixed_by_seed_task_and_epoch_and_save_padding():
    train, settings = data(0, size=400), FineTuning(batch_size=4, bucket_by_length=True)
    drawn = [(0, "en", 0), (0, "en", 1), (1, "en", 0), (0, "es", 0)]
    found = [batches_of(train, settings, *labels) for labels in drawn]
    assert found[0] == batches_of(train, settings, *drawn[0])
    for i, other in enumerate(found[1:], 1):
        assert found[0] != other
        # Other examples stand together, and not only the batches in another order.
        assert not {tuple(sorted(b)) for b in found[0]} & {tuple(sorted(b)) for b in other}, i
    plain = batches_of(train, FineTuning(batch_size=4), *drawn[0])
    assert padding(train, found[0]) < padding(train, plain) / 10
    longest = [max(map(train.length, batch)) for batch in found[0]]
    assert longest[:CHUNK] != sorted(longest[:CHUNK])  # it does not go from short to long, chunk after chunk


def test_without_buckets_the_order_is_a_permutation_cut_into_batches():
    train = data(0, size=11)
    order = np.random.default_rng(derive_seed(3, "epoch", "en", 2)).permutation(11).tolist()
    settings = FineTuning(batch_size=4)
    assert batches_of(train, settings, 3, "en", 2) == [order[:4], order[4:8], order[8:]]


@each_method
def test_fine_tuning_in_buckets(method):
    settings = QUICK.model_copy(update={"bucket_by_length": True})
    found = []
    for chosen in (settings, settings, QUICK):
        model = tiny(method)
        history = finetune(model, TASK, VALIDATION, chosen, progress=False)
        assert history.losses[-1] < history.losses[0]
        found.append(history.losses)
    assert found[0] == found[1] != found[2]


def test_a_seed_fixes_everything():
    states = []
    for seed, noise in ((3, 1), (3, 2), (4, 1)):
        torch.rand(noise)
        model = tiny()
        finetune(model, TASK, VALIDATION, FineTuning(epochs=2, batch_size=5, dropout=True), seed=seed, progress=False)
        states.append(model.state(model.stored_names("en")))
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    assert not all(torch.equal(states[0][n], states[2][n]) for n in states[0])


def test_a_fresh_head_replaces_the_old_one():
    model = tiny()
    finetune(model, TASK, VALIDATION, QUICK, progress=False)
    first = model.head("en")
    finetune(model, TASK, VALIDATION, QUICK, progress=False)
    assert model.head("en") is not first


def test_no_sentences_and_losses_that_are_not_finite():
    empty = data(0, size=0)
    with pytest.raises(DataError, match="task 'en' has no validation sentence"):
        finetune(tiny(), TASK, empty, QUICK, progress=False)
    with pytest.raises(DataError, match="task 'en' has no training sentence"):
        finetune(tiny(), dataclasses.replace(TASK, train=empty), VALIDATION, QUICK, progress=False)
    model = tiny()
    with torch.no_grad():
        model.backbone.embeddings.word_embeddings.weight.fill_(torch.nan)
    with pytest.raises(TrainingError, match=r"fine-tuning en, epoch 1: the loss is nan; lower lr \(now 0.02\)"):
        finetune(model, TASK, VALIDATION, QUICK, progress=False)


def test_a_batch_without_a_label_has_no_loss_and_others_the_mean():
    head = TASK.make_head(8).double()
    logits = torch.randn(2, 3, 3).double().requires_grad_()
    labels = torch.tensor([[-100, 1, 2], [0, -100, -100]])
    loss = head.loss(logits, {"labels": labels})
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()))
    with pytest.raises(DataError, match="no position or example of the batch has a label"):
        head.loss(logits, {"labels": torch.full((2, 3), -100)})
    assert head.loss(logits.detach(), {"labels": torch.full((2, 3), -100)}).item() == 0.0


def test_predictions_are_one_tag_per_word_and_o_where_a_word_was_cut():
    encoded = data(7)
    encoded = dataclasses.replace(
        encoded, sentences=[Sentence(s.words, ("O",) * len(s.words)) for s in encoded.sentences]
    )
    words = len(encoded.sentences[0].words)
    longer = Sentence(("w",) * (words + 2), ("B-PER",) + ("O",) * words + ("B-PER",))
    encoded = dataclasses.replace(encoded, sentences=[longer, *encoded.sentences[1:]])
    model = tiny()
    model.add_head("en", TASK.make_head)
    with torch.no_grad():
        model.head("en").classifier.bias[1] = 100.0  # B-PER everywhere
    tags = predict(model, encoded, "en", batch_size=5)
    assert [len(t) for t in tags] == [len(s.words) for s in encoded.sentences]
    assert tags[0] == ["B-PER"] * words + ["O", "O"]
    # Found: one entity per kept word; right: the first; gold: the first and the one that was cut.
    found = sum(len(s.words) for s in encoded.sentences) - 2
    scores = evaluate(model, encoded, "en")
    assert (scores.precision, scores.recall) == (pytest.approx(1 / found), pytest.approx(1 / 2))


def test_scores_by_hand():
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "O", "O"], ["O", "B-LOC", "B-LOC"]]
    guess = [["B-PER", "I-PER", "O", "B-ORG"], ["I-ORG", "O", "B-PER"], ["O", "B-LOC", "I-LOC"]]
    # Gold 5 entities, found 5 (a lone I-ORG starts one); right: the PER and the ORG of sentence 2.
    scores = entity_scores(gold, guess, ["PER", "ORG", "LOC", "MISC"])
    assert (scores.precision, scores.recall, scores.f1) == (0.4, 0.4, pytest.approx(0.4))
    assert scores.f1_per_type == {
        "PER": pytest.approx(2 * 0.5 * 1 / 1.5),
        "ORG": pytest.approx(2 * 0.5 * 1 / 1.5),
        "LOC": 0.0,
        "MISC": 0.0,
    }


def test_scores_where_there_is_nothing():
    assert entity_scores([["O"]], [["O"]], ["PER"]).f1 == 0.0
    assert entity_scores([], [], ["PER"]).f1_per_type == {"PER": 0.0}
    assert entity_scores([["B-PER"]], [["O"]], ["PER"]).f1 == 0.0
