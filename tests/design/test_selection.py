# ruff: noqa: ARG005 - kernels and extractors take what they are given

from __future__ import annotations

import inspect
import typing

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from researchlab.design import Config, FieldSelector, Kernel, SelectedKernel, Selector, State
from researchlab.errors import FieldPathError, KernelCallError, ResearchlabError


class Sub(State):
    val: jax.Array


class Pair(typing.NamedTuple):
    first: int
    second: int


class Box(State):
    x: jax.Array
    sub: Sub
    d: dict
    layers: dict
    items: list
    pair: Pair
    nothing: None = None

    @property
    def doubled(self):
        return 2.0 * self.x

    @property
    def broken(self):
        return self.x.no_such_thing


class Optimiser(Config):
    learning_rate: float = 0.5


class Settings(Config):
    lr: float = 0.25
    optimiser: Optimiser = Optimiser()


CONFIG = Settings()


@pytest.fixture
def state():
    return Box(
        x=jnp.arange(3.0),
        sub=Sub(jnp.asarray(7.0)),
        d={"key": 1, "a.b": 2, "keys": 4},
        layers={5: 3},
        items=[10, 11, {"deep": 12}],
        pair=Pair(20, 21),
    )


def got(path, state):
    return FieldSelector(value=path)(lambda value: value)(state, CONFIG)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("state.sub.val", 7.0),
        ("state.d.key", 1),
        ("state.d.a\\.b", 2),
        ("state.layers.5", 3),
        ("state.d.keys", 4),
        ("state.items.0", 10),
        ("state.items.-1.deep", 12),
        ("state.pair.second", 21),
        ("state.pair.0", 20),
        ("state.x.2", 2.0),
        ("state.doubled.1", 2.0),
        ("state.nothing", None),
        ("config.lr", 0.25),
        ("config.optimiser.learning_rate", 0.5),
    ],
)
def test_a_path_follows_attributes_keys_and_indices(state, path, expected):
    assert got(path, state) == expected


@pytest.mark.parametrize(
    "path", ["", "state", "config", "x", "states.x", "state.", ".state.x", "state..x", "state.x.", 3, None]
)
def test_a_malformed_path_is_refused_when_the_selector_is_made(path):
    with pytest.raises(FieldPathError, match="'lr'") as caught:
        FieldSelector(lr=path)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("state.z", r"stops at 'z': state is a Box with fields x, sub, d, layers, items, pair, nothing"),
        ("state.sub.vall", r"stops at 'vall': state.sub is a Sub with fields val. Did you mean 'val'"),
        ("state.d.kee", r"state.d is a dict with keys key, a.b, keys. Did you mean 'key'"),
        ("state.items.3", r"stops at '3': state.items is a list of length 3"),
        ("state.items.-4", r"state.items is a list of length 3"),
        ("state.items.two", r"stops at 'two': state.items is a list of length 3"),
        ("state.x.3", r"state.x is an array of shape \(3,\)"),
        ("state.sub.val.0", r"state.sub.val is an array of shape \(\)"),
        ("state.nothing.more", r"state.nothing is None"),
        ("state.pair.third", r"state.pair is a Pair with fields first, second"),
        ("config.optimiser.learnin_rate", r"Did you mean 'learning_rate'"),
    ],
)
def test_a_missing_field_names_the_path_the_part_and_what_is_there(state, path, said):
    with pytest.raises(FieldPathError, match=said) as caught:
        got(path, state)
    assert repr(path) in str(caught.value)
    assert isinstance(caught.value, AttributeError | LookupError)


def test_the_error_of_a_property_is_not_mistaken_for_a_missing_field(state):
    with pytest.raises(AttributeError, match="no_such_thing"):
        got("state.broken", state)


def test_a_decorated_kernel_keeps_its_name_and_docstring_and_stays_reachable():
    def step(x, lr):
        """Take one step."""
        return x * lr

    selected = FieldSelector(x="state.x", lr="config.lr")(step)
    assert isinstance(selected, SelectedKernel)
    assert selected.raw is step
    assert selected.__wrapped__ is step
    assert selected.__name__ == "step"
    assert selected.__doc__ == "Take one step."
    assert list(inspect.signature(selected).parameters) == ["state", "config", "args", "kwargs"]


def test_a_function_is_a_kernel():
    assert isinstance(lambda: None, Kernel)


def test_a_selector_passes_the_extracted_arguments_first(state):
    @Selector(lambda state, config: ((state.x,), {"lr": config.lr}))
    def step(x, batch, lr, *, shift=0.0):
        return (x * lr + batch + shift).tolist()

    assert step(state, CONFIG, 1.0) == [1.0, 1.25, 1.5]
    assert step(state, CONFIG, batch=1.0, shift=1.0) == [2.0, 2.25, 2.5]


@pytest.mark.parametrize("extracted", [None, 1, (1,), (1, {}), ((), 1), ((), {}, ())])
def test_an_extractor_that_returns_something_else_is_named(state, extracted):
    def extractor(state, config):
        return extracted

    with pytest.raises(KernelCallError, match=r"'extractor' must return \(args, kwargs\)"):
        Selector(extractor)(lambda: None)(state, CONFIG)


def test_what_cannot_be_called_is_refused():
    with pytest.raises(KernelCallError, match="Selector takes a function"):
        Selector("state.x")
    with pytest.raises(KernelCallError, match="wraps a function"):
        Selector(lambda s, c: ((), {}))("kernel")


SELECTED = FieldSelector(x="state.x", lr="config.lr")


def _plain(x, lr, batch):
    return x, lr, batch


def _batch_first(batch, x, lr):
    return x, lr, batch


def _batch_between(x, batch, lr):
    return x, lr, batch


def _with_default(x, lr=9.0, batch=None):
    return x, lr, batch


def _keyword_only(*, x, lr, batch):
    return x, lr, batch


def _keyword_only_batch(x, lr, *, batch, seed=0):
    return x, lr, batch


def _keyword_only_selected(batch, *, x, lr):
    return x, lr, batch


def _positional_only(x, lr, batch, /):
    return x, lr, batch


def _star_args(x, lr, *batches):
    return x, lr, *batches


def _star_kwargs(batch, **rest):
    return rest["x"], rest["lr"], batch


def _everything(batch, /, x, *more, lr, **rest):
    return x, lr, batch


class _Methods(eqx.Module):
    scale: jax.Array

    def method(self, x, lr, batch):
        return x, lr, batch

    def __call__(self, x, lr, batch):
        return x, lr, batch


class _Plain:
    def method(self, x, lr, batch):
        return x, lr, batch


KERNELS = [
    _plain,
    _batch_first,
    _batch_between,
    _with_default,
    _keyword_only,
    _keyword_only_batch,
    _keyword_only_selected,
    _positional_only,
    _star_args,
    _star_kwargs,
    _everything,
    _Plain().method,
    jax.jit(_plain),
    jax.jit(_keyword_only),
    eqx.filter_jit(_plain),
    eqx.filter_jit(_batch_first),
    jax.vmap(_plain, in_axes=(0, None, None), out_axes=(0, None, None)),
]


@pytest.mark.parametrize(
    "kernel", KERNELS, ids=lambda kernel: getattr(kernel, "__name__", "kernel") + type(kernel).__name__
)
def test_a_batch_goes_to_the_parameter_that_is_still_free(state, kernel):
    x, lr, batch = SELECTED(kernel)(state, CONFIG, 4.0)
    assert (x.tolist(), float(lr), float(batch)) == ([0.0, 1.0, 2.0], 0.25, 4.0)


@pytest.mark.parametrize("attribute", ["method", "__call__"])
def test_a_module_and_its_methods_are_kernels(state, attribute):
    module = _Methods(jnp.ones(2))
    kernel = module if attribute == "__call__" else module.method
    selected = SELECTED(kernel)
    assert selected(state, CONFIG, 4.0)[1:] == (0.25, 4.0)
    assert len(jax.tree.leaves(eqx.filter(selected, eqx.is_array))) == 1


def test_arguments_go_by_position_where_jax_looks_at_positions(state):
    gradient = Selector(lambda s, c: ((), {"x": s.x, "lr": c.lr}))(jax.grad(lambda x, lr: jnp.sum(x * lr), argnums=0))
    assert gradient(state, CONFIG).tolist() == [0.25, 0.25, 0.25]


def test_defaults_stay_when_nothing_is_given_for_them(state):
    @FieldSelector(x="state.x")
    def kernel(x, batch, scale=3.0, *, shift=1.0):
        return (x * scale + shift + batch).tolist()

    assert kernel(state, CONFIG, 0.0) == [1.0, 4.0, 7.0]
    assert kernel(state, CONFIG, 0.0, 2.0, shift=0.0) == [0.0, 2.0, 4.0]
    assert kernel(state, CONFIG, 0.0, scale=2.0) == [1.0, 3.0, 5.0]


def test_several_batches_fill_the_free_parameters_in_order(state):
    @FieldSelector(b="state.x")
    def kernel(a, b, c, d):
        return a, c, d

    assert kernel(state, CONFIG, 1, 2, 3) == (1, 2, 3)
    assert kernel(state, CONFIG, 1, 2, d=3) == (1, 2, 3)


def test_surplus_arguments_of_a_kernel_with_star_args_never_become_keywords(state):
    @FieldSelector(x="state.x")
    def kernel(x, *more, key):
        return more, key

    assert kernel(state, CONFIG, 1, 2, key=3) == ((1, 2), 3)
    with pytest.raises(TypeError, match="key"):
        kernel(state, CONFIG, 1)


def test_a_builtin_without_a_signature_is_a_kernel(state):
    assert Selector(lambda s, c: ((s.x.tolist(),), {}))(max)(state, CONFIG) == 2.0
    assert Selector(lambda s, c: ((c.lr,), {}))(max)(state, CONFIG, 1.0) == 1.0


def test_a_selector_without_paths_passes_everything_on(state):
    assert FieldSelector()(lambda batch: batch)(state, CONFIG, 5) == 5


@pytest.mark.parametrize("kernel", [_plain, _batch_first, _star_args, jax.jit(_plain), max])
def test_an_argument_that_is_extracted_and_given_is_an_error(state, kernel):
    selected = Selector(lambda s, c: ((), {"lr": c.lr}))(kernel)
    with pytest.raises(KernelCallError, match="'lr' twice"):
        selected(state, CONFIG, lr=1.0)


def test_an_argument_given_by_position_and_by_name_is_an_error(state):
    with pytest.raises(KernelCallError, match="'x' twice"):
        Selector(lambda s, c: ((s.x,), {"x": s.x}))(_plain)(state, CONFIG)


def test_a_kernel_without_room_for_the_batch_says_how_to_make_some(state):
    @SELECTED
    def kernel(x, lr): ...

    with pytest.raises(
        KernelCallError, match=r"no free parameter for 1 .* write `def kernel\(x, lr, batch\)`"
    ) as caught:
        kernel(state, CONFIG, None)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ResearchlabError)


def test_a_path_for_a_parameter_that_the_kernel_lacks_is_an_error_when_it_is_wrapped():
    with pytest.raises(
        KernelCallError, match=r"no parameter 'learning_rte': it takes \(x, learning_rate\). Did you mean"
    ):
        FieldSelector(learning_rte="config.lr")(lambda x, learning_rate: None)


def test_a_selected_kernel_works_under_filter_jit_and_compiles_once(state):
    traces = []

    def kernel(x, lr, batch):
        traces.append(None)
        return x * lr + batch

    compiled = eqx.filter_jit(SELECTED(kernel))
    for batch in (jnp.asarray(1.0), jnp.asarray(2.0)):
        result = compiled(state, CONFIG, batch)
    assert result.tolist() == [2.0, 2.25, 2.5]
    compiled(state, Settings(), jnp.asarray(3.0))
    assert len(traces) == 1


def test_a_selected_kernel_can_be_an_argument_of_a_compiled_function(state):
    traces = []

    @eqx.filter_jit
    def apply(kernel, state):
        traces.append(None)
        return kernel(state, CONFIG, 1.0)[2]

    for _ in range(2):
        apply(FieldSelector(x="state.x", lr="config.lr")(_plain), state)
    assert len(traces) == 1


def test_the_arrays_of_a_module_that_is_a_kernel_are_leaves_and_get_gradients(state):
    linear = eqx.nn.Linear(3, 1, key=jax.random.key(0))
    selected = FieldSelector(x="state.x")(linear)
    gradient = eqx.filter_grad(lambda kernel: kernel(state, CONFIG).sum())(selected)
    assert gradient.raw.weight.tolist() == [[0.0, 1.0, 2.0]]


def test_selectors_of_the_same_paths_are_equal():
    assert FieldSelector(a="state.x") == FieldSelector(a="state.x")
    assert hash(FieldSelector(a="state.x")) == hash(FieldSelector(a="state.x"))
    assert FieldSelector(a="state.x") != FieldSelector(b="state.x")
    assert repr(FieldSelector(a="state.x")) == "FieldSelector(a='state.x')"


def test_an_argument_called_self_can_be_selected(state):
    assert FieldSelector(self="state.d.key")(lambda self: self)(state, CONFIG) == 1


def test_the_classes_are_subscriptable():
    assert Selector[Box, Settings]
    assert FieldSelector[Box, Settings]
    assert SelectedKernel[Box, Settings, int]
    assert Kernel[[int, str], float]
    assert Kernel[..., float]
