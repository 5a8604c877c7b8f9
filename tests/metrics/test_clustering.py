"""Clustering figures against scikit-learn's and pairs counted in loops."""

import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score

from circlet.metrics.clustering import cluster_agreement, clustering


@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(0, 6)), min_size=1, max_size=60))
def test_agreement_is_that_of_scikit_learn(rows: list[tuple[int, int]]) -> None:
    groups, labels = ([row[side] for row in rows] for side in (0, 1))
    found = cluster_agreement(torch.tensor(groups), torch.tensor(labels))
    assert found.nmi == pytest.approx(normalized_mutual_info_score(labels, groups), abs=1e-9)
    assert found.ami == pytest.approx(adjusted_mutual_info_score(labels, groups), abs=1e-7)
    assert found.ari == pytest.approx(adjusted_rand_score(labels, groups), abs=1e-9)
    assert (found.items, found.groups, found.classes) == (len(rows), len(set(groups)), len(set(labels)))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=40))
def test_pair_f1_by_counting_pairs(rows: list[tuple[int, int]]) -> None:
    pairs = [(first, second) for at, first in enumerate(rows) for second in rows[:at]]
    in_group = {number for number, (a, b) in enumerate(pairs) if a[0] == b[0]}
    in_class = {number for number, (a, b) in enumerate(pairs) if a[1] == b[1]}
    either = len(in_group) + len(in_class)
    expected = 2 * len(in_group & in_class) / either if either else 1
    found = cluster_agreement(torch.tensor([row[0] for row in rows]), torch.tensor([row[1] for row in rows]))
    assert found.pair_f1 == pytest.approx(expected)


def test_the_names_of_groups_do_not_matter() -> None:
    labels = torch.tensor([5, 5, 2, 2, 2, 9])
    assert cluster_agreement(10 - labels, labels).to_dict() == {
        "nmi": pytest.approx(1),
        "ami": pytest.approx(1),
        "ari": pytest.approx(1),
        "pair_f1": 1,
        "items": 6,
        "classes": 3,
        "groups": 3,
    }


def test_by_chance_the_adjusted_figures_are_zero() -> None:
    groups, labels = torch.randint(300, (2, 6000), generator=torch.Generator().manual_seed(0))
    found = cluster_agreement(groups, labels)
    assert abs(found.ami) < 0.01
    assert abs(found.ari) < 0.001
    assert found.nmi > 0.4


def test_groups_of_very_different_sizes() -> None:
    generator = torch.Generator().manual_seed(2)
    labels = torch.repeat_interleave(torch.arange(1, 101))
    groups = torch.where(torch.rand(5050, generator=generator) < 0.8, 0, labels // 7)
    found = cluster_agreement(groups, labels)
    expected = adjusted_mutual_info_score(labels.numpy(), groups.numpy())
    assert found.ami == pytest.approx(expected, abs=1e-9)


MEMORY = """
import resource, sys, torch
from circlet.metrics.clustering import cluster_agreement
generator = torch.Generator().manual_seed(0)
cluster_agreement(torch.arange(9) // 2, torch.arange(9) // 3)
labels = torch.repeat_interleave(torch.arange(1, 800))
groups = (torch.rand(len(labels), generator=generator) < 0.9).long()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
cluster_agreement(groups, labels)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * (1 if sys.platform == "darwin" else 1024))
"""


def test_memory_does_not_grow_with_the_size_of_a_group() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    # The larger of the two groups holds 288,000 items, and there are 799 sizes of classes: 1.8 GB in float64.
    assert int(done.stdout) < 200 * 2**20


NO_K_MEANS = """
import sys, torch
sys.modules["faiss"] = sys.modules["sklearn"] = None
from circlet.metrics.clustering import cluster_agreement, clustering
print(cluster_agreement(torch.arange(4), torch.arange(4)).nmi)
try:
    clustering(torch.eye(4), torch.arange(4))
except ImportError as error:
    print(error)
"""


def test_without_a_k_means_the_message_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", NO_K_MEANS], capture_output=True, text=True, check=True)
    agreement, message = done.stdout.splitlines()
    assert float(agreement) == 1
    assert "pip install 'circlet[clustering]'" in message


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_fewer_different_embeddings_than_clusters() -> None:
    embeddings = torch.eye(2)[torch.arange(20) % 2]
    found = clustering(embeddings, torch.arange(20) // 2)
    assert found.clusters == 10
    assert 1 <= found.groups <= 10


def test_clusters_that_lie_apart_are_found() -> None:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(60) % 3
    embeddings = torch.eye(3)[labels] * 5 + torch.randn(60, 3, generator=generator) / 10
    found = clustering(embeddings.half(), labels + 2**40, seed=2)
    assert (found.nmi, found.pair_f1) == (pytest.approx(1), 1)
    assert (found.seed, found.groups) == (2, 3)
    assert json.loads(json.dumps(found.to_dict()))["method"] in ("faiss", "scikit-learn")
    more = clustering(embeddings, labels, clusters=5)
    assert (more.clusters, more.groups, more.classes) == (5, 5, 3)


def test_the_same_seed_gives_the_same_clusters() -> None:
    generator = torch.Generator().manual_seed(3)
    embeddings, labels = torch.randn(200, 4, generator=generator), torch.arange(200) % 10
    assert clustering(embeddings, labels, seed=1) == clustering(embeddings, labels, seed=1)
    assert clustering(embeddings, labels, seed=1) != clustering(embeddings, labels, seed=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 0}, r"clusters must be an integer between 1 and the number of items \(3\), but got 0"),
        ({"clusters": 4}, "but got 4"),
        ({"clusters": 2.5}, "but got 2.5"),
        ({"iterations": 0}, "iterations must be an integer of at least 1, but got 0"),
        ({"seed": -1}, "seed must be an integer between 0 and 2147483647, but got -1"),
        ({"seed": 1.5}, "but got 1.5"),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clustering(torch.eye(3), torch.arange(3), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("groups", "labels", "message"),
    [
        (torch.arange(0), torch.arange(0), "groups must not be empty"),
        (torch.tensor(1), torch.tensor(1), r"groups must have shape \(1,\)"),
        ([0, 1], torch.arange(2), "groups must be a tensor, but got list"),
        (torch.ones(3), torch.arange(3), "groups must be integers, but got torch.float32"),
        (torch.arange(3), torch.arange(2), r"labels must have shape \(3,\), one for each row of groups"),
    ],
)
def test_what_cannot_be_compared_is_named(groups: object, labels: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cluster_agreement(groups, labels)  # type: ignore[arg-type]
