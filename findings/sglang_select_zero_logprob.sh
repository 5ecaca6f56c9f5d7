#!/usr/bin/env bash
# sglang 0.5.2 (the line is the same in 0.5.23): `sgl.select` compares choices by the mean log-probability of their
# tokens, and its frontend leaves out of that mean every token whose log-probability is exactly 0: one that the model is
# certain of in float32. The mean of what is left is then multiplied with the number of all tokens, to take away that of
# the prompt's last one. So a choice is punished for its certain tokens, without a word: below, the one with the higher
# mean loses. Instead: average meta_info["input_token_logprobs"] of the choices yourself, without the first token where
# that is the prompt's.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
# Of sglang the frontend alone is used: not torch, which runs models.
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps sglang==0.5.2
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check numpy==2.4.6 requests==2.32.5 tqdm==4.67.1 \
    ipython==9.5.0 aiohttp==3.12.15 setproctitle==1.3.7 pybase64==1.4.2 pydantic==2.11.9

cat > "$work/run.py" << 'PYTHON'
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import sglang as sgl
from sglang.lang.backend.runtime_endpoint import RuntimeEndpoint

# As a server reports them: (log-probability, id, text) of the last token of the question and those of each answer.
TOKENS = {
    " certainly": [(-0.5, 5, "?"), (0.0, 6, " certain"), (-2.0, 7, "ly")],
    " no way": [(-0.5, 5, "?"), (-1.2, 8, " no"), (-1.2, 9, " way")],
}


class Server(BaseHTTPRequestHandler):
    def answer(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer({"model_path": "stub", "is_generation": True})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not asked.get("return_logprob"):
            return self.answer({"text": "", "meta_info": {"prompt_tokens": 6}})
        answers = [text.partition("?")[2] for text in asked["text"]]
        self.answer([{"meta_info": {"input_token_logprobs": TOKENS[a], "output_token_logprobs": []}} for a in answers])

    def log_message(self, *args):
        pass


server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()


@sgl.function
def ask(s):
    s += "Is it so?"
    s += sgl.select("answer", choices=list(TOKENS))


state = ask.run(backend=RuntimeEndpoint(f"http://127.0.0.1:{server.server_port}"))
said = state.get_meta_info("answer")["normalized_prompt_logprobs"]
for (answer, tokens), mean in zip(TOKENS.items(), said):
    own = [logprob for logprob, _, _ in tokens[1:]]
    print(f"{answer!r}: sglang {mean:.2f}, the mean of its tokens {sum(own) / len(own):.2f}")
print("chosen:", repr(state["answer"]))
PYTHON
"$work/env/bin/python" "$work/run.py" 2> "$work/errors" | tee "$work/seen" || { cat "$work/errors"; exit 1; }

diff - "$work/seen" << 'SEEN'
' certainly': sglang -1.62, the mean of its tokens -1.00
' no way': sglang -1.20, the mean of its tokens -1.20
chosen: ' no way'
SEEN
