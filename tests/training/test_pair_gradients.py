"""The gradient by each similarity against the losses themselves, and its figures against closed forms."""

import math

import pytest
import torch
from torch import Tensor

from circlet import losses
from circlet.losses import PairLoss
from circlet.references import Given
from circlet.training.monitor import batch_pairs
from circlet.training.pair_gradients import gradient_figures, similarity_gradient

SEVERAL_POSITIVES: list[PairLoss] = [
    losses.CircleLoss(0.25, 32),
    losses.EllipseLoss(0.25, 32, 2.0),
    losses.UnifiedLoss(),
    losses.UnifiedLoss(scope="batch"),
    losses.TripletLoss(mining="hard"),
    losses.TripletLoss(mining="soft"),
    losses.TripletLoss(mining="all"),
    losses.LiftedStructureLoss(),
    losses.InfoNCELoss(),
    losses.SupConLoss(),
    losses.ContrastiveLoss(),
    losses.MultiSimilarityLoss(),
    losses.SigmoidLoss(),
    losses.ArcFaceLoss(),
    losses.ProxyAnchorLoss(),
]
ONE_POSITIVE: list[PairLoss] = [
    losses.NormFaceLoss(),
    losses.CosFaceLoss(),
    losses.ProxyNCALoss(),
    losses.AdaFaceLoss().eval(),
]


def batch(one_positive: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Anchors, labels, references and theirs, in float64; the last anchor may have no positive."""
    generator = torch.Generator().manual_seed(11)
    references = torch.randn(12, 6, generator=generator, dtype=torch.float64)
    anchors = torch.randn(9, 6, generator=generator, dtype=torch.float64)
    if one_positive:
        return anchors, torch.arange(9), references, torch.arange(12)
    return anchors, torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 7]), references, torch.arange(12) // 3


@pytest.mark.parametrize("criterion", SEVERAL_POSITIVES + ONE_POSITIVE, ids=lambda loss: type(loss).__name__)
def test_the_chain_rule_gives_the_gradient_of_the_loss(criterion: PairLoss) -> None:
    anchors, labels, references, reference_labels = batch(criterion in ONE_POSITIVE)
    if isinstance(criterion, losses.AdaFaceLoss):
        criterion.double()
    given = Given(references, reference_labels)
    anchors.requires_grad_()
    (expected,) = torch.autograd.grad(criterion(anchors, labels, given), anchors)

    pairs = batch_pairs(criterion, anchors, labels, given)
    sides = pairs.similarities, pairs.positives, pairs.negatives
    turned = isinstance(criterion, losses.ProxyAnchorLoss)
    of_pairs = similarity_gradient(criterion, anchors.detach(), *(s.T if turned else s for s in sides))
    of_pairs = of_pairs.T if turned else of_pairs
    unit = torch.nn.functional.normalize(anchors.detach())
    through = of_pairs @ torch.nn.functional.normalize(references)
    through = (through - (through * unit).sum(dim=1, keepdim=True) * unit) / anchors.detach().norm(
        dim=1, keepdim=True
    )
    assert expected.abs().max() > 1e-6
    torch.testing.assert_close(through, expected, rtol=1e-7, atol=1e-10)


def anchors_of(pairs: list[tuple[list[float], list[float]]]) -> tuple[Tensor, Tensor, Given]:
    """One anchor for each (similarities of positives, similarities of negatives), all as many."""
    count = len(pairs)
    per_anchor = len(pairs[0][0]) + len(pairs[0][1])
    anchors = torch.eye(count, count + 1, dtype=torch.float64)
    vectors, labels = [], []
    for i, (positives, negatives) in enumerate(pairs):
        for s, label in [(s, i) for s in positives] + [(s, count) for s in negatives]:
            vector = torch.zeros(count + 1, dtype=torch.float64)
            vector[i], vector[count] = s, math.sqrt(1 - s**2)
            vectors.append(vector)
            labels.append(label)
    assert len(vectors) == count * per_anchor
    return anchors, torch.arange(count), Given(torch.stack(vectors), torch.tensor(labels))


def test_circle_loss_has_the_gradients_of_the_paper() -> None:
    gamma, m = 32.0, 0.25
    positives, negatives = [0.6, 0.8], [0.1, 0.3, 0.5]
    anchors, labels, given = anchors_of([(positives, negatives)])
    criterion = losses.CircleLoss(m, gamma)
    pairs = batch_pairs(criterion, anchors, labels, given)
    found = similarity_gradient(
        criterion, pairs.embeddings, pairs.similarities, pairs.positives, pairs.negatives
    )
    weight_p = [math.exp(gamma * ((s - 1) ** 2 - m**2)) for s in positives]
    weight_n = [math.exp(gamma * (s**2 - m**2)) for s in negatives]
    z = 1 - 1 / (1 + sum(weight_p) * sum(weight_n))  # 1 - exp(-L), Eq. 9 and 10
    expected = [z * w / sum(weight_p) * gamma * (s - 1 - m) for s, w in zip(positives, weight_p, strict=True)]
    expected += [z * w / sum(weight_n) * gamma * (s + m) for s, w in zip(negatives, weight_n, strict=True)]
    assert found[0].tolist() == pytest.approx(expected)


def test_hopeless_anchors_do_not_take_the_gradient_of_a_whole_batch() -> None:
    anchors, labels, references, reference_labels = batch(one_positive=False)
    given = Given(references, reference_labels)
    criterion = losses.CircleLoss(0.25, 64, scope="batch")
    pairs = batch_pairs(criterion, anchors, labels, given)
    found = gradient_figures(criterion, pairs)
    # One softmax over all pairs of a side, which the weights scale: paper, Eq. 9 and 10 with one anchor.
    s_n = pairs.negative
    of_negatives = torch.softmax(64 * (s_n + 0.25).relu() * (s_n - 0.25), dim=0) * (s_n + 0.25).relu()
    tenth = -(-len(s_n) // 10)
    share = of_negatives[s_n.topk(tenth).indices].sum() / of_negatives.sum()
    assert found.mass["negative_hardest"] == pytest.approx(float(share), rel=1e-6)
    assert found.active is not None
    assert found.active > 0


def test_anchors_at_rest_are_not_active() -> None:
    # On the straight boundary of CosFace, Z = 1 - exp(-L): 0.0067, 0.018, 0.5 and 0.99.
    scale, margin = 10.0, 0.0
    gaps = [0.5, 0.4, 0.0, -0.5]
    anchors, labels, given = anchors_of([([gap], [0.0]) for gap in gaps])
    # The others' references are orthogonal to an anchor: all in all 4 + 3 negatives of 0.
    z = [1 - math.exp(-math.log1p(7 * math.exp(-scale * gap))) for gap in gaps]
    criterion = losses.UnifiedLoss(margin, scale)
    found = gradient_figures(criterion, batch_pairs(criterion, anchors, labels, given))
    assert found.active == sum(value > 0.01 for value in z) / 4
    steeper = losses.UnifiedLoss(margin, 20.0)
    found = gradient_figures(steeper, batch_pairs(steeper, anchors, labels, given))
    assert found.active == 0.5


@pytest.mark.parametrize(("mining", "active"), [("hard", 0.5), ("all", 0.5), ("soft", 0.5)])
def test_a_triplet_loss_is_active_where_it_is_above_zero(mining: str, active: float) -> None:
    anchors, labels, given = anchors_of([([0.9], [0.1]), ([0.9], [0.8]), ([0.6], [0.0]), ([0.1], [0.0])])
    criterion = losses.TripletLoss(0.2, mining=mining)  # type: ignore[arg-type]
    found = gradient_figures(criterion, batch_pairs(criterion, anchors, labels, given))
    assert found.active == active


def test_an_objective_that_never_rests_is_always_active() -> None:
    anchors, labels, given = anchors_of([([1.0], [-1.0]), ([1.0], [-1.0])])
    criterion = losses.ProxyNCALoss()
    assert gradient_figures(criterion, batch_pairs(criterion, anchors, labels, given)).active == 1


def test_gradient_mass_of_a_hard_triplet_loss_is_on_the_hardest_pairs() -> None:
    # One anchor, 10 positives and 20 negatives: all the gradient is on one of each.
    positives = [0.5 + 0.04 * i for i in range(10)]
    negatives = [0.02 * i for i in range(20)]
    anchors, labels, given = anchors_of([(positives, negatives)])
    criterion = losses.TripletLoss(0.2, mining="hard")
    found = gradient_figures(criterion, batch_pairs(criterion, anchors, labels, given))
    assert found.mass == pytest.approx(
        {"positive_hardest": 1, "positive_unsolved": 1, "negative_hardest": 1, "negative_unsolved": 1}
    )


def test_gradient_mass_of_pairs_that_weigh_the_same_is_their_number() -> None:
    # Contrastive: each positive below its threshold and each negative above has slope 1.
    positives = [0.0 + 0.05 * i for i in range(10)]
    negatives = [0.6 + 0.01 * i for i in range(20)]
    anchors, labels, given = anchors_of([(positives, negatives)])
    criterion = losses.ContrastiveLoss()
    found = gradient_figures(criterion, batch_pairs(criterion, anchors, labels, given))
    assert found.mass["positive_hardest"] == pytest.approx(0.1)
    assert found.mass["negative_hardest"] == pytest.approx(0.1)


def test_mass_on_unsolved_pairs() -> None:
    gamma, margin = 5.0, 0.2
    positives, negatives = [0.5, 0.9], [0.4, 0.1]
    anchors, labels, given = anchors_of([(positives, negatives)])
    criterion = losses.UnifiedLoss(margin, gamma)
    found = gradient_figures(criterion, batch_pairs(criterion, anchors, labels, given))
    # s_p - s_n > margin solves: 0.5 is not with 0.4, 0.9 is; 0.4 is not with 0.5, and 0.1 is.
    share_p = math.exp(-gamma * 0.5) / (math.exp(-gamma * 0.5) + math.exp(-gamma * 0.9))
    share_n = math.exp(gamma * 0.4) / (math.exp(gamma * 0.4) + math.exp(gamma * 0.1))
    assert found.mass["positive_unsolved"] == pytest.approx(share_p)
    assert found.mass["negative_unsolved"] == pytest.approx(share_n)


def test_a_batch_without_pairs_has_no_figures() -> None:
    criterion = losses.CircleLoss()
    embeddings, labels = torch.randn(4, 3), torch.arange(4)
    found = gradient_figures(criterion, batch_pairs(criterion, embeddings, labels, None))
    assert found.active is None
    assert found.mass == {}


def test_of_a_huge_matrix_some_anchors_are_looked_at() -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(3000, 4, generator=generator)
    labels = torch.randint(50, (3000,), generator=generator)
    pairs = batch_pairs(losses.CircleLoss(), embeddings, labels, None)
    assert pairs.similarities.shape == (1000, 3000)
    # No anchor is a pair with itself, every third counts, and its pairs are whole.
    assert pairs.positive.numel() + pairs.negative.numel() == 1000 * 2999
    unit = torch.nn.functional.normalize(embeddings)
    torch.testing.assert_close(pairs.similarities[5], unit[15] @ unit.T)
