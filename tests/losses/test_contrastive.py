"""The losses of the contrastive kind against dense formulas in torch, and how they hang together."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from circlet import losses, references
from circlet.losses import PairLoss, reference

Batch = tuple[Tensor, Tensor]


@pytest.fixture
def views() -> tuple[Tensor, Tensor]:
    """Two views of 20 pictures, labelled by picture (float64)."""
    generator = torch.Generator().manual_seed(4)
    pictures = torch.randn(20, 8, generator=generator, dtype=torch.float64)
    noise = torch.randn(40, 8, generator=generator, dtype=torch.float64)
    return pictures.repeat(2, 1) + 0.8 * noise, torch.arange(20).repeat(2)


@pytest.fixture
def large() -> tuple[Tensor, Tensor]:
    """700 vectors in classes of 1 to 40: several tiles, anchors without positives (float64)."""
    generator = torch.Generator().manual_seed(5)
    labels = (40 * torch.rand(700, generator=generator) ** 3).long()
    labels[torch.arange(0, 700, 70)] = torch.arange(1000, 1010)
    centres = torch.randn(1010, 16, generator=generator, dtype=torch.float64)
    noise = torch.randn(700, 16, generator=generator, dtype=torch.float64)
    return centres[labels] + 1.5 * noise, labels


def assert_same(
    fast: Callable[[Tensor], Tensor], dense: Callable[[Tensor], Tensor], embeddings: Tensor
) -> None:
    """Equal values, and equal gradients."""
    results = []
    for function in (fast, dense):
        x = embeddings.clone().requires_grad_()
        value = function(x)
        (gradient,) = torch.autograd.grad(value, x)
        results.append((value.detach(), gradient))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)


def parts(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines of a batch, and which of them are positives and negatives."""
    directions = functional.normalize(embeddings)
    same = labels[:, None] == labels[None]
    return directions @ directions.T, same & ~torch.eye(len(labels), dtype=torch.bool), ~same


def log_sum_exp(logits: Tensor, which: Tensor) -> Tensor:
    return logits.masked_fill(~which, -math.inf).logsumexp(dim=1)


def softplus(values: Tensor) -> Tensor:
    return functional.softplus(values, threshold=40)


def test_info_nce_with_one_positive_is_the_unified_loss(views: Batch) -> None:
    embeddings, labels = views
    assert_same(
        lambda x: losses.InfoNCELoss(0.2)(x, labels),
        lambda x: losses.UnifiedLoss(0, 5)(x, labels),
        embeddings,
    )


def test_info_nce_of_two_views_is_nt_xent(views: Batch) -> None:
    embeddings, labels = views
    partner = torch.arange(40).roll(20)

    def nt_xent(x: Tensor) -> Tensor:
        similarities, _, _ = parts(x, labels)
        itself = torch.eye(40, dtype=torch.bool)
        return functional.cross_entropy((similarities / 0.2).masked_fill(itself, -math.inf), partner)

    assert_same(lambda x: losses.InfoNCELoss(0.2)(x, labels), nt_xent, embeddings)


def test_info_nce_against_another_modality_is_one_direction_of_clip(views: Batch) -> None:
    images, texts = views[0][:20], views[0][20:]
    pairs = torch.arange(20)

    def clip(x: Tensor) -> Tensor:
        return functional.cross_entropy(functional.normalize(x) @ functional.normalize(texts).T / 0.07, pairs)

    assert_same(lambda x: losses.InfoNCELoss()(x, pairs, (texts, pairs)), clip, images)


def test_info_nce_takes_each_positive_by_itself(large: Batch) -> None:
    embeddings, labels = large

    def dense(x: Tensor) -> Tensor:
        similarities, positives, negatives = parts(x, labels)
        denominators = torch.logaddexp(
            similarities / 0.3, log_sum_exp(similarities / 0.3, negatives)[:, None]
        )
        each = ((denominators - similarities / 0.3) * positives).sum(dim=1) / positives.sum(dim=1).clamp_min(
            1
        )
        return each[positives.any(dim=1)].mean()

    assert_same(lambda x: losses.InfoNCELoss(0.3)(x, labels), dense, embeddings)


def test_info_nce_with_proxies_is_normface() -> None:
    torch.manual_seed(0)
    proxies, embeddings = references.Proxies(10, 8).double(), torch.randn(16, 8, dtype=torch.float64)
    labels = torch.randint(10, (16,))
    assert_same(
        lambda x: losses.InfoNCELoss(1 / 30)(x, labels, proxies),
        lambda x: losses.NormFaceLoss(30)(x, labels, proxies),
        embeddings,
    )


def test_n_pair_is_softmax_cross_entropy_over_its_pairs(views: Batch) -> None:
    """N anchors against N others, one of each class, as in the paper."""
    anchors, others = views[0][:20] / 3, views[0][20:] / 3
    classes = torch.arange(20)
    assert_same(
        lambda x: losses.NPairLoss()(x, classes, (others, classes)),
        lambda x: functional.cross_entropy(x @ others.T, classes),
        anchors,
    )


def test_supervised_contrastive_against_a_dense_formula(large: Batch) -> None:
    embeddings, labels = large

    def dense(x: Tensor) -> Tensor:
        similarities, positives, _ = parts(x, labels)
        itself = torch.eye(len(labels), dtype=torch.bool)
        log_probabilities = (similarities / 0.1).masked_fill(itself, -math.inf).log_softmax(dim=1)
        of_positives = torch.where(positives, log_probabilities, 0).sum(dim=1)
        counted = positives.any(dim=1)
        return -(of_positives[counted] / positives[counted].sum(dim=1)).mean()

    assert_same(lambda x: losses.SupConLoss()(x, labels), dense, embeddings)


def test_supervised_contrastive_with_one_positive_is_info_nce(views: Batch) -> None:
    embeddings, labels = views
    assert_same(
        lambda x: losses.SupConLoss(0.2)(x, labels), lambda x: losses.InfoNCELoss(0.2)(x, labels), embeddings
    )


def test_supervised_contrastive_counts_anchors_without_negatives() -> None:
    """One class of four equal vectors: each of three positives has probability 1/3."""
    criterion, labels = losses.SupConLoss(reduction="none"), torch.zeros(4, dtype=torch.long)
    assert criterion(torch.ones(4, 3), labels).tolist() == pytest.approx([math.log(3)] * 4, rel=1e-6)


def test_a_single_sample_has_no_supervised_contrastive_loss_and_no_nan() -> None:
    for size in (0, 1):
        embeddings = torch.randn(size, 3, requires_grad=True)
        loss = losses.SupConLoss()(embeddings, torch.arange(size))
        loss.backward()
        assert loss.item() == 0
        assert embeddings.grad is not None
        assert (embeddings.grad == 0).all()


def test_contrastive_of_positives_is_half_the_squared_distance(views: Batch) -> None:
    """Hadsell's term for positives, and a hinge that ends where theirs does, at the distance `margin`."""
    embeddings, labels = views
    directions = functional.normalize(embeddings)
    distances = torch.cdist(directions, directions)
    _, positives, negatives = parts(embeddings, labels)
    each = losses.ContrastiveLoss(threshold_n=1, reduction="none")(embeddings, labels)
    half_squares = distances.square() / 2 * positives
    torch.testing.assert_close(each, half_squares.sum(dim=1) / positives.sum(dim=1))
    margin = 1.2
    criterion = losses.ContrastiveLoss(threshold_n=1 - margin**2 / 2, reduction="none")
    pushed = criterion(embeddings, labels) > each + 1e-12
    assert torch.equal(pushed, ((distances < margin) & negatives).any(dim=1))
    assert pushed.any()


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("averaged", [False, True])
def test_independent_pairs_against_a_dense_formula(large: Batch, smooth: bool, averaged: bool) -> None:
    embeddings, labels = large
    criterion = PairLoss(losses.Thresholds(0.8, 0.1, 3, 5), losses.Independent(smooth, averaged))

    def dense(x: Tensor) -> Tensor:
        similarities, positives, negatives = parts(x, labels)
        f = softplus if smooth else torch.relu
        pulls = (f(3 * (0.8 - similarities)) * positives).sum(dim=1)
        pushes = (f(5 * (similarities - 0.1)) * negatives).sum(dim=1)
        if averaged:
            pulls = pulls / positives.sum(dim=1).clamp_min(1)
            pushes = pushes / negatives.sum(dim=1)
        return (pulls + pushes).mean()

    assert_same(lambda x: criterion(x, labels), dense, embeddings)


def test_multi_similarity_against_a_dense_formula(large: Batch) -> None:
    embeddings, labels = large

    def dense(x: Tensor) -> Tensor:
        similarities, positives, negatives = parts(x, labels)
        pulls = softplus(log_sum_exp(-2 * (similarities - 0.5), positives)) / 2
        pushes = softplus(log_sum_exp(50 * (similarities - 0.5), negatives)) / 50
        # A softplus of nothing is 0; the gradient that torch gives it would be NaN.
        return (torch.where(positives.any(dim=1), pulls, 0) + pushes).mean()

    counted = parts(embeddings, labels)[1].any(dim=1)
    assert not counted.all()
    torch.testing.assert_close(losses.MultiSimilarityLoss()(embeddings, labels), dense(embeddings))
    # Gradients where every anchor has both sides.
    labels = labels.clone()
    labels[labels >= 1000] = 39
    assert_same(lambda x: losses.MultiSimilarityLoss()(x, labels), dense, embeddings)


def test_lifted_structure_against_a_dense_formula(large: Batch) -> None:
    embeddings, labels = large[0], large[1].where(large[1] < 1000, 39)

    def dense(x: Tensor) -> Tensor:
        directions = functional.normalize(x)
        distances = (directions[:, None] - directions[None]).square().sum(dim=2) / 2
        _, positives, negatives = parts(x, labels)
        total = log_sum_exp(8 * distances, positives) + log_sum_exp(8 * (0.1 - distances), negatives)
        return total.relu().mean()

    assert_same(lambda x: losses.LiftedStructureLoss(0.1, 8)(x, labels), dense, embeddings)


def test_lifted_structure_is_the_unified_loss_far_from_the_boundary(views: Batch) -> None:
    embeddings, labels = views
    hinge = losses.LiftedStructureLoss(1, 64, reduction="none")(embeddings, labels)
    smooth = losses.UnifiedLoss(1, 64, reduction="none")(embeddings, labels)
    far = hinge > 40
    assert far.any()
    torch.testing.assert_close(hinge[far], smooth[far])


def test_proxy_nca_is_of_squared_distances_of_unit_vectors() -> None:
    torch.manual_seed(1)
    proxies = references.Proxies(7, 5).double()
    embeddings, labels = torch.randn(9, 5, dtype=torch.float64), torch.randint(7, (9,))
    each = losses.ProxyNCALoss(3, reduction="none")(embeddings, labels, proxies)
    units = [reference.unit(row) for row in proxies.weight.tolist()]
    for vector, label, loss in zip(embeddings.tolist(), labels.tolist(), each.tolist(), strict=True):
        distances = [reference.squared_distance(reference.unit(vector), proxy) for proxy in units]
        assert loss == pytest.approx(reference.proxy_nca(distances, label, 3), rel=1e-12)


def test_proxy_nca_has_no_lower_bound_where_normface_ends() -> None:
    """An anchor on its proxy, the other proxy opposite: -d_y + d_z = 4."""
    proxies = (torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 1]))
    on_its_proxy, label = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    assert losses.ProxyNCALoss(10)(on_its_proxy, label, proxies).item() == pytest.approx(-40)
    assert losses.NormFaceLoss(20)(on_its_proxy, label, proxies).item() == pytest.approx(0, abs=1e-6)


def siglip(images: Tensor, texts: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """As in the paper's pseudocode: -1/B sum_ij log sigmoid(z_ij (t x_i.y_j + b))."""
    logits = log_scale.exp() * functional.normalize(images) @ functional.normalize(texts).T + bias
    signs = 2 * torch.eye(len(images), dtype=logits.dtype) - 1
    return -functional.logsigmoid(signs * logits).sum() / len(images)


def test_sigmoid_is_siglip_on_pairs_of_images_and_texts(views: Batch) -> None:
    images, texts = views[0][:20], views[0][20:]
    pairs = torch.arange(20)
    criterion = losses.SigmoidLoss().double()
    log_scale, bias = criterion.boundary.log_scale, criterion.boundary.bias  # type: ignore[union-attr]
    assert_same(
        lambda x: criterion(x, pairs, (texts, pairs)), lambda x: siglip(x, texts, log_scale, bias), images
    )
    assert_same(
        lambda y: criterion(images, pairs, (y, pairs)), lambda y: siglip(images, y, log_scale, bias), texts
    )


def test_the_line_of_sigmoid_learns(views: Batch) -> None:
    images, texts = views[0][:20], views[0][20:]
    pairs = torch.arange(20)
    criterion = losses.SigmoidLoss(4, -3).double()
    assert len(list(criterion.parameters())) == 2
    fast = torch.autograd.grad(criterion(images, pairs, (texts, pairs)), list(criterion.parameters()))
    dense = torch.autograd.grad(siglip(images, texts, *criterion.parameters()), list(criterion.parameters()))
    torch.testing.assert_close(fast, dense)


@pytest.mark.parametrize("objective", [losses.Independent(smooth=True), losses.PerPositive()])
def test_a_learned_line_learns_under_any_objective(large: Batch, objective: losses.Objective) -> None:
    """By finite differences; several tiles, in two passes for `PerPositive`."""
    line = losses.LearnedLine(4, -1).double()
    criterion = PairLoss(line, objective)
    criterion(*large).backward()
    for parameter in line.parameters():
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter.add_(step)
                values.append(criterion(*large))
                parameter.sub_(step)
        assert parameter.grad is not None
        by_difference = float(values[0] - values[1]) / 2e-6
        assert parameter.grad.item() == pytest.approx(by_difference, rel=1e-5, abs=1e-8)


def test_steps_along_its_gradient_fit_the_line_of_sigmoid() -> None:
    """Positives at cosine 1, negatives at 0: the bias falls where negatives outnumber positives."""
    criterion = losses.SigmoidLoss(1, 0)
    optimizer = torch.optim.SGD(criterion.parameters(), lr=0.05)
    labels = torch.arange(8)
    first = criterion(torch.eye(8), labels, (torch.eye(8), labels)).item()
    for _ in range(100):
        optimizer.zero_grad()
        loss = criterion(torch.eye(8), labels, (torch.eye(8), labels))
        loss.backward()
        optimizer.step()
    assert loss.item() < first / 3
    assert criterion.boundary.bias.item() < -1  # type: ignore[union-attr]
    assert criterion.boundary.log_scale.exp().item() > 2  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "make",
    [
        losses.InfoNCELoss,
        losses.SupConLoss,
        losses.ContrastiveLoss,
        losses.MultiSimilarityLoss,
        losses.LiftedStructureLoss,
        losses.SigmoidLoss,
        lambda: losses.NPairLoss(normalize=True),
        losses.ProxyNCALoss,
        losses.EllipseLoss,
        losses.SuperEllipseLoss,
        lambda: losses.CircleLoss(scope="batch"),
    ],
)
def test_order_and_lengths_do_not_matter(make: Callable[[], PairLoss], batch: Batch) -> None:
    embeddings, labels = batch
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    lengths = torch.linspace(0.1, 30, len(labels), dtype=torch.float64)[:, None]
    loss = make()(embeddings, labels)
    torch.testing.assert_close(make()(embeddings[order] * lengths, labels[order]), loss)


@pytest.mark.parametrize("make", [losses.ContrastiveLoss, losses.MultiSimilarityLoss, losses.SigmoidLoss])
def test_a_threshold_needs_no_positive(make: Callable[..., PairLoss]) -> None:
    embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6]], requires_grad=True)
    each = make(reduction="none")(embeddings, torch.tensor([0, 1]))
    torch.testing.assert_close(make()(embeddings, torch.tensor([0, 1])), each.mean())
    assert (each > 0).all()
    each.sum().backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()
    assert (embeddings.grad != 0).any()
