"""Steps that a chain speaks of together and not by their numbers: `all previous steps`, `everything up to step 2`,
`the others`. Part of :mod:`.reading`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from thinkprm_jax.protocol import wording
from thinkprm_jax.protocol.chain_parts import StepGroup, StepMention, StepRole, StepTopic

_SIDES = ("to", "through", "behind", "from", "but")  # of a step: groups of patterns that say which is meant
_WHICH = ("which", "which_one", "which_behind", "which_early", "which_none", "which_no", "which_zh")
_HEADS = (StepRole.LABEL, StepRole.SUBJECT, StepRole.TURN)


@dataclass(frozen=True)
class Scene:
    """What a group is understood by. topic: under discussion in this round. judged: steps that it has judged."""

    num_steps: int
    topic: StepTopic | None
    judged: Collection[int]


def group_of(
    chain: str, match: re.Match[str], prefix: re.Match[str] | None, mention: StepMention, few: int, num_steps: int
) -> StepMention | None:
    """The group that a mention is, or whose bound it is (`everything before step 3`, `up to step 2, everything`,
    `step 2 onwards`, `第3步之前的步骤`); None: it is just a step.

    Args:
      prefix: `everything before`, right in front of it. few: as in `the previous two steps`; 0: no number.
    """
    heads = mention.role in _HEADS
    role = StepRole.REFERENCE if mention.role is StepRole.REFERENCE else StepRole.ALL
    mention = dataclasses.replace(mention, role=role, heads=heads, group=StepGroup.ALL)
    if match["all"]:
        left = chain[max(0, match.start() - 20) : match.start()]
        partial = wording.NOT_ALL.search(left) is not None
        negated = match["none"] is not None
        return dataclasses.replace(mention, group=_kind(match), count=few, partial=partial, negated=negated)
    side, end = _side(chain, match, prefix)
    if side is None or not mention.steps:
        return None
    start = match.start() if prefix is None else prefix.start()
    return dataclasses.replace(mention, start=start, end=end, steps=_bounded(side, mention.steps, num_steps))


def resolved(mention: StepMention, scene: Scene, follower: StepMention | None, between: str) -> StepMention:
    """A mention with the steps that it means. follower: the one behind the verdict; between: the text up to it."""
    if mention.group is None or mention.steps:
        return mention
    is_single = follower is not None and follower.group is None and follower.role is not StepRole.REFERENCE
    if follower is None or not is_single or not follower.steps or (scene.topic is not None and "\n" in between):
        return dataclasses.replace(mention, steps=_meant(mention, scene, None))
    steps = _meant(mention, scene, follower.steps[0])
    if wording.BUT.fullmatch(between):  # `All steps are correct except step 3`
        steps = [step for step in steps if step not in follower.steps]
    return dataclasses.replace(mention, steps=steps)


def with_another(mention: StepMention, other: StepMention, between: str, scene: Scene) -> StepMention:
    """With the steps of the mention before it, if both are the subject: `step 1 and the last step`, `step 3 and
    all earlier steps`."""
    heads = other.heads if other.group is not None else other.role in (StepRole.SUBJECT, StepRole.LABEL)
    if not heads or not wording.AND.fullmatch(between):
        return mention
    named, group = (mention, other) if other.group is not None else (other, mention)
    steps = {*mention.steps, *other.steps}
    if group.group is not None and named.steps:
        topic = StepTopic(named.steps, named.start, soft=True, judged=True)
        alone = dataclasses.replace(group, steps=())
        steps = {*named.steps, *_meant(alone, Scene(scene.num_steps, topic, scene.judged), None)}
    return dataclasses.replace(mention, steps=sorted(steps))


def _kind(match: re.Match[str]) -> StepGroup:
    words = next((match[name] for name in _WHICH if match[name]), None)
    if words is None:
        return StepGroup.REST if match["rest"] else StepGroup.ALL
    return next(StepGroup[name] for name, pattern in wording.GROUPS.items() if pattern.fullmatch(words))


def _side(chain: str, step: re.Match[str], prefix: re.Match[str] | None) -> tuple[str | None, int]:
    """(which side of the step is meant, where the words that say so end)."""
    start, end = step.span()
    if prefix is not None:
        comma = chain[end : end + 1] in (",", "，")
        return next(side for side in _SIDES if prefix[side]), end + comma
    if (zh := wording.ZH_SIDE.match(chain, end)) is not None:
        return next(side for side in ("to", "through", "behind") if zh[side]), zh.end()
    if (onwards := wording.ONWARDS.match(chain, end)) is not None:
        return "from", onwards.end()
    if (everything := wording.EVERYTHING.match(chain, end)) is not None:
        up_to = wording.UP_TO.search(chain[max(0, start - 40) : start])
        if up_to is not None:
            return next(side for side in _SIDES if up_to[side]), everything.end()
    return None, end


def _bounded(side: str, steps: Sequence[int], num_steps: int) -> Sequence[int]:
    """Those before and up `to` some steps or `through` them, `behind` them or `from` them on, all `but` them."""
    if side == "from" and len(steps) > 1:  # `from step 1 to step 3`
        return steps
    first, last = max(1, min(steps)), min(max(steps), num_steps)
    if side == "but":
        return [step for step in range(1, num_steps + 1) if step not in steps]
    if side in ("to", "through"):
        return range(1, first if side == "to" else last + 1)
    return range(first if side == "from" else last + 1, num_steps + 1)


def _meant(mention: StepMention, scene: Scene, following: int | None) -> Sequence[int]:
    """following: the step that is named next."""
    if mention.partial:  # some are, and nobody knows which
        return ()
    group, topic = mention.group, scene.topic
    everything = range(1, scene.num_steps + 1)
    if group is StepGroup.ALL:
        return everything
    if group is StepGroup.REST:
        return [step for step in everything if step not in scene.judged]
    discussed: Sequence[int] = () if topic is None else topic.steps
    if group is StepGroup.AFTER:
        found = [step for step in everything if discussed and step > discussed[-1]]
        return found[: mention.count or None]
    own: Sequence[int] = ()  # has a verdict of its own, and is not meant
    if discussed and topic is not None and not topic.judged:
        end = discussed[0]
    elif following is not None:
        end, own = following, discussed if group is StepGroup.BEFORE else ()
    elif discussed:
        end = discussed[0] if group is StepGroup.BEFORE else discussed[-1] + 1
    else:
        end = scene.num_steps + 1
    found = [step for step in everything if step < end and step not in own]
    return found[-mention.count :]
