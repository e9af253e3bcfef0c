"""
n-way accuracy and its chance
=============================

A classifier sees the true clip and the prediction. The three classes that it ranks highest on the
true clip are the labels; a trial draws n − 1 other classes and succeeds if a label outranks all of
them. The success probability has a closed form (SPEC §6.1), so no trials are needed.
"""

import matplotlib.pyplot as plt
import numpy as np

from glfa_jax.metrics import nway

CLIPS, CLASSES = 100, 400

rng = np.random.default_rng(0)
truth = rng.standard_normal((CLIPS, CLASSES))
labels = nway.top_classes(truth)

# %%
# Predictions whose scores share more or less with those of the true clip.

shares = {"unrelated": 0.0, "weak": 0.3, "strong": 0.6}
predictions = {
    name: share * truth + (1 - share) * rng.standard_normal(truth.shape)
    for name, share in shares.items()
}

# %%
# Chance is not 1/n, because any of three labels counts: 2-way chance is 3/4.

ways = (2, 5, 10, 20, 50)
chance = {n: nway.chance(CLASSES, n=n) for n in ways}
accuracy = {
    name: [nway.nway_exact(scores, labels=labels, n=n).mean() for n in ways]
    for name, scores in predictions.items()
}
print(f"2-way chance: {chance[2]:.3f}, 50-way chance: {chance[50]:.3f}")

# %%
# Drawing trials, as published evaluations do, gives the same but for noise.

drawn = nway.nway_monte_carlo(predictions["weak"], labels=labels, n=50, trials=100, seed=0)
exact = nway.nway_exact(predictions["weak"], labels=labels, n=50)
print(f"50-way, drawn {drawn.mean():.3f}, exact {exact.mean():.3f}")

figure, axis = plt.subplots(figsize=(5, 3.5), layout="constrained")
for name, values in accuracy.items():
    axis.plot(ways, values, marker="o", label=name)
axis.plot(ways, list(chance.values()), color="black", linestyle="--", label="chance")
axis.set(xlabel="n", ylabel="n-way accuracy", xscale="log", ylim=(0, 1))
axis.set_xticks(ways, map(str, ways), minor=False)
axis.legend()
plt.show()
