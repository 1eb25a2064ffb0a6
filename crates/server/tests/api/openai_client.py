"""Asks a server for everything that OpenAI's client can say about it. Usage: openai_client.py BASE_URL [MODEL]

With MODEL the answers of a real model are only checked for their form."""

import sys

import openai

ANSWER = "Hi, wren 🐦!"
base_url = sys.argv[1]
model = sys.argv[2] if len(sys.argv) > 2 else "fake/tiny"
real = len(sys.argv) > 2
client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)
messages = [{"role": "user", "content": "Say hello."}]


def check(ok, what):
    if not ok:
        sys.exit(f"wrong: {what}")


def expect(error, call):
    try:
        call()
    except error as caught:
        return caught
    sys.exit(f"{error.__name__} expected")


check(model in [entry.id for entry in client.models.list()], "the list of models")
check(client.models.retrieve(model).owned_by == "kinglet", "one model")

whole = client.chat.completions.create(model=model, messages=messages, max_tokens=16)
check(whole.choices[0].message.role == "assistant", whole)
check(real or whole.choices[0].message.content == ANSWER, whole)
check(whole.choices[0].finish_reason in ("stop", "length"), whole)
check(whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens, whole)

text, usage, reason = "", None, None
options = {"include_usage": True}
stream = client.chat.completions.create(
    model=model, messages=messages, max_tokens=16, temperature=0, seed=1, stream=True, stream_options=options
)
for chunk in stream:
    usage = chunk.usage or usage
    for choice in chunk.choices:
        text += choice.delta.content or ""
        reason = choice.finish_reason or reason
check(real or text == ANSWER, text)
check(text and usage.completion_tokens > 0 and reason in ("stop", "length"), (text, usage, reason))

chosen = client.chat.completions.create(
    model=model, messages=messages, max_tokens=2, n=2, logprobs=True, top_logprobs=3, extra_body={"top_k": 5}
)
check([choice.index for choice in chosen.choices] == [0, 1], chosen)
check(all(len(token.top_logprobs) == 3 for token in chosen.choices[0].logprobs.content), chosen)

plain = client.completions.create(model=model, prompt=["One, two,", "A, b,"], max_tokens=4, logprobs=2)
check(len(plain.choices) == 2 and len(plain.choices[0].logprobs.tokens) <= 4, plain)
pieces = client.completions.create(model=model, prompt="One, two,", max_tokens=4, stream=True)
check(sum(piece.choices[0].finish_reason is not None for piece in pieces) == 1, "one end")

error = expect(openai.NotFoundError, lambda: client.chat.completions.create(model="other", messages=messages))
check(error.code == "model_not_found", error)
error = expect(openai.BadRequestError, lambda: client.chat.completions.create(model=model, messages=[]))
check(error.param == "messages", error)
error = expect(
    openai.BadRequestError,
    lambda: client.chat.completions.create(model=model, messages=messages, temperature=9),
)
check(error.param == "temperature", error)

with client.chat.completions.create(model=model, messages=messages, stream=True) as early:
    next(iter(early))
print("ok")
