"""A failure that is the user's business is a ValueError, and no `except ValueError` of ours rewords it."""

from __future__ import annotations

import dataclasses
import pickle

import pytest

from thinkprm_jax.errors import RequestError, TooLong, TooLongCount, UserError
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
    assert str(caught.value).startswith("folder/config.json: num_attention_heads 3 is no multiple")
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
    assert str(caught.value) == f"recipe {file}, line 1: size: said by the class itself"
    file.write_text("size: 1\nother: 2\n")
    with pytest.raises(UserError, match=r"^recipe .*recipe\.yaml, line 1: other must be 0$"):
        load_recipe(Checked, str(file))


def test_many_prompts_that_are_too_long_are_said_once() -> None:
    count = TooLongCount()
    assert count.lines("--max-length") == []
    assert not count.add(RequestError("another thing"))
    assert count.add(TooLong("the prompt has 900 tokens", 3000, 4096))
    assert count.lines("--max-length") == ["1 prompt is too long: --max-length 3000 would do"]
    assert count.add(TooLong("the prompt has 1,900 tokens", 4000, 4096))
    assert count.add(TooLong("the prompt has 5,000 tokens", 5001, 4096))
    assert count.lines("--max-length") == [
        "3 prompts are too long: --max-length 4000 would do; 1 cannot fit, since the model has 4,096 positions"
    ]


def test_a_prompt_that_is_too_long_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(TooLong("the prompt has 900 tokens", 3000, 4096)))
    assert (str(error), error.needed, error.limit) == ("the prompt has 900 tokens", 3000, 4096)
