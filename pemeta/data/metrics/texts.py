"""Metrics of predicted texts."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from pemeta.data.metrics.base import Floats, Form, Metric, Outcomes, check_pairs, ratio
from pemeta.errors import ConfigError, DataError, excerpt


class ExactMatch(Metric):
    r"""The share of texts that are equal to the right one, or to one of several.

    Texts are compared in Unicode's form NFC, by default without white space at their ends and with each run of it as
    one space, and with the case of letters.

    Attributes:
        ignore_case: whether upper and lower case are the same (our choice: they differ).
        ignore_space: whether runs of white space count as one space, and none at the ends (our choice). Otherwise texts
            are equal to the last character.

    >>> ExactMatch().score(["(A)", "True"], [" (A)\n", "true"])
    0.5
    >>> ExactMatch(ignore_case=True).score([["yes", "true"]], ["True"])
    1.0
    """

    name: ClassVar[str] = "exact_match"
    label: ClassVar[str] = "exact match"
    description: ClassVar[str] = "the share of texts equal to the right one"
    forms: ClassVar[tuple[Form, ...]] = ("class", "text")

    ignore_case: bool = False
    ignore_space: bool = True

    def outcomes(self, gold: Sequence[Any], predicted: Sequence[Any], outputs: Sequence[object]) -> Outcomes:
        """Whether each text is ``correct``, as 0 or 1."""
        pairs = _texts(gold, predicted)
        return {"correct": [int(self._plain(p) in map(self._plain, right)) for right, p in pairs]}

    def value(self, outcomes: Mapping[str, Floats], weights: Floats) -> Floats:  # noqa: D102 - inherited
        return ratio(weights @ outcomes["correct"], weights.sum(1))

    def _plain(self, text: str) -> str:
        text = unicodedata.normalize("NFC", text)
        text = " ".join(text.split()) if self.ignore_space else text
        return text.casefold() if self.ignore_case else text


class _Rouge(Metric):
    """ROUGE F1 of each text by the package rouge-score, and its mean over texts (Lin, 2004).

    The package reads the letters a to z and digits alone; other scripts have no words for it, so use chrF for them.
    Of several right texts, the one that is most alike counts.

    Attributes:
        stemmer: whether words are compared by their stems (Porter's, for English); false, as the package.
    """

    forms: ClassVar[tuple[Form, ...]] = ("text",)

    stemmer: bool = False

    def outcomes(self, gold: Sequence[Any], predicted: Sequence[Any], outputs: Sequence[object]) -> Outcomes:
        """The ``f1`` of each text."""
        self.require()
        scorer = _package("rouge_score.rouge_scorer").RougeScorer([self.name], use_stemmer=self.stemmer)
        pairs = _texts(gold, predicted)
        return {"f1": [float(scorer.score_multi(right, text)[self.name].fmeasure) for right, text in pairs]}

    def value(self, outcomes: Mapping[str, Floats], weights: Floats) -> Floats:
        return ratio(weights @ outcomes["f1"], weights.sum(1))

    def require(self) -> None:
        _package("rouge_score.rouge_scorer")


class Rouge1(_Rouge):
    """ROUGE-1: F1 of words. Requires ``pip install 'pemeta[texts]'``.

    Attributes:
        stemmer: whether words are compared by their stems (Porter's, for English); false, as the package.
    """

    name: ClassVar[str] = "rouge1"
    label: ClassVar[str] = "ROUGE-1"
    description: ClassVar[str] = "mean ROUGE-1 F1 by rouge-score"


class Rouge2(_Rouge):
    """ROUGE-2: F1 of pairs of words. Requires ``pip install 'pemeta[texts]'``.

    Attributes:
        stemmer: as in ``rouge1``.
    """

    name: ClassVar[str] = "rouge2"
    label: ClassVar[str] = "ROUGE-2"
    description: ClassVar[str] = "mean ROUGE-2 F1 by rouge-score"


class RougeL(_Rouge):
    """ROUGE-L: F1 of the longest common subsequence of words. Requires ``pip install 'pemeta[texts]'``.

    Attributes:
        stemmer: as in ``rouge1``.
    """

    name: ClassVar[str] = "rougeL"
    label: ClassVar[str] = "ROUGE-L"
    description: ClassVar[str] = "mean ROUGE-L F1 by rouge-score"


class _Summed(Metric):
    """A metric of sacrebleu for a whole corpus, from counts that are summed over its texts."""

    forms: ClassVar[tuple[Form, ...]] = ("text",)

    def outcomes(self, gold: Sequence[Any], predicted: Sequence[Any], outputs: Sequence[object]) -> Outcomes:
        """The counts of each text that sacrebleu sums, by their place."""
        pairs = _texts(gold, predicted)
        most = max((len(right) for right, _ in pairs), default=1)
        # sacrebleu takes a list of first references, one of second ones and so on, None where a text has fewer.
        streams = [[right[i] if i < len(right) else None for right, _ in pairs] for i in range(most)]
        # What its own tests of significance resample; its public functions have no counts, or only those of BLEU.
        rows = self._scorer()._extract_corpus_statistics([text for _, text in pairs], streams) if pairs else []
        return {str(place): list(column) for place, column in enumerate(zip(*rows, strict=True))}

    def value(self, outcomes: Mapping[str, Floats], weights: Floats) -> Floats:
        if not outcomes:
            return np.zeros(len(weights))
        columns = np.stack([outcomes[str(place)] for place in range(len(outcomes))], axis=1)
        score = self._scorer()._compute_score_from_stats
        return np.array([score(np.rint(row).astype(int).tolist()).score / 100 for row in weights @ columns])

    def require(self) -> None:
        _package("sacrebleu")

    def _scorer(self) -> Any:
        """The metric of sacrebleu with these settings."""
        raise NotImplementedError


class Bleu(_Summed):
    """BLEU of the whole corpus by sacrebleu, as a fraction (Papineni et al., 2002). Requires ``pemeta[texts]``.

    Attributes:
        lowercase: whether case is ignored; false, as sacrebleu.
        tokenize: sacrebleu's tokenizer; ``13a``, its default, or such as ``intl``, ``zh``, ``char`` or ``none``.
    """

    name: ClassVar[str] = "bleu"
    label: ClassVar[str] = "BLEU"
    description: ClassVar[str] = "BLEU of all texts by sacrebleu"

    lowercase: bool = False
    tokenize: str = "13a"

    def require(self) -> None:
        """Refuse where sacrebleu is missing, or has no such tokenizer."""
        known = _package("sacrebleu").BLEU.TOKENIZERS
        if self.tokenize not in known:
            raise ConfigError(f"sacrebleu has no tokenizer {excerpt(self.tokenize)}; use one of {', '.join(known)}")

    def _scorer(self) -> Any:
        self.require()
        return _package("sacrebleu").BLEU(lowercase=self.lowercase, tokenize=self.tokenize)


class ChrF(_Summed):
    """chrF of the whole corpus by sacrebleu, as a fraction: F2 of runs of 1 to 6 characters (Popović, 2015).

    Requires ``pip install 'pemeta[texts]'``.

    Attributes:
        lowercase: whether case is ignored; false, as sacrebleu.
        word_order: longest run of words that counts too; 0, as sacrebleu; 2 for chrF++.
    """

    name: ClassVar[str] = "chrf"
    label: ClassVar[str] = "chrF"
    description: ClassVar[str] = "chrF of all texts by sacrebleu"

    lowercase: bool = False
    word_order: int = Field(0, ge=0)

    def _scorer(self) -> Any:
        return _package("sacrebleu").CHRF(lowercase=self.lowercase, word_order=self.word_order)


def _texts(gold: Sequence[Any], predicted: Sequence[Any]) -> list[tuple[tuple[str, ...], str]]:
    """The right texts of each example, one or several, and the predicted one.

    Raises:
        DataError: they are no texts.
    """
    check_pairs(gold, predicted)
    rights = [(right,) if isinstance(right, str) else tuple(right) if _several(right) else () for right in gold]
    for given, right, text in zip(gold, rights, predicted, strict=True):
        if not right or not all(isinstance(one, str) for one in (*right, text)):
            raise DataError(
                f"a text is compared with one or several right ones; found {excerpt(text)} and {excerpt(given)}; give "
                "strings, or a list of right strings for each"
            )
    return list(zip(rights, predicted, strict=True))


def _several(right: object) -> bool:
    return isinstance(right, Iterable) and not isinstance(right, Mapping)


def _package(name: str) -> Any:
    """A module of an optional package.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError:
        package = name.partition(".")[0].replace("_", "-")
        raise ConfigError(f"the package {package} is not installed; run `pip install 'pemeta[texts]'`") from None
