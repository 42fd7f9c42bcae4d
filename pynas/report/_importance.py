"""Which decisions of architectures matter for a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def importances(
    decisions: Sequence[Sequence[int]], scores: Sequence[float], names: Mapping[int, str], seed: int = 0
) -> list[tuple[str, float, float]]:
    """How much each decision matters for a score among these trials, most important first.

    A random forest is fitted to the decisions, one-hot, on two thirds of the trials; a decision's importance
    is by how much R^2 on the others falls when its values are permuted among them (Breiman 2001).

    Returns:
        (name, mean, standard deviation over 10 permutations); empty if there are fewer than 30 trials, or the
        forest explains nothing of the others (R^2 <= 0), so that no importance could be trusted.
    """
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    lengths = {len(row) for row in decisions}
    if len(decisions) < 30 or len(lengths) != 1 or lengths == {0}:
        return []
    x, y = np.array(decisions), np.array(scores)
    order = np.random.default_rng(seed).permutation(len(x))[:3000]
    cut = 2 * len(order) // 3
    fit, held = order[:cut], order[cut:]
    model = make_pipeline(
        OneHotEncoder(handle_unknown="ignore"), RandomForestRegressor(50, random_state=seed, n_jobs=1)
    ).fit(x[fit], y[fit])
    if model.score(x[held], y[held]) <= 0:
        return []
    found = permutation_importance(model, x[held], y[held], n_repeats=10, random_state=seed)
    values = zip(found.importances_mean, found.importances_std, strict=True)
    listed = [(names.get(i, f"decision {i + 1}"), float(m), float(s)) for i, (m, s) in enumerate(values)]
    return sorted(listed, key=lambda entry: -entry[1])
