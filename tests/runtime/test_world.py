"""How a batch is cut into pieces, for the memory of one process and for several processes."""

import pytest
import torch

from deeptrain.runtime.world import SINGLE, World, piece_sizes


@pytest.mark.parametrize("count", range(1, 9))
def test_without_a_smallest_size_the_pieces_are_those_of_chunk(count):
    for total in range(1, 40):
        assert piece_sizes(total, count, 1) == [len(piece) for piece in torch.arange(total).chunk(count)]


@pytest.mark.parametrize("smallest", [2, 3])
def test_no_piece_is_smaller_and_none_is_lost(smallest):
    for total in range(smallest, 40):
        for count in range(1, 12):
            sizes = piece_sizes(total, count, smallest)
            assert sum(sizes) == total and min(sizes) >= smallest and len(sizes) <= count


def test_micro_batches_weigh_as_much_as_their_images():
    images, labels = torch.arange(7), torch.arange(7)
    pieces = list(SINGLE.micro_batches(images, labels, 3, 7, smallest=2))
    assert [piece.tolist() for piece, _, _ in pieces] == [[0, 1, 2], [3, 4, 5, 6]]
    assert [weight for _, _, weight in pieces] == [3 / 7, 4 / 7]


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_batch_of_two_images_a_process_gives_each_two(size):
    for total in range(2 * size, 40):
        assert min(World(rank, size).local_batch_size(total) for rank in range(size)) >= 2
