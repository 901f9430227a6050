"""What a family of files calls the parts of a model, and what this project calls them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "Layout",
    "Rule",
    "backbone_prefixes",
    "is_backbone_name",
    "is_final_norm",
    "is_time_embedding",
]

# The names of an Iwin backbone, behind its prefix; norm0 to norm3 are its output norms.
_BACKBONE_NAME = re.compile(r"(patch_embed|layers\.\d+|norm\d)\.|time_embed$")

_DIGITS = 6  # of a number in a name that can be meant


@dataclass(frozen=True)
class Rule:
    """How names that begin in one way begin in this project.

    Attributes:
        pattern: regular expression for the beginning, with a group for each number in it.
        template: what takes its place; "{}" stands for the groups, in their order.
        shift: is added to the last of the numbers.
    """

    pattern: str
    template: str
    shift: int = 0

    def apply(self, name: str) -> str | None:
        """The name in this project; None if the rule is not for this name."""
        match = re.match(self.pattern, name)
        if match is None or any(len(group) > _DIGITS for group in match.groups()):
            return None
        numbers = [int(group) for group in match.groups()]
        if numbers:
            numbers[-1] += self.shift
        return self.template.format(*numbers) + name[match.end() :]


@dataclass(frozen=True)
class Layout:
    """A family of checkpoint files.

    Attributes:
        title: whose names they have: "MMDetection's".
        marks: regular expressions for the beginnings of names; a file with such a name is of this
            family, unless an earlier one has claimed it.
        rules: the first that applies renames; None for files in this project's own names. A name
            without a rule has no place here.
        lacking: why some names of such files have no rule, for messages.
        is_published: whether such files are of published kinds of models, whose tensors are known.
    """

    title: str
    marks: tuple[str, ...]
    rules: tuple[Rule, ...] | None = None
    lacking: str = ""
    is_published: bool = True

    def claims(self, names: Iterable[str]) -> bool:
        """Whether a file with these names is of this family."""
        return any(re.match(mark, name) for mark in self.marks for name in names)

    def rename(self, name: str) -> str | None:
        """The name in this project; None if it has none."""
        if self.rules is None:
            return name
        return next((new for rule in self.rules if (new := rule.apply(name)) is not None), None)


def backbone_prefixes(names: Iterable[str]) -> list[str]:
    """What stands before the names of each Iwin backbone among `names`: "", "backbone.", ..."""
    names = set(names)
    first = "patch_embed.proj.weight"
    return sorted(
        prefix
        for prefix in (name.removesuffix(first) for name in names if name.endswith(first))
        if f"{prefix}layers.0.blocks.0.dwconv.depthwise.weight" in names
    )


def is_backbone_name(name: str, prefix: str) -> bool:
    """Whether a name is one of the Iwin backbone under `prefix`."""
    return name.startswith(prefix) and bool(_BACKBONE_NAME.match(name, len(prefix)))


def is_final_norm(name: str, prefix: str) -> bool:
    """Whether a name is of the norm behind all stages, which classifiers and video have."""
    return name in (f"{prefix}norm.weight", f"{prefix}norm.bias")


def is_time_embedding(name: str) -> bool:
    """Whether a name is of what tells the frames of clips from each other."""
    return name.rpartition(".")[2] == "time_embed"
