"""Shapes and values of the networks' parts."""

import pytest
import torch

from circlet.errors import CircletError
from circlet.models import (
    AverageMaxPooling,
    AveragePooling,
    ConvNet,
    Embedder,
    FlattenPooling,
    GeneralizedMeanPooling,
    GridPooling,
    IdentityNeck,
    LinearNeck,
    MaxPooling,
    Views,
)


@pytest.mark.parametrize("size", [28, 31, 40])
def test_convnet_gives_as_many_channels_as_it_says(size: int) -> None:
    net = ConvNet(in_channels=1, widths=(4, 8, 12))
    features = net(torch.rand(2, 1, size, size))
    assert features.shape[:2] == (2, net.out_channels)


def test_convnet_has_the_depths_it_is_given() -> None:
    shallow, deep = ConvNet(widths=(4, 8, 12)), ConvNet(widths=(4, 8, 12), depths=(1, 3))
    assert (len(shallow.blocks), len(deep.blocks)) == (2, 4)
    images = torch.rand(2, 3, 32, 32)
    assert deep(images).shape == shallow(images).shape == (2, 12, 4, 4)
    # The further blocks begin as the identity, so both nets compute the same from the same weights.
    deep.load_state_dict(shallow.state_dict(), strict=False)
    assert torch.equal(deep.eval()(images), shallow.eval()(images))


@pytest.mark.parametrize("depths", [(1,), (1, 0), (1, 1, 1)])
def test_depths_that_do_not_fit_are_named(depths: tuple[int, ...]) -> None:
    with pytest.raises(CircletError, match=r"2 widths .* but got \["):
        ConvNet(widths=(4, 8, 12), depths=depths)


def test_pooling_against_its_definition() -> None:
    features = torch.rand(2, 3, 4, 4, dtype=torch.float64) + 0.1
    cells = features.flatten(2)
    assert torch.allclose(AveragePooling()(features), cells.sum(2) / 16)
    assert torch.equal(MaxPooling()(features), cells.max(2).values)
    power = GeneralizedMeanPooling(power=2.0).double()
    assert torch.allclose(power(features), (cells.square().sum(2) / 16).sqrt())
    assert torch.allclose(AverageMaxPooling()(features), cells.sum(2) / 16 + cells.max(2).values)
    assert torch.equal(GridPooling(4)(features), features.flatten(1))
    assert torch.equal(FlattenPooling(4, 4)(features), features.flatten(1))
    halves = features.reshape(2, 3, 2, 2, 2, 2).mean(dim=(3, 5))
    assert torch.allclose(GridPooling(2)(features), halves.flatten(1))


def test_poolings_tell_the_neck_their_length() -> None:
    for pooling, length in ((GridPooling(3), 72), (FlattenPooling(4, 2), 64)):
        embedder = Embedder(ConvNet(widths=(4, 8)), pooling, IdentityNeck())
        assert embedder(torch.rand(2, 3, 16, 8)).shape == (2, length)
        assert embedder.embedding_dim == length


def test_flatten_pooling_names_the_size_that_does_not_fit() -> None:
    with pytest.raises(CircletError, match="made for maps of 7 x 7, but the backbone gives 4 x 6"):
        FlattenPooling()(torch.rand(1, 2, 4, 6))
    with pytest.raises(CircletError, match="at least 1, but got 0, 7"):
        FlattenPooling(height=0)


@pytest.mark.parametrize(
    ("mirrored", "rotated", "number"), [(True, False, 2), (False, True, 4), (True, True, 8)]
)
def test_the_cosine_of_views_is_the_mean_of_the_views_cosines(
    mirrored: bool, rotated: bool, number: int
) -> None:
    embedder = Embedder(ConvNet(in_channels=1, widths=(4, 8)), neck=LinearNeck(6)).double().eval()
    views = Views(embedder, mirrored=mirrored, rotated=rotated)
    images = torch.rand(2, 1, 12, 12, dtype=torch.float64)
    turned = [torch.rot90(images, quarters, (2, 3)) for quarters in range(4 if rotated else 1)]
    seen = [*turned, *(image.flip(3) for image in turned)] if mirrored else turned
    assert views.number == len(seen) == number
    with torch.no_grad():
        each = [torch.cosine_similarity(*embedder(view), dim=0) for view in seen]
        together = views(images)
    assert together.shape == (2, 6 * number)
    cosine = torch.cosine_similarity(together[0], together[1], dim=0)
    torch.testing.assert_close(cosine.double(), torch.stack(each).mean(), atol=1e-6, rtol=0)


def test_a_sum_of_views_is_that_of_the_embeddings_as_they_come() -> None:
    # As insightface measures faces: f(picture) + f(mirror image), normalised by nobody before.
    embedder = Embedder(ConvNet(in_channels=3, widths=(4, 8)), neck=LinearNeck(6)).eval()
    images = torch.rand(2, 3, 14, 12)
    with torch.no_grad():
        together = Views(embedder, mirrored=True, combine="sum")(images)
        expected = embedder(images) + embedder(images.flip(3))
        torch.testing.assert_close(together, expected)
        torch.testing.assert_close(Views(embedder, combine="sum")(images), embedder(images))
        square = torch.rand(2, 3, 12, 12)
        turns = sum(embedder(torch.rot90(square, quarters, (2, 3))) for quarters in range(4))
        torch.testing.assert_close(Views(embedder, rotated=True, combine="sum")(square), turns)


def test_pictures_that_are_not_square_are_not_turned() -> None:
    views = Views(Embedder(ConvNet(in_channels=1, widths=(4, 8))), rotated=True)
    with pytest.raises(CircletError, match=r"14 x 12 pixels .* evaluation\.rotated_views"):
        views(torch.rand(2, 1, 14, 12))


def test_pictures_that_are_each_others_turned_mirror_images_are_as_near_from_either_side() -> None:
    embedder = Embedder(ConvNet(in_channels=1, widths=(4, 8)), neck=LinearNeck(6)).eval()
    views = Views(embedder, mirrored=True, rotated=True)
    images = torch.rand(2, 1, 12, 12)
    with torch.no_grad():
        plain, turned = views(images), views(torch.rot90(images.flip(3), 1, (2, 3)))
    torch.testing.assert_close(plain[0] @ plain[1], turned[0] @ turned[1])
