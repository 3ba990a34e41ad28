"""scikit-learn and joblib: a FunctionTransformer in every use, and threads inside parallel jobs."""

from __future__ import annotations

import os
import pickle
from typing import Any

import numpy as np
import pytest
from support import bits, sample

import elufast

pytest.importorskip("sklearn")
joblib = pytest.importorskip("joblib")
special = pytest.importorskip("scipy.special")

from sklearn.base import clone  # noqa: E402
from sklearn.datasets import load_breast_cancer, load_digits  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_predict  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer, StandardScaler  # noqa: E402
from sklearn.random_projection import GaussianRandomProjection  # noqa: E402

ALPHAS = [0.1, 0.5, 1.0, 2.0]


def features(alpha: float = 1.0, n_components: int = 25) -> Any:
    return make_pipeline(
        StandardScaler(),
        GaussianRandomProjection(n_components, random_state=0),
        FunctionTransformer(elufast.elu, kw_args={"alpha": alpha}),
    )


@pytest.mark.parametrize("alpha", ALPHAS)
def test_transform(alpha: float) -> None:
    x, _ = load_digits(return_X_y=True)
    pipeline = features(alpha).fit(x)
    before = pipeline[:-1].transform(x)
    got = pipeline.transform(x)
    expected = np.where(before > 0, before, alpha * special.expm1(np.minimum(before, 0)))
    np.testing.assert_array_max_ulp(got, expected, 4)
    assert (got != before).any()


def test_pickled_and_cloned() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    model = make_pipeline(*(step for _, step in features(0.5).steps), LogisticRegression(max_iter=500)).fit(x, y)
    for copied in (pickle.loads(pickle.dumps(model)), clone(model).fit(x, y)):
        transformer = copied.named_steps["functiontransformer"]
        assert transformer.func is elufast.elu
        assert transformer.kw_args == {"alpha": 0.5}
        assert bits(copied.predict_proba(x)) == bits(model.predict_proba(x))
    pickled = pickle.dumps(model)
    assert b"_loops" not in pickled
    assert b"_entry" not in pickled


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_grid_search_over_alpha(n_jobs: int) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    model = make_pipeline(*(step for _, step in features().steps), LogisticRegression(max_iter=500))
    grid = {"functiontransformer__kw_args": [{"alpha": alpha} for alpha in ALPHAS]}
    search = GridSearchCV(model, grid, cv=3, n_jobs=n_jobs, error_score="raise").fit(x, y)
    assert search.best_score_ > 0.95
    assert len(set(search.cv_results_["mean_test_score"])) > 1
    assert [p["functiontransformer__kw_args"]["alpha"] for p in search.cv_results_["params"]] == ALPHAS


def test_same_predictions_in_parallel() -> None:
    x, y = load_digits(return_X_y=True)
    steps = features(n_components=60).steps
    model = make_pipeline(*(step for _, step in steps), LogisticRegression(max_iter=200, tol=0.01))
    alone = cross_val_predict(model, x, y, cv=2)
    assert (cross_val_predict(model, x, y, cv=2, n_jobs=2) == alone).all()
    assert (alone == y).mean() > 0.85


def test_pandas_output() -> None:
    pd = pytest.importorskip("pandas")
    frame = load_breast_cancer(as_frame=True).data
    expected = elufast.elu(StandardScaler().fit_transform(frame))
    transformer = FunctionTransformer(elufast.elu, feature_names_out="one-to-one")
    got = make_pipeline(StandardScaler(), transformer).set_output(transform="pandas").fit_transform(frame)
    assert type(got) is pd.DataFrame
    assert list(got.columns) == list(frame.columns)
    assert bits(got) == bits(expected)


def test_integers_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match="elu: x has dtype int64"):
        FunctionTransformer(elufast.elu).fit_transform(np.arange(6, dtype=np.int64).reshape(3, 2))


# What runs in the workers is elufast's own, so that they need not import this file.
@pytest.mark.parametrize("inner", [None, 1, 3])
def test_loky_workers_take_their_share_of_threads(inner: int | None) -> None:
    if not elufast.runtime_info()["openmp"]:
        pytest.skip("built without OpenMP")
    if inner is None and "OMP_NUM_THREADS" in os.environ:
        pytest.skip("joblib leaves OMP_NUM_THREADS as it is")
    x = sample(np.float32, 200_000, seed=90)
    with joblib.parallel_config(backend="loky", n_jobs=2, inner_max_num_threads=inner):
        results = joblib.Parallel()(joblib.delayed(elufast.selu)(x) for _ in range(4))
        threads = joblib.Parallel()(joblib.delayed(elufast.get_num_threads)() for _ in range(4))
        processes = joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(4))
    assert os.getpid() not in processes
    assert set(threads) == {inner or max(joblib.cpu_count() // 2, 1)}
    assert {bits(y) for y in results} == {bits(elufast.selu(x))}


@pytest.mark.parametrize("num_threads", [None, 1, 2])
def test_threading_backend(num_threads: int | None) -> None:
    x = sample(np.float32, 300_000, seed=91)
    with joblib.parallel_config(backend="threading", n_jobs=3):
        got = joblib.Parallel()(joblib.delayed(elufast.selu)(x, num_threads=num_threads) for _ in range(12))
    assert {bits(y) for y in got} == {bits(elufast.selu(x))}
