"""
A network in one compiled function
==================================

Numba compiles loops over NumPy arrays, and inside them `elufast.elu` is the same function as outside: nothing has to be
imported or registered for it. Here a whole epoch of training, forward pass, gradient and update, is one compiled
function that Python calls once for 1500 images.

Needed: ``pip install elufast[numba] scikit-learn matplotlib``.
"""

# %%
# The data: 1797 images of handwritten digits, 8 x 8 pixels each. The last 297 are kept for the test.

import matplotlib.pyplot as plt
import numba
import numpy as np
from sklearn.datasets import load_digits

import elufast

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype(np.float32)
train, test = images[:1500], images[1500:]
train_labels, test_labels = labels[:1500], labels[1500:]

# %%
# One epoch of stochastic gradient descent with batches of 25. `elufast.elu` and `elufast.elu_backward` take rows and
# whole matrices, write into ``out=`` where it is given, and give the bits that they give from Python.


@numba.njit
def epoch(images, labels, w1, b1, w2, b2, rate):
    loss = 0.0
    for start in range(0, len(images), 25):
        x, wanted = images[start : start + 25], labels[start : start + 25]
        hidden = x @ w1 + b1
        active = elufast.elu(hidden)
        grad = active @ w2 + b2
        for i in range(len(x)):  # softmax and cross-entropy
            grad[i] = np.exp(grad[i] - grad[i].max())
            grad[i] /= grad[i].sum()
            loss -= np.log(grad[i, wanted[i]])
            grad[i, wanted[i]] -= 1
        grad *= rate / len(x)
        back = grad @ w2.T
        w2 -= active.T @ grad
        b2 -= grad.sum(axis=0)
        elufast.elu_backward(back, hidden, out=back)
        w1 -= x.T @ back
        b1 -= back.sum(axis=0)
    return loss / len(images)


# %%
# From Python the network is evaluated with the same functions, so training and use agree to the last bit of ELU.


def accuracy(images, labels, w1, b1, w2, b2):
    scores = elufast.elu(images @ w1 + b1) @ w2 + b2
    return (scores.argmax(axis=1) == labels).mean()


rng = np.random.default_rng(0)
w1 = rng.normal(0, 64**-0.5, (64, 128)).astype(np.float32)
w2 = rng.normal(0, 128**-0.5, (128, 10)).astype(np.float32)
weights = w1, np.zeros(128, np.float32), w2, np.zeros(10, np.float32)
losses, accuracies = [], []
for _ in range(30):
    losses.append(epoch(train, train_labels, *weights, np.float32(0.1)))
    accuracies.append(accuracy(test, test_labels, *weights))
print(f"loss {losses[0]:.3f} -> {losses[-1]:.4f}, accuracy on the test images {accuracies[-1]:.3f}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
left.semilogy(losses)
left.set(title="training loss", xlabel="epoch")
right.plot(accuracies)
right.set(title="accuracy on test images", xlabel="epoch", ylim=(0.8, 1))
plt.show()

# %%
# One number at a time works too: a loop whose steps depend on each other, as in a recurrent network, cannot be written
# with array functions alone.


@numba.njit
def recurrence(x, weight):
    state = np.zeros(1, x.dtype)[0]
    for value in x:
        state = elufast.elu(weight * state + value)
    return state


print("state after 64 pixels:", recurrence(test[0] - np.float32(0.5), np.float32(0.9)))
