"""The only training loop.

    for step in steps:
        for player in players:            # a VAE has one, a GAN two
            repeat player.repeats times:  # a WGAN critic: 5
                g = d player.loss(batch, step) / d player.params      (and nothing else's gradient)
                average g over processes, clip, Adam

It owns device, bf16 autocast, EMA, clipping, learning-rate schedule, progress bar, history, checkpoint and resume,
and, under ``torchrun``, splitting the batch and averaging the gradients.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm.auto import tqdm

from course_lib.core.device import pick_device
from course_lib.core.ema import EMA
from course_lib.core.player import Batch, BatchAt, Player, derived_seed, tensors_of, tree_map

CHECK_EVERY = 50  # steps between looks at the losses: reading a number from a GPU makes it wait


@dataclass(frozen=True)
class FitOptions:
    """What most runs leave alone.

    Attributes:
        seed: of the noise that losses draw; step and process are mixed in, so a resumed run draws the same noise.
        device: where batches are moved; the parameters must be there already.
        bf16: run the losses under bfloat16 autocast (parameters and optimizer stay float32).
        clip: largest global gradient norm per player; None = no clipping.
        schedule: learning-rate multiplier as a function of the step, e.g. ``warmup_cosine(steps, 100)``.
        watch: called every ``watch_every`` steps and after the last with the number of finished steps; the numbers it
            returns (a dict) are kept in ``history.watched``. It runs without gradients and cannot disturb the noise
            that training draws.
        watch_every: steps between two calls of ``watch``; 0 = only after the last.
        checkpoint: file to save to and resume from.
        checkpoint_every: steps between two saves; 0 = only after the last.
        progress: show a bar; None = where a person looks at it (not in graded cells, not headless, first process only).
    """

    seed: int = 0
    device: str | torch.device = "auto"
    bf16: bool = False
    clip: float | None = None
    schedule: Callable[[int], float] | None = None
    watch: Callable[[int], dict[str, float]] | None = None
    watch_every: int = 0
    checkpoint: Path | str | None = None
    checkpoint_every: int = 0
    progress: bool | None = None


@dataclass
class History:
    """What happened: ``losses[player]`` has one value a step (the mean over its repeats), ``watched[name]`` pairs
    (finished steps, value)."""

    losses: dict[str, Tensor] = field(default_factory=dict)
    watched: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    seconds: float = 0.0
    steps: int = 0


def fit(
    players: Player | Sequence[Player],
    batches: BatchAt,
    steps: int,
    *,
    ema: EMA | None = None,
    options: FitOptions | None = None,
) -> History:
    """Train ``players`` for ``steps`` steps on ``batches(step)``.

    Under ``torchrun`` each process takes its share of every batch and the processes average each player's gradient, so
    n processes train like one with the whole batch (exactly so where the loss is a mean over examples and draws no
    noise of its own). Resuming from ``options.checkpoint`` continues bit for bit on the CPU.

    Args:
        players: one, or several in the order in which they move.
        batches: a batch as a function of its index; see ``minibatches`` and ``stream``.
        steps: steps in all, those of an earlier, resumed run included.
        ema: average of a model's weights, updated after every step.
        options: see ``FitOptions``.

    Raises:
        FloatingPointError: a loss is not finite; names the player and the steps.
        ValueError: player names repeat, a loss is no scalar, a parameter lies on another device, a batch does not
            divide by the number of processes, or the checkpoint belongs to other players.
    """
    options = options or FitOptions()
    players = [players] if isinstance(players, Player) else list(players)
    names = [p.name for p in players]
    if len(set(names)) != len(names) or not names:
        raise ValueError(f"players need distinct names, got {names}")
    device = pick_device(options.device)
    for player in players:
        wrong = {p.device for p in player.params if p.device.type != device.type}
        if wrong:
            raise ValueError(f"player {player.name!r} has parameters on {wrong}, but training runs on {device}")
    rank, world = _processes(device)
    optimizers = {p.name: torch.optim.Adam(p.params, lr=p.lr, betas=p.betas) for p in players}
    history = History({name: torch.zeros(steps, device=device) for name in names})
    state = _Checkpoint(players, optimizers, ema, history, options, rank)
    first = state.load(device)
    if world > 1:
        for tensor in [t for p in players for t in (*p.params, *p.buffers)] + (ema.tensors() if ema else []):
            dist.broadcast(tensor.data, 0)

    repeats = max(p.repeats for p in players)
    autocast = torch.autocast(device.type, torch.bfloat16) if options.bf16 else nullcontext()
    started, checked = time.perf_counter(), first
    with _forked_rng(device), tqdm(total=steps, initial=first, disable=not _show(options, rank), leave=False) as bar:
        for step in range(first, steps):
            _seed_noise(derived_seed(options.seed, step, rank), device)
            if options.schedule is not None:
                for player in players:
                    optimizers[player.name].param_groups[0]["lr"] = player.lr * options.schedule(step)
            fetched: dict[int, Batch] = {}
            for player in players:
                for repeat in range(player.repeats):
                    if repeat not in fetched:
                        fetched[repeat] = _share(batches(step * repeats + repeat), device, rank, world)
                    with autocast:
                        loss = player.loss(fetched[repeat], step)
                    _update(player, optimizers[player.name], loss, options.clip, world)
                    history.losses[player.name][step] += loss.detach() / player.repeats
            if ema is not None:
                ema.update()
            done = step + 1
            if done % CHECK_EVERY == 0 or done == steps:
                bar.set_postfix({n: f"{v[checked:done].mean():.4g}" for n, v in history.losses.items()}, refresh=False)
                _stop_if_not_finite(history, checked, done)
                checked = done
            bar.update()
            last = done == steps
            if options.watch and (last or (options.watch_every and done % options.watch_every == 0)):
                with _forked_rng(device), torch.no_grad():
                    for name, value in options.watch(done).items():
                        history.watched.setdefault(name, []).append((done, float(value)))
            if options.checkpoint and (last or (options.checkpoint_every and done % options.checkpoint_every == 0)):
                history.seconds += time.perf_counter() - started
                started = time.perf_counter()
                state.save(done)
    history.seconds += time.perf_counter() - started
    history.steps = steps
    history.losses = {name: values.cpu() for name, values in history.losses.items()}
    return history


def _update(player: Player, optimizer: torch.optim.Optimizer, loss: Tensor, clip: float | None, world: int) -> None:
    if loss.ndim != 0:
        raise ValueError(f"the loss of player {player.name!r} must be a scalar, got shape {tuple(loss.shape)}")
    # of the player's own parameters: nothing reaches another player, and what is not needed is not computed
    gradients = torch.autograd.grad(loss, player.params, materialize_grads=True)
    if world > 1:
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= world
        pieces = flat.split([g.numel() for g in gradients])
        gradients = [piece.view_as(g) for piece, g in zip(pieces, gradients, strict=True)]
    if clip is not None:
        # not in place: autograd may hand out one tensor for two parameters, or an expanded one
        shrink = (clip / (torch.nn.utils.get_total_norm(gradients) + 1e-6)).clamp(max=1.0)
        gradients = torch._foreach_mul(gradients, shrink)
    for parameter, gradient in zip(player.params, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _share(batch: Batch, device: torch.device, rank: int, world: int) -> Batch:
    if world > 1:
        for tensor in tensors_of(batch):
            if tensor.ndim and len(tensor) % world:
                raise ValueError(f"a batch of {len(tensor)} does not divide among {world} processes")
        batch = tree_map(lambda t: t[rank::world] if t.ndim else t, batch)
    return tree_map(lambda t: t.to(device, non_blocking=True), batch)


def _processes(device: torch.device) -> tuple[int, int]:
    """(rank, world size); joins the process group when ``torchrun`` started us."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)
    return dist.get_rank(), dist.get_world_size()


def _seed_noise(seed: int, device: torch.device) -> None:
    """Seed the default generators (torch.manual_seed would queue a call with a traceback for each absent backend)."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _forked_rng(device: torch.device):
    """Leave the caller's random state as it was."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def _show(options: FitOptions, rank: int) -> bool:
    if options.progress is not None:
        return options.progress and rank == 0
    silent = any(os.environ.get(name) for name in ("NBGRADER_EXECUTION", "NBGRADER_VALIDATING", "COURSE_HEADLESS"))
    watched = "ipykernel" in sys.modules or sys.stderr.isatty()
    return rank == 0 and watched and not silent


def _stop_if_not_finite(history: History, first: int, last: int) -> None:
    for name, values in history.losses.items():
        if not torch.isfinite(values[first:last]).all():
            bad = first + int((~torch.isfinite(values[first:last])).nonzero()[0])
            raise FloatingPointError(
                f"the loss of player {name!r} is {values[bad].item()} at step {bad}; "
                "try a lower learning rate, FitOptions(clip=1.0), or bf16=False"
            )


@dataclass
class _Checkpoint:
    players: Sequence[Player]
    optimizers: dict[str, torch.optim.Optimizer]
    ema: EMA | None
    history: History
    options: FitOptions
    rank: int

    def save(self, step: int) -> None:
        if self.rank:
            return
        path = Path(self.options.checkpoint)
        state = {
            "step": step,
            "params": {p.name: [t.detach() for t in p.params] for p in self.players},
            "buffers": {p.name: p.buffers for p in self.players},
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "ema": self.ema.state_dict() if self.ema else None,
            "losses": {name: v[:step] for name, v in self.history.losses.items()},
            "watched": self.history.watched,
            "seconds": self.history.seconds,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + ".part")  # an interrupted save must not destroy the last good one
        torch.save(state, unfinished)
        os.replace(unfinished, path)

    def load(self, device: torch.device) -> int:
        if not self.options.checkpoint or not Path(self.options.checkpoint).exists():
            return 0
        state = torch.load(self.options.checkpoint, map_location=device, weights_only=True)
        shapes = {p.name: [t.shape for t in p.params] for p in self.players}
        if {name: [t.shape for t in ts] for name, ts in state["params"].items()} != shapes:
            raise ValueError(
                f"checkpoint {self.options.checkpoint} holds players {sorted(state['params'])} that differ in name or "
                f"shape from {sorted(shapes)}; delete it or choose another file"
            )
        for player in self.players:
            for parameter, value in zip(player.params, state["params"][player.name], strict=True):
                parameter.data.copy_(value)
            for buffer, value in zip(player.buffers, state["buffers"][player.name], strict=True):
                buffer.copy_(value)
            self.optimizers[player.name].load_state_dict(state["optimizers"][player.name])
        if self.ema:
            if state["ema"] is None:
                raise ValueError(f"checkpoint {self.options.checkpoint} was saved without an EMA")
            self.ema.load_state_dict(state["ema"])
        step = min(state["step"], len(next(iter(self.history.losses.values()))))
        for name, values in state["losses"].items():
            self.history.losses[name][:step] = values[:step]
        self.history.watched = {name: [tuple(pair) for pair in pairs] for name, pairs in state["watched"].items()}
        self.history.seconds = state["seconds"]
        return step
