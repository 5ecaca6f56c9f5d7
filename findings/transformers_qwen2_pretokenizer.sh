#!/usr/bin/env bash
# transformers 5.24.0: AutoTokenizer reads a folder by the model type in config.json. Where that is qwen2, it builds a
# Qwen2Tokenizer and puts Qwen2's own pre-tokenizer in place of the one in tokenizer.json, although
# tokenizer_config.json asks for PreTrainedTokenizerFast. Nothing is said. Here the file keeps 2024 together and
# transformers cuts it into digits: other ids than the model was trained on. Without config.json the file is followed.
# Instead: read tokenizer.json with the tokenizers package, or check a few texts against it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.24.0 tokenizers==0.23.3

cat > "$work/run.py" << 'PYTHON'
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

text = "Is it correct? Yes 2024"
tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
tokenizer.train_from_iterator([text] * 20, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
print("tokenizer.json:", tokenizer.encode(text).tokens)

for model_type in (None, "llama", "qwen2"):
    folder = Path(sys.argv[1]) / str(model_type)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    if model_type:
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    loaded = AutoTokenizer.from_pretrained(folder)
    ids = loaded.encode(text, add_special_tokens=False)
    print(f"{model_type}: {type(loaded).__name__}", loaded.convert_ids_to_tokens(ids))
PYTHON
HF_HUB_OFFLINE=1 "$work/env/bin/python" "$work/run.py" "$work" 2> "$work/said" | grep . | tee "$work/seen"
if grep -i "qwen\|pre.tokenizer\|tokenizer_class" "$work/said"; then
    echo "it says something now"
    exit 1
fi

diff - "$work/seen" << 'SEEN'
tokenizer.json: ['Is', 'Ġit', 'Ġcorrect', '?', 'ĠYes', 'Ġ2024']
None: TokenizersBackend ['Is', 'Ġit', 'Ġcorrect', '?', 'ĠYes', 'Ġ2024']
llama: TokenizersBackend ['Is', 'Ġit', 'Ġcorrect', '?', 'ĠYes', 'Ġ2024']
qwen2: Qwen2Tokenizer ['Is', 'Ġit', 'Ġcorrect', '?', 'ĠYes', 'Ġ', '2', '0', '2', '4']
SEEN
