"""The tables of the American solver: nodes, weights and matrices; law: the same bits on every machine.

Cosines, powers and Gauss-Legendre roots come from decimal arithmetic of 34 digits, rounded to floats once; matrices from
float products in a written order. A library's cosine, power or eigenvalues would differ in the last digit by processor, and
with them every price.
"""

from __future__ import annotations

from decimal import Context, Decimal, localcontext
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DIGITS: Final = 34
PI: Final = Decimal("3.14159265358979323846264338327950288419716939937511")


class Angles(NamedTuple):
    """A rule on [0, pi/2]: sine, cosine, cosine^(2/3) and weight of each angle. Shape: all (n,)."""

    sine: Array
    cosine: Array
    cosine_power: Array
    weight: Array


@cache
def nodes_z(n: int) -> Array:
    """Chebyshev's extrema on [0, 1] but 0, greatest first: (1 + cos(pi j / n)) / 2. Shape: (n,)."""
    with localcontext(Context(prec=DIGITS)):
        return np.array([float((1 + cosine(PI * j / n)) / 2) for j in range(n)])


@cache
def angles(count: int, panels: int = 1) -> Angles:
    """`count` Gauss-Legendre angles in each of so many equal panels of [0, pi/2]."""
    with localcontext(Context(prec=DIGITS)):
        width = PI / (2 * panels)
        rule = gauss_legendre(count)
        third = Decimal(2) / 3
        found = []
        for panel in range(panels):
            for x, weight in rule:
                angle = width * (panel + (x + 1) / 2)
                c = cosine(angle)
                found.append((float(sine(angle)), float(c), float(c**third), float(weight * width / 2)))
    return Angles(*(np.array(column) for column in zip(*found, strict=True)))


@cache
def gauss_legendre(count: int) -> list[tuple[Decimal, Decimal]]:
    """Nodes on (-1, 1), ascending, and weights: roots of Legendre's polynomial by Newton (Abramowitz and Stegun, 25.4.29)."""
    found = []
    with localcontext(Context(prec=DIGITS + 4)):
        for i in range(count):
            x = -cosine(PI * (4 * i + 3) / (4 * count + 2))
            slope = Decimal(1)
            for _ in range(8):
                p, before = x, Decimal(1)
                for k in range(2, count + 1):
                    p, before = ((2 * k - 1) * x * p - (k - 1) * before) / k, p
                slope = count * (before - x * p) / (1 - x * x)
                move = p / slope
                x -= move
                if abs(move) < Decimal(10) ** -(DIGITS - 2):  # so that the slope is that of the root too
                    break
            found.append((x, 2 / ((1 - x * x) * slope * slope)))
    return found


def cosine(angle: Decimal) -> Decimal:
    """cos by its series, for 0 <= angle <= pi."""
    return series(angle, Decimal(1), 0)


def sine(angle: Decimal) -> Decimal:
    """sin by its series, for 0 <= angle <= pi."""
    return series(angle, angle, 1)


def series(angle: Decimal, first: Decimal, k: int) -> Decimal:
    """The sum of terms that begins with `first` = angle^k / k!, of every second power, with alternating signs."""
    square = angle * angle
    total = term = first
    while abs(term) > Decimal(10) ** -(DIGITS + 6):
        k += 2
        term = -term * square / (k * (k - 1))
        total += term
    return total


def rules(z: Array, at: Angles) -> tuple[Array, Array]:
    """Rows u, sqrt u, weight of du, weight of du / sqrt u as fractions of tau; and z of the points t - u.

    Nodes are z with sqrt(t / tau) = z^(3/2); u = t sin(angle)^2. Shape: z (n,); rules (4, n count), points (n count,).
    """
    root = (z * np.sqrt(z))[:, None]
    square = root * root
    rows: Any = [
        (root * at.sine) * (root * at.sine),
        root * at.sine,
        2.0 * square * at.sine * at.cosine * at.weight,
        2.0 * root * at.cosine * at.weight,
    ]
    return np.ascontiguousarray(np.stack(rows).reshape(4, -1)), (z[:, None] * at.cosine_power).ravel()


def interpolation(z: Array, at: Array) -> Array:
    """The matrix that takes H at nodes z to H at points `at`: H = z poly(z), Lagrange's form. Shape: (m, n)."""
    matrix = np.empty((at.size, z.size))
    for j in range(z.size):
        column = at / z[j]
        for i in range(z.size):
            if i != j:
                column = column * ((at - z[i]) / (z[j] - z[i]))
        matrix[:, j] = column
    return matrix
