"""Identification figures against the published rules, written out in loops over float64 numbers."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from circlet.metrics import identification, replaced_by_mean


def integers(number: int, values: int, generator: torch.Generator, dim: int = 4) -> Tensor:
    """Vectors whose inner products are exact in float32: equal ones among them are ties."""
    return torch.randint(-values, values + 1, (number, dim), generator=generator).float()


def scores(first: Tensor, second: Tensor) -> list[list[float]]:
    return (first.double() @ second.double().T).tolist()  # type: ignore[no-any-return]


@given(seed=st.integers(0, 2**31), values=st.integers(1, 9), number=st.integers(0, 30))
@settings(max_examples=60)
def test_closed_set_and_open_set(seed: int, values: int, number: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    probes, gallery = integers(14, values, generator), integers(20, values, generator)
    distractors = integers(number, values, generator) if number else None
    ids, gallery_ids = (torch.randint(9, (some,), generator=generator) for some in (14, 20))
    to_gallery = scores(probes, gallery)
    to_distractors = [[]] * 14 if distractors is None else scores(probes, distractors)
    ranks, best_mates, best_others, wrong, everyone = [], [], [], [], []
    for probe in range(14):
        mates = [s for s, of in zip(to_gallery[probe], gallery_ids, strict=True) if of == ids[probe]]
        others = [s for s, of in zip(to_gallery[probe], gallery_ids, strict=True) if of != ids[probe]]
        others += to_distractors[probe]
        everyone += others
        highest = max(others, default=-math.inf)
        if mates:
            ranks.append(1 + sum(other >= max(mates) for other in others))
            best_mates.append(max(mates))
            best_others.append(highest)
        else:
            wrong.append(highest)
    if not ranks:
        with pytest.raises(ValueError, match="no probe has a mate"):
            identification(probes, ids, gallery, gallery_ids, normalize=False)
        return
    result = identification(
        probes, ids, gallery, gallery_ids, distractors, rank_at=(1, 2, 4), fpir=(0.1, 0.4), normalize=False
    )
    assert result.rank_at == {k: sum(rank <= k for rank in ranks) / len(ranks) for k in (1, 2, 4)}
    assert (result.trials, result.probes_without_mate) == (len(ranks), len(wrong))
    falsely = wrong or best_others
    for rate, found in result.tpir_at_fpir.items():
        # The lowest threshold above which no more than the rate of them lie.
        threshold = min(
            t for t in [-math.inf, *falsely] if sum(w > t for w in falsely) <= rate * len(falsely)
        )
        right = sum(
            mate > other and mate > threshold for mate, other in zip(best_mates, best_others, strict=True)
        )
        assert found == right / len(ranks)
    assert result.false_positives_from == ("without mate" if wrong else "all, mates left out")
    published = identification(
        probes,
        ids,
        gallery,
        gallery_ids,
        distractors,
        fpir=(0.1, 0.4),
        open_set="insightface",
        normalize=False,
    )
    for rate, found in published.tpir_at_fpir.items():
        threshold = sorted(everyone, reverse=True)[math.ceil(14 * rate) - 1]
        assert found == sum(mate > threshold for mate in best_mates) / len(ranks)


@given(seed=st.integers(0, 2**31), values=st.integers(1, 9), left_out=st.booleans())
@settings(max_examples=60)
def test_megaface(seed: int, values: int, left_out: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    faces, distractors = integers(15, values, generator), integers(25, values, generator)
    ids = torch.cat([torch.randint(5, (13,), generator=generator), torch.tensor([9, 9])])
    noisy = torch.rand(25, generator=generator) < 0.3 if left_out else None
    result = identification(
        faces,
        ids,
        distractors=distractors,
        rule="megaface",
        rank_at=(1, 3),
        at_distractors=(4, 25),
        left_out_distractors=noisy,
        normalize=False,
    )
    to_faces, to_distractors = scores(faces, faces), scores(faces, distractors)
    for number in (4, 25):
        hits, trials = dict.fromkeys((1, 3), 0), 0
        for probe in range(15):
            rivals = [
                s for at, s in enumerate(to_distractors[probe][:number]) if noisy is None or not noisy[at]
            ]
            rivals.sort(reverse=True)
            for mate in range(15):
                if mate != probe and ids[mate] == ids[probe]:
                    trials += 1
                    for k in hits:
                        # At least the k-th best distractor, or there are fewer.
                        hits[k] += len(rivals) < k or to_faces[probe][mate] >= rivals[k - 1]
        assert result.trials == trials
        assert result.rank_at_distractors[number] == {k: hit / trials for k, hit in hits.items()}
    assert result.rank_at == result.rank_at_distractors[25]
    assert result.left_out_distractors == (0 if noisy is None else int(noisy.sum()))
    assert result.distractors == 25 - result.left_out_distractors


def test_many_probes_and_pieces_of_distractors_from_a_file(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    distractors = torch.randn(40_000, 8, generator=generator)
    ids = torch.arange(1200) // 3
    faces = torch.randn(400, 8, generator=generator)[ids] + 0.2 * torch.randn(1200, 8, generator=generator)
    np.save(tmp_path / "distractors.npy", distractors.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "distractors.npy", mmap_mode="r+"))
    result = identification(
        faces, ids, distractors=mapped, rule="megaface", rank_at=(1, 10), at_distractors=(10, 20_000)
    )
    units = torch.nn.functional.normalize
    to_faces = units(faces).double() @ units(faces).double().T
    same = (ids[:, None] == ids) & ~torch.eye(1200, dtype=torch.bool)
    for number in (10, 20_000, 40_000):
        rivals = (units(faces).double() @ units(distractors[:number]).double().T).topk(10).values
        for k in (1, 10):
            expected = float((to_faces >= rivals[:, k - 1, None])[same].double().mean())
            shares = result.rank_at if number == 40_000 else result.rank_at_distractors[number]
            assert shares[k] == pytest.approx(expected, abs=1e-9)


def test_collapsed_embeddings_are_not_identified() -> None:
    ids = torch.arange(6)
    result = identification(torch.ones(6, 3), ids, torch.ones(6, 3), ids, rank_at=(1, 5, 6))
    assert result.rank_at == {1: 0, 5: 0, 6: 1}
    assert result.tpir_at_fpir == {0.01: 0, 0.1: 0}


def test_rates_below_one_probe_are_named() -> None:
    ids = torch.arange(50)
    faces = torch.eye(50)
    result = identification(faces, ids, faces[:10], ids[:10], fpir=(0.01, 0.1))
    assert result.probes_without_mate == 40
    assert result.unresolved_fpir == (0.01,)


def test_noisy_features_become_the_mean_of_the_clean_ones() -> None:
    features = torch.tensor([[1.0, 0], [3, 0], [50, 50], [0, 2], [7, 7]])
    noisy = torch.tensor([False, False, True, False, True])
    mended = replaced_by_mean(features, torch.tensor([0, 0, 0, 1, 1]), noisy)
    assert mended.tolist() == [[1, 0], [3, 0], [2, 0], [0, 2], [0, 2]]
    with pytest.raises(ValueError, match="identity 2 has noisy features alone"):
        replaced_by_mean(features, torch.tensor([0, 0, 0, 1, 2]), noisy)


def test_the_result_is_ready_for_json() -> None:
    ids = torch.arange(6) // 2
    result = identification(torch.eye(6), ids, distractors=torch.eye(6), rule="megaface", at_distractors=(2,))
    read = json.loads(json.dumps(result.to_dict()))
    assert read["rank_at_distractors"]["2"]["1"] == result.rank_at_distractors[2][1]
    assert read["tpir_at_fpir"]["0.01"] == result.tpir_at_fpir[0.01]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "megaface"}, "ranks mates among distractors: give some"),
        ({"rule": "rank"}, "rule must be 'closed set' or 'megaface'"),
        ({"open_set": "nips"}, "open_set must be 'nist' or 'insightface'"),
        ({"fpir": (1.0,)}, "fpir must hold rates between 0 and 1"),
        ({"gallery": torch.eye(4)}, "gallery and gallery_ids go together"),
        ({"distractors": torch.ones(3, 5)}, "same dimension, but got 4 and 5"),
        ({"distractors": torch.ones(3, 4) * math.nan}, "distractors must be finite"),
        (
            {"distractors": torch.ones(3, 4), "at_distractors": (5,)},
            "asks for 5 distractors, but there are 3",
        ),
        (
            {"distractors": torch.ones(3, 4), "left_out_distractors": torch.zeros(2).bool()},
            r"booleans of shape \(3,\)",
        ),
        ({"gallery": torch.eye(4), "gallery_ids": torch.arange(4) + 9}, r"is among the gallery_ids \(9, 10"),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        identification(torch.eye(4), torch.tensor([0, 0, 1, 1]), **options)  # type: ignore[arg-type]


def test_no_identity_twice() -> None:
    with pytest.raises(ValueError, match=r"none of the probe_ids \(0, 1, 2, 3\) stands twice"):
        identification(torch.eye(4), torch.arange(4))
