"""Speed as ratios within one run (``make benchmark``); no part of ``make test``, because machines are noisy.

Both sides of a ratio alternate, and the median is compared.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

import torch

from course_lib.autoencoders.vae import mlp_vae
from course_lib.core import FitOptions, Player, fit, minibatches
from course_lib.data import load

STEPS, ROUNDS = 150, 7


def paired_ratio(first, second, rounds: int = ROUNDS) -> tuple[float, list[float]]:
    """Median of first/second over ``rounds`` alternating pairs, after one warm-up of each."""
    first(), second()
    ratios = []
    for i in range(rounds):
        a, b = (first, second) if i % 2 == 0 else (second, first)
        times = {a: _seconds(a), b: _seconds(b)}
        ratios.append(times[first] / times[second])
    return statistics.median(ratios), ratios


def _seconds(run) -> float:
    """CPU seconds of this process and of the children it waited for: other load on the machine does not count."""
    start = os.times()
    run()
    return sum(os.times()[:4]) - sum(start[:4])


def test_fit_against_the_bare_loop(benchmark):
    """``fit`` costs at most 5 % over the hand-written loop on the same model, data and optimizer."""
    x = load("digits").x
    batches = minibatches(x, 128)

    def bare():
        torch.manual_seed(0)
        model = mlp_vae((1, 28, 28))
        adam = torch.optim.Adam(model.parameters(), lr=1e-3)
        for step in range(STEPS):
            loss = model.loss(batches(step))
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()

    def ours():
        torch.manual_seed(0)
        model = mlp_vae((1, 28, 28))
        fit(Player.of(model), batches, STEPS, options=FitOptions(progress=False))

    ratio, all_ratios = paired_ratio(ours, bare)
    print(f"\nfit / bare loop: {ratio:.3f}  ({', '.join(f'{r:.3f}' for r in sorted(all_ratios))})")
    benchmark.extra_info["ratio"] = ratio
    benchmark.pedantic(ours, rounds=1)
    assert ratio <= 1.05


def test_import_against_torch(benchmark):
    """``import course_lib`` with its core, data and models costs at most 10 % over ``import torch``."""
    everything = "import course_lib, course_lib.core, course_lib.data, course_lib.catalog, course_lib.viz.figures"

    def start(code: str):
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    ratio, all_ratios = paired_ratio(start(everything), start("import torch"))
    print(f"\nimport course_lib / import torch: {ratio:.3f}  ({', '.join(f'{r:.3f}' for r in sorted(all_ratios))})")
    benchmark.extra_info["ratio"] = ratio
    benchmark.pedantic(start(everything), rounds=1)
    assert ratio <= 1.10
