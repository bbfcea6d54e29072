"""Examination of a `Predictor`: fitted, asked, and asked again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from zoo.models import Predictor
from zoo.testing.calling import seeded
from zoo.testing.findings import Finding, Problem, Unavailable, perform
from zoo.testing.synthetic import CLASSES, Case, cases_of, probe_split, stranger_to, train_split

if TYPE_CHECKING:
    import numpy as np

TOLERANCE = 1e-6


class Session:
    """One predictor on one kind of input, fitted once."""

    def __init__(self, cls: type[Predictor], options: Mapping[str, Any], case: Case) -> None:
        self.cls, self.options, self.case = cls, options, case
        self.sound = True
        self._fitted: Predictor | None = None

    def fit(self) -> Predictor:
        """A new instance, fitted under seed 0. The shifted split serves as validation."""
        predictor = self.cls(**self.options)
        with seeded(0):
            predictor.fit(train_split(self.case), train_split(self.case, shifted=True), 0)
        return predictor

    def fitted(self) -> Predictor:
        """The same fitted instance each time."""
        if not self.sound:
            raise Unavailable("'fit' or 'probabilities' failed before")
        if self._fitted is None:
            self.sound = False
            self._fitted = self.fit()
            self.sound = True
        return self._fitted

    def answer(self) -> np.ndarray:
        """Probabilities of the probe examples."""
        return self.fitted().predict_proba(probe_split(self.case).examples)


def examine(cls: type[Predictor], options: Mapping[str, Any]) -> list[Finding]:
    """Findings for every case of the modalities that the class claims."""
    findings = []
    for case in cases_of(cls.modalities):
        session = Session(cls, options, case)
        for name, check in _CHECKS.items():
            findings += perform(name, case.label, check, session)
    return findings


def _fits(session: Session) -> Iterator[Problem]:
    session.fitted()
    yield from ()


def _gives_probabilities(session: Session) -> Iterator[Problem]:
    import numpy as np

    got = session.answer()
    wanted = (len(probe_split(session.case)), len(CLASSES))
    if not isinstance(got, np.ndarray) or got.shape != wanted:
        shape = got.shape if isinstance(got, np.ndarray) else type(got).__name__
        problem = Problem(f"predict_proba gave {shape}; wanted {wanted}", "Return one column a class, in their order.")
    elif got.dtype.kind != "f" or not np.isfinite(got).all():
        problem = Problem(f"probabilities are {got.dtype}, or not finite", "Return finite floats.")
    elif got.min() < 0 or not np.allclose(got.sum(axis=1), 1, atol=1e-4):
        worst = got.sum(axis=1)[np.abs(got.sum(axis=1) - 1).argmax()]
        problem = Problem(
            f"rows are no distributions: least value {got.min():.3g}, a row sums to {worst:.4g}", "Normalise each row."
        )
    else:
        return
    session.sound = False
    yield problem


def _is_seeded(session: Session) -> Iterator[Problem]:
    import numpy as np

    again = session.fit().predict_proba(probe_split(session.case).examples)
    if not np.array_equal(session.answer(), again):
        yield Problem("fitted twice under one seed, it gives two answers", "Hand `seed` to whatever draws at random.")


def _ignores_company(session: Session) -> Iterator[Problem]:
    import numpy as np

    answer, examples, predictor = session.answer(), probe_split(session.case).examples, session.fitted()
    reversed_ = predictor.predict_proba(examples[::-1])[::-1]
    alone = np.concatenate([predictor.predict_proba(examples[row : row + 1]) for row in range(0, len(answer), 3)])
    for name, other, same in (("in reverse order", reversed_, answer), ("one by one", alone, answer[::3])):
        if other.shape != same.shape or not np.allclose(other, same, atol=TOLERANCE):
            yield Problem(f"asked {name}, it answers otherwise", "Let no example depend on its neighbours.")


def _keeps_weights(session: Session) -> Iterator[Problem]:
    import numpy as np

    for name, array in session.fitted().weights().items():
        if not isinstance(name, str) or not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
            kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            yield Problem(f"weights()['{name}'] is {kind}", "Give arrays of numbers; text and objects are not stored.")


def _refuses_other_modality(session: Session) -> Iterator[Problem]:
    case = stranger_to(session.cls.modalities)
    split = train_split(case)
    try:
        predictor = session.cls(**session.options)
        predictor.fit(split, split, 0)
        predictor.predict_proba(split.examples)
    except Exception:
        return
    yield Problem(
        f"it took {case.label} examples although its modalities are {', '.join(sorted(session.cls.modalities))}",
        f"Raise zoo.Incompatible in fit() when train.modality is '{case.modality}', or claim the modality.",
    )


_CHECKS: Mapping[str, Callable[[Session], Iterator[Problem]]] = {
    "fit": _fits,
    "probabilities": _gives_probabilities,
    "seed": _is_seeded,
    "order and batch size": _ignores_company,
    "weights": _keeps_weights,
    "other modality": _refuses_other_modality,
}
