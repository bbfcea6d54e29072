"""The floor of every table: two predictors that any other model ought to beat."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from zoo.errors import DataError
from zoo.models import Modality, Predictor
from zoo.options import option

if TYPE_CHECKING:
    import numpy as np

    from zoo.data import Split

# Han with its extensions, kana, and Hangul: scripts in which a space does not end a word, or not reliably.
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
_LETTER = re.compile(r"[^\W\d_]")
_SCRIPT_SAMPLE = 1000
_MOST_STEPS = 20_000
_BOTH: frozenset[Modality] = frozenset({"text", "image"})


@dataclass
class Majority(Predictor):
    """Answers every example with the class frequencies of the training split."""

    name: ClassVar[str] = "majority"
    modalities: ClassVar[frozenset[Modality]] = _BOTH

    def fit(self, train: Split, validation: Split, seed: int) -> None:
        """Count the classes of `train`; nothing is random."""
        import numpy as np

        counts = np.bincount(train.labels, minlength=len(train.classes))
        self._frequencies = counts / counts.sum()

    def predict_proba(self, examples: Sequence[str] | np.ndarray) -> np.ndarray:
        """(examples, classes) float64, every row the same."""
        import numpy as np

        return np.tile(self._frequencies, (len(examples), 1))

    def weights(self) -> Mapping[str, np.ndarray]:
        """`frequencies`: (classes,) float64."""
        return {"frequencies": self._frequencies}


@dataclass
class Linear(Predictor):
    """Logistic regression over TF-IDF or pixels.

    Text: word 1- and 2-grams, or character 1- to 3-grams where the training text is mainly Chinese, Japanese or
    Korean; sublinear counts, terms of at least `min_df` training texts. Images: pixels / 255.

    The strengths `C` are tried from the smallest up, until the validation log-loss rises; the one with the least stays,
    the smallest of equals.
    """

    C: list[float] = option(
        [0.001, 0.01, 0.1, 1.0, 10.0, 100.0],
        "inverse strengths of the L2 penalty to try; the validation split chooses one",
        gt=0,
        empty=False,
    )
    min_df: int = option(2, "training texts that a term must occur in", ge=1)

    name: ClassVar[str] = "linear"
    modalities: ClassVar[frozenset[Modality]] = _BOTH

    def fit(self, train: Split, validation: Split, seed: int) -> None:
        """Fit on `train`, choose `C` on `validation`. The solver draws nothing, so `seed` changes nothing."""
        self._classes = len(train.classes)
        self._vectorizer = None
        if train.modality == "text":
            self._vectorizer = _fitted(train.examples, self.min_df)
        else:
            self._mean = _pixels(train.examples).mean(axis=0)
        inputs = self._inputs(train.examples)
        held_out = self._inputs(validation.examples)
        best = float("inf")
        for strength in sorted(self.C):
            model = _regression(strength, seed, inputs, train.labels)
            loss = _log_loss(self._full(model, held_out), validation.labels) if len(self.C) > 1 else 0.0
            if loss > best:
                break  # The rest of the path overfits more, and takes the solver the longest.
            if loss < best:
                best, self._model = loss, model

    def predict_proba(self, examples: Sequence[str] | np.ndarray) -> np.ndarray:
        """(examples, classes) float64."""
        return self._full(self._model, self._inputs(examples))

    def weights(self) -> Mapping[str, np.ndarray]:
        """`coef`: (classes, features), or (1, features) for two classes; `intercept`: (classes,) or (1,); `C`: (1,)
        the strength that was chosen. The features are the terms in alphabetical order, or the pixels / 255 as they
        lie."""
        import numpy as np

        coef, intercept = self._model.coef_, self._model.intercept_
        if self._vectorizer is None:
            intercept = intercept - coef @ self._mean
        return {"coef": coef, "intercept": intercept, "C": np.array([self._model.C])}

    def _inputs(self, examples: Sequence[str] | np.ndarray) -> Any:
        if self._vectorizer:
            return self._vectorizer.transform(examples)
        # The intercept bears no penalty, so this changes no answer; the solver takes a sixth of the steps.
        inputs = _pixels(examples)
        inputs -= self._mean
        return inputs

    def _full(self, model: Any, inputs: Any) -> np.ndarray:
        import numpy as np

        full = np.zeros((inputs.shape[0], self._classes))
        full[:, model.classes_] = model.predict_proba(inputs)
        return full


def _fitted(texts: Sequence[str] | np.ndarray, min_df: int) -> Any:
    """The vectorizer with its terms. Raises DataError where no term is left."""
    try:
        return _vectorizer(texts, min_df).fit(texts)
    except ValueError:
        if min_df > 1:
            raise DataError(
                f"Model 'linear': no term occurs in {min_df} of the {len(texts)} training texts "
                f"(model.min_df={min_df}).\nWrite model.min_df=1, or train on more texts."
            ) from None
        raise DataError(
            f"Model 'linear': no word of two letters or more occurs in the {len(texts)} training texts.\n"
            "Is it the right column? text=… names it."
        ) from None


def _vectorizer(texts: Sequence[str] | np.ndarray, min_df: int) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    grams = {"analyzer": "char", "ngram_range": (1, 3)} if _is_cjk(texts) else {"ngram_range": (1, 2)}
    return TfidfVectorizer(**grams, sublinear_tf=True, min_df=min(min_df, len(texts)))


def _is_cjk(texts: Sequence[str] | np.ndarray) -> bool:
    sample = " ".join(texts[:_SCRIPT_SAMPLE])
    return 2 * len(_CJK.findall(sample)) > len(_LETTER.findall(sample))


def _pixels(images: Sequence[str] | np.ndarray) -> np.ndarray:
    import numpy as np

    return np.asarray(images, dtype=np.float64).reshape(len(images), -1) / 255


def _regression(strength: float, seed: int, inputs: Any, labels: np.ndarray) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=_MOST_STEPS, random_state=seed)
    with warnings.catch_warnings():
        # Past this many steps the solution moves by less than any metric shows.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(inputs, labels)


def _log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    import numpy as np

    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(chosen.clip(np.finfo(np.float64).tiny)).mean())
