"""Augmentation of training images on their device; each image of each batch has its own draws."""

import torch
from jaxtyping import Int64, Shaped
from pydantic import Field, model_validator
from torch import Tensor

from data_gen.rng import fold, integers, key
from zoo.config import Flag, StrictModel, Whole

NUM_DRAWS = 5


class Augmentation(StrictModel):
    """What happens to an image in training batches; evaluation has images as they are.

    Attributes:
        flip: Whether to mirror left and right with probability 1/2.
        shift: Largest shift in pixels, down or up and right or left, uniform; what comes in is 0
            (black).
        cutout: Side of a square in pixels, centered anywhere in the image and cut at its border,
            that is filled with each channel's mean; 0 for none.

    References:
        He et al. 2016, arXiv 1512.03385, section 4.2 (flip, shift by 4); DeVries and Taylor 2017,
        arXiv 1708.04552 (cutout).
    """

    flip: Flag = False
    shift: Whole = Field(default=0, ge=0)
    cutout: Whole = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _does_something(self) -> "Augmentation":
        if not (self.flip or self.shift or self.cutout):
            raise ValueError(
                "expected at least one of flip, shift and cutout; leave the key out for none"
            )
        return self


def draw_moves(
    augmentation: Augmentation,
    seed: int,
    ids: Int64[Tensor, " N"],
    position: Int64[Tensor, "N M"],
    size: tuple[int, int],
) -> Int64[Tensor, "N M draws"]:
    """What to do with the image at each position of each network's sequence of training images.

    Args:
        augmentation: What may happen.
        seed: Seed of the job.
        ids: Network ids.
        position: Positions in the network's sequence, from 0.
        size: Height and width of an image.

    Returns:
        Whether to flip (0 or 1), shift down, shift right, row and column of the center of the cut
        square.
    """
    keys = fold(fold(key(seed, "augmentation"), ids)[:, None], position)
    span = 2 * augmentation.shift + 1
    bounds = torch.tensor([1 + augmentation.flip, span, span, *size], device=ids.device)
    draws = integers(keys[..., None], torch.arange(NUM_DRAWS, device=ids.device), bounds)
    draws[..., 1:3] -= augmentation.shift
    return draws


def augment(
    augmentation: Augmentation,
    images: Shaped[Tensor, "*batch C H W"],
    moves: Int64[Tensor, "*batch draws"],
    mean: Shaped[Tensor, "C 1 1"],
) -> Shaped[Tensor, "*batch C H W"]:
    """Flip, then shift, then cut.

    Args:
        augmentation: What may happen.
        images: Images as stored.
        moves: What happens to each, from `draw_moves`.
        mean: Mean of each channel, in the units of the images; rounded if they are integers.

    Returns:
        Images of the same type.
    """
    moved = _flipped_and_shifted(images, *moves[..., :3].unbind(-1))
    if not augmentation.cutout:
        return moved
    cut = _squares(images.shape[-2:], moves[..., 3], moves[..., 4], augmentation.cutout)
    filling = mean if images.is_floating_point() else mean.round()
    return torch.where(cut[..., None, :, :], filling.to(images.dtype), moved)


def _flipped_and_shifted(images: Tensor, flip: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Each pixel is read from where it comes from; what comes from outside is 0."""
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) - down[..., None]
    columns = torch.arange(width, device=images.device) - right[..., None]
    inside = _outer(_below(rows, height), _below(columns, width))
    columns = torch.where(flip[..., None] == 1, width - 1 - columns, columns)
    source = (rows[..., :, None] * width + columns[..., None, :]).clamp(0, height * width - 1)
    index = source.flatten(-2)[..., None, :].expand(*images.shape[:-2], -1)
    moved = images.flatten(-2).gather(-1, index).reshape(images.shape)
    return torch.where(inside[..., None, :, :], moved, 0)


def _squares(size: torch.Size, row: Tensor, column: Tensor, side: int) -> Tensor:
    """Where a square lies; one of even side extends one pixel further up and left of its center."""
    height, width = (torch.arange(extent, device=row.device) for extent in size)
    top, left = row[..., None] - side // 2, column[..., None] - side // 2
    return _outer(_below(height - top, side), _below(width - left, side))


def _below(x: Tensor, bound: int) -> Tensor:
    return (x >= 0) & (x < bound)


def _outer(rows: Tensor, columns: Tensor) -> Tensor:
    return rows[..., :, None] & columns[..., None, :]
