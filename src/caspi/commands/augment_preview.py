"""caspi augment-preview: a page to listen to augmented clips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from caspi import atomic_output
from caspi import recipe as recipes
from caspi.commands.outcome import Outcome
from caspi.errors import UsageError
from caspi.recipe import Recipe
from caspi.reporting import report
from caspi.reporting.report import AudioCell, Page, Table
from caspi.reporting.wording import plural

if TYPE_CHECKING:
    from caspi.training.data.preview import PreviewClip


def preview_page(name: str, stage: str, clips: Sequence[PreviewClip]) -> Page:
    """Augmented clips with audio players."""
    by_id = {one.id: one.text for one in clips}
    return Page(
        title=f"caspi augment-preview · {name}",
        headline=f"Augmented clips of stage {stage}: {plural(len(by_id), 'utterance')}, "
        f"{plural(len(clips), 'version')}",
        facts=[
            ("utterances", str(len(by_id))),
            ("effects", str(sum("alone" in one.how for one in clips) // len(by_id))),
        ],
        parts=[
            Table(
                text,
                ("listen", "augmentation", "seconds", "random values"),
                [
                    (AudioCell(one.flac), one.how, f"{one.seconds:.2f}", ", ".join(one.values))
                    for one in clips
                    if one.id == identifier
                ],
                note=identifier,
            )
            for identifier, text in by_id.items()
        ],
    )


def run(recipe: Recipe, stage: str | None, count: int, out: Path) -> Outcome:
    """Augments the first utterances and writes the page."""
    from caspi.corpus.store import Corpus
    from caspi.model.loading import load_processor
    from caspi.model.prompt import Prompt
    from caspi.training.config import stage_seed
    from caspi.training.data.dataset import TrainingSet
    from caspi.training.data.preview import active, preview_clips

    config = recipe.require_train()
    numbers = {one.name: number for number, one in enumerate(config.stages)}
    if stage is not None and stage not in numbers:
        raise UsageError(f"--stage {stage}: not one of {', '.join(numbers)}")
    number = numbers[stage] if stage is not None else 0
    chosen = config.stages[number]
    how = chosen.augment or config.augment
    if not active(how):
        raise UsageError(f"stage {chosen.name} has no waveform augmentation; set one in train.augment")
    atomic_output.check_owned(out, "augment-preview")
    prompt = Prompt(load_processor(recipe.model.start, recipe.model.revision).tokenizer)
    data = TrainingSet.of(Corpus.open(recipe.corpus.path, "train"), prompt, config.max_seconds)
    clips = list(preview_clips(data, how, count, stage_seed(recipe.seed, number)))
    summary = {"stage": "augment-preview", "recipe_stage": chosen.name, "ids": sorted({one.id for one in clips})}
    page = report.write_report(out, preview_page(recipe.name, chosen.name, clips), summary, recipes.dump(recipe))
    return Outcome(f"{plural(len(summary['ids']), 'utterance')}, {plural(len(clips), 'version')}", page, summary)
