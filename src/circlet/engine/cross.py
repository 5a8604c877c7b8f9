"""Anchors against given references, over tiles: only their gradient has the size of the references."""

import math
from typing import Any

import torch
from torch import Tensor

from circlet.engine.blocks import Cross
from circlet.engine.channels import Channel, Channels
from circlet.engine.logits import SIDES
from circlet.engine.maximum import Maximum
from circlet.engine.vectors import (
    CHUNK,
    Workspace,
    lengths_of,
    normalized_,
    refuse_second_derivative,
    through_normalization_,
    without_autocast,
)


class CrossStatistics(torch.autograd.Function):
    """(anchors, references, offset or None, cross, parameters of its logits) -> (anchors,) per reduction."""

    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        references: Tensor,
        offset: Tensor | None,
        cross: Cross,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        with without_autocast(anchors):
            dtype = torch.promote_types(anchors.dtype, references.dtype)
            dtype = torch.promote_types(dtype, torch.float32)
            vectors = anchors.to(dtype, copy=cross.normalize)
            lengths = normalized_(vectors) if cross.normalize else None
            first = cross.class_start
            channels = Channels(
                [
                    Channel(reduction, cross.logits, offset, vectors, first, cross.class_end - first)
                    for reduction in cross.reductions
                ]
            )
            gradient = None
            if ctx.needs_input_grad[1] and channels.ask_for(*SIDES, backward=True):
                gradient = cross.room_for_products(vectors, references)
            inverse = _forward(cross, vectors, references, channels, gradient)
            ctx.cross, ctx.channels, ctx.gradient, ctx.dtype = cross, channels, gradient, anchors.dtype
            ctx.save_for_backward(vectors, lengths, references, inverse)
            # Copies: a result that its own graph held would never be freed.
            return tuple(channel.reducer.result().clone() for channel in channels.all)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        ctx.cross.logits.begin_backward()
        cross: Cross = ctx.cross
        channels: Channels = ctx.channels
        vectors, lengths, references, inverse = ctx.saved_tensors
        with without_autocast(vectors):
            of_anchors = torch.zeros_like(vectors)
            of_references, kept = ctx.gradient, ctx.gradient is not None
            ctx.gradient = None  # a second backward pass makes the similarities again
            if of_references is None and ctx.needs_input_grad[1]:
                of_references = torch.empty_like(references)
            needs_tiles = channels.ask_for(*SIDES, backward=True) and len(vectors) > 0
            of_offset = None
            for channel, gradient in zip(channels.all, gradients, strict=True):
                channel.begin_backward(gradient)
            if needs_tiles:
                _backward(cross, vectors, references, inverse, channels, kept, of_anchors, of_references)
            elif of_references is not None:
                of_references.zero_()
            for channel, gradient in zip(channels.all, gradients, strict=True):
                if isinstance(channel.reducer, Maximum):
                    _backward_of_maximum(
                        cross,
                        channel,
                        channel.reducer,
                        gradient,
                        vectors,
                        references,
                        inverse,
                        of_anchors,
                        of_references,
                    )
                of_offset = channel.offset_gradient() if of_offset is None else of_offset
            if lengths is not None:
                through_normalization_(of_anchors, vectors, lengths)
            return of_anchors.to(ctx.dtype), of_references, of_offset, None, *cross.logits.parameter_gradients


def _forward(
    cross: Cross, vectors: Tensor, references: Tensor, channels: Channels, gradient: Tensor | None
) -> Tensor:
    """Take in all tiles; returns 1 / length of the sorted references.

    The products are kept where the gradient of the references is to be, if that is given.
    """
    workspace = cross.workspace(vectors, references)
    inverse = vectors.new_ones(len(references))
    for columns, block in cross.blocks(references, vectors.dtype):
        span = cross.span(columns)
        if cross.normalize:
            inverse[span] = 1 / lengths_of(block)
        for rows in cross.panels(len(vectors)):
            products = workspace.tile(2, rows.stop - rows.start, len(block))
            if gradient is not None:
                products = _room(gradient[span], rows)
            torch.mm(vectors[rows], block.T, out=products)
            tile = _pooled_similarities(cross, products, inverse[span], workspace)
            temporary = workspace.tile(1, *tile.shape)
            if cross.own_pairs is not None:
                channels.add_negatives(tile, cross.own_pairs.filling(columns), rows, columns, temporary)
            else:
                channels.add_rows(tile, cross.own_class(rows, columns), rows, columns, temporary)
    if cross.own_pairs is not None:
        cross.own_pairs.forward(vectors, references, cross.order, cross.normalize, channels)
    return inverse


def _backward(
    cross: Cross,
    vectors: Tensor,
    references: Tensor,
    inverse: Tensor,
    channels: Channels,
    kept: bool,
    of_anchors: Tensor,
    of_references: Tensor | None,
) -> None:
    """Add to the gradient of the anchors, and write that of the references, which may hold what was kept."""
    workspace = cross.workspace(vectors, references)
    in_place = cross.in_place(vectors, references)
    for columns, block in cross.blocks(references, vectors.dtype):
        span = cross.span(columns)
        of_block = None
        if of_references is not None:
            of_block = of_references[span] if in_place else torch.empty_like(block)
        along = vectors.new_zeros(len(block))
        for rows in cross.panels(len(vectors)):
            if kept and of_block is not None:
                products = _room(of_block, rows)
            else:
                products = workspace.tile(2, rows.stop - rows.start, len(block))
                torch.mm(vectors[rows], block.T, out=products)
            of_pairs = _gradients_of_pairs(cross, products, inverse[span], rows, columns, channels, workspace)
            if cross.normalize:
                of_pairs.mul_(inverse[span])
            of_anchors[rows].addmm_(of_pairs, block)
            if of_block is None:
                continue
            if cross.normalize:
                along += torch.mul(of_pairs, products, out=workspace.tile(1, *products.shape)).sum(dim=0)
            beta = 0 if rows.start == 0 else 1
            torch.addmm(of_block, of_pairs.T, vectors[rows], beta=beta, out=of_block)
        if of_block is None or of_references is None:
            continue
        if cross.normalize:
            # d/dw = (g - (g . w^) w^) / |w|, and g . w is a sum over the products.
            of_block.addcmul_((along * inverse[span] ** 2)[:, None], block, value=-1)
        if not in_place:
            of_references[cross.places(columns)] = of_block.to(of_references.dtype)
    if cross.own_pairs is not None:
        cross.own_pairs.backward(
            vectors, references, cross.order, cross.normalize, channels, of_anchors, of_references
        )


def _room(of_block: Tensor, rows: slice) -> Tensor:
    """Memory for the products of all anchors with a block of references, in that of the block's gradient."""
    count = rows.stop - rows.start
    return of_block.view(-1)[: count * len(of_block)].view(count, len(of_block))


def _gradients_of_pairs(
    cross: Cross,
    products: Tensor,
    inverse: Tensor,
    rows: slice,
    columns: slice,
    channels: Channels,
    workspace: Workspace,
) -> Tensor:
    """The gradients of a tile's similarities; the products stay as they are."""
    tile = _pooled_similarities(cross, products, inverse, workspace)
    slopes = workspace.tile(1, *tile.shape)
    if cross.own_pairs is not None:
        return channels.gradients_of_negatives(tile, cross.own_pairs.filling(columns), rows, columns, slopes)
    of_pooled = channels.gradients_of_rows(tile, cross.own_class(rows, columns), rows, columns, slopes)
    if cross.centers is None:
        return of_pooled
    return cross.centers.gradient(_similarities(cross, products, inverse, workspace), of_pooled)


def _pooled_similarities(cross: Cross, products: Tensor, inverse: Tensor, workspace: Workspace) -> Tensor:
    similarities = _similarities(cross, products, inverse, workspace)
    return similarities if cross.centers is None else cross.centers.pooled(similarities)


def _similarities(cross: Cross, products: Tensor, inverse: Tensor, workspace: Workspace) -> Tensor:
    """The products with references of length 1 / inverse, in a buffer of their own."""
    tile = workspace.tile(0, *products.shape)
    return torch.mul(products, inverse, out=tile) if cross.normalize else tile.copy_(products)


def _backward_of_maximum(
    cross: Cross,
    channel: Channel,
    maximum: Maximum,
    gradient: Tensor,
    vectors: Tensor,
    references: Tensor,
    inverse: Tensor,
    of_anchors: Tensor,
    of_references: Tensor | None,
) -> None:
    """Add to both gradients: of each anchor, one pair counts."""
    gradient = torch.where(maximum.value > -math.inf, gradient, 0)
    for anchors in torch.split(gradient.nonzero()[:, 0], CHUNK):
        place = maximum.index[anchors]
        others = place if cross.order is None else cross.order[place]
        factor = inverse[place][:, None]
        x, y = vectors[anchors], references[others].to(vectors.dtype) * factor
        cosines = (x * y).sum(dim=1)
        tile = cosines.clone()
        pull = channel.overwrite_(tile, torch.empty_like(tile))
        of_pairs = pull(gradient[anchors] * maximum.scale)[:, None]
        of_anchors.index_add_(0, anchors, y * of_pairs)
        if of_references is not None:
            changes = x * of_pairs
            if cross.normalize:
                through_normalization_(changes, y, 1 / inverse[place])
            of_references.index_add_(0, others, changes.to(of_references.dtype))
