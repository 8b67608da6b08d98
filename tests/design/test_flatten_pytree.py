from __future__ import annotations

import collections
import typing

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from researchlab.design import State, flatten_pytree, unflatten_pytree
from researchlab.errors import ArgumentError


class Point(typing.NamedTuple):
    x: float
    y: float


class Net(State):
    mlp: eqx.nn.MLP
    moments: tuple
    extra: dict
    bias: jax.Array | None = None
    name: str = eqx.field(static=True, default="net")


class Interval:
    def __init__(self, low, high):
        self.low, self.high = low, high


jax.tree_util.register_pytree_node(Interval, lambda i: ((i.low, i.high), None), lambda _, ends: Interval(*ends))


def net():
    return Net(
        mlp=eqx.nn.MLP(2, 2, 3, 1, key=jax.random.key(0)),
        moments=(Point(1.0, 2.0), [3.0], ()),
        extra={"a.b": 4, "c": {}, "span": Interval(6, 7)},
    )


def test_leaves_are_named_by_attributes_keys_and_indices():
    flat = flatten_pytree(net())
    assert flat["moments.0.x"] == 1.0
    assert flat["moments.1.0"] == 3.0
    assert flat["extra.a\\.b"] == 4
    assert flat["extra.span.0"] == 6
    assert flat["mlp.layers.0.weight"].shape == (3, 2)
    assert flat["bias"] is None
    assert "name" not in flat


def test_integer_keys_of_a_dict_and_indices_read_alike():
    assert flatten_pytree({"a": {0: 1, 1: 2}}) == flatten_pytree({"a": [1, 2]}) == {"a.0": 1, "a.1": 2}
    assert unflatten_pytree({"a.1": 5}, {"a": {0: 1, 1: 2}}) == {"a": {0: 1, 1: 5}}
    assert unflatten_pytree({"a.1": 5}, {"a": [1, 2]}) == {"a": [1, 5]}


def test_prefix_and_separator():
    assert flatten_pytree({"a": [1]}, prefix="state", separator="/") == {"state/a/0": 1}
    assert flatten_pytree(3, prefix="state") == {"state": 3}
    assert flatten_pytree(3) == {"": 3}
    assert unflatten_pytree({"": 4}, 3) == 4


def test_leaves_are_given_as_they_are():
    array = np.arange(3)
    assert flatten_pytree({"a": array})["a"] is array


@pytest.mark.parametrize(
    "tree",
    [
        {},
        [],
        None,
        {"a": None, "b": (), "c": [{}]},
        collections.OrderedDict(b=1, a=2),
        collections.defaultdict(int, a=1),
        Point(1, (2, 3)),
    ],
)
def test_trees_of_builtins_come_back(tree):
    assert unflatten_pytree(flatten_pytree(tree), tree) == tree


def test_a_module_comes_back():
    tree = net()
    back = unflatten_pytree(flatten_pytree(tree), tree)
    assert (back.extra.pop("span").high, tree.extra.pop("span").high) == (7, 7)
    assert eqx.tree_equal(back, tree, typematch=True)


def test_a_typed_key_and_an_abstract_array_are_leaves():
    tree = {"key": jax.random.key(0), "later": jax.ShapeDtypeStruct((2,), jnp.float32)}
    assert set(flatten_pytree(tree)) == {"key", "later"}


def test_leaves_that_are_missing_stay_as_they_are_and_the_structure_is_not_changed():
    structure = net()
    filled = unflatten_pytree({"bias": jnp.ones(2), "moments.0.y": 9.0}, structure)
    assert filled.moments[0] == Point(1.0, 9.0)
    assert filled.bias.tolist() == [1.0, 1.0]
    assert filled.mlp.layers[0].weight is structure.mlp.layers[0].weight
    assert structure.bias is None


def test_an_unknown_path_names_the_closest_ones():
    with pytest.raises(ValueError, match=r"no leaf at 'mlp.layers.0.wieght'.*'mlp.layers.0.weight'") as caught:
        unflatten_pytree({"mlp.layers.0.wieght": 0}, net())
    assert isinstance(caught.value, ArgumentError)


class AsText:
    """Hashes like an integer key's neighbour but is written like it."""

    def __init__(self, value):
        self.value = value

    def __lt__(self, other):
        return self.value < other.value

    def __eq__(self, other):
        return self.value == other.value

    def __hash__(self):
        return hash(self.value)

    def __str__(self):
        return "same"

    __repr__ = __str__


def test_two_leaves_with_one_path_are_refused():
    with pytest.raises(ArgumentError, match="path 'same'"):
        flatten_pytree({AsText(1): 1, AsText(2): 2})


keys = st.text(st.sampled_from("ab._\\"), max_size=4)
trees = st.recursive(
    st.none() | st.integers(),
    lambda inner: st.dictionaries(keys, inner, max_size=3) | st.lists(inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees, st.sampled_from([".", "/", "__"]))
def test_any_tree_comes_back(tree, separator):
    flat = flatten_pytree(tree, separator=separator)
    blank = jax.tree.map(lambda _: "blank", tree, is_leaf=lambda node: node is None)
    assert unflatten_pytree(flat, blank, separator=separator) == tree
