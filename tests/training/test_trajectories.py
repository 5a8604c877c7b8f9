"""Which samples cross the decision boundary, when, and where: against loops, and in real trainings."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from circlet.cli import main
from circlet.errors import CircletError
from circlet.losses import CircleLoss, CosFaceLoss, PairLoss, SoftTripleLoss, TripletLoss
from circlet.references import Batch, Given, Proxies, ReferenceSet
from circlet.training.run import Run
from circlet.training.trajectories import Trajectories, hardest_pairs


def saved(trajectories: Trajectories, folder: Path) -> dict[str, np.ndarray]:
    trajectories.save(folder / "trajectories.npz")
    with np.load(folder / "trajectories.npz") as arrays:
        return dict(arrays)


def hardest_by_loops(
    embeddings: Tensor, labels: Tensor, given: ReferenceSet, self_index: list[int]
) -> list[tuple[float, float]]:
    """The largest s_n and the smallest s_p of each anchor, in float64, pair by pair."""
    found = []
    for i, anchor in enumerate(embeddings.double()):
        negative, positive = -math.inf, math.inf
        for j, reference in enumerate(given.vectors.double()):
            s = float(anchor @ reference / (anchor.norm() * reference.norm()))
            if labels[i] != given.labels[j]:
                negative = max(negative, s)
            elif j != self_index[i]:
                positive = min(positive, s)
        found.append((negative, positive))
    return found


# 20 anchors fit into one small matrix; 600 x 600 pairs go through the engine's tiles.
@pytest.mark.parametrize("samples", [20, 600])
@pytest.mark.parametrize("kind", ["batch", "given"])
def test_the_hardest_pair_of_each_anchor(samples: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(samples, 5, generator=generator)
    labels = torch.randint(6, (samples,), generator=generator)
    criterion = CircleLoss(0.25, 256)
    if kind == "batch":
        given, self_index = Batch()(embeddings, labels), list(range(samples))
    else:
        vectors = torch.randn(samples, 5, generator=generator)
        given = Given(vectors, torch.randint(6, (samples,), generator=generator))(embeddings, labels)
        self_index = [-1] * samples
    some = slice(0, 20)
    expected = np.array(hardest_by_loops(embeddings[some], labels[some], given, self_index))
    negative, positive, solved = hardest_pairs(criterion, embeddings, labels, given)
    np.testing.assert_allclose(negative[some], expected[:, 0], atol=1e-6)
    np.testing.assert_allclose(positive[some], expected[:, 1], atol=1e-6)
    np.testing.assert_array_equal(solved, negative**2 + (positive - 1) ** 2 < 2 * 0.25**2)


def test_inner_products_and_several_centres() -> None:
    labels = torch.arange(4)
    embeddings = 3 * torch.eye(4)
    given = Given(2 * torch.eye(4), labels)(embeddings, labels)
    plain = TripletLoss(normalize=False)
    assert hardest_pairs(plain, embeddings, labels, given)[1].tolist() == [6, 6, 6, 6]

    proxies = Proxies(4, 4, centers=2)
    criterion = SoftTripleLoss()
    given = proxies(embeddings, labels)
    negative, positive, _ = hardest_pairs(criterion, embeddings, labels, given)
    pooled, of_own, _ = criterion.similarities(embeddings, labels, given)
    np.testing.assert_allclose(positive, pooled[of_own].detach(), rtol=1e-6)
    assert (negative < 1).all()


def plane(s_n: float, s_p: float) -> tuple[Tensor, Tensor, ReferenceSet]:
    """One anchor with exactly this pair."""
    vectors = torch.tensor([[s_p, math.sqrt(1 - s_p**2)], [s_n, math.sqrt(1 - s_n**2)]])
    given = Given(vectors, torch.tensor([0, 1]))
    anchor, label = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    return anchor, label, given(anchor, label)


UNSOLVED, SOLVED, DEEPER = (0.5, 0.6), (0.1, 0.9), (0.0, 0.95)


@pytest.mark.parametrize(
    ("sights", "crossing"),
    [
        ([UNSOLVED, SOLVED], (1, SOLVED)),
        ([UNSOLVED, UNSOLVED, DEEPER, SOLVED], (2, DEEPER)),
        ([SOLVED, DEEPER], None),
        ([SOLVED, UNSOLVED, DEEPER], (2, DEEPER)),
        ([UNSOLVED, SOLVED, UNSOLVED, DEEPER], (1, SOLVED)),
        ([UNSOLVED], None),
    ],
)
def test_the_first_solved_sight_after_an_unsolved_one(
    sights: list[tuple[float, float]], crossing: tuple[int, tuple[float, float]] | None, tmp_path: Path
) -> None:
    trajectories = Trajectories(samples=7, seed=0)
    for step, sight in enumerate(sights):
        trajectories.see(step, torch.tensor([3]), CosFaceLoss(0.35, 64), *plane(*sight))
    found = saved(trajectories, tmp_path)
    if crossing is None:
        assert len(found["row"]) == 0
        assert found["unsolved"] == (sights[-1] == UNSOLVED)
    else:
        step, (s_n, s_p) = crossing
        assert (found["row"].tolist(), found["step"].tolist()) == ([3], [step])
        assert found["negative"][0] == pytest.approx(s_n, abs=1e-6)
        assert found["positive"][0] == pytest.approx(s_p, abs=1e-6)
        assert found["unsolved"] == 0
    assert (found["samples"], found["followed"], found["unseen"]) == (7, 7, 6)


def test_an_anchor_without_a_negative_is_no_sight(tmp_path: Path) -> None:
    trajectories = Trajectories(samples=4, seed=0)
    embeddings, labels = torch.randn(4, 3), torch.zeros(4, dtype=torch.int64)
    trajectories.see(1, torch.arange(4), CircleLoss(), embeddings, labels, None)
    assert saved(trajectories, tmp_path)["unseen"] == 4


def loop_of_crossings(
    batches: list[tuple[Tensor, Tensor, Tensor]], criterion: PairLoss
) -> dict[int, tuple[int, float, float]]:
    """The definition in plain words: row to step, s_n and s_p."""
    unsolved: set[int] = set()
    crossed: dict[int, tuple[int, float, float]] = {}
    for step, (rows, embeddings, labels) in enumerate(batches):
        given = Batch()(embeddings, labels)
        pairs = hardest_by_loops(embeddings, labels, given, list(range(len(rows))))
        for row, (s_n, s_p) in zip(rows.tolist(), pairs, strict=True):
            if math.isinf(s_p):  # alone of its class in this batch
                continue
            if s_p - s_n <= 0.1:
                unsolved.add(row)
            elif row in unsolved and row not in crossed:
                crossed[row] = (step, s_n, s_p)
    return crossed


@pytest.mark.parametrize("most", [1000, 15])
def test_many_batches_against_a_loop(most: int, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    centres = torch.randn(10, 6, generator=generator)
    batches = []
    for step in range(30):
        rows = torch.randperm(40, generator=generator)[:16]
        labels = rows % 10
        noise = torch.randn(16, 6, generator=generator) * 2 * (1 - step / 30)
        batches.append((rows, centres[labels] + noise, labels))
    criterion = CosFaceLoss(0.1, 64)
    trajectories = Trajectories(samples=40, seed=0, most=most)
    for step, (rows, embeddings, labels) in enumerate(batches):
        trajectories.see(step, rows, criterion, embeddings, labels, None)
    found = saved(trajectories, tmp_path)
    crossings = zip(*(found[name].tolist() for name in ("row", "step", "negative", "positive")), strict=True)
    expected = loop_of_crossings(batches, criterion)
    assert found["followed"] == min(most, 40)
    seen = {row: (step, s_n, s_p) for row, step, s_n, s_p in crossings}
    if most >= 40:
        assert seen.keys() == expected.keys()
    assert len(seen) > most / 4 or len(seen) > 20
    for row, (step, s_n, s_p) in seen.items():
        assert step == expected[row][0]
        assert (s_n, s_p) == pytest.approx(expected[row][1:], abs=1e-6)


def test_samples_to_follow_are_an_even_draw_by_the_seed() -> None:
    rows = [set(Trajectories(1000, seed, most=100)._rows.tolist()) for seed in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2]
    assert 20 < sum(row < 500 for row in rows[0]) < 80


def test_state_of_other_data_is_refused() -> None:
    with pytest.raises(CircletError, match="follows 5 training samples, but the data has 6"):
        Trajectories(6, 0).load_state_dict(Trajectories(5, 0).state_dict())


# A boundary that is soon crossed.
EASY = ["--loss.init_args.margin", "0.7", "--optimizer.learning_rate", "0.03"]


def test_a_training_records_its_crossings(small_recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--optimizer.steps", "60", *EASY]
    assert main(["train", str(small_recipe), "--output", str(run), *options]) == 0
    with np.load(Run(run).trajectories) as arrays:
        found = dict(arrays)
    assert (found["samples"], found["unseen"]) == (64, 0)
    assert 0 < len(found["row"]) <= 64 - found["unsolved"]
    assert len(set(found["row"].tolist())) == len(found["row"])
    # Inside the circle, and seen outside of it before, so after step 1.
    assert (found["negative"] ** 2 + (found["positive"] - 1) ** 2 < 2 * 0.7**2).all()
    assert found["step"].min() > 1
    assert found["step"].max() <= 60


def test_a_resumed_training_has_the_same_crossings(small_recipe: Path, tmp_path: Path) -> None:
    options = ["--references", "memory", "--memory.size", "70", "--evaluation.every", "10"]
    options += ["--optimizer.steps", "40", *EASY]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main(["train", str(small_recipe), "--output", str(whole), *options]) == 0
    # Stopped in the 17th step, it goes on from the checkpoint of the 10th.
    with pytest.MonkeyPatch.context() as patch:
        see = Trajectories.see

        def stop(self: Trajectories, step: int, *arguments: object) -> None:
            if step == 17:
                raise KeyboardInterrupt
            see(self, step, *arguments)  # type: ignore[arg-type]

        patch.setattr(Trajectories, "see", stop)
        assert main(["train", str(small_recipe), "--output", str(broken), *options]) != 0
    assert main(["train", str(broken)]) == 0
    with np.load(Run(whole).trajectories) as one, np.load(Run(broken).trajectories) as other:
        assert len(one["row"]) > 0
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name])
