"""Baselines: classifiers fitted on the training examples, deterministic.

They choose tools and write no arguments.
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
"""A class: ("call", tool, ...) with the tools sorted, or ("ask",), ("answer",)..."""


class Majority:
    """Always the most frequent label of the training rows."""

    arm = "majority"

    def __init__(self, examples: Sequence[Example]) -> None:
        counts = Counter(label_of(example.target) for example in examples)
        # Ties are broken by name: the result must not depend on the order of the file.
        self.label = min(counts, key=lambda label: (-counts[label], label))

    def predict(self, cases: Sequence[Case]) -> list[Prediction]:
        """The predictions, in the order of the cases."""
        return [judge_label(case, self.label[1:], self.arm) for case in cases]


class _Classifier(ABC):
    """Logistic regression over features of the user's messages."""

    arm: str

    def __init__(self, examples: Sequence[Example]) -> None:
        labels = [label_of(example.target) for example in examples]
        self.labels = sorted(set(labels))
        features = self.fit_features([user_text(example.messages) for example in examples])
        # A regression needs two classes; of one, every row gets it.
        self.model: Any = None
        if len(self.labels) > 1:
            from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

            # Features have length one: with C=1 the penalty outweighs a few hundred rows.
            self.model = LogisticRegression(C=10.0, max_iter=1000)
            self.model.fit(features, [self.labels.index(label) for label in labels])

    @abstractmethod
    def fit_features(self, texts: list[str]) -> Any:
        """Fit the feature extractor, if it has parameters; the features of the training texts."""

    @abstractmethod
    def features(self, texts: list[str]) -> Any:
        """The features of the texts, one row each."""

    def predict(self, cases: Sequence[Case]) -> list[Prediction]:
        """The predictions, in the order of the cases."""
        classes = [0] * len(cases)
        if self.model is not None and cases:
            texts = [user_text(case.messages) for case in cases]
            classes = self.model.predict(self.features(texts)).tolist()
        return [
            judge_label(case, self.labels[index][1:], self.arm)
            for case, index in zip(cases, classes, strict=True)
        ]


class Tfidf(_Classifier):
    """TF-IDF of unigrams and bigrams, with logistic regression."""

    arm = "tfidf"

    def fit_features(self, texts: list[str]) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]

        # Punctuation marks are tokens too, so that no prompt is without features.
        self.vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\w+|[^\w\s]")
        return self.vectorizer.fit_transform(texts)

    def features(self, texts: list[str]) -> Any:
        return self.vectorizer.transform(texts)


class MiniLM(_Classifier):
    """Sentence embeddings with logistic regression; `encode` returns floats, [texts, width]."""

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
    """The class of a target."""
    return (target.kind, *sorted(call.name for call in target.calls))


def user_text(messages: Sequence[Message]) -> str:
    """The user's messages, joined by newlines."""
    return "\n".join(message.content for message in messages if message.role == "user")
