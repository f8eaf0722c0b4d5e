"""Auxiliary training of a task, as the loop sees it: auxiliary heads and hard-pair sampling.

Both may be switched on and off when a run is resumed: what the state lacks starts fresh, what it has in addition is
ignored. The optimizer has a separate parameter group for each head, so that its other groups stay the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from audiosr_cli.models import Model
from audiosr_cli.train.heads import Heads, ModelWithHeads, losses_with_heads
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks import Batch, Losses, TrainingTask


class AuxiliaryTraining:
    """The auxiliary heads and the pair difficulties of a task, if it has any.

    Attributes:
        network: What is trained: the model, or a ``heads.ModelWithHeads``.
        heads: The auxiliary heads.
        difficulty: The difficulty of pairs of speakers.
    """

    def __init__(self, task: TrainingTask, model: Model, optimizer: torch.optim.Optimizer, ranks: Ranks) -> None:
        self.ranks, self.difficulty = ranks, task.difficulty
        self.heads = task.heads(model)
        self.network: nn.Module = model
        if self.heads is not None:
            self.heads.to(ranks.device)
            self.network = ModelWithHeads(model, self.heads)
            for name, head in _with_weights(self.heads).items():
                # muon = False: output layers are updated by AdamW under every optimizer.
                optimizer.add_param_group(
                    {"params": list(head.parameters()), "muon": False, "scale": 1.0, "head": name}
                )
        self._optimizer = optimizer

    def parameters(self) -> list[nn.Parameter]:
        """Return the heads' weights."""
        return list(self.heads.parameters()) if self.heads else []

    def losses(self, task: TrainingTask, forward: Callable[..., Any], batch: Batch) -> Losses:
        """Compute the losses of the task and of the heads; ``forward`` runs ``network``."""
        if self.heads is None:
            return task.losses(forward, batch)
        return losses_with_heads(task, self.heads, forward, batch)

    def observe(self, batch: Batch, items: Tensor | None) -> None:
        """Record the loss of each item of a step's batch, if hard-pair sampling uses it."""
        if self.difficulty is not None and items is not None:
            self.difficulty.observe(batch["speakers"], batch["overlapped"], items, self.ranks)

    def state(self) -> dict[str, Any]:
        """Return what a resume needs."""
        return {
            "heads": self.heads.state_dict() if self.heads else {},
            "difficulty": self.difficulty.state() if self.difficulty else None,
        }

    def load(self, state: dict[str, Any], optimizer_state: dict[str, Any]) -> dict[str, Any]:
        """Restore ``state`` as far as it has what this run needs.

        Args:
            state: What ``state()`` returned, perhaps with other auxiliary heads; {} from versions without them.
            optimizer_state: The optimizer's state that was saved with it.

        Returns:
            ``optimizer_state`` with the parameter groups of this run's heads.
        """
        if self.difficulty is not None and state.get("difficulty"):
            self.difficulty.load(state["difficulty"])
        loaded = _load(self.heads, state.get("heads", {})) if self.heads else set()
        return _with_own_heads(self._optimizer, optimizer_state, loaded)


def _with_weights(heads: Heads) -> dict[str, nn.Module]:
    return {name: head for name, head in heads.named_children() if any(True for _ in head.parameters())}


def _load(heads: Heads, state: dict[str, Tensor]) -> set[str]:
    """Load the heads' weights from ``state`` where the shapes match; return the names of the loaded heads."""
    loaded = set()
    for name, head in _with_weights(heads).items():
        own, prefix = head.state_dict(), f"{name}."
        saved = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if {key: value.shape for key, value in saved.items()} == {key: value.shape for key, value in own.items()}:
            head.load_state_dict(saved)
            loaded.add(name)
    return loaded


def _with_own_heads(optimizer: torch.optim.Optimizer, state: dict[str, Any], loaded: set[str]) -> dict[str, Any]:
    """Return ``state`` with the parameter groups of ``optimizer``'s heads, without state for heads not loaded."""
    saved = {group["head"]: group for group in state["param_groups"] if "head" in group}
    groups = [group for group in state["param_groups"] if "head" not in group]
    fresh = -1  # indices below 0 are not in the state
    for group in optimizer.param_groups:
        if group.get("head") in loaded and group["head"] in saved:
            groups.append(saved[group["head"]])
        elif "head" in group:
            groups.append({**group, "params": [fresh - i for i in range(len(group["params"]))]})
            fresh -= len(group["params"])
    indices = {index for group in groups for index in group["params"]}
    return {"state": {key: value for key, value in state["state"].items() if key in indices}, "param_groups": groups}
