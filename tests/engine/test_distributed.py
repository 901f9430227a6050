"""Two processes do what one does with both their batches."""

import multiprocessing
import os

import distributed_checks as checks
import pytest
import torch
from torch import nn

from iwin_d2.engine.launch import launch

WORLD_SIZE = 2


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of two processes found, by the name of the check."""
    folder = tmp_path_factory.mktemp("distributed")
    checks.write_annotations(folder)
    checks.write_labels(folder)
    assert launch(checks.run_all, WORLD_SIZE, args=(str(folder),)) == [0, 1]
    ranks = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(WORLD_SIZE)]

    def results(name):
        for result in (rank[name] for rank in ranks):
            assert not isinstance(result, str), result  # a traceback
        return [rank[name] for rank in ranks]

    results.folder = folder
    return results


@pytest.fixture
def one_thread():
    """As in the two processes: with other sums of the same terms a ReLU may fall otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_communication(found):
    first, second = found("communication")
    assert first["world_size"] == second["world_size"] == 2
    assert (first["ranks"], second["ranks"]) == ((0, 0, True), (1, 1, False))
    assert first["all_gather"] == second["all_gather"] == [{"rank": 0}, {"rank": 1}]
    assert (first["gather"], second["gather"]) == ([0, 1], [])
    assert first["seed"] == second["seed"]
    assert first["mean"] == 4.0


def test_loading_workers_start_as_in_one_process(found):
    """Spawned ones would take seconds to start, and copy the records."""
    for result in found("communication"):
        assert result["start_method"] == multiprocessing.get_start_method()


def test_processes_share_the_cores(found):
    wanted = max(1, torch.get_num_threads() // WORLD_SIZE)
    if "OMP_NUM_THREADS" in os.environ:
        wanted = torch.get_num_threads()
    for result in found("communication"):
        assert result["threads"] == wanted


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["uneven", "one is empty", "vectors"])
def test_batch_norm_is_that_of_the_joint_batch(found, name, dtype, momentum):
    ranks = [result[name, dtype, momentum] for result in found("batch_norm")]
    xs, gradients = checks.norm_case(name, dtype)
    kind = nn.BatchNorm1d if xs[0].dim() == 2 else nn.BatchNorm2d
    joint = checks.make_norm(kind, dtype, momentum)
    expected = checks.apply_norm(joint, torch.cat(xs), torch.cat(gradients))
    # In float32 both round, at a mean of 50.
    close = (
        {"rtol": 1e-10, "atol": 1e-10} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 2e-5}
    )
    for key in ("output", "gradient"):
        both = torch.cat([rank[key] for rank in ranks])
        torch.testing.assert_close(both, expected[key], **close)
    for key in ("gradient of weight", "gradient of bias"):
        torch.testing.assert_close(sum(rank[key] for rank in ranks), expected[key], **close)
    for key in ("running_mean", "running_var", "num_batches_tracked"):
        for rank in ranks:
            torch.testing.assert_close(rank[key], expected[key], **close)


def test_batch_norm_of_nothing(found):
    for result in found("batch_norm"):
        empty = result["all are empty", torch.float32, 0.1]
        assert empty["output"].shape == empty["gradient"].shape == (0, 3, 2, 2)
        assert empty["gradient of weight"].tolist() == [0, 0, 0]
        assert empty["running_mean"].tolist() == [0, 0, 0]
        assert empty["running_var"].tolist() == [1, 1, 1]


def test_batch_norm_without_parameters_in_half_precision_and_in_evaluation(found):
    xs, gradients = checks.norm_case("uneven", torch.float64)
    joint = checks.make_norm(nn.BatchNorm2d, torch.float64, affine=False)
    expected = checks.apply_norm(joint, torch.cat(xs), torch.cat(gradients))
    ranks = found("batch_norm")
    both = torch.cat([rank["not affine"]["output"] for rank in ranks])
    torch.testing.assert_close(both, expected["output"])
    half = torch.cat([rank["half"] for rank in ranks])
    assert half.dtype == torch.bfloat16
    joint = checks.make_norm(nn.BatchNorm2d, torch.float32)
    torch.testing.assert_close(
        half.float(), joint(torch.cat(xs).bfloat16().float()), rtol=0.01, atol=0.02
    )
    for rank in ranks:
        torch.testing.assert_close(rank["eval"], rank["eval of plain"], rtol=0, atol=0)


def test_conversion_changes_the_class_alone(found):
    for result in found("conversion"):
        assert result["same"] and result["is a"]
        assert result["kinds"] == ["Conv2d", "SyncBatchNorm", "BatchNorm2d"]
    first, second = found("conversion")
    assert first["means"][0].abs().sum() > 0
    for means in zip(first["means"], second["means"]):
        torch.testing.assert_close(*means, rtol=0, atol=0)
    # The copies saw the same batch.
    torch.testing.assert_close(first["means"][1], first["means"][2])


def test_one_process_needs_no_conversion():
    model = nn.Sequential(nn.SyncBatchNorm(3))
    assert type(checks.convert_sync_batch_norm(model)[0]) is nn.SyncBatchNorm


@pytest.mark.parametrize("name", checks.CASCADE_CASES)
def test_gradients_are_the_same_in_both_processes(found, name):
    first, second = (result[name] for result in found("cascade"))
    assert first["gradients"] and first["gradients"].keys() == second["gradients"].keys()
    for key, gradient in first["gradients"].items():
        assert gradient is not None and torch.isfinite(gradient).all(), key
        torch.testing.assert_close(gradient, second["gradients"][key], rtol=0, atol=0)
    for key, value in first["statistics"].items():
        torch.testing.assert_close(value, second["statistics"][key], rtol=0, atol=0)
    options, _ = checks.CASCADE_CASES[name]
    assert bool(first["statistics"]) == (options.get("norm") == "SyncBN")
    frozen = [key for key in first["gradients"] if "bottom_up.patch_embed" in key]
    assert bool(frozen) != ("freeze_at" in options)


@pytest.mark.parametrize("name", [n for n in checks.CASCADE_CASES if n != "synchronised"])
def test_gradients_are_the_mean_over_both_halves(found, one_thread, name):
    ranks = [result[name] for result in found("cascade")]
    options, objects = checks.CASCADE_CASES[name]
    model = checks.build_cascade(**options)
    halves = []
    for rank in range(WORLD_SIZE):
        losses = checks.cascade_gradients(model, rank, objects)
        for key, loss in losses.items():
            torch.testing.assert_close(ranks[rank]["losses"][key], loss, rtol=1e-5, atol=1e-6)
        halves.append({k: p.grad for k, p in model.named_parameters() if p.requires_grad})
    for key, gradient in ranks[0]["gradients"].items():
        mean = sum(half[key] for half in halves) / WORLD_SIZE
        atol = 1e-7 + 1e-5 * float(mean.abs().max())  # sums of terms of either sign
        torch.testing.assert_close(gradient, mean, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("name", checks.SEGMENTER_CASES)
def test_segmenters_in_two_processes_learn_as_in_one(found, one_thread, name):
    """BatchNorm over both batches; the gradients are the mean of both processes' own."""
    first, second = (result[name] for result in found("segmenter"))
    ignored = checks.SEGMENTER_CASES[name]
    batches = [checks.labelled_images(rank, ignored[rank]) for rank in range(WORLD_SIZE)]
    model = checks.build_segmenter()
    for _ in range(2):
        losses = checks.segmenter_gradients(model, [*batches[0], *batches[1]])
    joint = checks.segmenter_state(model)
    for key, value in joint["statistics"].items():
        for rank in (first, second):
            torch.testing.assert_close(rank["statistics"][key], value, rtol=1e-4, atol=1e-5)
    counted = [64 - rows for rows in ignored]
    assert set(losses) == {"loss_sem_seg", "loss_sem_seg_aux"}
    for key, loss in losses.items():
        parts = [float(rank["losses"][key]) for rank in (first, second)]
        assert all((part == 0) == (count == 0) for part, count in zip(parts, counted))
        weighted = sum(part * count for part, count in zip(parts, counted))
        assert weighted == pytest.approx(float(loss) * sum(counted), rel=1e-4)
    # A process without a pixel that counts adds nothing, and is counted in the mean.
    share = max(sum(map(bool, counted)), 1) / WORLD_SIZE
    assert joint["gradients"].keys() == first["gradients"].keys()
    for key, gradient in first["gradients"].items():
        torch.testing.assert_close(gradient, second["gradients"][key], rtol=0, atol=0)
        expected = joint["gradients"][key] * share
        atol = 1e-7 + 1e-4 * float(expected.abs().max())
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=atol)
        assert bool(gradient.any()) or not any(counted) or not bool(expected.any()), key


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("size", checks.EVALUATION_SIZES)
def test_evaluation_gathers_uneven_shares(found, size, masks):
    first, second = (result[size, masks] for result in found("evaluation"))
    assert (first["images"], second["images"]) == ((size + 1) // 2, size // 2)
    assert second["results"] == {}
    alone = checks.evaluation(found.folder)[size, masks]["results"]
    assert set(alone) == ({"bbox", "segm"} if masks else {"bbox"})
    if size > 1:
        assert 20 < alone["bbox"]["AP"] < 99
    for task, metrics in alone.items():
        assert first["results"][task] == pytest.approx(metrics, nan_ok=True, abs=0)


@pytest.mark.parametrize("size", checks.EVALUATION_SIZES)
def test_evaluation_of_segmentation_counts_uneven_shares_together(found, size):
    first, second = (result[size] for result in found("segmentation"))
    assert (first["images"], second["images"]) == ((size + 1) // 2, size // 2)
    assert second["results"] == {}
    alone = checks.segmentation(found.folder)[size]["results"]["sem_seg"]
    assert 5 < alone["mIoU"] < 50
    assert first["results"]["sem_seg"] == alone  # to the bit
    if size > 1:
        assert first["own"]["sem_seg"] != alone != second["own"]["sem_seg"]
    else:
        assert first["own"]["sem_seg"] == alone and second["own"] == {}

    folders = [found.folder / f"segmentation_{size}_{world}" for world in (1, WORLD_SIZE)]
    one, several = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in folders
    )
    assert len(one) == 4 + size and one == several


@pytest.mark.parametrize(("size", "batches"), [(11, (2, 2)), (1, (1, 0))])
def test_evaluation_of_classifiers_is_that_of_one_process(found, size, batches):
    first, second = (result[size] for result in found("classification"))
    assert (first["batches"], second["batches"]) == batches  # of three: the last ones are not full
    assert second["results"] == {}
    alone = checks.classification(found.folder)[size]["results"]["classification"]
    assert set(alone) == {"top1", "top5", "mean_class_accuracy"}
    assert first["results"]["classification"] == alone  # to the bit
    if size > 1:
        assert 0 < alone["top5"] < 100
    folders = [found.folder / f"classification_{size}_{world}" for world in (1, WORLD_SIZE)]
    one, several = (
        {path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders
    )
    assert len(one) == 5 and one == several
