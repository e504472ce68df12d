"""What a classifier makes of the same rows: the arms that a tuned student must stand beside.

They choose tools and write no arguments. Each is fitted on the training examples and
deterministic.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from distill.evaluate.score import judge_label
from distill.records import Case, Example, Message, Prediction, Target

if TYPE_CHECKING:
    import numpy as np

Label = tuple[str, ...]
"""What is learned: ("call", tool, ...) with the tools sorted, or ("ask",), ("answer",)..."""


class Majority:
    """The commonest label of the training rows, whatever is asked."""

    arm = "majority"

    def __init__(self, examples: Sequence[Example]) -> None:
        counts = Counter(label_of(example.target) for example in examples)
        # A tie goes to the first in the alphabet, not to the first in the file.
        self.label = min(counts, key=lambda label: (-counts[label], label))

    def predict(self, cases: Sequence[Case]) -> list[Prediction]:
        """The verdicts, in the order of the cases."""
        return [judge_label(case, self.label[1:], self.arm) for case in cases]


class _Classifier(ABC):
    """Logistic regression over features of what the user said."""

    arm: str

    def __init__(self, examples: Sequence[Example]) -> None:
        labels = [label_of(example.target) for example in examples]
        self.labels = sorted(set(labels))
        numbers = [self.labels.index(label) for label in labels]
        features = self.fit_features([user_text(example.messages) for example in examples])
        self.model = _regression(features, numbers) if len(self.labels) > 1 else None

    @abstractmethod
    def fit_features(self, texts: list[str]) -> Any:
        """The features of the training texts, learned from them where there is something to."""

    @abstractmethod
    def features(self, texts: list[str]) -> Any:
        """The features of other texts."""

    def predict(self, cases: Sequence[Case]) -> list[Prediction]:
        """The verdicts, in the order of the cases."""
        chosen = [0] * len(cases)
        if self.model is not None and cases:
            texts = [user_text(case.messages) for case in cases]
            chosen = self.model.predict(self.features(texts)).tolist()
        return [
            judge_label(case, self.labels[number][1:], self.arm)
            for case, number in zip(cases, chosen, strict=True)
        ]


class Tfidf(_Classifier):
    """TF-IDF of single words and pairs, with logistic regression."""

    arm = "tfidf"

    def fit_features(self, texts: list[str]) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]

        # Signs count as words, so that no prompt is without features.
        self.vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\w+|[^\w\s]")
        return self.vectorizer.fit_transform(texts)

    def features(self, texts: list[str]) -> Any:
        return self.vectorizer.transform(texts)


class MiniLM(_Classifier):
    """Sentence embeddings with logistic regression; `encode` gives [len(texts), width] floats."""

    arm = "minilm"

    def __init__(
        self, examples: Sequence[Example], encode: Callable[[Sequence[str]], np.ndarray]
    ) -> None:
        self.encode = encode
        super().__init__(examples)

    def fit_features(self, texts: list[str]) -> Any:
        return self.encode(texts)

    def features(self, texts: list[str]) -> Any:
        return self.encode(texts)


def label_of(target: Target) -> Label:
    """The tools of a target, or its kind."""
    return (target.kind, *sorted(call.name for call in target.calls))


def user_text(messages: Sequence[Message]) -> str:
    """All that the user said, one message on a line."""
    return "\n".join(message.content for message in messages if message.role == "user")


def _regression(features: Any, numbers: list[int]) -> Any:
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

    # C=10 because the features have length one: at 1 the penalty outweighs a few hundred rows.
    return LogisticRegression(C=10.0, max_iter=1000).fit(features, numbers)
