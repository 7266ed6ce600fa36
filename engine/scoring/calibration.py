"""From a score to a probability that may be taken at its word: Platt's sigmoid on the score's log-odds.

p = 1 / (1 + exp(-(w·logit(s) + b))) with s the model's raw probability. Fitted by Newton's method with backtracking on the
smoothed targets of Platt (1999), as Lin, Lin & Weng (2007) put it, so that separable data have a finite answer.
"""
import numpy as np

EDGE = 1e-7   # raw scores are float32: nearer to 0 or 1 than this they carry no information


def logit(score: np.ndarray) -> np.ndarray:
    """Log-odds, float64, of raw probabilities; 0 and 1 are moved to the nearest score that carries information."""
    s = np.clip(np.ascontiguousarray(score, np.float64), EDGE, 1 - EDGE)
    return np.log(s / (1 - s))


def platt(score: np.ndarray, w: float, b: float) -> np.ndarray:
    """Calibrated probabilities, float64[m], of raw probabilities [m].

    >>> platt(np.array([0.2, 0.5]), 1.0, 0.0).round(6).tolist()
    [0.2, 0.5]
    """
    z = w * logit(score) + b
    return 1 / (1 + np.exp(-z))


def fit_platt(score: np.ndarray, y: np.ndarray, rounds: int = 100) -> tuple[float, float]:
    """(w, b) of greatest likelihood; `ValueError` without at least one row of either outcome."""
    z, y = logit(score), np.asarray(y, np.float64)
    won, lost = float(y.sum()), float(len(y) - y.sum())
    if won == 0 or lost == 0:
        raise ValueError(f"calibration needs both outcomes: {won:.0f} won, {lost:.0f} lost")
    target = np.where(y > 0, (won + 1) / (won + 2), 1 / (lost + 2))
    w, b = 1.0, float(np.log((won + 1) / (lost + 1)) - z.mean())
    loss = _loss(z, target, w, b)
    for _ in range(rounds):
        p = 1 / (1 + np.exp(-(w * z + b)))
        r, v = p - target, p * (1 - p)
        g = np.array([np.dot(r, z), r.sum()])
        if np.abs(g).max() < 1e-9 * len(z):
            break
        h = np.array([[np.dot(v, z * z), np.dot(v, z)], [np.dot(v, z), v.sum()]]) + 1e-10 * np.eye(2)
        step = np.linalg.solve(h, g)
        size = 1.0
        while size > 1e-10:
            trial = _loss(z, target, w - size * step[0], b - size * step[1])
            if trial <= loss:
                break
            size /= 2
        else:
            break
        w, b, loss = w - size * float(step[0]), b - size * float(step[1]), trial
    return float(w), float(b)


def _loss(z: np.ndarray, target: np.ndarray, w: float, b: float) -> float:
    """Negative log-likelihood."""
    f = w * z + b
    return float(np.sum(np.logaddexp(0, f) - target * f))
