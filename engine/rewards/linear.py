"""Ridge regression that learns row by row: A = I + Σ x xᵀ, its inverse kept by Sherman and Morrison, b = Σ y x.

Written out in Python floats, with +, −, ×, ÷ and √ alone: IEEE 754 fixes each of these to the bit, so that two machines with other
linear algebra libraries learn the same state byte for byte. A is kept exactly as summed; the inverse drifts by rounding and is computed
anew from A every so often (Cholesky). Matrices are row-major lists of d·d.
"""
from math import sqrt

import msgspec


class Ridge(msgspec.Struct):
    """What one arm has learned. `n` rows, `since` of them after the inverse was last computed from A."""
    a: list[float]
    inverse: list[float]
    b: list[float]
    n: int = 0
    since: int = 0

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return len(self.b)

    @property
    def weights(self) -> list[float]:
        """θ = A⁻¹ b."""
        return times(self.inverse, self.b)

    def mean(self, x: list[float]) -> float:
        """θ·x, the estimated mean at x."""
        return dot(times(self.inverse, x), self.b)

    def estimate(self, x: list[float]) -> tuple[float, float]:
        """The mean at x and √(xᵀ A⁻¹ x), by which it may be wrong."""
        v = times(self.inverse, x)
        return dot(v, self.b), sqrt(max(dot(v, x), 0.0))

    def learn(self, x: list[float], y: float, invert_every: int) -> None:
        """One row: A += x xᵀ, b += y x, and the inverse follows."""
        d = len(x)
        v = times(self.inverse, x)
        scale = 1.0 + dot(v, x)
        a, inverse = self.a, self.inverse
        for i in range(d):
            vi, xi, row = v[i] / scale, x[i], i * d
            for j in range(i, d):
                a[row + j] = a[j * d + i] = a[row + j] + xi * x[j]
                inverse[row + j] = inverse[j * d + i] = inverse[row + j] - vi * v[j]
            self.b[i] += y * xi
        self.n += 1
        self.since += 1
        if self.since >= invert_every:
            self.inverse = inverted(a, d)
            self.since = 0


def fresh(d: int) -> Ridge:
    """Nothing learned: A = A⁻¹ = I, b = 0."""
    return Ridge(identity(d), identity(d), [0.0] * d)


def identity(d: int) -> list[float]:
    """The unit matrix."""
    return [1.0 if i == j else 0.0 for i in range(d) for j in range(d)]


def dot(x: list[float], y: list[float]) -> float:
    """Σ xᵢ yᵢ, from the first to the last."""
    total = 0.0
    for xi, yi in zip(x, y):
        total += xi * yi
    return total


def times(matrix: list[float], x: list[float]) -> list[float]:
    """The matrix by the vector."""
    d = len(x)
    return [dot(matrix[row:row + d], x) for row in range(0, d * d, d)]


def inverted(a: list[float], d: int) -> list[float]:
    """A⁻¹ of a symmetric positive definite matrix by Cholesky's factor; `ValueError` where it is not one."""
    lower = [0.0] * (d * d)
    for j in range(d):
        rest = a[j * d + j] - dot(lower[j * d:j * d + j], lower[j * d:j * d + j])
        if not rest > 0.0:
            raise ValueError(f"not positive definite: pivot {j} is {rest!r}")
        lower[j * d + j] = sqrt(rest)
        for i in range(j + 1, d):
            lower[i * d + j] = (a[i * d + j] - dot(lower[i * d:i * d + j], lower[j * d:j * d + j])) / lower[j * d + j]
    columns: list[list[float]] = []        # of L⁻¹, each from its diagonal down
    for j in range(d):
        column = [0.0] * d
        for i in range(j, d):
            unit = 1.0 if i == j else 0.0
            column[i] = (unit - dot(lower[i * d + j:i * d + i], column[j:i])) / lower[i * d + i]
        columns.append(column)
    out = [0.0] * (d * d)
    for i in range(d):
        for j in range(i, d):
            out[i * d + j] = out[j * d + i] = dot(columns[i][j:], columns[j][j:])
    return out
