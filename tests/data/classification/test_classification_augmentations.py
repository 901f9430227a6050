"""RandAugment with varying magnitudes, and erasing by noise."""

import torch

from iwin_d2.data.classification.augmentations import NoisyRandAugment, RandomErasing


def image(height=40, width=60):
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


def test_rand_augment_changes_images_and_repeats_itself():
    torch.manual_seed(0)
    augment, sample, changed = NoisyRandAugment(), image(), 0
    for seed in range(60):
        torch.manual_seed(seed)
        first = augment(sample)
        torch.manual_seed(seed)
        assert torch.equal(first, augment(sample))
        assert first.shape == sample.shape and first.dtype == torch.uint8
        changed += not torch.equal(first, sample)
    # Left out both times in a quarter of the cases; some operations change nothing.
    assert 25 <= changed <= 55


def test_magnitudes_vary_around_the_mean(monkeypatch):
    augment = NoisyRandAugment(magnitude=9, deviation=0.5, num_ops=1, probability=1)
    used = []
    augment._operations = [lambda x, n=n: used.append(n) or x for n in range(101)]
    torch.manual_seed(0)
    for _ in range(400):
        augment(image())
    values = torch.tensor(used, dtype=torch.float) / 10
    assert abs(values.mean() - 9) < 0.1 and 0.35 < values.std() < 0.6 and values.max() <= 10


def test_erasing_takes_a_rectangle_of_the_size_asked_for():
    torch.manual_seed(0)
    erase = RandomErasing(p=1, scale=(0.1, 0.2), ratio=(0.5, 2))
    shares = []
    for _ in range(50):
        sample = torch.full((3, 50, 70), 7, dtype=torch.uint8)
        erased = erase(sample)
        assert (sample == 7).all()  # the image given stays
        changed = (erased != 7).any(0)
        rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
        height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        shares.append(height * width / 3500)
    assert min(shares) > 0.08 and max(shares) < 0.22


def test_erasing_noise_is_like_the_data():
    torch.manual_seed(0)
    erase = RandomErasing(p=1, scale=(0.9, 0.95), ratio=(0.9, 1.1))
    erased = erase(torch.zeros(3, 200, 200, dtype=torch.uint8)).float()
    inside = erased[:, 20:180, 20:180]
    for channel, mean, std in zip(inside, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)):
        assert abs(channel.mean() - mean) < 3 and abs(channel.std() - std) < 4


def test_erasing_happens_as_often_as_asked_for():
    torch.manual_seed(0)
    erase, sample = RandomErasing(p=0.25), image()
    count = sum(not torch.equal(erase(sample), sample) for _ in range(400))
    assert 70 <= count <= 130


def test_erasing_takes_clips():
    torch.manual_seed(0)
    clip = torch.zeros(5, 3, 40, 40, dtype=torch.uint8)  # frames first
    erased = RandomErasing(p=1, scale=(0.2, 0.3))(clip)
    changed = (erased != 0).any(1)
    assert erased.shape == clip.shape and changed.any((1, 2)).all()
