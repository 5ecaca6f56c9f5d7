"""`thinkprm serve`: verifiers over HTTP.

limits        what no request may exceed, and how long anything may take
fields        a body's JSON, field by field; errors that name the field
engine        the thread that steps the sampler, and coroutines that wait for what it brings
warm_up       compiles the shapes that will come
service       a loaded verifier, and what all requests share
http          bodies, answers, disconnects, deadlines
verify        POST /v1/verify
completions   POST /v1/completions and /v1/chat/completions, as OpenAI's clients speak them
rewards       /pooling, /score and /v1/score, as reward models are asked elsewhere
native        /generate, as SGLang's programs ask it
metrics       what Prometheus reads
openapi       the description of all this
app, server   the routes; the process
"""
