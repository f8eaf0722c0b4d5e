"""What a task adds to the training of a network beyond its losses, as the loop sees it: heads, pairs by difficulty.

All of it may change from one sitting of a run to the next: a state without some of it starts that part fresh, a state
with more of it is good without. The optimizer has a group of its own for each head, so that its other groups are the
same with heads and without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from audiosr_cli.models import Model
from audiosr_cli.train.heads import Assisted, Heads, losses_with_heads
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks import Batch, Losses, Task


class Aids:
    """The heads and the difficulty of one task, if it has any.

    ``learner`` is what is trained: the model itself, or the model with its heads, as ``heads.Assisted``.
    """

    def __init__(self, task: Task, model: Model, optimizer: torch.optim.Optimizer, ranks: Ranks) -> None:
        self.ranks, self.difficulty = ranks, task.difficulty
        self.heads = task.heads(model)
        self.learner: nn.Module = model
        if self.heads is not None:
            self.heads.to(ranks.device)
            self.learner = Assisted(model, self.heads)
            for name, head in _with_weights(self.heads).items():
                # "muon": an output layer has AdamW's update under every optimizer.
                optimizer.add_param_group(
                    {"params": list(head.parameters()), "muon": False, "scale": 1.0, "head": name}
                )
        self._optimizer = optimizer

    def parameters(self) -> list[nn.Parameter]:
        """The heads' weights."""
        return list(self.heads.parameters()) if self.heads else []

    def losses(self, task: Task, forward: Callable[..., Any], batch: Batch) -> Losses:
        """The task's losses for ``batch`` and those of the heads; ``forward`` runs ``learner``."""
        if self.heads is None:
            return task.losses(forward, batch)
        return losses_with_heads(task, self.heads, forward, batch)

    def observe(self, batch: Batch, items: Tensor | None) -> None:
        """Note how hard each item of a step's batch was, if anything depends on it."""
        if self.difficulty is not None and items is not None:
            self.difficulty.observe(batch["speakers"], batch["overlapped"], items, self.ranks)

    def state(self) -> dict[str, Any]:
        """What a resume needs."""
        return {
            "heads": self.heads.state_dict() if self.heads else {},
            "difficulty": self.difficulty.state() if self.difficulty else None,
        }

    def load(self, state: dict[str, Any], optimizer_state: dict[str, Any]) -> dict[str, Any]:
        """Go on from ``state`` as far as it goes.

        Args:
            state: what ``state()`` returned, perhaps in a run with other aids; {} from versions without.
            optimizer_state: saved with it.

        Returns:
            ``optimizer_state`` with the groups of this run's heads.
        """
        if self.difficulty is not None and state.get("difficulty"):
            self.difficulty.load(state["difficulty"])
        known = _load(self.heads, state.get("heads", {})) if self.heads else set()
        return _with_own_heads(self._optimizer, optimizer_state, known)


def _with_weights(heads: Heads) -> dict[str, nn.Module]:
    return {name: head for name, head in heads.named_children() if any(True for _ in head.parameters())}


def _load(heads: Heads, state: dict[str, Tensor]) -> set[str]:
    """Give heads the weights of ``state`` where there are any of their shapes; returns the names of those heads."""
    known = set()
    for name, head in _with_weights(heads).items():
        own, prefix = head.state_dict(), f"{name}."
        saved = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if {key: value.shape for key, value in saved.items()} == {key: value.shape for key, value in own.items()}:
            head.load_state_dict(saved)
            known.add(name)
    return known


def _with_own_heads(optimizer: torch.optim.Optimizer, state: dict[str, Any], known: set[str]) -> dict[str, Any]:
    """``state`` with the heads' groups that ``optimizer`` has; nothing is known of the parameters of fresh ones."""
    saved = {group["head"]: group for group in state["param_groups"] if "head" in group}
    groups = [group for group in state["param_groups"] if "head" not in group]
    fresh = -1  # the number of a parameter that is not in the state
    for group in optimizer.param_groups:
        if group.get("head") in known and group["head"] in saved:
            groups.append(saved[group["head"]])
        elif "head" in group:
            groups.append({**group, "params": [fresh - i for i in range(len(group["params"]))]})
            fresh -= len(group["params"])
    numbers = {number for group in groups for number in group["params"]}
    return {"state": {key: value for key, value in state["state"].items() if key in numbers}, "param_groups": groups}
