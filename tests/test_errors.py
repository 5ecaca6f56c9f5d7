"""A failure that is the user's business is a ValueError, and no `except ValueError` of ours rewords it."""

from __future__ import annotations

import dataclasses

import pytest

from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.recipe import load_recipe


@pytest.mark.parametrize("kind", [UserError, RequestError])
def test_both_are_value_errors_and_not_each_other(kind: type[Exception]) -> None:
    assert issubclass(kind, ValueError)
    assert not issubclass(UserError, RequestError)
    assert not issubclass(RequestError, UserError)


def test_a_config_keeps_the_message_of_its_own_check() -> None:
    config = {
        "model_type": "qwen2",
        "vocab_size": 8,
        "hidden_size": 12,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 3,
        "num_key_value_heads": 2,
    }
    with pytest.raises(UserError) as caught:
        ModelConfig.from_hf(config, "folder/config.json")
    assert str(caught.value).startswith("config: num_attention_heads 3 is no multiple")
    with pytest.raises(UserError, match=r"^folder/config\.json: hidden_size is missing$"):
        ModelConfig.from_hf(
            {name: value for name, value in config.items() if name != "hidden_size"}, "folder/config.json"
        )


@dataclasses.dataclass(frozen=True)
class Checked:
    size: int
    other: int = 0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError("size: said by the class itself")
        if self.other:
            raise ValueError("other must be 0")


def test_a_recipe_keeps_the_message_of_its_own_check(tmp_path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("size: 0\n")
    with pytest.raises(UserError) as caught:
        load_recipe(Checked, str(file))
    assert str(caught.value) == "size: said by the class itself"
    file.write_text("size: 1\nother: 2\n")
    with pytest.raises(UserError, match=r"^recipe .*recipe\.yaml, line 1: other must be 0$"):
        load_recipe(Checked, str(file))
