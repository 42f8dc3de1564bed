"""The losses of sequence classification for several labels, numbers and weighted classes: torch's and transformers'."""

import pytest
import torch
from tiny_tasks import CLASSES, pieces, tiny_gpt2
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification

from pemeta import EncodedTexts, HeadOnly, PEModel, SequenceClassification, Task, evaluate, predict
from pemeta.errors import ConfigError, DataError
from pemeta.heads import SequenceClassificationHead

LABELS = {
    "single_label": torch.tensor([2, 0, 2, 1]),
    "multi_label": torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]]),
    "regression": torch.tensor([[0.5], [-1.0], [3.0], [-100.0]]),
}
WEIGHTS = (0.5, 2.0, 3.0)


def logits(problem: str) -> torch.Tensor:
    made = torch.randn(LABELS[problem].numel() if problem != "single_label" else 12, dtype=torch.float64)
    return made.view(4, -1).requires_grad_()


@pytest.mark.parametrize("problem", LABELS)
def test_losses_are_those_of_transformers(problem):
    torch.manual_seed(0)
    kind = {"single_label": "single_label_classification", "multi_label": "multi_label_classification"}
    config = BertConfig(
        vocab_size=30,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        num_labels=1 if problem == "regression" else 3,
        problem_type=kind.get(problem, problem),
    )
    theirs = BertForSequenceClassification(config).eval().double()
    head = SequenceClassificationHead(8, config.num_labels, problem=problem)
    labels = LABELS[problem].double() if problem != "single_label" else LABELS[problem]
    output = theirs(torch.randint(0, 30, (4, 5)), labels=labels)
    assert head.loss(output.logits, {"labels": LABELS[problem]}).item() == pytest.approx(output.loss.item(), abs=1e-12)


@pytest.mark.parametrize("problem", ["single_label", "multi_label"])
def test_weights_count_as_in_torch(problem):
    torch.manual_seed(0)
    head = SequenceClassificationHead(8, 3, problem=problem, class_weights=WEIGHTS)
    given, labels, weights = logits(problem), LABELS[problem], torch.tensor(WEIGHTS).double()
    if problem == "single_label":
        expected = F.cross_entropy(given, labels, weight=weights)
    else:
        expected = F.binary_cross_entropy_with_logits(given, labels.double(), pos_weight=weights)
    found = head.loss(given, {"labels": labels})
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    for one, other in zip(*(torch.autograd.grad(loss, given) for loss in (found, expected)), strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_unlabelled_texts_do_not_count_in_a_weighted_mean():
    head = SequenceClassificationHead(8, 3, class_weights=WEIGHTS)
    given, labels = logits("single_label"), torch.tensor([2, -100, 1, -100])
    expected = F.cross_entropy(given[[0, 2]], labels[[0, 2]], weight=torch.tensor(WEIGHTS).double())
    assert head.loss(given, {"labels": labels}).item() == pytest.approx(expected.item(), abs=1e-12)
    assert head.loss(given.detach(), {"labels": torch.full((4,), -100)}).item() == 0
    with pytest.raises(DataError, match="all are -100"):
        head.loss(given, {"labels": torch.full((4,), -100)})


def test_weights_are_no_parameters_and_are_not_saved():
    head = SequenceClassificationHead(8, 3, class_weights=WEIGHTS)
    assert head.state_dict().keys() == SequenceClassificationHead(8, 3).state_dict().keys()
    assert SequenceClassificationHead(8, 3, bias=False).state_dict().keys() == {"classifier.weight"}


def encoded(problem: str, seed: int = 1) -> EncodedTexts:
    generator = torch.Generator().manual_seed(seed)
    ids = pieces(seed)
    draws = torch.rand(len(ids), len(CLASSES), generator=generator)
    if problem == "regression":
        return EncodedTexts(("stars",), tuple(map(float, draws[:, 0])), ids, None, 0, 0, problem=problem)
    several = tuple(tuple(name for name, x in zip(CLASSES, row, strict=True) if x > 0.5) for row in draws)
    single = tuple(CLASSES[int(row.argmax())] for row in draws)
    return EncodedTexts(CLASSES, single if problem == "single_label" else several, ids, None, 0, 0, problem=problem)


@pytest.mark.parametrize("problem", LABELS)
def test_predictions_come_in_terms_of_the_data(problem):
    data = encoded(problem)
    model = tiny_gpt2(HeadOnly(), dropout=0.0).eval()
    task = Task.sequence_classification("text", data, class_weights=None)
    assert task.make_head.problem == problem
    model.add_head("text", task.make_head)
    found = predict(model, data, "text")
    with torch.no_grad():
        values = model(data.batch(range(len(data))), "text")
    if problem == "single_label":
        assert found == [CLASSES[i] for i in values.argmax(1)]
    elif problem == "multi_label":
        chosen = values.sigmoid() > 0.5
        assert found == [tuple(c for c, x in zip(CLASSES, row, strict=True) if x) for row in chosen]
        assert evaluate(model, data, "text").micro_f1 == data.scores(found).micro_f1
    else:
        assert found == pytest.approx(values[:, 0].tolist())
        expected = F.mse_loss(values[:, 0], torch.tensor(data.labels).double()).item()
        assert evaluate(model, data, "text").mse == pytest.approx(expected)


def test_a_task_weighs_its_classes():
    data = encoded("single_label")
    spec = Task.sequence_classification("text", data, class_weights="balanced").make_head
    counts = [data.labels.count(name) for name in CLASSES]
    assert spec.class_weights == pytest.approx([len(data) / (3 * count) for count in counts])
    assert SequenceClassification.parse(spec.to_config()) == spec


def test_refusals():
    with pytest.raises(ConfigError, match="class_weights are for classes, and regression has none"):
        SequenceClassification(labels=("stars",), problem="regression", class_weights=(1.0,))
    with pytest.raises(ConfigError, match="class_weights must be a number above 0 for each of the 3 classes; found"):
        SequenceClassification(labels=CLASSES, class_weights=(1.0, 2.0))
    with pytest.raises(ConfigError, match="unknown problem 'multilabel'"):
        SequenceClassificationHead(8, 3, problem="multilabel")
    with pytest.raises(ConfigError, match="a head needs 3 weights as numbers; found 'balanced'"):
        SequenceClassificationHead(8, 3, class_weights="balanced")
    head = SequenceClassificationHead(8, 3, problem="multi_label")
    with pytest.raises(DataError, match=r"multi_label needs a number for each of the \(4, 3\) logits; found labels of"):
        head.loss(torch.zeros(4, 3), {"labels": LABELS["single_label"]})


def test_a_head_for_another_problem_is_refused():
    model: PEModel = tiny_gpt2(HeadOnly(), dropout=0.0)
    model.add_head("text", Task.sequence_classification("text", encoded("single_label")).make_head)
    with pytest.raises(DataError, match="the head of task 'text' is for single_label, but the data is multi_label"):
        predict(model, encoded("multi_label"), "text")
    assert isinstance(model.head("text"), nn.Module)
