"""Running out of memory names the inputs and what to change."""

import pytest
import torch
from torch import nn

from iwin_d2.engine.memory import explain_out_of_memory
from iwin_d2.errors import TrainingError


class Greedy(nn.Module):
    """Fails as it is told."""

    def __init__(self, fail):
        super().__init__()
        self.fail = fail

    def forward(self, batch):
        self.fail()


def ask_for_too_much():
    torch.empty(2**55, dtype=torch.uint8)


def run_out_on_cuda():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore lines.")


BATCH = [{"image": torch.zeros(3, 8, 12)}, {"image": torch.zeros(3, 16, 4)}]


@pytest.mark.parametrize("fail", [ask_for_too_much, run_out_on_cuda])
def test_names_sizes_and_remedies(fail):
    model = Greedy(fail)
    with pytest.raises(TrainingError) as caught, explain_out_of_memory(model):
        model(BATCH)
    sentence = caught.value.sentence
    assert "input images of 3x8x12, 3x16x4" in sentence and "\n" not in sentence
    for setting in ("dataloader.train.total_batch_size", "train.amp.enabled", "use_checkpoint"):
        assert setting in sentence


def test_in_evaluation_the_remedies_are_others():
    model = Greedy(run_out_on_cuda).eval()
    with pytest.raises(TrainingError, match=r"dataloader\.test"), explain_out_of_memory(model):
        model(BATCH)


def test_before_the_first_batch_there_are_no_sizes():
    with pytest.raises(TrainingError, match="none yet"), explain_out_of_memory(nn.Identity()):
        run_out_on_cuda()


def test_other_errors_stay_as_they_are():
    def fail():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    model = Greedy(fail)
    with pytest.raises(RuntimeError, match="mat1"), explain_out_of_memory(model):
        model(BATCH)
    assert not model._forward_pre_hooks
