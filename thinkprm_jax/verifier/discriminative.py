"""The discriminative baseline of the paper (DiscPRM): `+` against `-` at the mark behind every step.

The score of a step is the softmax over the two logits at its separator. What the text looks like is in
:mod:`thinkprm_jax.data.discriminative`, how many texts go through the model in :mod:`.stepwise`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from thinkprm_jax.data.discriminative import KEY, PUBLISHED, TASK, Layout, StepEncoder
from thinkprm_jax.errors import UserError
from thinkprm_jax.verifier.folder import read_kind
from thinkprm_jax.verifier.loading import find_files, with_files
from thinkprm_jax.verifier.stepwise import StepwisePRM, StepwiseSettings

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from thinkprm_jax.model.decoder import Decoder
    from thinkprm_jax.sampler import Sampler
    from thinkprm_jax.tokenizer.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscriminativeSettings(StepwiseSettings):
    """Of the paper's discriminative verifier."""

    kind: ClassVar[str] = "disc_prm"


class DiscriminativePRM(StepwisePRM):
    """A verifier that scores every step without writing a chain.

    Example:

        prm = DiscriminativePRM("runs/disc_prm/export")
        prm.score(["2 + 2?"], [["2 + 2 = 4."]])

    Args:
      model_name_or_path: a Hugging Face folder or id whose config.json says that it is discriminative
        (`thinkprm export` writes that).
      layout: of the text, for a model that says nothing (one that another program trained: ``PUBLISHED`` for those
        of the paper's authors), or to use in place of what it says.
      settings, mesh, model, tokenizer, values: as of :class:`.StepwisePRM`.
    Raises:
      UserError: the model cannot be loaded or is no discriminative verifier; a setting cannot work.
    """

    Settings = DiscriminativeSettings

    def __init__(
        self,
        model_name_or_path: str | Path | None = None,
        *,
        layout: Layout | None = None,
        settings: StepwiseSettings | None = None,
        mesh: Mesh | None = None,
        model: Decoder | None = None,
        tokenizer: Tokenizer | None = None,
        **values: Any,
    ) -> None:
        if settings is None:
            settings = self._given_settings(model_name_or_path, model, tokenizer, values)
        if model is None:
            settings = with_files(settings)
            layout = self._find_layout(settings, layout)
        self.layout = PUBLISHED if layout is None else layout
        super().__init__(settings=settings, mesh=mesh, model=model, tokenizer=tokenizer)

    @classmethod
    def load(cls, settings: Any, *, mesh: Mesh | None = None, sampler: Sampler | None = None) -> DiscriminativePRM:
        # Those of the paper's authors say nothing of their layout.
        settings = with_files(settings)
        says = read_kind(find_files(settings))
        return cls(settings=settings, mesh=mesh, layout=None if says else PUBLISHED)

    def make_encoder(self) -> StepEncoder:
        return StepEncoder(self.tokenizer, self.layout)

    @classmethod
    def _find_layout(cls, settings: StepwiseSettings, given: Layout | None) -> Layout:
        """The layout that a folder says, or the given one; UserError where it is no discriminative verifier."""
        kind = read_kind(find_files(settings))
        if kind.get("task", TASK) != TASK:
            raise UserError(f"{settings.model} is a generative verifier: load it with ThinkPRM")
        if given is not None:
            return given
        if not kind:
            raise UserError(
                f"{settings.model}: config.json does not say that this is a discriminative verifier (key {KEY}); "
                "load it with ThinkPRM, or give layout for one that another program trained"
            )
        return Layout.from_config(kind, f"{settings.model}: config.json: {KEY}")
