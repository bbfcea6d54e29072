"""What a measure is, and the measures that the core brings. Importing this is cheap: the mathematics is elsewhere."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from zoo.homogeneity.results import Pairs, PerModel, Result, Scalar
from zoo.options import Configurable

if TYPE_CHECKING:
    from zoo.homogeneity.bootstrap import Bootstrap
    from zoo.store.panel import Panel

Need = Literal["labels", "probabilities", "features", "replicas"]
Scope = Literal["pairs", "models", "set"]
Direction = Literal["more alike", "less alike"]


@dataclass
class Measure(Configurable, ABC):
    """A function from a panel to numbers about likeness. A dataclass: its fields are its options.

    name: how it is asked for; title: how a report calls it, in words. needs: what the panel must hold beside
    predictions. higher_is: what a higher value says. range: lowest and highest possible value, ±inf where there is no
    bound. chance: the value of independent models, in words. accuracy_adjusted: whether that value is the same
    whatever the accuracies. source: where it is defined. scope: whether `compute` returns Pairs (`"pairs"`), PerModel
    (`"models"`) or Scalar (`"set"`).
    """

    name: ClassVar[str]
    title: ClassVar[str]
    needs: ClassVar[frozenset[Need]]
    higher_is: ClassVar[Direction]
    range: ClassVar[tuple[float, float]]
    chance: ClassVar[str]
    accuracy_adjusted: ClassVar[bool]
    source: ClassVar[str]
    scope: ClassVar[Scope]
    _section: ClassVar[str] = "measure"

    @abstractmethod
    def compute(self, panel: Panel, bootstrap: Bootstrap) -> Result:
        """The estimate with its interval and n, or undefined with a reason; never a made-up value.

        panel: aligned by example id; bootstrap: how many draws, their seed, and the device."""


@dataclass
class BehaviourMeasure(Measure):
    """A measure of pairs that is a formula in `zoo.homogeneity.formulas.FORMULAS`. For the core's own."""

    needs: ClassVar[frozenset[Need]] = frozenset({"labels"})
    higher_is: ClassVar[Direction] = "more alike"
    scope: ClassVar[Scope] = "pairs"

    def compute(self, panel: Panel, bootstrap: Bootstrap) -> Pairs:
        """All pairs of models; see `zoo.homogeneity.behaviour.pairs`."""
        from zoo.homogeneity.behaviour import pairs

        return pairs(panel, self.name, bootstrap)


@dataclass
class Agreement(BehaviourMeasure):
    """How often two models answer the same."""

    name: ClassVar[str] = "agreement"
    title: ClassVar[str] = "Agreement"
    needs: ClassVar[frozenset[Need]] = frozenset()
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    chance: ClassVar[str] = "a₁a₂ + (1 − a₁)(1 − a₂)/(C − 1)"
    accuracy_adjusted: ClassVar[bool] = False
    source: ClassVar[str] = "share of equal answers"


@dataclass
class Disagreement(BehaviourMeasure):
    """How often two models answer differently."""

    name: ClassVar[str] = "disagreement"
    title: ClassVar[str] = "Disagreement"
    needs: ClassVar[frozenset[Need]] = frozenset()
    higher_is: ClassVar[Direction] = "less alike"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    chance: ClassVar[str] = "1 − a₁a₂ − (1 − a₁)(1 − a₂)/(C − 1)"
    accuracy_adjusted: ClassVar[bool] = False
    source: ClassVar[str] = "share of unequal answers"


@dataclass
class LabelKappa(BehaviourMeasure):
    """Cohen's κ of the predicted labels; grows with accuracy even for independent models."""

    name: ClassVar[str] = "label_kappa"
    title: ClassVar[str] = "Cohen's κ of the answers"
    needs: ClassVar[frozenset[Need]] = frozenset()
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    chance: ClassVar[str] = "0 for models that ignore the input; for independent models it grows with accuracy"
    accuracy_adjusted: ClassVar[bool] = False
    source: ClassVar[str] = "Cohen 1960"


@dataclass
class ErrorConsistency(BehaviourMeasure):
    """Whether two models are right and wrong on the same examples, beyond what their accuracies explain."""

    name: ClassVar[str] = "error_consistency"
    title: ClassVar[str] = "Error consistency"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    chance: ClassVar[str] = "0"
    accuracy_adjusted: ClassVar[bool] = True
    source: ClassVar[str] = "Geirhos, Meding & Wichmann 2020"


@dataclass
class ErrorCorrelation(BehaviourMeasure):
    """Correlation φ of being right; the kinship scale is built on it."""

    name: ClassVar[str] = "error_correlation"
    title: ClassVar[str] = "Error correlation φ"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    chance: ClassVar[str] = "0"
    accuracy_adjusted: ClassVar[bool] = True
    source: ClassVar[str] = "Pearson's φ of correctness; Yule 1912"


@dataclass
class Capa(BehaviourMeasure):
    """Chance-adjusted agreement of the probabilities; depends on how sure the models are."""

    name: ClassVar[str] = "capa"
    title: ClassVar[str] = "Chance-adjusted probabilistic agreement"
    needs: ClassVar[frozenset[Need]] = frozenset({"labels", "probabilities"})
    range: ClassVar[tuple[float, float]] = (-math.inf, 1.0)
    chance: ClassVar[str] = "0"
    accuracy_adjusted: ClassVar[bool] = True
    source: ClassVar[str] = "Goel et al. 2025"


@dataclass
class CapaDiscrete(BehaviourMeasure):
    """Chance-adjusted agreement of the answers."""

    name: ClassVar[str] = "capa_discrete"
    title: ClassVar[str] = "Chance-adjusted agreement"
    range: ClassVar[tuple[float, float]] = (-math.inf, 1.0)
    chance: ClassVar[str] = "0"
    accuracy_adjusted: ClassVar[bool] = True
    source: ClassVar[str] = "Goel et al. 2025, for labels"


@dataclass
class BothWrongAgreement(BehaviourMeasure):
    """How often two models give the same wrong answer where both are wrong."""

    name: ClassVar[str] = "both_wrong_agreement"
    title: ClassVar[str] = "Same wrong answer"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    chance: ClassVar[str] = "1/(C − 1)"
    accuracy_adjusted: ClassVar[bool] = True
    source: ClassVar[str] = "share of equal answers among examples that both get wrong"


@dataclass
class DoubleFault(BehaviourMeasure):
    """How often both models are wrong."""

    name: ClassVar[str] = "double_fault"
    title: ClassVar[str] = "Double fault"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    chance: ClassVar[str] = "(1 − a₁)(1 − a₂)"
    accuracy_adjusted: ClassVar[bool] = False
    source: ClassVar[str] = "Giacinto & Roli 2001"


@dataclass
class QStatistic(BehaviourMeasure):
    """Yule's Q of being right: a function of the odds ratio."""

    name: ClassVar[str] = "q_statistic"
    title: ClassVar[str] = "Yule's Q of the errors"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    chance: ClassVar[str] = "0"
    accuracy_adjusted: ClassVar[bool] = True
    source: ClassVar[str] = "Yule 1900; Kuncheva & Whitaker 2003"


@dataclass
class JsDivergence(BehaviourMeasure):
    """How far apart the predicted distributions are, in bits; confounded by calibration."""

    name: ClassVar[str] = "js_divergence"
    title: ClassVar[str] = "Jensen-Shannon divergence"
    needs: ClassVar[frozenset[Need]] = frozenset({"probabilities"})
    higher_is: ClassVar[Direction] = "less alike"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    chance: ClassVar[str] = "depends on the accuracies and on how sure the models are"
    accuracy_adjusted: ClassVar[bool] = False
    source: ClassVar[str] = "Lin 1991"


@dataclass
class Kinship(Measure):
    """Where a pair stands between independent errors (0) and replicas of one recipe (1)."""

    name: ClassVar[str] = "kinship"
    title: ClassVar[str] = "Kinship"
    needs: ClassVar[frozenset[Need]] = frozenset({"labels", "replicas"})
    higher_is: ClassVar[Direction] = "more alike"
    range: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    chance: ClassVar[str] = "0"
    accuracy_adjusted: ClassVar[bool] = True
    source: ClassVar[str] = "error correlation corrected for attenuation, Spearman 1904"
    scope: ClassVar[Scope] = "pairs"

    def compute(self, panel: Panel, bootstrap: Bootstrap) -> Pairs:
        """All pairs of models; see `zoo.homogeneity.kinship.kinship`."""
        from zoo.homogeneity.kinship import kinship

        return kinship(panel, bootstrap)


@dataclass
class OneFactorMeasure(Measure):
    """A measure of pairs beyond one factor that is common to all models. For the core's own."""

    higher_is: ClassVar[Direction] = "more alike"
    range: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    chance: ClassVar[str] = "0, also for models that are independent given the difficulty"
    accuracy_adjusted: ClassVar[bool] = True
    source: ClassVar[str] = "one common factor by least squares without the pair; after Spearman's tetrads"
    scope: ClassVar[Scope] = "pairs"


@dataclass
class ExcessKinship(OneFactorMeasure):
    """What a pair shares beyond what all models find hard."""

    name: ClassVar[str] = "excess_kinship"
    title: ClassVar[str] = "Excess kinship"
    needs: ClassVar[frozenset[Need]] = frozenset({"labels", "replicas"})

    def compute(self, panel: Panel, bootstrap: Bootstrap) -> Pairs:
        """All pairs of models; see `zoo.homogeneity.kinship.excess_kinship`."""
        from zoo.homogeneity.kinship import excess_kinship

        return excess_kinship(panel, bootstrap)


@dataclass
class ExcessErrorCorrelation(OneFactorMeasure):
    """What the errors of a pair share beyond what all models find hard; needs no replicas."""

    name: ClassVar[str] = "excess_error_correlation"
    title: ClassVar[str] = "Excess error correlation"
    needs: ClassVar[frozenset[Need]] = frozenset({"labels"})

    def compute(self, panel: Panel, bootstrap: Bootstrap) -> Pairs:
        """All pairs of models; see `zoo.homogeneity.kinship.excess_error_correlation`."""
        from zoo.homogeneity.kinship import excess_error_correlation

        return excess_error_correlation(panel, bootstrap)


@dataclass
class SharedWrongAnswers(Measure):
    """How often two models give the same wrong answer, beyond what popular wrong answers explain."""

    name: ClassVar[str] = "shared_wrong_answers"
    title: ClassVar[str] = "Shared wrong answers"
    needs: ClassVar[frozenset[Need]] = frozenset({"labels"})
    higher_is: ClassVar[Direction] = "more alike"
    range: ClassVar[tuple[float, float]] = (-math.inf, 1.0)
    chance: ClassVar[str] = "0, or slightly below where few examples count"
    accuracy_adjusted: ClassVar[bool] = True
    source: ClassVar[str] = "Σ(agree − e)/Σ(1 − e), e from the wrong answers of two other models or more"
    scope: ClassVar[Scope] = "pairs"

    def compute(self, panel: Panel, bootstrap: Bootstrap) -> Pairs:
        """All pairs of models; see `zoo.homogeneity.wrong_answers.shared_wrong_answers`."""
        from zoo.homogeneity.wrong_answers import shared_wrong_answers

        return shared_wrong_answers(panel, bootstrap)


@dataclass
class Reliability(Measure):
    """How much of a model's errors another seed repeats: mean φ between its replicas."""

    name: ClassVar[str] = "reliability"
    title: ClassVar[str] = "Reliability"
    needs: ClassVar[frozenset[Need]] = frozenset({"labels", "replicas"})
    higher_is: ClassVar[Direction] = "more alike"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    chance: ClassVar[str] = "0"
    accuracy_adjusted: ClassVar[bool] = True
    source: ClassVar[str] = "Spearman 1904"
    scope: ClassVar[Scope] = "models"

    def compute(self, panel: Panel, bootstrap: Bootstrap) -> PerModel:
        """See `zoo.homogeneity.kinship.reliability`."""
        from zoo.homogeneity.kinship import reliability

        return reliability(panel, bootstrap)


@dataclass
class MarginalDiversity(Measure):
    """What each model adds to the set: to its oracle, its vote and its effective number."""

    name: ClassVar[str] = "marginal_diversity"
    title: ClassVar[str] = "What each model adds"
    needs: ClassVar[frozenset[Need]] = frozenset({"labels"})
    higher_is: ClassVar[Direction] = "less alike"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    chance: ClassVar[str] = "a times the product of the others' failure rates"
    accuracy_adjusted: ClassVar[bool] = False
    source: ClassVar[str] = "change of the oracle's accuracy when the model leaves"
    scope: ClassVar[Scope] = "models"

    def compute(self, panel: Panel, bootstrap: Bootstrap) -> PerModel:
        """See `zoo.homogeneity.failures.marginal_diversity`."""
        from zoo.homogeneity.failures import marginal_diversity

        return marginal_diversity(panel, bootstrap)


@dataclass
class SetMeasure(Measure):
    """A measure of the set that is the function of its name in `zoo.homogeneity.failures`. For the core's own."""

    needs: ClassVar[frozenset[Need]] = frozenset({"labels"})
    higher_is: ClassVar[Direction] = "less alike"
    accuracy_adjusted: ClassVar[bool] = False
    scope: ClassVar[Scope] = "set"

    def compute(self, panel: Panel, bootstrap: Bootstrap) -> Scalar:
        """See the function of this name in `zoo.homogeneity.failures`."""
        from zoo.homogeneity.failures import OF_SET

        return OF_SET[self.name](panel, bootstrap)


@dataclass
class FleissKappa(SetMeasure):
    """Fleiss' κ of the answers of all models."""

    name: ClassVar[str] = "fleiss_kappa"
    title: ClassVar[str] = "Fleiss' κ of the answers"
    needs: ClassVar[frozenset[Need]] = frozenset()
    higher_is: ClassVar[Direction] = "more alike"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    chance: ClassVar[str] = "0 for models that ignore the input; for independent models it grows with accuracy"
    source: ClassVar[str] = "Fleiss 1971"


@dataclass
class SystemicFailure(SetMeasure):
    """How many examples every model fails, beside what independent models would."""

    name: ClassVar[str] = "systemic_failure"
    title: ClassVar[str] = "Failed by every model"
    higher_is: ClassVar[Direction] = "more alike"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    chance: ClassVar[str] = "∏(1 − a), its part `expected`"
    source: ClassVar[str] = "Bommasani et al. 2022; Toups et al. 2023"


@dataclass
class Ambiguity(SetMeasure):
    """On how many examples some model differs from the most accurate one."""

    name: ClassVar[str] = "ambiguity"
    title: ClassVar[str] = "Ambiguity"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    chance: ClassVar[str] = "depends on the accuracies"
    source: ClassVar[str] = "Marx, Calmon & Ustun 2020"


@dataclass
class Discrepancy(SetMeasure):
    """On how many examples one model differs from the most accurate one, at most."""

    name: ClassVar[str] = "discrepancy"
    title: ClassVar[str] = "Discrepancy"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    chance: ClassVar[str] = "depends on the accuracies"
    source: ClassVar[str] = "Marx, Calmon & Ustun 2020"


@dataclass
class RashomonCapacity(SetMeasure):
    """How many different answers the models give to an example."""

    name: ClassVar[str] = "rashomon_capacity"
    title: ClassVar[str] = "Rashomon capacity"
    needs: ClassVar[frozenset[Need]] = frozenset({"probabilities"})
    range: ClassVar[tuple[float, float]] = (1.0, math.inf)
    chance: ClassVar[str] = "depends on the accuracies and on how sure the models are; at most C"
    source: ClassVar[str] = "Hsu & Calmon 2022; bounds of Arimoto 1972"


@dataclass
class OracleGap(SetMeasure):
    """What choosing the right model for each example would gain over the best one."""

    name: ClassVar[str] = "oracle_gap"
    title: ClassVar[str] = "Oracle gap"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    chance: ClassVar[str] = "1 − ∏(1 − a) − max a, its part `independent`"
    source: ClassVar[str] = "mean[some model is right] − best accuracy"


@dataclass
class VoteGain(SetMeasure):
    """What a majority vote gains over the best model."""

    name: ClassVar[str] = "vote_gain"
    title: ClassVar[str] = "Gain of voting"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    chance: ClassVar[str] = "its part `independent`"
    source: ClassVar[str] = "accuracy of the majority vote − best accuracy"


@dataclass
class EffectiveModels(Measure):
    """As how many independent models the set counts in a vote."""

    name: ClassVar[str] = "effective_models"
    title: ClassVar[str] = "Effective number of models"
    needs: ClassVar[frozenset[Need]] = frozenset({"labels"})
    higher_is: ClassVar[Direction] = "less alike"
    range: ClassVar[tuple[float, float]] = (0.0, math.inf)
    chance: ClassVar[str] = "the number of models"
    accuracy_adjusted: ClassVar[bool] = True
    source: ClassVar[str] = "design effect of correlated failures, Kish 1965"
    scope: ClassVar[Scope] = "set"

    def compute(self, panel: Panel, bootstrap: Bootstrap) -> Scalar:
        """See `zoo.homogeneity.headline.effective_models`."""
        from zoo.homogeneity.headline import effective_models

        return effective_models(panel, bootstrap)


@dataclass
class EffectiveAgainstJointFailure(Measure):
    """How many independent models fail together as rarely as the set."""

    name: ClassVar[str] = "effective_against_joint_failure"
    title: ClassVar[str] = "Effective number against joint failure"
    needs: ClassVar[frozenset[Need]] = frozenset({"labels"})
    higher_is: ClassVar[Direction] = "less alike"
    range: ClassVar[tuple[float, float]] = (1.0, math.inf)
    chance: ClassVar[str] = "the number of models"
    accuracy_adjusted: ClassVar[bool] = True
    source: ClassVar[str] = "1 + (M − 1)(ln S_max − ln S)/(ln S_max − ln S_ind), S the share failed by every model"
    scope: ClassVar[Scope] = "set"

    def compute(self, panel: Panel, bootstrap: Bootstrap) -> Scalar:
        """See `zoo.homogeneity.headline.effective_against_joint_failure`."""
        from zoo.homogeneity.headline import effective_against_joint_failure

        return effective_against_joint_failure(panel, bootstrap)


@dataclass
class RecipeDiversity(Measure):
    """How diverse the recipes are once the noise between seeds is divided out; not how many models one has."""

    name: ClassVar[str] = "recipe_diversity"
    title: ClassVar[str] = "Diversity of the recipes"
    needs: ClassVar[frozenset[Need]] = frozenset({"labels", "replicas"})
    higher_is: ClassVar[Direction] = "less alike"
    range: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    chance: ClassVar[str] = "the number of models"
    accuracy_adjusted: ClassVar[bool] = True
    source: ClassVar[str] = "Vendi score of the kinship matrix, Friedman & Dieng 2023, corrected for bootstrap bias"
    scope: ClassVar[Scope] = "set"

    def compute(self, panel: Panel, bootstrap: Bootstrap) -> Scalar:
        """See `zoo.homogeneity.kinship.recipe_diversity`."""
        from zoo.homogeneity.kinship import recipe_diversity

        return recipe_diversity(panel, bootstrap)


MEASURES: tuple[type[Measure], ...] = (
    Agreement, LabelKappa, ErrorConsistency, ErrorCorrelation, Capa, CapaDiscrete, BothWrongAgreement, DoubleFault,
    QStatistic, Disagreement, JsDivergence, Kinship, ExcessKinship, ExcessErrorCorrelation, SharedWrongAnswers,
    Reliability, MarginalDiversity, EffectiveModels, EffectiveAgainstJointFailure, RecipeDiversity, FleissKappa,
    SystemicFailure, Ambiguity, Discrepancy, RashomonCapacity, OracleGap, VoteGain,
)  # fmt: skip
"""The core's own, in the order in which a report shows them."""
