"""The `samples_<task>_<time>.jsonl` logs of lm-evaluation-harness (written with --log_samples).

A log of a multiple-choice task gives the log-likelihood of each choice: the classes are the choices, the prediction is
the likeliest, which is what the log's own `acc` counts, and the probabilities are the likelihoods over their sum. Where
the log has `acc_norm` and no `acc`, likelihoods count by the character, as that metric has it. Any other log tells by a
metric of 0 or 1 whether the answer was right: the classes are `wrong` and `right`, and every label is `right`.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import DataError, did_you_mean
from zoo.importing.answers import Row, Sheet
from zoo.importing.tables import json_object

if TYPE_CHECKING:
    from zoo.importing import Options

WRONG, RIGHT = "wrong", "right"
METRICS = ("exact_match", "acc", "acc_norm", "pass@1", "em", "contains")
MOST_AMISS = 0.01
"""The log's `acc` may differ from what was read in this share of the rows: equal likelihoods are broken elsewhere."""

_NAME = re.compile(r"samples_(?P<task>.+)_(?P<time>\d{4}-\d{2}-\d{2}T.+)\.jsonl")


def is_log(path: Path) -> bool:
    """Whether a file is such a log, by its first line. A file that cannot be read is not; reading it says why."""
    if path.suffix.lower() != ".jsonl":
        return False
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = next((line for line in file if line.strip()), "")
        record = json.loads(first)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and "doc_id" in record and {"resps", "filtered_resps"} & record.keys() != set()


@dataclass(frozen=True)
class _Sample:
    """One row of a log. scores: log-likelihoods of the choices, None when it has none; texts: of the choices."""

    place: str
    record: dict[str, Any]
    scores: tuple[float, ...] | None
    texts: tuple[str, ...]


def read(path: Path, options: Options) -> Sheet:
    """The rows of one log. The model is named by --model, the results file beside the log, or the log's folder; the
    dataset by the log's task. Raises DataError naming file, row and value."""
    samples = [_as_scored(sample) for sample in _chosen(path, _samples(path), options)]
    told = _NAME.fullmatch(path.name)
    dataset = options.dataset or (told["task"] if told else path.stem)
    model = options.model or _model(path, told["time"] if told else "")
    ids = _ids(samples)
    if all(sample.scores is not None for sample in samples) and not options.metric:
        classes, labels = _choices(path, samples)
        notes: tuple[str, ...] = (_NORMALISED,) if any(map(_by_character, samples)) else ()
        answers = [
            (classes[label], None, _shares(sample, classes)) for sample, label in zip(samples, labels, strict=True)
        ]
    else:
        classes, metric = (WRONG, RIGHT), _metric(path, samples, options)
        notes = (f"The classes are {WRONG} and {RIGHT}, by the metric '{metric}' of the log.",)
        answers = [(RIGHT, RIGHT if _is_right(sample, metric) else WRONG, None) for sample in samples]  # type: ignore[misc]
    rows = [
        Row(sample.place, model, options.seed, item, label, prediction, probabilities)
        for sample, item, (label, prediction, probabilities) in zip(samples, ids, answers, strict=True)
    ]
    return Sheet(path, "lm-evaluation-harness", dataset, rows, classes, notes)


def _samples(path: Path) -> list[_Sample]:
    samples = []
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    place = f"{path} line {number}"
                    record = json_object(line, place)
                    if "doc_id" not in record:
                        raise DataError(f"{place} has no 'doc_id'; every row of a log has one.")
                    samples.append(_sample(place, record))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}).") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
    return samples


def _sample(place: str, record: dict[str, Any]) -> _Sample:
    answers = record.get("filtered_resps", record.get("resps"))
    scores = _scores(answers)
    texts = _texts(record.get("arguments"))
    if scores is not None and "acc_mutual_info" in record:
        # That metric asks for each choice a second time, without the question.
        scores, texts = scores[: len(scores) // 2], texts[: len(scores) // 2]
    # Prompts and documents are most of a log, and nothing of them is needed any more.
    kept = {
        name: value for name, value in record.items() if name not in ("doc", "arguments", "resps", "filtered_resps")
    }
    return _Sample(place, kept, scores, texts)


def _scores(answers: Any) -> tuple[float, ...] | None:
    """Log-likelihoods from [[-1.5, false], …], which logs hold as texts too, each perhaps in a list of its own."""
    if not isinstance(answers, list) or len(answers) < 2:
        return None
    scores = []
    for answer in answers:
        pair = answer[0] if isinstance(answer, list) and len(answer) == 1 and isinstance(answer[0], list) else answer
        if not (isinstance(pair, list) and len(pair) == 2 and str(pair[1]) in ("True", "False")):
            return None
        try:
            scores.append(float(pair[0]))
        except (TypeError, ValueError):
            return None
    return tuple(scores)


def _texts(arguments: Any) -> tuple[str, ...]:
    """What each request asked to be continued with."""
    if isinstance(arguments, dict):
        arguments = [list(request.values()) if isinstance(request, dict) else request for request in arguments.values()]
    if not isinstance(arguments, list):
        return ()
    return tuple(str(request[-1]).strip() if isinstance(request, list) and request else "" for request in arguments)


def _chosen(path: Path, samples: Sequence[_Sample], options: Options) -> list[_Sample]:
    """The rows of one filter, one a document. Raises DataError when there are several filters and none is chosen."""
    if not any("filter" in sample.record for sample in samples):
        return _by_order(path, samples, options.filter)
    filters = list(dict.fromkeys(str(sample.record.get("filter", "none")) for sample in samples))
    if options.filter and options.filter not in filters:
        hint = did_you_mean(options.filter, filters)
        raise DataError(f"{path} has no filter '{options.filter}'.{hint} It has: {', '.join(filters)}")
    if len(filters) > 1 and not options.filter:
        raise DataError(
            f"{path} holds answers of {len(filters)} filters: {', '.join(filters)}.\nChoose: --filter {filters[0]}"
        )
    wanted = options.filter or filters[0]
    chosen = [sample for sample in samples if str(sample.record.get("filter", "none")) == wanted]
    if again := _again(chosen):
        raise DataError(
            f"{again.place}: document {again.record['doc_id']} is answered a second time.\n"
            "A log holds one row for each document and filter; take out the rows of the other evaluation."
        )
    return chosen


def _by_order(path: Path, samples: Sequence[_Sample], wanted: str) -> list[_Sample]:
    """The rows of one filter in a log that names none, as earlier versions wrote them: the first answer to each
    document is the first filter's, and so on."""
    rows: dict[str, list[_Sample]] = {}
    for sample in samples:
        rows.setdefault(_document(sample), []).append(sample)
    counts = Counter(map(len, rows.values()))
    most = max(counts, default=1)
    if len(counts) > 1:
        first = next(found[0] for found in rows.values() if len(found) == most)
        raise DataError(
            f"{path}: document {first.record['doc_id']} is answered {most} times, others {min(counts)}, and no filter "
            "is named.\nSuch rows cannot be told apart. Import the logs of one evaluation, each by itself."
        )
    if most == 1 and wanted in ("", "1", "none"):
        return list(samples)
    order = int(wanted) if wanted.isascii() and wanted.isdigit() else 0
    if not 1 <= order <= most:
        said = f"--filter {wanted} is none of them" if wanted else "the log does not name them"
        ways = " or ".join(f"--filter {number}" for number in range(1, most + 1))
        raise DataError(
            f"{path} holds {most} answers to each of its {len(rows):,} documents, those of as many filters; {said}.\n"
            f"Choose by their order in the task: {ways}"
        )
    return [found[order - 1] for found in rows.values()]


def _document(sample: _Sample) -> str:
    """Which document a row is about. In a file of several subtasks a number may stand for several."""
    return json.dumps([sample.record["doc_id"], sample.record.get("doc_hash")])


def _again(samples: Sequence[_Sample]) -> _Sample | None:
    """The first row whose document was answered before; None when there is none."""
    seen: set[str] = set()
    for sample in samples:
        document = _document(sample)
        if document in seen:
            return sample
        seen.add(document)
    return None


def _ids(samples: Sequence[_Sample]) -> list[str]:
    """Content hashes where the log has them: the number of a document changes with the harness's --limit or version.
    A document that stands twice gets "-1" behind it, in the order of the numbers."""
    hashes = [sample.record.get("doc_hash") for sample in samples]
    if not all(isinstance(content, str) and content for content in hashes):
        return [str(sample.record["doc_id"]) for sample in samples]
    if len(set(hashes)) == len(hashes):
        return [str(content) for content in hashes]
    seen: Counter[str] = Counter()
    ids = [""] * len(samples)
    for place in sorted(range(len(samples)), key=lambda row: (str(hashes[row]), _by_number(samples[row]))):
        content = str(hashes[place])
        ids[place] = f"{content}-{seen[content]}" if seen[content] else content
        seen[content] += 1
    return ids


def _by_number(sample: _Sample) -> tuple[int, str]:
    number = sample.record["doc_id"]
    return (number, "") if isinstance(number, int) else (0, str(number))


def _model(path: Path, time: str) -> str:
    """The model as the results file of the same time calls it, else as the folder does (`/` is `__` there)."""
    try:
        told = json.loads(path.with_name(f"results_{time}.json").read_bytes())
        name = told.get("model_name")
        if isinstance(name, str) and name:
            return name
    except (OSError, ValueError, AttributeError, RecursionError):
        pass
    folder = path.resolve().parent.name
    if not folder:
        raise DataError(f"{path}: nothing tells the model's name. Say it: --model <name>")
    return folder.replace("__", "/")


# Choices


_NORMALISED = "Likelihoods count by the character, as the log's metric acc_norm has it: the log has no acc."


def _by_character(sample: _Sample) -> bool:
    return sample.scores is not None and "acc" not in sample.record and "acc_norm" in sample.record


def _as_scored(sample: _Sample) -> _Sample:
    """The row with the scores that its metric compares: log-likelihoods, for `acc_norm` divided by the choice's length
    in characters."""
    if not _by_character(sample) or not all(sample.texts) or len(sample.texts) != len(sample.scores or ()):
        return sample
    scores = zip(sample.scores or (), sample.texts, strict=True)
    return replace(sample, scores=tuple(score / len(text) for score, text in scores))


def _instead(samples: Sequence[_Sample]) -> str:
    """What to do with a log whose choices are not understood: a metric that is 0 or 1 in every row, if there is one."""
    fit = _verdicts(samples)
    if fit:
        return f"To go by right and wrong alone: --metric {fit[0]}"
    return "None of its metrics is 0 or 1 in every row either. Import a table of the answers instead."


def _choices(path: Path, samples: Sequence[_Sample]) -> tuple[tuple[str, ...], list[int]]:
    """Names of the choices, and the right one of each sample."""
    count = max(len(sample.scores or ()) for sample in samples)
    texts = {sample.texts for sample in samples}
    only = next(iter(texts))
    named = len(texts) == 1 and len(only) == len(set(only)) == count and all(only)
    classes = only if named else tuple(f"choice {number}" for number in range(1, count + 1))
    # A target may be the number of the choice or its text, and "1" may be both: the log's own `acc` tells.
    readings = [labels for labels in (_by_index(samples), _by_text(samples)) if labels is not None]
    if not readings:
        raise DataError(
            f"{samples[0].place}: the target is {str(samples[0].record.get('target'))[:60]!r}, and in some row it is "
            f"neither the number nor the text of a choice.\n{_instead(samples)}"
        )
    best = min(readings, key=lambda labels: _amiss(samples, labels))
    if _amiss(samples, best) > MOST_AMISS * len(samples):
        raise DataError(
            f"{path}: in {_amiss(samples, best):,} of {len(samples):,} rows the log's own metric is not what target "
            f"and likelihoods say, so they are not understood.\n{_instead(samples)}"
        )
    return classes, best


def _by_index(samples: Sequence[_Sample]) -> list[int] | None:
    labels = []
    for sample in samples:
        target = str(sample.record.get("target")).strip()
        if not (target.isascii() and target.isdigit() and int(target) < len(sample.scores or ())):
            return None
        labels.append(int(target))
    return labels


def _by_text(samples: Sequence[_Sample]) -> list[int] | None:
    labels = []
    for sample in samples:
        target = str(sample.record.get("target")).strip()
        if sample.texts.count(target) != 1 or sample.texts.index(target) >= len(sample.scores or ()):
            return None
        labels.append(sample.texts.index(target))
    return labels


def _amiss(samples: Sequence[_Sample], labels: Sequence[int]) -> int:
    """Rows in which the log's `acc`, or `acc_norm` where there is no `acc`, contradicts the label."""
    count = 0
    for sample, label in zip(samples, labels, strict=True):
        told, scores = sample.record.get("acc", sample.record.get("acc_norm")), sample.scores or ()
        if isinstance(told, int | float) and told in (0, 1):
            count += (scores.index(max(scores)) == label) != bool(told)
    return count


def _shares(sample: _Sample, classes: Sequence[str]) -> dict[str, float]:
    scores = sample.scores or ()
    if not all(score == score and score < math.inf for score in scores) or max(scores) == -math.inf:
        raise DataError(f"{sample.place}: the log-likelihoods are {list(scores)}; they have to be numbers.")
    weights = [math.exp(score - max(scores)) for score in scores]
    return {name: weight / sum(weights) for name, weight in zip(classes, weights, strict=False)}


# Right or wrong


def _metrics(samples: Sequence[_Sample]) -> list[str]:
    """The metrics that the log has."""
    told = samples[0].record.get("metrics")
    listed = [str(name) for name in told] if isinstance(told, list) else []
    return [name for name in dict.fromkeys((*listed, *METRICS)) if name in samples[0].record]


def _verdicts(samples: Sequence[_Sample]) -> list[str]:
    """Those of its metrics that are 0 or 1 in every row."""
    return [name for name in _metrics(samples) if all(_is_verdict(sample.record.get(name)) for sample in samples)]


def _metric(path: Path, samples: Sequence[_Sample], options: Options) -> str:
    known, fit = _metrics(samples), _verdicts(samples)
    if options.metric in samples[0].record:
        return options.metric
    if options.metric:
        hint = did_you_mean(options.metric, fit)
        raise DataError(
            f"{path} has no metric '{options.metric}'.{hint} It has: {', '.join(known) or 'none'}; "
            f"0 or 1 in every row: {', '.join(fit) or 'none'}"
        )
    if not fit:
        raise DataError(
            f"{path} holds neither likelihoods of choices nor a metric that is 0 or 1 in every row.\n"
            f"Its metrics: {', '.join(known) or 'none'}. Score the answers first, or import a table."
        )
    return fit[0]


def _is_verdict(value: Any) -> bool:
    return isinstance(value, int | float) and value in (0, 1)


def _is_right(sample: _Sample, metric: str) -> bool:
    value = sample.record.get(metric)
    if not _is_verdict(value):
        raise DataError(
            f"{sample.place}: '{metric}' is {str(value)[:40]}. It has to be 0 or 1 to tell right from wrong."
        )
    return bool(value)
