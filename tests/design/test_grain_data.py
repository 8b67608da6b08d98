from __future__ import annotations

import json
import sys

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from researchlab.design import GrainDataProvider
from researchlab.errors import ArgumentError, DataError, MissingPackageError

grain = pytest.importorskip("grain")


class Records:
    def __len__(self):
        return 20

    def __getitem__(self, index):
        return np.int32(index)

    def __repr__(self):
        return "Records()"


def map_dataset():
    return grain.MapDataset.source(Records()).shuffle(seed=1).batch(3)


def iter_dataset():
    return map_dataset().to_iter_dataset()


def data_loader():
    sampler = grain.samplers.IndexSampler(20, num_epochs=1, seed=0, shuffle=True)
    return grain.DataLoader(data_source=Records(), sampler=sampler, worker_count=0)


def lists(provider):
    return [np.asarray(batch).tolist() for batch in provider]


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize(
    "make",
    [map_dataset, iter_dataset, data_loader, lambda: iter(map_dataset())],
    ids=["map", "iter", "loader", "iterator"],
)
def test_its_position_leads_to_the_next_batch_in_a_new_provider(make, prefetch):
    straight = lists(make())
    provider = GrainDataProvider(make(), prefetch=prefetch)
    for number, batch in enumerate(straight):
        position = json.loads(json.dumps(provider.get_position()))
        other = GrainDataProvider(make(), prefetch=prefetch)
        other.set_position(position)
        assert lists(other) == straight[number:]
        other.close()
        assert np.asarray(next(provider)).tolist() == batch
    with pytest.raises(StopIteration):
        next(provider)
    provider.close()


@given(st.integers(0, 2), st.integers(0, 7), st.integers(0, 7), st.booleans())
@settings(max_examples=20, deadline=None)
def test_the_batch_after_seek_is_that_of_straight_iteration(prefetch, before, step, is_closed):
    straight = lists(map_dataset())
    provider = GrainDataProvider(map_dataset(), prefetch=prefetch)
    assert [next(provider).tolist() for _ in range(before)] == straight[:before]
    if is_closed:
        provider.close()
        assert [batch.tolist() for batch in provider] == straight[before:]
    provider.seek(step)
    assert lists(provider) == straight[step:]
    provider.close()


def test_batches_can_be_put_on_the_device():
    provider = GrainDataProvider(map_dataset(), prefetch=1, to_device=True)
    assert isinstance(next(provider), jax.Array)
    provider.close()


@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_exception_comes_out_at_its_batch_and_again_when_asked_again(prefetch):
    def fail(number):
        if number == 2:
            msg = "record 2 is broken"
            raise OSError(msg)
        return number

    provider = GrainDataProvider(grain.MapDataset.range(5).map(fail), prefetch=prefetch)
    assert [next(provider), next(provider)] == [0, 1]
    for _ in range(2):
        with pytest.raises(Exception, match="record 2 is broken"):
            next(provider)
    provider.set_position({"next_index": 3})
    assert list(provider) == [3, 4]
    provider.close()


@pytest.mark.parametrize("position", [3, None, [1], {"other": 3}, "no json"])
def test_a_position_of_something_else_is_refused_and_changes_nothing(position):
    provider = GrainDataProvider(map_dataset())
    straight = lists(map_dataset())
    assert next(provider).tolist() == straight[0]
    with pytest.raises(DataError, match="position"):
        provider.set_position(position)
    assert lists(provider) == straight[1:]


@pytest.mark.parametrize("thing", [[1, 2], 3, iter([1])])
def test_what_is_nothing_of_grain_is_refused(thing):
    with pytest.raises(ArgumentError, match="IterableDataProvider"):
        GrainDataProvider(thing)


def test_without_grain_it_says_what_to_install(monkeypatch):
    dataset = map_dataset()
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'researchlab\[grain\]'"):
        GrainDataProvider(dataset)
