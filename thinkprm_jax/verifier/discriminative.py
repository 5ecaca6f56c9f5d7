"""The discriminative baseline of the paper (DiscPRM), behind the interface of
:class:`thinkprm_jax.verifier.thinkprm.ThinkPRM`: `+` against `-` at the mark behind every step.

The score of a step is the softmax over the two logits at its separator. What the text looks like is in
:mod:`thinkprm_jax.data.discriminative`, how many texts go through the model in :mod:`.stepwise`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from thinkprm_jax.data.discriminative import KEY, PUBLISHED, TASK, Layout, StepEncoder
from thinkprm_jax.errors import UserError
from thinkprm_jax.runtime import default_dtype
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.verifier.kind import read_kind
from thinkprm_jax.verifier.stepwise import BATCH_TOKENS, StepVerdict, StepwisePRM

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from thinkprm_jax.model.decoder import Decoder

__all__ = ["DiscriminativePRM", "StepVerdict"]


class DiscriminativePRM(StepwisePRM):
    """A verifier that scores every step without writing a chain.

    Args:
      model_name_or_path: a Hugging Face folder or id whose config.json says that it is discriminative
        (`thinkprm export` writes that).
      layout: of the text, for a model that says nothing (one that another program trained: ``PUBLISHED`` for those
        of the paper's authors), or to use in place of what it says.
      max_length: longest text in tokens; a longer one is refused, not cut.
      batch_tokens: places (rows x length) of a forward pass.
      dtype: None: float32 on CPUs, bfloat16 elsewhere. Scores are float32 whatever this is.
      mesh: devices to run on: rows over data x fsdp where they divide, heads over tensor.
      model, tokenizer: objects to use instead of loading ``model_name_or_path``.
    Raises:
      UserError: the model cannot be loaded or is no discriminative verifier; a setting cannot work.
    """

    kind: ClassVar[str] = "disc_prm"

    def __init__(
        self,
        model_name_or_path: str | Path | None = None,
        *,
        layout: Layout | None = None,
        max_length: int = 4096,
        batch_tokens: int = BATCH_TOKENS,
        dtype: str | None = None,
        mesh: Mesh | None = None,
        model: Decoder | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        check_source(model_name_or_path, model, tokenizer)
        if model is None:
            layout = self._find_layout(model_name_or_path, layout)
            model, tokenizer = load_scored(model_name_or_path, dtype, mesh)
        self.tokenizer = tokenizer
        self.layout = PUBLISHED if layout is None else layout
        encoder = StepEncoder(tokenizer, self.layout)
        super().__init__(
            model,
            encoder,
            encoder.marks.choices,
            model_name=None if model_name_or_path is None else str(model_name_or_path),
            max_length=max_length,
            batch_tokens=batch_tokens,
            mesh=mesh,
        )

    @classmethod
    def _find_layout(cls, path: str | Path, given: Layout | None) -> Layout:
        """The layout that a folder says, or the given one; UserError where it is no discriminative verifier."""
        kind = read_kind(path)
        if kind.get("task", TASK) != TASK:
            raise UserError(f"{path} is a generative verifier: load it with ThinkPRM")
        if given is not None:
            return given
        if not kind:
            raise UserError(
                f"{path}: config.json does not say that this is a discriminative verifier (key {KEY}); load it "
                "with ThinkPRM, or give layout for one that another program trained"
            )
        return Layout.from_config(kind, f"{path}: config.json: {KEY}")


def check_source(path: str | Path | None, model: Decoder | None, tokenizer: Tokenizer | None) -> None:
    """UserError unless there is either a place to load from, or both objects."""
    if (model is None) != (tokenizer is None) or (model is None) == (path is None):
        raise UserError("give model_name_or_path, or model and tokenizer")


def load_scored(path: str | Path, dtype: str | None, mesh: Mesh | None) -> tuple[Decoder, Tokenizer]:
    from thinkprm_jax.checkpoint.huggingface import load_model

    return load_model(path, dtype=dtype or default_dtype(), mesh=mesh)
