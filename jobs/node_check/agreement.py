"""Has all ranks agree to take part in something together before any of them begins it.

They tell each other over the store in which they met, from host to host: it works where
GPUs and NCCL do not, and who does not come is known by name. Rank 0 collects what all
say and tells it to all, so that nobody who comes late begins alone.
"""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from jobs.runtime.ranks import Ranks

# how much longer than rank 0 the others wait: it answers once its patience has ended
OTHERS_WAIT = 2.0
SOON_S = 0.2

# What each rank has said, in the order of the ranks; None of one that has not.
Answers = Sequence[str | None]


@dataclass(frozen=True)
class Meeting:
    """The ranks that met, the store that they met in, and how long, in seconds, one
    waits for another."""

    ranks: Ranks
    store: Any
    patience_s: float

    def tell_node(self, node: str) -> None:
        """Says on which node this rank is."""
        self.store.set(f"node/{self.ranks.rank}", node)

    def exchange(self, name: str, text: str) -> Answers:
        """What each rank says under a name, which serves once. Where rank 0 does not
        tell, nothing is known of any other."""
        self.store.set(f"said/{name}/{self.ranks.rank}", json.dumps(text))
        if self.ranks.is_main:
            answers = self._collect(name)
            self.store.set(f"all/{name}", json.dumps(answers))
            return answers
        collected = self._read(f"all/{name}", OTHERS_WAIT * self.patience_s)
        if collected is None:
            return [None, *[text] * (self.ranks.world - 1)]
        return collected

    def _collect(self, name: str) -> list[str | None]:
        """What the ranks say within rank 0's patience; who waited for one has waited
        for all."""
        answers: list[str | None] = []
        for rank in range(self.ranks.world):
            patience_s = SOON_S if None in answers else self.patience_s
            answers.append(self._read(f"said/{name}/{rank}", patience_s))
        return answers

    def describe_absent(self, answers: Answers, name: str) -> str:
        """Which ranks did not come to what has this name."""
        absent = [rank for rank, answer in enumerate(answers) if answer is None]
        ranks = ", ".join(map(self._describe_rank, absent))
        return f"{ranks} did not come to {name} within {self.patience_s:g} s"

    def describe_answers(self, answers: Answers) -> str:
        """What ranks say that say anything; ranks that say the same are told once."""
        ranks_by_answer: dict[str, list[int]] = {}
        for rank, answer in enumerate(answers):
            if answer:
                ranks_by_answer.setdefault(answer, []).append(rank)
        if [*map(len, ranks_by_answer.values())] == [len(answers)]:
            return next(iter(ranks_by_answer))
        texts = [
            f"{', '.join(map(self._describe_rank, ranks))}: {answer}"
            for answer, ranks in ranks_by_answer.items()
        ]
        return "; ".join(texts)

    def _describe_rank(self, rank: int) -> str:
        node = self._read_text(f"node/{rank}", SOON_S)
        return f"rank {rank} ({node})" if node else f"rank {rank}"

    def _read(self, key: str, within_s: float) -> Any:
        text = self._read_text(key, within_s)
        return None if text is None else json.loads(text)

    def _read_text(self, key: str, within_s: float) -> str | None:
        """What is told under a key; None if it is not within so many seconds."""
        # of the store: DistError, which is one
        with contextlib.suppress(RuntimeError):
            self.store.wait([key], timedelta(seconds=within_s))
            return self.store.get(key).decode()
        return None


def are_in_step(answers: Answers) -> bool:
    """Whether all ranks have come to the same end, be it the same error: then none is
    left waiting in what they did together."""
    return None not in answers and len(set(answers)) == 1
