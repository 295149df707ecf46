r"""Rigorous enclosures of the extreme curvature of the temporal loss for few frames, by branch and bound in ball arithmetic.

They share no lemma and no code with the proofs of C1.hessian and C1.upper-curvature. For unit frames with neighbouring angles alpha_t in
[0, pi], s_t = cos alpha_t, S_t = sin alpha_t, and a direction x_t = rho_t u_t + X_t with X_t normal to u_t, let beta_t and gamma_t be the
components of X_t towards u_{t+1} and towards u_{t-1} in the plane of the pair. Then, with k = 2/(N-2) and y = k D^T D s,

    x^T Hess L x = k sum_t (s_{t+1}' - s_t')^2 + sum_t y_t s_t'',      s_t' = S_t (beta_t + gamma_{t+1}),
    s_t'' = -2 S_t (rho_t beta_t + rho_{t+1} gamma_{t+1}) - s_t (|X_t|^2 + |X_{t+1}|^2) - 2 s_t beta_t gamma_{t+1} + 2 <n_t, n_{t+1}'>

and |n_t|^2 = |X_t|^2 - beta_t^2, |n_{t+1}'|^2 = |X_{t+1}|^2 - gamma_{t+1}^2. For any A_t, B_{t+1} >= 0 with A_t B_{t+1} >= y_t^2,

    2 |y_t <n_t, n_{t+1}'>| <= A_t (|X_t|^2 - beta_t^2) + B_{t+1} (|X_{t+1}|^2 - gamma_{t+1}^2),

so sign * x^T Hess L x <= lambda |x|^2 in every dimension as soon as the following are positive semidefinite:

    the form lambda |rho|^2 + sum_t (A_t beta_t^2 + B_{t+1} gamma_{t+1}^2) - sign (what is quadratic in rho, beta, gamma above),
    lambda + sign (y_{t-1} s_{t-1} + y_t s_t) - A_t - B_t   for every frame,      [[A_t, y_t], [y_t, B_{t+1}]]   for every pair.

Torsions have dropped out: the search is over N - 1 angles. On a box of angles A and B are affine functions of them, all matrices are affine
but for a remainder, and a symmetric matrix that is affine on a box is positive semidefinite on it if it is at the corners. The corners are
decided by elimination in ball arithmetic; floating point only proposes A and B.
"""

import collections
import dataclasses
import functools
import itertools
import math

import flint
import numpy as np

PRECISION = 80
"""Bits of the ball arithmetic; the midpoints are doubles, so the balls stay thin."""
MAXIMUM_BOXES = 200_000
NEWTON_STEPS = 30
CENTRED = 1e-5
HIGHEST_PRESSURE = 1e7


@dataclasses.dataclass(frozen=True)
class Enclosure:
    """lower <= supremum <= upper.

    Attributes:
        lower, upper: proved in ball arithmetic.
        boxes: how many boxes of angles were proved.
        smallest: the smallest half-width among them.
    """

    lower: float
    upper: float
    boxes: int
    smallest: float


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Where the unknowns sit in the block-diagonal matrix that has to be positive semidefinite.

    First block: rho_1 .. rho_N, beta_1 .. beta_{N-1}, gamma_2 .. gamma_N. Then one scalar for each frame, then one 2 x 2 block for each pair.
    """

    num_frames: int

    @property
    def num_pairs(self) -> int:
        return self.num_frames - 1

    @property
    def blocks(self) -> list[slice]:
        start = 3 * self.num_frames - 2
        frames = [slice(start + t, start + t + 1) for t in range(self.num_frames)]
        start += self.num_frames
        return [slice(0, 3 * self.num_frames - 2), *frames, *(slice(start + 2 * t, start + 2 * t + 2) for t in range(self.num_pairs))]

    @property
    def size(self) -> int:
        return self.blocks[-1].stop

    def beta(self, pair: int) -> int:
        return self.num_frames + pair

    def gamma(self, pair: int) -> int:
        """Index of gamma of the later frame of a pair."""
        return self.num_frames + self.num_pairs + pair

    def multipliers(self) -> list[np.ndarray]:
        """The matrices that A_1 .. A_{N-1}, B_2 .. B_N and lambda multiply; their entries are 0, 1 and -1."""
        found = []
        first_scalar = 3 * self.num_frames - 2
        first_pair = first_scalar + self.num_frames
        for later in (0, 1):
            for pair in range(self.num_pairs):
                matrix = np.zeros((self.size, self.size))
                component = (self.beta, self.gamma)[later](pair)
                matrix[component, component] = 1.0
                matrix[first_scalar + pair + later, first_scalar + pair + later] = -1.0
                matrix[first_pair + 2 * pair + later, first_pair + 2 * pair + later] = 1.0
                found.append(matrix)
        level = np.zeros((self.size, self.size))
        for index in [*range(self.num_frames), *range(first_scalar, first_pair)]:
            level[index, index] = 1.0
        return [*found, level]


def _weights(num_frames: int) -> list[list[int]]:
    """D^T D, integers."""
    pairs = num_frames - 1
    difference = [[(j == i + 1) - (j == i) for j in range(pairs)] for i in range(pairs - 1)]
    return [[sum(row[i] * row[j] for row in difference) for j in range(pairs)] for i in range(pairs)]


def _fill(layout: _Layout, sign: int, cosines, sines, matrix) -> None:
    """Write the part of the matrix that depends on the angles; works on floats and on balls, and on their derivatives' bilinear parts."""
    factor = _curvature(layout.num_frames)
    weights = _weights(layout.num_frames)
    slopes = [factor * sum(weights[i][j] * cosines[j] for j in range(layout.num_pairs)) for i in range(layout.num_pairs)]
    for i, j in itertools.product(range(layout.num_pairs), repeat=2):
        product = -sign * factor * weights[i][j] * sines[i] * sines[j]
        for row, column in itertools.product((layout.beta(i), layout.gamma(i)), (layout.beta(j), layout.gamma(j))):
            matrix[row, column] += product
    first_scalar = 3 * layout.num_frames - 2
    first_pair = first_scalar + layout.num_frames
    for t in range(layout.num_pairs):
        entries = [
            (t, layout.beta(t), sign * slopes[t] * sines[t]),
            (t + 1, layout.gamma(t), sign * slopes[t] * sines[t]),
            (layout.beta(t), layout.gamma(t), sign * slopes[t] * cosines[t]),
            (first_pair + 2 * t, first_pair + 2 * t + 1, slopes[t]),
        ]
        for row, column, value in entries:
            matrix[row, column] += value
            matrix[column, row] += value
        for frame in (t, t + 1):
            matrix[first_scalar + frame, first_scalar + frame] += sign * slopes[t] * cosines[t]


def _curvature(num_frames: int) -> int:
    """k = 2/(N-2), an integer for N = 3 and 4: kept exact in every arithmetic."""
    if num_frames not in (3, 4):
        raise ValueError(f"num_frames = {num_frames}; enclosures are computed for 3 and 4 frames, whose weight 2/(N-2) is an integer")
    return 2 // (num_frames - 2)


@functools.lru_cache(maxsize=None)
def _remainder_rows(num_frames: int) -> tuple[float, ...]:
    """For each block, c with |remainder| <= c rho^2 on a box of half-width rho, when cos and sin are replaced by their tangents.

    Along a segment of the box a product of two of the functions cos alpha_i, sin alpha_i has a second derivative of at most (2 rho)^2, a single
    one of at most rho^2, so the remainder is at most half of that times the sum of the coefficients. A symmetric matrix's norm is at most its
    largest row sum.
    """
    layout = _Layout(num_frames)
    factor, weights = _curvature(num_frames), np.abs(np.array(_weights(num_frames)))
    rows = np.zeros((layout.size, layout.size))
    totals = factor * weights.sum(axis=1)
    first_scalar = 3 * num_frames - 2
    first_pair = first_scalar + num_frames
    for i, j in itertools.product(range(layout.num_pairs), repeat=2):
        for row, column in itertools.product((layout.beta(i), layout.gamma(i)), (layout.beta(j), layout.gamma(j))):
            rows[row, column] += 2 * factor * weights[i, j]
    for t in range(layout.num_pairs):
        for row, column in ((t, layout.beta(t)), (t + 1, layout.gamma(t)), (layout.beta(t), layout.gamma(t))):
            rows[row, column] += 2 * totals[t]
            rows[column, row] += 2 * totals[t]
        rows[first_pair + 2 * t, first_pair + 2 * t + 1] += totals[t] / 2
        rows[first_pair + 2 * t + 1, first_pair + 2 * t] += totals[t] / 2
        for frame in (t, t + 1):
            rows[first_scalar + frame, first_scalar + frame] += 2 * totals[t]
    return tuple(float(rows[block, block].sum(axis=1).max()) for block in layout.blocks)


class _Proposer:
    """Multipliers A, B at the analytic centre of what is feasible at the target, by Newton's method in floating point.

    Minimises pressure * lambda - log det F until lambda reaches the target, and then -log det F with lambda held there.
    """

    def __init__(self, layout: _Layout, sign: int, target: float) -> None:
        self.layout, self.sign, self.target = layout, sign, target
        self.matrices = np.array(layout.multipliers())

    def centre(self, angles: np.ndarray, guess: np.ndarray | None) -> tuple[np.ndarray, np.ndarray] | None:
        """(A, B) and their derivatives by the angles, (angles, 2N - 2); None where the target is out of reach."""
        fixed = _values(self.layout, self.sign, np.cos(angles), np.sin(angles))
        unknown = None if guess is None else np.append(guess, self.target)
        if unknown is None or np.linalg.eigvalsh(fixed + np.tensordot(unknown, self.matrices, 1))[0] <= 0:
            unknown = self._descend(fixed)
        if unknown is None:
            return None
        free = len(unknown) - 1
        for _ in range(NEWTON_STEPS):
            step, decrement, products, inverse, curvature = self._step(fixed, unknown, free, 0.0)
            unknown[:free] += step / (1 + decrement) if decrement > 0.25 else step
            if decrement < CENTRED:
                break
        # The centre satisfies tr(F^-1 M_i) = 0; differentiating that along an angle gives the change of the centre.
        right = [np.einsum("iab,ba->i", products @ inverse, derivative) for derivative in self._derivatives(angles)]
        return unknown[:free], -np.linalg.solve(curvature, np.array(right).T).T

    def _step(self, fixed: np.ndarray, unknown: np.ndarray, free: int, pressure: float):
        inverse = np.linalg.inv(fixed + np.tensordot(unknown, self.matrices, 1))
        products = inverse @ self.matrices[:free]
        gradient = -np.trace(products, axis1=1, axis2=2)
        gradient[-1] += pressure
        curvature = np.einsum("iab,jba->ij", products, products)
        step = -np.linalg.solve(curvature, gradient)
        return step, math.sqrt(max(-float(gradient @ step), 0.0)), products, inverse, curvature

    def _descend(self, fixed: np.ndarray) -> np.ndarray | None:
        unknown = np.append(np.full(len(self.matrices) - 1, 32.0), 256.0)
        pressure = 1.0
        while pressure < HIGHEST_PRESSURE:
            step, decrement, *_ = self._step(fixed, unknown, len(unknown), pressure)
            scale = 1 / (1 + decrement) if decrement > 0.25 else 1.0
            if unknown[-1] + scale * step[-1] <= self.target:
                # Still inside the cone, since the whole step is.
                scale = (unknown[-1] - self.target) / -step[-1]
                unknown += scale * step
                unknown[-1] = self.target
                return unknown
            unknown += scale * step
            if decrement < 0.25:
                pressure *= 4
        return None

    def _derivatives(self, angles: np.ndarray) -> list[np.ndarray]:
        found = []
        for row in np.eye(self.layout.num_pairs):
            cosines, sines = np.cos(angles), np.sin(angles)
            change = -row * sines, row * cosines
            ahead = _values(self.layout, self.sign, cosines + change[0], sines + change[1])
            behind = _values(self.layout, self.sign, cosines - change[0], sines - change[1])
            found.append((ahead - behind) / 2)
        return found


def _values(layout: _Layout, sign: int, cosines: np.ndarray, sines: np.ndarray) -> np.ndarray:
    matrix = np.zeros((layout.size, layout.size))
    _fill(layout, sign, cosines, sines, matrix)
    return matrix


def _balls(layout: _Layout, sign: int, cosines: list, sines: list) -> np.ndarray:
    matrix = np.full((layout.size, layout.size), flint.arb(0), dtype=object)
    _fill(layout, sign, cosines, sines, matrix)
    return matrix


def _positive_definite(matrix: np.ndarray) -> bool:
    """Elimination with balls: True only if every pivot is proved positive."""
    rows = [list(row) for row in matrix]
    size = len(rows)
    for pivot in range(size):
        if not rows[pivot][pivot] > 0:
            return False
        for row in range(pivot + 1, size):
            ratio = rows[pivot][row] / rows[pivot][pivot]
            for column in range(row, size):
                rows[row][column] -= ratio * rows[pivot][column]
    return True


def _proved(layout: _Layout, sign: int, target: float, box: "_Box", multipliers: np.ndarray, changes: np.ndarray) -> bool:
    """Whether all blocks are positive definite on the whole box, with A and B affine on it."""
    half = [flint.arb(value) for value in box.half]
    widest = max(box.half)
    cosines = [flint.arb(value).cos() for value in box.centre]
    sines = [flint.arb(value).sin() for value in box.centre]
    middle = _balls(layout, sign, cosines, sines)
    matrices = layout.multipliers()
    places = [[(i, j, int(m[i, j])) for i, j in zip(*np.nonzero(m), strict=True)] for m in matrices]
    slack = [flint.arb(row) * flint.arb(widest) ** 2 for row in _remainder_rows(layout.num_frames)]
    for signs in itertools.product((-1, 1), repeat=layout.num_pairs):
        turns = [turn * side for turn, side in zip(half, signs, strict=True)]
        change = [-s * turn for s, turn in zip(sines, turns, strict=True)], [c * turn for c, turn in zip(cosines, turns, strict=True)]
        ahead, behind = (
            _balls(
                layout,
                sign,
                [c + way * d for c, d in zip(cosines, change[0], strict=True)],
                [s + way * d for s, d in zip(sines, change[1], strict=True)],
            )
            for way in (1, -1)
        )
        # For a quadratic polynomial half this difference is exactly the linear part.
        matrix = middle + (ahead - behind) / flint.arb(2)
        levels = [flint.arb(float(value)) for value in multipliers]
        for index in range(len(levels)):
            levels[index] += sum(flint.arb(float(slope)) * turn for slope, turn in zip(changes[:, index], turns, strict=True))
        levels.append(flint.arb(target))
        for level, entries in zip(levels, places, strict=True):
            for row, column, factor in entries:
                matrix[row, column] += factor * level
        for block, margin in zip(layout.blocks, slack, strict=True):
            part = matrix[block, block].copy()
            for index in range(part.shape[0]):
                part[index, index] -= margin
            if not _positive_definite(part):
                return False
    return True


@dataclasses.dataclass(frozen=True)
class _Box:
    """A box of angles with the multipliers of the box it was cut from."""

    centre: tuple[float, ...]
    half: tuple[float, ...]
    guess: np.ndarray | None = dataclasses.field(default=None, compare=False)

    def cut(self, guess: np.ndarray | None) -> "list[_Box]":
        """Two halves along the longest side; the sides are dyadic multiples of one double, so the halves cover the box exactly."""
        axis = int(np.argmax(self.half))
        half = tuple(value / 2 if index == axis else value for index, value in enumerate(self.half))
        centres = [
            tuple(value + side * half[axis] if index == axis else value for index, value in enumerate(self.centre)) for side in (-1, 1)
        ]
        return [_Box(centre, half, guess) for centre in centres]


@flint.ctx.workprec(PRECISION)
def upper_end(num_frames: int, sign: int, target: float) -> tuple[int, float]:
    """Prove sup lambda_max(sign * Hess L) <= target over unit frames in any dimension.

    Args:
        num_frames: 3 or 4.
        sign: 1 for the largest eigenvalue, -1 for the negative of the smallest.
        target: the level to be proved.

    Returns:
        The number of boxes proved and the smallest half-width among them.

    Raises:
        ValueError: other num_frames or sign.
        ArithmeticError: no multipliers reach the target at some angles (they are named), or too many boxes were needed.
    """
    if sign not in (1, -1):
        raise ValueError(f"sign = {sign}; 1 or -1 is needed")
    layout = _Layout(num_frames)
    proposer = _Proposer(layout, sign, target)
    # 3.25 / 2 > pi / 2 and its binary fractions are exact; angles beyond pi repeat configurations, which does no harm.
    quarter = 1.625
    boxes = [_Box((quarter,) * layout.num_pairs, (quarter,) * layout.num_pairs)]
    proved, smallest = 0, math.inf
    while boxes:
        box = boxes.pop()
        if _mirrored(box):
            continue
        proposal = proposer.centre(np.array(box.centre), box.guess)
        if proposal is None:
            raise ArithmeticError(f"target {target} for sign {sign} is out of reach at the angles {box.centre}: raise it")
        if _likely(layout, sign, target, box, *proposal) and _proved(layout, sign, target, box, *proposal):
            proved, smallest = proved + 1, min(smallest, *box.half)
            continue
        if proved + len(boxes) > MAXIMUM_BOXES:
            raise ArithmeticError(f"{MAXIMUM_BOXES} boxes do not prove target {target} for {num_frames} frames: raise it")
        boxes.extend(box.cut(proposal[0]))
    return proved, smallest


def _mirrored(box: _Box) -> bool:
    """Whether playing the frames backwards, which reverses the angles, takes the whole box to others that are searched."""
    return box.centre[0] - box.half[0] > box.centre[-1] + box.half[-1]


def _likely(layout: _Layout, sign: int, target: float, box: _Box, multipliers: np.ndarray, changes: np.ndarray) -> bool:
    """The same test in floating point, which spares the ball arithmetic boxes that are too large."""
    angles = np.array(box.centre)
    cosines, sines = np.cos(angles), np.sin(angles)
    middle = _values(layout, sign, cosines, sines)
    stacked = np.array(layout.multipliers())
    slack = np.zeros(layout.size)
    for block, row in zip(layout.blocks, _remainder_rows(layout.num_frames), strict=True):
        slack[block] = row * max(box.half) ** 2
    for signs in itertools.product((-1, 1), repeat=layout.num_pairs):
        turns = np.array(signs) * np.array(box.half)
        change = -sines * turns, cosines * turns
        linear = _values(layout, sign, cosines + change[0], sines + change[1])
        linear = (linear - _values(layout, sign, cosines - change[0], sines - change[1])) / 2
        levels = np.append(multipliers + turns @ changes, target)
        matrix = middle + linear + np.tensordot(levels, stacked, 1) - np.diag(slack)
        if np.linalg.eigvalsh(matrix)[0] <= 0:
            return False
    return True


def _rayleigh_quotient(frames: np.ndarray, step: np.ndarray) -> flint.arb:
    """x^T Hess L x / |x|^2 at frames that are exactly of norm 1, from the derivatives of each cosine; (N, d) both, exact doubles.

        s' = <x, v - s u> + <z, u - s v>,   s'' = 2 <P_u x, P_v z> - sum over both of (2 <u, x> <v - s u, x> + s |P_u x|^2)
    """
    layout = _Layout(len(frames))
    vectors = [flint.arb_mat([[flint.arb(float(value))] for value in row]) for row in frames]
    steps = [flint.arb_mat([[flint.arb(float(value))] for value in row]) for row in step]

    def dot(left: flint.arb_mat, right: flint.arb_mat) -> flint.arb:
        return (left.transpose() * right)[0, 0]

    values, first, second = [], [], []
    for t in range(layout.num_pairs):
        cosine = dot(vectors[t], vectors[t + 1])
        change, curvature, tangents = flint.arb(0), flint.arb(0), []
        for here, there in ((t, t + 1), (t + 1, t)):
            towards = vectors[there] - cosine * vectors[here]
            tangent = steps[here] - dot(vectors[here], steps[here]) * vectors[here]
            change += dot(towards, steps[here])
            curvature -= 2 * dot(vectors[here], steps[here]) * dot(towards, steps[here]) + cosine * dot(tangent, tangent)
            tangents.append(tangent)
        values.append(cosine)
        first.append(change)
        second.append(curvature + 2 * dot(*tangents))
    factor, weights = _curvature(len(frames)), _weights(len(frames))
    total = sum(
        factor * weights[i][j] * (first[i] * first[j] + values[j] * second[i])
        for i, j in itertools.product(range(layout.num_pairs), repeat=2)
    )
    return total / sum(dot(vector, vector) for vector in steps)


@flint.ctx.workprec(PRECISION)
def lower_end(num_frames: int, sign: int) -> float:
    """A proved lower bound on sup lambda_max(sign * Hess L): the best Rayleigh quotient at planar frames that turn by quarters.

    Directions are proposed in floating point, with eigenvectors of a Hessian assembled from the same Rayleigh quotient; frames and
    directions are exact, so the quotient is enclosed.
    """
    _curvature(num_frames)
    best = -math.inf
    for turns in itertools.product((0, 1, 2), repeat=num_frames - 1):
        quarters = np.concatenate([[0], np.cumsum(turns)]) % 4
        frames = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], dtype=float)[quarters]
        basis = np.eye(2 * num_frames)
        form = [float(_rayleigh_quotient(frames, row.reshape(-1, 2)).mid()) for row in basis]
        hessian = np.diag(form)
        for i, j in itertools.combinations(range(2 * num_frames), 2):
            both = 2 * float(_rayleigh_quotient(frames, (basis[i] + basis[j]).reshape(-1, 2)).mid())
            hessian[i, j] = hessian[j, i] = (both - form[i] - form[j]) / 2
        _, directions = np.linalg.eigh(sign * hessian)
        quotient = sign * _rayleigh_quotient(frames, directions[:, -1].reshape(-1, 2))
        best = max(best, _below(quotient))
    return best


def _below(ball: flint.arb) -> float:
    return math.nextafter(float(ball.lower()), -math.inf)


def _above(ball: flint.arb) -> float:
    return math.nextafter(float(ball.upper()), math.inf)


def enclose(num_frames: int, sign: int, *, relative_width: float = 1e-3) -> Enclosure:
    """Enclose sup lambda_max(sign * Hess L) over frames of norm at least 1, in any dimension >= 2.

    Args:
        num_frames: 3 or 4.
        sign: 1 encloses C+_N, -1 the largest downward curvature; C_N is the larger of the two.
        relative_width: the upper end is the lower one times 1 + relative_width.

    Raises:
        ValueError: other num_frames or sign, or a width that is not positive.
        ArithmeticError: the supremum is not proved to lie that close to the lower end.
    """
    _check_width(relative_width)
    lower = lower_end(num_frames, sign)
    target = lower * (1 + relative_width)
    boxes, smallest = upper_end(num_frames, sign, target)
    return Enclosure(lower, target, boxes, smallest)


def _check_width(relative_width: float) -> None:
    if not relative_width > 0:
        raise ValueError(f"relative_width = {relative_width}; a number above 0 is needed")


@flint.ctx.workprec(PRECISION)
def enclose_gradient(num_frames: int, *, relative_width: float = 1e-3) -> Enclosure:
    """Enclose sup ||grad L|| over frames of norm at least 1, in any dimension >= 2.

    With v_t = y_t S_t and unit frames, ||grad L||^2 = 2 sum_t v_t^2 + 2 sum_t v_t v_{t+1} cos phi_t, phi_t the torsion at the frame between,
    so the supremum is that of the convex function g(v) = sqrt(2 sum v_t^2 + 2 sum |v_t v_{t+1}|) <= 2 |v|. On a box v is affine but for a
    remainder r, and g <= max over the corners of g(affine) + 2 |r|.

    Raises:
        ValueError: num_frames other than 3 or 4, or a width that is not positive.
        ArithmeticError: too many boxes were needed.
    """
    _check_width(relative_width)
    num_pairs = num_frames - 1
    factor, weights = _curvature(num_frames), _weights(num_frames)
    totals = [factor * sum(map(abs, row)) for row in weights]

    def products(cosines: list, sines: list) -> list:
        return [factor * sum(weights[t][j] * cosines[j] for j in range(num_pairs)) * sines[t] for t in range(num_pairs)]

    def size(v: list) -> flint.arb:
        return (2 * sum(x * x for x in v) + 2 * sum(abs(x * y) for x, y in itertools.pairwise(v))).sqrt()

    quarter = 1.625
    boxes = collections.deque([_Box((quarter,) * num_pairs, (quarter,) * num_pairs)])
    lower, highest, proved, smallest = 0.0, 0.0, 0, math.inf
    while boxes:
        # The lower end first grows on coarse boxes: breadth first.
        box = boxes.popleft()
        if _mirrored(box):
            continue
        half = [flint.arb(value) for value in box.half]
        cosines = [flint.arb(value).cos() for value in box.centre]
        sines = [flint.arb(value).sin() for value in box.centre]
        middle = products(cosines, sines)
        lower = max(lower, _below(size(middle)))
        remainder = 4 * flint.arb(max(box.half)) ** 2 * flint.arb(sum(total**2 for total in totals)).sqrt()
        upper = flint.arb(0)
        for signs in itertools.product((-1, 1), repeat=num_pairs):
            turns = [side * turn for side, turn in zip(signs, half, strict=True)]
            ends = [
                products(
                    [c - way * s * turn for c, s, turn in zip(cosines, sines, turns, strict=True)],
                    [s + way * c * turn for c, s, turn in zip(cosines, sines, turns, strict=True)],
                )
                for way in (1, -1)
            ]
            linear = [m + (ahead - behind) / 2 for m, ahead, behind in zip(middle, *ends, strict=True)]
            upper = upper.max(size(linear))
        above = _above(upper + remainder)
        if above <= lower * (1 + relative_width):
            highest, proved, smallest = max(highest, above), proved + 1, min(smallest, *box.half)
            continue
        if proved + len(boxes) > MAXIMUM_BOXES:
            raise ArithmeticError(f"{MAXIMUM_BOXES} boxes do not enclose the gradient of {num_frames} frames to {relative_width}: widen it")
        boxes.extend(box.cut(None))
    return Enclosure(lower, max(lower, highest), proved, smallest)
