"""
scikit-learn: ELU as a step of a pipeline
=========================================

A layer of random weights, an activation and a linear classifier: a small network of which only the last layer is
learned. `sklearn.preprocessing.FunctionTransformer` makes a step of any elufast function.
"""

# %%
# The pipeline
# ------------
#
# Handwritten digits, 64 pixels each, and 500 hidden units. Without the activation the layers would be one linear map.

import pickle

import joblib
import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import elufast

x, y = load_digits(return_X_y=True)
train_x, test_x, train_y, test_y = train_test_split(x, y, random_state=0)

weights = np.random.default_rng(0).normal(0, 0.2, (x.shape[1], 500))
model = Pipeline(
    [
        ("center", StandardScaler(with_std=False)),
        ("layer", FunctionTransformer(np.dot, kw_args={"b": weights})),
        ("activation", FunctionTransformer(elufast.elu)),
        ("classifier", RidgeClassifier()),
    ]
)
for name, function in {"none": None, "ELU": elufast.elu, "SELU": elufast.selu}.items():
    score = model.set_params(activation__func=function).fit(train_x, train_y).score(test_x, test_y)
    print(f"activation {name:<5} test accuracy {score:.1%}")

# %%
# alpha by cross-validation
# -------------------------
#
# What the function takes besides x goes into ``kw_args``, so that a search can choose it.

search = GridSearchCV(
    model.set_params(activation__func=elufast.elu),
    {"activation__kw_args": [{"alpha": alpha} for alpha in (0.0, 0.25, 0.5, 1.0, 2.0)]},
    n_jobs=2,
).fit(train_x, train_y)
for parameters, score in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True):
    print(f"alpha {parameters['activation__kw_args']['alpha']:<5} accuracy {score:.1%}")
print(f"test accuracy of the best {search.score(test_x, test_y):.1%}")

# %%
# Pickled and cloned
# ------------------
#
# A pickle holds the name ``elufast.elu``, no code, and so it loads on a machine with another CPU.

best = search.best_estimator_
assert pickle.loads(pickle.dumps(best)).named_steps["activation"].func is elufast.elu
assert clone(best).get_params()["activation__kw_args"] == search.best_params_["activation__kw_args"]

# %%
# Inference in parallel
# ---------------------
#
# joblib's worker processes are told their share of the CPUs by OMP_NUM_THREADS, which elufast obeys. With its threads,
# calls that meet share one team: those that come second run in their own thread. Neither takes more threads than CPUs.
# The predictions are the same.

batches = np.array_split(x, 8)
alone = best.predict(x)
for backend in ("loky", "threading"):
    with joblib.parallel_config(backend=backend, n_jobs=2):
        predictions = joblib.Parallel()(joblib.delayed(best.predict)(batch) for batch in batches)
        threads = joblib.Parallel()(joblib.delayed(elufast.get_num_threads)() for _ in range(2))
    assert np.array_equal(np.concatenate(predictions), alone)
    print(f"{backend}: {threads[0]} threads a job at most, {joblib.cpu_count()} CPUs")
