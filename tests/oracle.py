"""A slow, plain implementation of what the drift alarm bets on and of its evidence: lists, loops and bisection.

The tests hold `dictionary` and `detector`, which do the same for all columns at once, to it. It is written from the
definitions: the null is the ball KL(q||p) <= eps; a bet pays p1 / p*, p* the projection of p1 on the ball.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import NormalDist

NORMAL = NormalDist()
SIZES = (2, 4, 9, 25, 80)

Path = Callable[[float], list[float]]


def kl(q: Sequence[float], p: Sequence[float]) -> float:
    """KL(q || p) in nats."""
    return sum(a * math.log(a / b) for a, b in zip(q, p, strict=True) if a > 0)


def normalise(p: Sequence[float]) -> list[float]:
    total = math.fsum(p)
    return [x / total for x in p]


def bisect(f: Callable[[float], float], low: float, high: float) -> float:
    """Root of an increasing f with f(low) <= 0 < f(high), to the last bit."""
    while low < (middle := 0.5 * (low + high)) < high:
        if f(middle) > 0:
            high = middle
        else:
            low = middle
    return middle


def smoothed(counts: Sequence[float]) -> list[float]:
    """Shares with half a row more in every bin."""
    return normalise([k + 0.5 for k in counts])


def projection(q: Sequence[float], p1: Sequence[float], eps: float) -> list[float]:
    """The point of the ball KL(q||p) <= eps that p1 is held against."""

    def mixed(w: float) -> list[float]:
        return [(1 - w) * a + w * b for a, b in zip(p1, q, strict=True)]

    return mixed(bisect(lambda w: eps - kl(q, mixed(w)), 0.0, 1.0))


def log_e_values(q: Sequence[float], p1: Sequence[float], eps: float) -> list[float]:
    """ln of what a bet on p1 pays for one sample in each bin."""
    return [math.log(a / b) for a, b in zip(p1, projection(q, p1, eps), strict=True)]


def normal_scores(q: Sequence[float], ordered: Sequence[int]) -> tuple[list[float], list[float]]:
    """E[Z | bin] clipped to +-4 and E[Z^2 - 1 | bin] clipped to [-1, 6], 0 for bins outside `ordered`."""

    def pdf(u: float) -> float:
        return NORMAL.pdf(NORMAL.inv_cdf(u)) if 0.0 < u < 1.0 else 0.0

    def x_pdf(u: float) -> float:
        return NORMAL.inv_cdf(u) * pdf(u) if 0.0 < u < 1.0 else 0.0

    z, v = [0.0] * len(q), [0.0] * len(q)
    total = sum(q[i] for i in ordered)
    below = 0.0
    for position, i in enumerate(ordered):
        share = q[i] / total
        above = 1.0 if position == len(ordered) - 1 else min(1.0, below + share)
        z[i] = max(-4.0, min(4.0, -(pdf(above) - pdf(below)) / share))
        v[i] = max(-1.0, min(6.0, -(x_pdf(above) - x_pdf(below)) / share))
        below = above
    return z, v


def tilt(q: Sequence[float], score: Sequence[float], sign: int) -> Path:
    return lambda t: normalise([a * math.exp(sign * t * s) for a, s in zip(q, score, strict=True)])


def gain(q: Sequence[float], i: int) -> Path:
    return lambda t: [(1 - t) * a + (t if j == i else 0.0) for j, a in enumerate(q)]


def loss(q: Sequence[float], i: int) -> Path:
    return lambda t: normalise([a * (1 - t) if j == i else a for j, a in enumerate(q)])


def alternatives(q: Sequence[float], eps: float, ordered: Sequence[int]) -> list[list[float]]:
    """On each path away from q the points with KL(q||p1) = c eps, where the path gets as far."""
    paths: list[tuple[Path, float]] = []
    if ordered:
        z, v = normal_scores(q, ordered)
        paths += [(tilt(q, z, sign), 3.0) for sign in (-1, 1)] + [(tilt(q, v, sign), 3.0) for sign in (1, -1)]
    for i in range(len(q)):
        paths.append((gain(q, i), 0.9))
        if q[i] > 0.02:
            paths.append((loss(q, i), 0.95))
    found: list[list[float]] = []
    for path, end in paths:
        furthest = kl(q, path(end))
        found += [_at(q, path, end, c * eps) for c in SIZES if furthest > c * eps]
    return found


def _at(q: Sequence[float], path: Path, end: float, divergence: float) -> list[float]:
    return path(bisect(lambda t: kl(q, path(t)) - divergence, 0.0, end))


def log_evidence(tables: Sequence[Sequence[float]], ticks: Iterable[Sequence[float]]) -> list[float]:
    """ln of the mean of the Shiryaev-Roberts statistics after each tick; an empty tick changes nothing."""
    state = [-math.inf] * len(tables)
    out = [-math.inf]
    for counts in ticks:
        if sum(counts):
            state = [
                math.fsum(c * x for c, x in zip(counts, table, strict=True)) + _log_1_plus(old)
                for table, old in zip(tables, state, strict=True)
            ]
            out.append(log_mean(state))
        else:
            out.append(out[-1])
    return out[1:]


def log_mean(logs: Sequence[float]) -> float:
    """ln of the mean of numbers with these logarithms."""
    top = max(logs)
    return top + math.log(math.fsum(math.exp(x - top) for x in logs) / len(logs))


def dispersion_ratio(before: Sequence[float], counts: Sequence[float]) -> float | None:
    """Two-sample chi-square of two ticks over its mean given their sum; None if they tell nothing."""
    m, n = sum(before), sum(counts)
    filled = [(b, c) for b, c in zip(before, counts, strict=True) if b + c > 0]
    if m == 0 or len(filled) < 2:
        return None
    chi2 = math.fsum((c * math.sqrt(m / n) - b * math.sqrt(n / m)) ** 2 / (b + c) for b, c in filled)
    return chi2 / ((len(filled) - 1) * (m + n) / (m + n - 1))


def _log_1_plus(x: float) -> float:
    return 0.0 if x == -math.inf else max(x, 0.0) + math.log1p(math.exp(-abs(x)))
