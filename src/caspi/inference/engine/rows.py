"""The state of the sequences that are being decoded, on the device; the host only looks at it from time to time."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(slots=True)
class Rows:
    """One row a sequence, and a last one that is always done and fills incomplete batches.

    token: the last chosen token. starts: of the span in the cache. lengths: filled positions. counts: generated tokens.
    limits, minimums: of tokens. done: reached the end of turn or the limit. tokens, log_probabilities [rows, limit]:
    generated so far. numbers [rows, limit], temperature, top_p: for rows that sample; temperature 0: the most likely.
    """

    token: torch.Tensor
    starts: torch.Tensor
    lengths: torch.Tensor
    counts: torch.Tensor
    limits: torch.Tensor
    minimums: torch.Tensor
    done: torch.Tensor
    tokens: torch.Tensor
    log_probabilities: torch.Tensor
    numbers: torch.Tensor
    temperature: torch.Tensor
    top_p: torch.Tensor

    @classmethod
    def of(cls, rows: int, limit: int, device: torch.device) -> Rows:
        """Empty rows; `limit`: the largest number of tokens of any of them."""

        def zeros(*shape: int, dtype: torch.dtype = torch.long) -> torch.Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        return cls(
            token=zeros(rows + 1), starts=zeros(rows + 1), lengths=zeros(rows + 1), counts=zeros(rows + 1),
            limits=zeros(rows + 1), minimums=zeros(rows + 1),
            done=torch.ones(rows + 1, dtype=torch.bool, device=device),
            tokens=zeros(rows + 1, limit + 1, dtype=torch.int32),
            log_probabilities=zeros(rows + 1, limit + 1, dtype=torch.float32),
            numbers=zeros(rows + 1, limit + 1, dtype=torch.float32),
            temperature=zeros(rows + 1, dtype=torch.float32), top_p=zeros(rows + 1, dtype=torch.float32),
        )  # fmt: skip

    @property
    def results(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the host looks at: done, counts, tokens, log_probabilities."""
        return self.done, self.counts, self.tokens, self.log_probabilities

    @property
    def limit(self) -> int:
        """The largest number of tokens that a row has space for."""
        return self.tokens.shape[1] - 1


@dataclass(frozen=True, slots=True)
class Choice:
    """How tokens are chosen. end: of turn. minimum: whether any row has a minimum of tokens; sampling: whether any row
    samples; top_p: whether any of these cuts off unlikely tokens. The last three only save work."""

    end: int
    minimum: bool = False
    sampling: bool = False
    top_p: bool = False


def advance(rows: Rows, which: torch.Tensor, logits: torch.Tensor, choice: Choice) -> None:
    """Chooses the next token of every row in `which` and records it, except for rows that are done. logits
    [rows, vocabulary]."""
    scores = logits.float()
    counts, done = rows.counts[which], rows.done[which]
    allowed = scores
    if choice.minimum:
        allowed = scores.clone()
        allowed[:, choice.end].masked_fill_(counts < rows.minimums[which], -torch.inf)
    chosen = allowed.argmax(dim=1)
    if choice.sampling:
        temperature = rows.temperature[which]
        top_p = rows.top_p[which] if choice.top_p else None
        chosen = torch.where(
            temperature > 0, _sampled(allowed, temperature, top_p, rows.numbers[which, counts]), chosen
        )
    log_probability = scores.gather(1, chosen[:, None])[:, 0] - scores.logsumexp(dim=1)
    column = torch.where(done, rows.limit, counts)  # what a row that is done chooses goes into a spare column
    rows.tokens[which, column] = chosen.int()
    rows.log_probabilities[which, column] = log_probability
    rows.token[which] = chosen
    counts = torch.where(done, counts, counts + 1)
    rows.counts[which] = counts
    rows.done[which] = done | (chosen == choice.end) | (counts >= rows.limits[which])


def _sampled(
    scores: torch.Tensor, temperature: torch.Tensor, top_p: torch.Tensor | None, numbers: torch.Tensor
) -> torch.Tensor:
    """The token where the cumulative distribution, in the order of the vocabulary, passes the row's number."""
    probabilities = (scores.double() / temperature.clamp(min=1e-6)[:, None]).softmax(dim=1)
    if top_p is not None:
        ordered, _ = probabilities.sort(dim=1, descending=True)
        before = ordered.cumsum(dim=1) - ordered  # of all tokens that are more likely
        least = ordered.masked_fill(before >= top_p[:, None], 2.0).amin(dim=1, keepdim=True)
        probabilities = torch.where(probabilities >= least, probabilities, 0.0)
    below = probabilities.cumsum(dim=1)
    wanted = numbers[:, None] * below[:, -1:]
    return (below <= wanted).sum(dim=1).clamp(max=scores.shape[1] - 1)
