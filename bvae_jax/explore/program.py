"""A decoder as a program for a page: a short list of steps on flat arrays, read off its trace.

JAX traces the function; what depends on its parameters alone is computed here. What is left are
products, convolutions and elementwise maps. Whatever only moves numbers (a transpose, a slice, a
broadcast) is a view, which the next step reads: three kinds of steps serve every network.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from bvae_jax.conv import without_kernels
from bvae_jax.errors import UserError

MAPS = {
    "abs", "add", "and", "ceil", "clamp", "copy", "cos", "div", "eq", "exp", "expm1", "floor", "ge",
    "gt", "le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "not", "or",
    "pow", "rsqrt", "select_n", "sign", "sin", "sqrt", "square", "sub", "tanh",
}  # fmt: skip
"""Elementwise maps that the page knows, by the names of JAX's primitives."""
SAME = {"add_any": "add", "copy_p": "copy"}
KEPT = ("reshape", "squeeze", "expand_dims", "convert_element_type", "stop_gradient", "copy")
REDUCTIONS = {
    "reduce_sum": ("add", 0.0),
    "reduce_max": ("max", -math.inf),
    "reduce_min": ("min", math.inf),
}
NHWC = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
"""Images with channels last, kernels [height, width, in, out], as JAX names it."""
INLINE = ("jaxpr", "call_jaxpr", "fun_jaxpr", "call")


class View(NamedTuple):
    """Numbers of a buffer: [i, j, ...] is at offset + i strides[0] + j strides[1] + ..."""

    buffer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0


Value = View | np.ndarray


class Program(NamedTuple):
    """What a page needs to compute a function of one image.

    Attributes:
        sizes: of the buffers.
        constants: buffer -> what it holds.
        inputs: buffers, of the arguments.
        output: a buffer, of the result in order.
        steps: in order; of each `f` is its kind, `buffers` are that of its result and those that
            it reads; `once` is there if it does not depend on the first argument.
    """

    sizes: list[int]
    constants: dict[int, np.ndarray]
    inputs: list[int]
    output: int
    steps: list[dict[str, Any]]


def trace(function: Callable[..., Any], params: Any, *arguments: Any) -> Program:
    """The program of `function(params, *arguments)`, for other arguments of these shapes.

    Args:
        function: to one array.
        params: a pytree of arrays.

    Raises:
        UserError: it uses something that the page cannot compute.
    """
    closed = jax.make_jaxpr(without_kernels(function))(params, *arguments)
    known = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    tracer = _Tracer()
    inputs = [tracer.new(np.shape(argument)) for argument in arguments]
    consts = [np.asarray(const) for const in closed.consts]
    [result] = tracer.run(closed.jaxpr, consts, [*known, *inputs])
    output = tracer.contiguous(tracer.view(result))
    return _reused(tracer, [view.buffer for view in inputs], output.buffer)


class _Tracer:
    """Interprets a jaxpr: constants are computed, the rest becomes steps."""

    def __init__(self):
        self.sizes: list[int] = []
        self.constants: dict[int, np.ndarray] = {}
        self.steps: list[dict[str, Any]] = []

    def run(self, jaxpr: Any, consts: Sequence[Value], arguments: Sequence[Value]) -> list[Value]:
        names = [*jaxpr.constvars, *jaxpr.invars]
        known: dict[Any, Value] = dict(zip(names, [*consts, *arguments], strict=True))

        def read(atom: Any) -> Value:
            return np.asarray(atom.val) if isinstance(atom, Literal) else known[atom]

        for equation in jaxpr.eqns:
            found = self._equation(equation, [read(atom) for atom in equation.invars])
            known.update(zip(equation.outvars, found, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, equation: Any, values: list[Value]) -> list[Value]:
        name, params = equation.primitive.name, equation.params
        if name == "platform_index":  # of code that differs by device, that for any device
            platforms = params["platforms"]
            return [np.asarray(platforms.index(None) if None in platforms else 0)]
        if name == "cond" and isinstance(values[0], np.ndarray):
            branch = params["branches"][int(values[0])]
            return self.run(branch.jaxpr, branch.consts, values[1:])
        inner = [params[key] for key in INLINE if key in params and name != "scan"]
        if inner:
            return self.run(
                getattr(inner[0], "jaxpr", inner[0]), getattr(inner[0], "consts", ()), values
            )
        shapes = [variable.aval.shape for variable in equation.outvars]
        if not any(isinstance(value, View) for value in values):
            return _computed(equation, values)
        kind = SAME.get(name, name)
        if kind in KEPT:
            return [self._kept(kind, values[0], shapes[0], params)]
        if kind in REDUCTIONS:
            return [self._reduced(kind, self.view(values[0]), shapes[0], params["axes"])]
        if kind in MAPS or kind == "integer_pow":
            if kind == "integer_pow":
                kind, values = "pow", [*values, np.asarray(params["y"])]
            return [self.map(kind, shapes[0], [self._spread(v, shapes[0]) for v in values])]
        method = getattr(self, f"_{kind}", None)
        if method is None:
            raise UserError(f"the page cannot compute {name}")
        found = method(values, shapes, **params)
        return found if isinstance(found, list) else [found]

    # Buffers and views

    def new(self, shape: Sequence[int]) -> View:
        """A buffer of its own."""
        self.sizes.append(math.prod(shape))
        return View(len(self.sizes) - 1, tuple(shape), _strides(shape))

    def view(self, value: Value, *, repeats: bool = True) -> View:
        """A value as a view; of a constant, numbers that repeat along an axis are held once.

        Args:
            repeats: look for such axes.
        """
        if isinstance(value, View):
            return value
        held, once = np.asarray(value, np.float32), []
        for axis, n in enumerate(held.shape if repeats else ()):
            first = held.take([0], axis)
            if n > 1 and (held == first).all():
                held, once = first, [*once, axis]
        found = self.new(held.shape)
        self.constants[found.buffer] = np.array(held, order="C")
        strides = [0 if axis in once else step for axis, step in enumerate(found.strides)]
        return View(found.buffer, np.shape(value), tuple(strides))

    def _spread(self, value: Value, shape: tuple[int, ...]) -> View:
        found = self.view(value)
        return found if found.shape == shape else _broadcast(found, shape)

    def contiguous(self, view: View) -> View:
        """The same numbers in order, from the beginning of a buffer."""
        whole = view.offset == 0 and math.prod(view.shape) == self.sizes[view.buffer]
        if whole and _in_order(view):
            return view._replace(strides=_strides(view.shape))
        return self.map("copy", view.shape, [view])

    def map(
        self, f: str, shape: Sequence[int], views: Sequence[View], out: View | None = None
    ) -> View:
        """Emit the step out = f(*views); `out` is new if None."""
        found = self.new(shape) if out is None else out
        used = [found, *views]
        sizes, strides = _merged(shape, [view.strides for view in used])
        self.steps.append(
            {
                "f": f,
                "buffers": [view.buffer for view in used],
                "sizes": sizes,
                "offsets": [view.offset for view in used],
                "strides": strides,
            }
        )
        return found

    # Primitives that only move numbers

    def _kept(self, kind: str, value: Value, shape: tuple[int, ...], params: Any) -> Value:
        view = self.view(value)
        if kind == "convert_element_type" and np.issubdtype(params["new_dtype"], np.integer):
            raise UserError("the page cannot compute whole numbers")
        if view.shape == shape:
            return view
        if kind == "squeeze":
            kept = [i for i in range(len(view.shape)) if i not in params["dimensions"]]
            return view._replace(shape=shape, strides=tuple(view.strides[i] for i in kept))
        return self.contiguous(view)._replace(shape=shape, strides=_strides(shape))

    def _broadcast_in_dim(self, values, shapes, *, broadcast_dimensions, **_) -> View:
        view, [shape] = self.view(values[0]), shapes
        strides = [0] * len(shape)
        for i, axis in enumerate(broadcast_dimensions):
            strides[axis] = view.strides[i] if view.shape[i] == shape[axis] else 0
        return view._replace(shape=shape, strides=tuple(strides))

    def _transpose(self, values, shapes, *, permutation) -> View:
        view = self.view(values[0])
        return view._replace(shape=shapes[0], strides=tuple(view.strides[i] for i in permutation))

    def _rev(self, values, shapes, *, dimensions) -> View:
        view = self.view(values[0])
        strides = [-s if i in dimensions else s for i, s in enumerate(view.strides)]
        moved = sum((view.shape[i] - 1) * view.strides[i] for i in dimensions)
        return view._replace(strides=tuple(strides), offset=view.offset + moved)

    def _slice(self, values, shapes, *, start_indices, limit_indices, strides) -> View:
        view = self.view(values[0])
        steps = strides or (1,) * len(view.shape)
        return View(
            view.buffer,
            shapes[0],
            tuple(s * step for s, step in zip(view.strides, steps, strict=True)),
            view.offset + sum(s * i for s, i in zip(view.strides, start_indices, strict=True)),
        )

    def _split(self, values, shapes, *, axis, **_) -> list[View]:
        view, found, start = self.view(values[0]), [], 0
        for shape in shapes:
            offset = view.offset + start * view.strides[axis]
            found.append(view._replace(shape=shape, offset=offset))
            start += shape[axis]
        return found

    def _unstack(self, values, shapes, *, axis=0, **_) -> list[View]:
        view = self.view(values[0])
        strides = tuple(s for i, s in enumerate(view.strides) if i != axis)
        step = view.strides[axis]
        return [
            View(view.buffer, shape, strides, view.offset + i * step)
            for i, shape in enumerate(shapes)
        ]

    def _concatenate(self, values, shapes, *, dimension) -> View:
        out, start = self.new(shapes[0]), 0
        for view in map(self.view, values):
            part = out._replace(shape=view.shape, offset=start * out.strides[dimension])
            self.map("copy", view.shape, [view], part)
            start += view.shape[dimension]
        return out

    def _stack(self, values, shapes, *, axis=0, **_) -> View:
        out = self.new(shapes[0])
        strides = tuple(s for i, s in enumerate(out.strides) if i != axis)
        for i, view in enumerate(map(self.view, values)):
            self.map(
                "copy",
                view.shape,
                [view],
                View(out.buffer, view.shape, strides, i * out.strides[axis]),
            )
        return out

    def _pad(self, values, shapes, *, padding_config) -> View:
        view, fill = self.view(values[0]), self._spread(values[1], shapes[0])
        if any(low < 0 or high < 0 for low, high, _ in padding_config):
            raise UserError("the page cannot compute a negative pad")
        out = self.map("copy", shapes[0], [fill])
        strides, offset = [], 0
        for step, (low, _, gap) in zip(out.strides, padding_config, strict=True):
            strides.append(step * (1 + gap))
            offset += step * int(low)
        inside = View(out.buffer, view.shape, tuple(strides), offset)
        self.map("copy", view.shape, [view], inside)
        return out

    # Primitives that compute

    def _reduced(self, kind: str, view: View, shape: tuple[int, ...], axes: Sequence[int]) -> View:
        f, start = REDUCTIONS[kind]
        out = self.map("copy", shape, [self._spread(np.asarray(start), shape)])
        along = iter(out.strides)
        strides = tuple(0 if i in axes else next(along) for i in range(len(view.shape)))
        over = View(out.buffer, view.shape, strides)
        self.map(f, view.shape, [over, view], over)
        return out

    def _dot_general(self, values, shapes, *, dimension_numbers, **_) -> View:
        contracted, batched = dimension_numbers
        plain = [*map(list, contracted)] == [[1], [0]] and not any(batched)
        if not plain or any(len(value.shape) != 2 for value in values):
            raise UserError("the page cannot compute a product but of two matrices")
        rows, kernel = self._whole(values[0]), self._whole(values[1])
        return self._emit("dense", shapes[0], [rows, kernel], sizes=[*rows.shape, shapes[0][1]])

    def _conv_general_dilated(
        self, values, shapes, *, dimension_numbers, window_strides, padding, lhs_dilation,
        rhs_dilation, feature_group_count, batch_group_count, **_,
    ) -> View:  # fmt: skip
        plain = tuple(map(tuple, dimension_numbers)) == NHWC
        ones = {*window_strides, *rhs_dilation, feature_group_count, batch_group_count}
        if not plain or ones != {1}:
            raise UserError("the page cannot compute a convolution with strides or groups")
        image, kernel = self._whole(values[0]), self._whole(values[1])
        return self._emit(
            "conv",
            shapes[0],
            [image, kernel],
            image=image.shape[1:],
            result=shapes[0][1:],
            side=kernel.shape[:2],
            between=lhs_dilation,
            before=[int(low) for low, _ in padding],
        )

    def _whole(self, value: Value) -> View:
        return self.contiguous(self.view(value, repeats=False))

    def _emit(self, f: str, shape: tuple[int, ...], views: Sequence[View], **sizes: Any) -> View:
        out = self.new(shape)
        buffers = [view.buffer for view in (out, *views)]
        self.steps.append({"f": f, "buffers": buffers} | sizes)
        return out


def _computed(equation: Any, values: Sequence[Any]) -> list[Value]:
    """What follows from constants."""
    found = equation.primitive.bind(*map(jnp.asarray, values), **equation.params)
    return [np.asarray(x) for x in (found if equation.primitive.multiple_results else [found])]


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Of numbers in order, the last axis first."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def _broadcast(view: View, shape: tuple[int, ...]) -> View:
    """Axes of length 1, or those of a scalar, repeated: what a map's arguments may need."""
    strides = view.strides or (0,) * len(shape)
    own = view.shape or (1,) * len(shape)
    repeated = zip(own, strides, shape, strict=True)
    return view._replace(shape=shape, strides=tuple(s if n == m else 0 for n, s, m in repeated))


def _in_order(view: View) -> bool:
    wanted = _strides(view.shape)
    return all(n == 1 or a == b for n, a, b in zip(view.shape, view.strides, wanted, strict=True))


def _merged(
    shape: Sequence[int], strides: Sequence[Sequence[int]]
) -> tuple[list[int], list[list[int]]]:
    """The fewest axes over which the same numbers are met in the same order.

    Args:
        strides: of each view.
    """
    sizes: list[int] = []
    kept: list[list[int]] = [[] for _ in strides]
    for axis, n in enumerate(shape):
        steps = [int(each[axis]) for each in strides]
        if n == 1:
            continue
        if sizes and all(k[-1] == n * s for k, s in zip(kept, steps, strict=True)):
            sizes[-1] *= n
            for k, s in zip(kept, steps, strict=True):
                k[-1] = s
        else:
            sizes.append(int(n))
            for k, s in zip(kept, steps, strict=True):
                k.append(s)
    return sizes or [1], [k or [0] for k in kept]


def _reused(tracer: _Tracer, inputs: list[int], output: int) -> Program:
    """Results of steps share buffers: one that is not read any more is written again."""
    last = {b: i for i, step in enumerate(tracer.steps) for b in step["buffers"]}
    moving = {inputs[0]}
    for step in tracer.steps:
        if moving & {*step["buffers"][1:]}:
            moving.add(step["buffers"][0])
    kept = {*range(len(tracer.sizes))} - moving | {*inputs, output}
    sizes: list[int] = []
    place: dict[int, int] = {}
    free: list[int] = []

    def put(buffer: int) -> None:
        size = tracer.sizes[buffer]
        fitting = [slot for slot in free if sizes[slot] == size] if buffer not in kept else []
        if fitting:
            free.remove(fitting[0])
        else:
            sizes.append(size)
        place[buffer] = fitting[0] if fitting else len(sizes) - 1

    for buffer in [*inputs, *(b for b in tracer.constants if b in last or b == output)]:
        put(buffer)
    steps = []
    for i, step in enumerate(tracer.steps):
        for buffer in step["buffers"]:
            if buffer not in place:
                put(buffer)
        once = {} if step["buffers"][0] in moving else {"once": True}
        steps.append(step | {"buffers": [place[b] for b in step["buffers"]]} | once)
        free += sorted({place[b] for b in step["buffers"] if last[b] == i and b not in kept})
    constants = {place[b]: held for b, held in tracer.constants.items() if b in place}
    return Program(sizes, constants, [place[b] for b in inputs], place[output], steps)
