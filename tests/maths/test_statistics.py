import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from course_lib.maths.statistics import auroc, mean_stderr


def test_standard_error_is_the_spread_of_means():
    x = torch.randn(4000, 25, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, stderr = mean_stderr(x.T)  # 25 values, 4,000 times
    assert mean.shape == stderr.shape == (4000,)
    assert float(stderr.mean()) == pytest.approx(float(mean.std()), rel=0.05)
    assert float(mean_stderr(torch.tensor([1.0, 3.0]))[1]) == pytest.approx(math.sqrt(2) / math.sqrt(2))


def test_auroc_with_ties_is_scikit_learns():
    rng = torch.Generator().manual_seed(1)
    inside, outside = torch.randint(9, (80,), generator=rng).float(), torch.randint(3, 12, (50,), generator=rng).float()
    want = roc_auc_score([0] * 80 + [1] * 50, torch.cat([inside, outside]).numpy())
    assert auroc(inside, outside) == pytest.approx(want, abs=1e-12)
    assert auroc(torch.zeros(3), torch.ones(2)) == 1 and auroc(torch.ones(3), torch.ones(2)) == 0.5
