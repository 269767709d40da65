"""`caspi run` as a job for a rented machine: what every launcher needs to know, and the script that all of them run."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

import yaml

SAVED = 75  # the exit code of caspi where it was asked to end: the job is to be started again
GRACE_SECONDS = 120  # that a launcher leaves between asking a job to end and ending it


@dataclass(frozen=True, slots=True)
class Job:
    """recipe: its YAML. options: of caspi run, the bucket among them. gpu, count: a kind of the GPU table and how many
    on one machine. secrets: names of environment variables that the job gets from the user's own. install: a shell
    command, run where there is no caspi. hours: the most that it may take."""

    name: str
    recipe: str
    options: tuple[str, ...]
    gpu: str
    count: int
    spot: bool
    secrets: tuple[str, ...]
    install: str
    hours: int

    def script(self, *, exit_line: str = 'exit "$code"') -> str:
        """Runs caspi in a folder of the job's name and passes SIGTERM on to it, which a shell does not do by itself.
        exit_line: what is done with `$code` at the end."""
        run = shlex.join(["caspi", "run", "recipe.yaml", *self.options])
        return f"""\
command -v caspi >/dev/null || {{ {self.install}; }} || exit 1
mkdir -p {shlex.quote(self.name)} && cd {shlex.quote(self.name)} || exit 1
cat > recipe.yaml <<'END_OF_RECIPE'
{self.recipe.rstrip()}
END_OF_RECIPE
trap 'kill -TERM $!' TERM INT
{run} &
caspi=$!
wait "$caspi"; code=$?
while kill -0 "$caspi" 2>/dev/null; do wait "$caspi"; code=$?; done
if [ "$code" -gt 128 ]; then wait "$caspi"; code=$?; fi  # the signal ended the first wait, not caspi
{exit_line}
"""


class _Readable(yaml.SafeDumper):
    """Writes text of several lines as such."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _text)


def as_yaml(content: dict[str, object]) -> str:
    """A task file."""
    dumped: str = yaml.dump(content, Dumper=_Readable, sort_keys=False, allow_unicode=True, width=1000)
    return f"# Written by caspi launch.\n{dumped}"
