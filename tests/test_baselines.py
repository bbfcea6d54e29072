"""The floor of every table."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from zoo import baselines
from zoo.baselines import Linear, Majority, _is_cjk
from zoo.data import Split
from zoo.engine.metrics import Bootstrap, evaluate
from zoo.errors import ConfigError, DataError

GOOD = ["a fine film", "fine and moving", "a moving fine story", "great fine fun", "fine great cast"]
BAD = ["a dull film", "dull and slow", "a slow dull story", "awful dull mess", "dull awful cast"]
GOOD_ZH = ["房间很干净", "很干净很安静", "服务很好很干净", "早餐很好", "位置很好很方便"]
BAD_ZH = ["房间太脏了", "太脏太吵了", "服务太差太脏", "早餐太差", "位置太远太吵"]


def text(examples: list[str], labels: list[int], classes: tuple[str, ...] = ("bad", "good")) -> Split:
    ids = tuple(str(number) for number in range(len(examples)))
    return Split("train", "text", classes, examples, np.array(labels), ids, "f")


def reviews(good: list[str] = GOOD, bad: list[str] = BAD) -> Split:
    return text(bad + good, [0] * len(bad) + [1] * len(good))


def images(seed: int, examples: int = 60, classes: int = 3, channels: int = 1) -> Split:
    random = np.random.default_rng(seed)
    labels = np.arange(examples) % classes
    pixels = random.integers(0, 120, size=(examples, 8, 8, channels), dtype=np.uint8)
    for row, label in enumerate(labels):
        pixels[row, 2 * label : 2 * label + 2] += 100
    ids = tuple(str(number) for number in range(examples))
    return Split("train", "image", tuple("abc"[:classes]), pixels, labels, ids, "f")


def test_majority_answers_with_the_class_frequencies():
    train = text(["x"] * 10, [0] * 3 + [1] * 7)
    model = Majority()
    model.fit(train, train, seed=0)
    probabilities = model.predict_proba(["a", "b"])
    np.testing.assert_array_equal(probabilities, [[0.3, 0.7]] * 2)
    np.testing.assert_array_equal(model.weights()["frequencies"], [0.3, 0.7])
    scores = evaluate(np.array([0, 1]), probabilities, train.classes, bootstrap=Bootstrap(draws=0))
    assert scores["log_loss"]["value"] == pytest.approx(-(np.log(0.3) + np.log(0.7)) / 2)


def test_majority_knows_classes_that_training_lacks():
    model = Majority()
    model.fit(text(["x"], [0], ("a", "b", "c")), reviews(), seed=0)
    assert model.predict_proba(["y"]).tolist() == [[1, 0, 0]]


def test_linear_equals_scikit_learn_on_text():
    split = reviews()
    model = Linear(C=[2.0], min_df=1)
    model.fit(split, split, seed=0)
    features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    reference = LogisticRegression(C=2.0, max_iter=1000).fit(features.fit_transform(split.examples), split.labels)
    new = ["a fine mess", "slow", "never seen"]
    got = model.predict_proba(new)
    np.testing.assert_allclose(got, reference.predict_proba(features.transform(new)), atol=1e-6)
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-12)
    assert model.weights()["coef"].shape == (1, len(features.vocabulary_))
    assert model.weights()["intercept"].shape == (1,)
    assert model.weights()["C"].tolist() == [2.0]


def test_linear_reads_characters_where_words_are_not_spaced():
    split = reviews(GOOD_ZH, BAD_ZH)
    model = Linear(C=[10.0])
    model.fit(split, split, seed=0)
    assert model.predict_proba(["很干净", "太脏"]).argmax(axis=1).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("texts", "cjk"),
    [
        (GOOD, False),
        (GOOD_ZH, True),
        (["映画はとても面白かった"], True),
        (["정말 좋은 영화"], True),
        (["Это очень хороший фильм"], False),
        (["The name 张伟 stands in this English sentence"], False),
        (["iPhone 手机的屏幕非常清楚我很喜欢"], True),
        (["!!! 123"], False),
    ],
)
def test_scripts(texts, cjk):
    assert _is_cjk(texts) is cjk


@pytest.mark.parametrize("channels", [1, 3])
def test_linear_learns_pixels(channels):
    train, test = images(0, channels=channels), images(1, channels=channels)
    model = Linear()
    model.fit(train, images(2, channels=channels), seed=0)
    assert (model.predict_proba(test.examples).argmax(axis=1) == test.labels).mean() > 0.9
    assert model.weights()["coef"].shape == (3, 64 * channels)


def test_linear_equals_scikit_learn_on_pixels():
    train, new = images(0, channels=3), images(1, channels=3).examples
    model = Linear(C=[0.1])
    model.fit(train, train, seed=0)
    pixels = [array.reshape(len(array), -1) / 255 for array in (train.examples, new)]
    reference = LogisticRegression(C=0.1, max_iter=5000, tol=1e-9).fit(pixels[0], train.labels)
    np.testing.assert_allclose(model.predict_proba(new), reference.predict_proba(pixels[1]), atol=5e-4)
    weights = model.weights()
    np.testing.assert_allclose(weights["coef"], reference.coef_, atol=5e-3)
    logits = pixels[1] @ weights["coef"].T + weights["intercept"]
    np.testing.assert_allclose(softmax(logits, axis=1), model.predict_proba(new), atol=1e-9)


def test_the_path_ends_where_the_validation_loss_rises(monkeypatch):
    tried = []
    fit = baselines._regression
    monkeypatch.setattr(
        baselines, "_regression", lambda strength, *rest: tried.append(strength) or fit(strength, *rest)
    )
    model = Linear(C=[100.0, 1.0, 1e-4, 10.0])
    model.fit(reviews(), text(GOOD + BAD, [0] * 5 + [1] * 5), seed=0)  # contradicts what training says
    assert tried == [1e-4, 1.0]
    assert model.weights()["C"].tolist() == [1e-4]


def test_the_strength_is_chosen_on_the_validation_split():
    train = reviews()
    sure, unsure = reviews(), text(GOOD + BAD, [0] * 5 + [1] * 5)  # the second contradicts what training says
    strengths = []
    for validation in (sure, unsure):
        model = Linear(C=[100.0, 0.01])
        model.fit(train, validation, seed=0)
        strengths.append(model.weights()["C"].item())
    assert strengths == [100.0, 0.01]


@pytest.mark.parametrize("split", [reviews(), images(0)], ids=["text", "image"])
def test_linear_is_deterministic_and_quiet(split):
    answers = []
    for seed in (0, 0, 1):
        model = Linear(C=[1e-3, 1e6])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.fit(split, split, seed)
        answers.append(model.predict_proba(split.examples))
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])


def test_a_class_that_training_lacks_gets_its_column():
    train = text(GOOD + BAD, [2] * 5 + [0] * 5, ("a", "b", "c"))
    model = Linear(C=[1.0])
    model.fit(train, train, seed=0)
    probabilities = model.predict_proba(["fine"])
    assert probabilities.shape == (1, 3)
    assert probabilities[0, 1] == 0
    assert probabilities.argmax() == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"C": []}, r"^model\.C=\[\]: it must be a list of one or more numbers above 0\.$"),
        ({"C": [1.0, 0.0]}, r"model\.C"),
        ({"C": [-1.0]}, r"model\.C"),
        ({"min_df": 0}, r"^model\.min_df=0: it must be a whole number of 1 or more\.$"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ConfigError, match=message):
        Linear(**options)


@pytest.mark.parametrize(
    ("texts", "min_df", "told"),
    [
        (
            ["alpha", "beta", "gamma", "delta"],
            2,
            "no term occurs in 2 of the 4 training texts .*\nWrite model.min_df=1",
        ),
        (["?", "!", "a", "1"], 1, "no word of two letters or more occurs in the 4 training texts"),
    ],
)
def test_texts_without_a_common_term_are_refused_with_what_would_be_right(texts, min_df, told):
    split = text(texts, [0, 1, 0, 1])
    with pytest.raises(DataError, match=told):
        Linear(min_df=min_df).fit(split, split, seed=0)


def test_the_advice_for_few_texts_works():
    split = text(["alpha", "beta", "gamma", "delta"], [0, 1, 0, 1])
    model = Linear(min_df=1)
    model.fit(split, split, seed=0)
    assert model.predict_proba(["alpha"]).shape == (1, 2)
