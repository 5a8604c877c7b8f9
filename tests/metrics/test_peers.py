"""Agreement with PyTorch Metric Learning's AccuracyCalculator, where its definitions are the same."""

import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN

from circlet.metrics import retrieval

NAMES = ("precision_at_1", "r_precision", "mean_average_precision_at_r", "mean_average_precision")


@pytest.mark.parametrize("leave_one_out", [True, False])
@pytest.mark.parametrize("largest", [4, 120])
def test_figures_agree_with_pytorch_metric_learning(leave_one_out: bool, largest: int) -> None:
    generator = torch.Generator().manual_seed(largest)
    labels = torch.cat([torch.zeros(largest), torch.arange(300) // 3 + 1, torch.tensor([1000])]).long()
    labels = labels[torch.randperm(len(labels), generator=generator)]
    centres = torch.randn(1001, 16, generator=generator)
    vectors = centres[labels] + torch.randn(len(labels), 16, generator=generator)
    calculator = AccuracyCalculator(
        include=NAMES, k=None, device=torch.device("cpu"), knn_func=CustomKNN(CosineSimilarity())
    )
    if leave_one_out:
        result = retrieval(vectors, labels, recall_at=(1,))
        peer = calculator.get_accuracy(vectors, labels)
    else:
        queries, ids = vectors[:90], labels[:90]
        result = retrieval(queries, ids, gallery=vectors[90:], gallery_labels=labels[90:], recall_at=(1,))
        peer = calculator.get_accuracy(queries, ids, vectors[90:], labels[90:])
    assert result.recall_at[1] == pytest.approx(peer["precision_at_1"], abs=1e-6)
    assert result.r_precision == pytest.approx(peer["r_precision"], abs=1e-6)
    assert result.map_at_r == pytest.approx(peer["mean_average_precision_at_r"], abs=1e-6)
    assert result.mean_average_precision == pytest.approx(peer["mean_average_precision"], abs=1e-6)
