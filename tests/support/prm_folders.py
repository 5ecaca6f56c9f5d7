"""Folders laid out as the PRMs that others released: random weights, small tokenizers of the same kinds."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from support import oracle
from support.r1_tokenizer import WORDS

TEXT = [
    "What is 2 + 2 * 3? Janet has 16 eggs per day and eats three for breakfast.",
    "Step 1: 2 * 3 = 6. ки\nStep 2: 2 + 6 = 8. So the answer is 8. ки\n\n\nThe answer is: 8 + 1 - 2 ки",
    "system\nuser\nassistant\n\nPlease reason step by step, and put your final answer within \\boxed{}.",
]
QWEN_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_TEMPLATE = (
    "{{ bos_token }}{{ '<|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n<|eot_id|>' }}"
    "{% for message in messages %}{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + "
    "message.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def byte_level(specials: list[str]) -> Tokenizer:
    """Qwen's and Llama 3's kind, with merges over newlines, as theirs have."""
    backend = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(WORDS), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(TEXT, trainer)
    backend.add_special_tokens(specials)
    return backend


def sentencepiece() -> Tokenizer:
    """Llama 2's and Mistral's kind: `▁` for blanks and before every text, bytes for unknown characters, `<s>`."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(
        [text.replace("\n", " ") for text in TEXT], trainers.BpeTrainer(vocab_size=120, show_progress=False)
    )
    learnt = json.loads(trained.to_str())["model"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *learnt["vocab"]]
    vocab = {name: id for id, name in enumerate(names)}
    merges = [tuple(merge) for merge in learnt["merges"]]
    backend = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return backend


def save_tokenizer(
    backend: Tokenizer, folder: Path, template: str | None, **named: str
) -> transformers.PreTrainedTokenizerFast:
    """Written as transformers writes it; what it gives back is the reference."""
    reference = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **named)
    reference.chat_template = template
    reference.save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    if template is not None:  # newer releases write a file beside it, the published folders have it here
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return reference


def math_shepherd(folder: Path) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerFast]:
    backend = sentencepiece()
    size = backend.get_vocab_size()
    model = oracle.random_model("mistral", 4, 2, tied=False, vocabulary=size, sliding_window=512)
    model.save_pretrained(folder)
    return model, save_tokenizer(backend, folder, None, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def rlhflow(folder: Path) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerFast]:
    marks = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
    backend = byte_level(marks)
    model = oracle.random_model(
        "llama", 4, 2, tied=False, vocabulary=backend.get_vocab_size(), theta=5e5, rope=oracle.LLAMA3
    )
    model.save_pretrained(folder)
    return model, save_tokenizer(backend, folder, LLAMA_TEMPLATE, bos_token=marks[0], eos_token=marks[1])


def qwen_prm(
    folder: Path,
) -> tuple[transformers.PreTrainedModel, torch.nn.Module, transformers.PreTrainedTokenizerFast]:
    """(model without a head, the head, tokenizer). As in the release, an unused lm_head may lie in the file."""
    backend = byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>"])
    whole = oracle.random_model("qwen2", 4, 2, tied=False, vocabulary=backend.get_vocab_size())
    width = whole.config.hidden_size
    generator = torch.Generator().manual_seed(1)
    head = torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, 2))
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    tokenizer = save_tokenizer(backend, folder, QWEN_TEMPLATE, eos_token="<|im_end|>")
    weights = {**whole.state_dict(), **{f"score.{name}": value for name, value in head.state_dict().items()}}
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors")
    config = {**whole.config.to_dict(), "architectures": ["Qwen2ForProcessRewardModel"]}
    (folder / "config.json").write_text(json.dumps(config, default=str))
    return whole.model, head, tokenizer


def skywork_prm(
    folder: Path,
) -> tuple[transformers.PreTrainedModel, torch.nn.Module, transformers.PreTrainedTokenizerFast]:
    """(model without a head, the value head, tokenizer). The embedding's lm_head lies in the file, as released."""
    backend = byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    whole = oracle.random_model("qwen2", 4, 2, tied=False, vocabulary=backend.get_vocab_size())
    generator = torch.Generator().manual_seed(1)
    head = torch.nn.Linear(whole.config.hidden_size, 1)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    tokenizer = save_tokenizer(backend, folder, QWEN_TEMPLATE, bos_token="<|endoftext|>", eos_token="<|im_end|>")
    values = {f"v_head.summary.{name}": value for name, value in head.state_dict().items()}
    weights = {**whole.state_dict(), **values}
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors")
    config = {**whole.config.to_dict(), "architectures": ["Qwen2ForPrmModel"]}
    (folder / "config.json").write_text(json.dumps(config, default=str))
    return whole.model, head, tokenizer
