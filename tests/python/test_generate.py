"""Generate over gRPC: what streams, how it ends, what it refuses, and what it leaves behind."""

import concurrent.futures
import signal
import subprocess
import threading
import types

import grpc
import pytest
import torch
import transformers
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

import harness
import packages
from test_metrics import Scrape

PROMPT = "once upon a time"
CONTEXT = 512  # of packages.tiny_generator


@pytest.fixture(scope="module")
def tell(teller, stubs):
    with grpc.insecure_channel(teller.target()) as channel:
        yield Teller(channel, stubs)


class Teller:
    """Calls Generate; whole() collects a stream."""

    def __init__(self, channel, stubs):
        self.messages = stubs.inference
        self.generate = stubs.inference_grpc.InferenceStub(channel).Generate

    def stream(self, prompt=PROMPT, model="teller", timeout=None, **fields):
        request = self.messages.GenerateRequest(model=model, prompt=prompt, **fields)
        return self.generate(request, timeout=timeout)

    def whole(self, *arguments, **fields) -> types.SimpleNamespace:
        *pieces, last = self.stream(*arguments, **fields)
        return types.SimpleNamespace(
            text="".join(piece.text for piece in pieces),
            ids=[id for piece in pieces for id in piece.token_ids],
            logprobs=[p for piece in pieces for p in piece.logprobs],
            reason=self.messages.FinishReason.Name(last.finish_reason),
            seed=last.seed,
            usage=last.usage,
            pieces=pieces,
            last=last,
        )

    def refused(self, *arguments, **fields) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as caught:
            list(self.stream(*arguments, **fields))
        return caught.value.code(), caught.value.details()


def test_the_text_comes_in_pieces_and_the_end_says_what_it_cost(tell):
    story = tell.whole(max_tokens=48)
    assert len(story.pieces) > 10
    for piece in story.pieces:
        # A token whose last character is not whole yet comes with the piece that completes it.
        assert piece.text or piece.token_ids
        assert len(piece.token_ids) == len(piece.logprobs)
        assert piece.finish_reason == tell.messages.NONE
        assert not piece.HasField("usage") and not piece.seed and not piece.model
    assert not story.last.text and not story.last.token_ids
    assert story.last.model == "teller" and story.last.version == "1"
    assert story.reason == "LENGTH"
    assert story.usage.output_tokens == len(story.ids) == 48
    assert story.usage.prompt_tokens > 0
    assert story.usage.flops == story.usage.dense_flops > 0
    assert story.usage.compute_us > 0
    assert all(logprob <= 0 for logprob in story.logprobs)


def test_greedy_tokens_are_those_of_transformers(tell, storytellers, stubs, teller):
    with grpc.insecure_channel(teller.target()) as channel:
        tokens = stubs.inference_grpc.InferenceStub(channel).Tokenize(
            stubs.inference.TokenizeRequest(model="teller", texts=[PROMPT])
        )
    ids = torch.tensor([list(tokens.results[0].ids)])
    model = transformers.GPT2LMHeadModel.from_pretrained(storytellers / "teller/1").eval()
    with torch.no_grad():
        for _ in range(32):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
        wanted = ids[0, -32:].tolist()
        scores = model(ids).logits[0, -33:-1].log_softmax(-1)
    story = tell.whole(max_tokens=32)
    assert story.ids == wanted
    for position, (id, logprob) in enumerate(zip(story.ids, story.logprobs, strict=True)):
        assert logprob == pytest.approx(scores[position, id].item(), abs=1e-3)


def test_the_same_seed_tells_the_same_story(tell):
    options = {"max_tokens": 40, "temperature": 1.0, "top_k": 50, "top_p": 0.9}
    first = tell.whole(seed=7, **options)
    again = tell.whole(seed=7, **options)
    assert first.seed == 7
    assert (again.text, again.ids, again.logprobs) == (first.text, first.ids, first.logprobs)
    fresh = [tell.whole(**options) for _ in range(3)]
    assert len({story.text for story in [first, *fresh]}) == 4
    assert all(story.seed for story in fresh)
    assert tell.whole(seed=fresh[0].seed, **options).text == fresh[0].text


def test_a_stop_string_ends_the_text_before_it(tell):
    whole = tell.whole(max_tokens=64)
    # Two characters from the middle: most likely of different tokens.
    stop = whole.text[len(whole.text) // 2 :][:2]
    story = tell.whole(max_tokens=64, stop=["never in this text", stop])
    assert story.reason == "STOP"
    assert story.text == whole.text[: whole.text.index(stop)]
    assert story.ids == whole.ids[: len(story.ids)]
    assert story.usage.output_tokens == len(story.ids) < 64
    assert tell.whole(max_tokens=64, stop=["never in this text"]).text == whole.text


def test_the_model_ends_its_text(tell):
    """At a high temperature each token is the last with a chance of 1 in 297."""
    for seed in range(1, 100):
        story = tell.whole(temperature=100, seed=seed)
        if story.reason == "END_OF_TEXT":
            assert story.usage.output_tokens == len(story.ids)
            return
        assert story.reason == "LENGTH"
    pytest.fail("no text of a hundred ended")


@pytest.mark.parametrize("model", ["teller", "dimteller"])
def test_max_flops_ends_the_text_and_is_not_exceeded(tell, model):
    short = tell.whole(model=model, max_tokens=16, budget={"tau": 1}).usage.flops
    story = tell.whole(model=model, max_tokens=400, budget={"max_flops": short})
    assert story.reason == "BUDGET"
    assert 0 < story.usage.flops <= short
    assert 0 < story.usage.output_tokens < 400


def test_max_flops_below_the_prompt_names_the_floor(tell):
    code, details = tell.refused(budget={"max_flops": 1})
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert "max_flops" in details


def test_tau_turns_the_light_down(tell):
    dense, dim = (
        tell.whole(model="dimteller", max_tokens=32, budget={"tau": tau}) for tau in (0, 1)
    )
    assert dense.usage.flops == dense.usage.dense_flops
    assert dim.usage.flops < dense.usage.flops
    assert dim.usage.tau == 1 and dense.usage.tau == 0
    assert [layer.experts_run for layer in dim.usage.layers] == [1, 1]
    assert tell.whole(model="dimteller", max_tokens=32, budget={"tau": 1}).logprobs == dim.logprobs


def test_flop_fraction_is_steered_while_it_runs(tell):
    floor = tell.whole(model="dimteller", max_tokens=256, budget={"tau": 1}).usage
    share = 0.5 * (1 + floor.flops / floor.dense_flops)
    story = tell.whole(model="dimteller", max_tokens=256, budget={"flop_fraction": share})
    assert not story.usage.budget_clamped
    assert story.usage.flops / story.usage.dense_flops == pytest.approx(share, abs=0.03)


def test_an_empty_prompt_starts_a_text(tell):
    story = tell.whole(prompt="", max_tokens=8)
    assert story.usage.prompt_tokens == 1 and len(story.ids) == 8


def test_without_max_tokens_the_context_is_the_end(tell):
    story = tell.whole(temperature=0)
    assert story.reason in ("LENGTH", "END_OF_TEXT")
    assert story.usage.prompt_tokens + story.usage.output_tokens <= CONTEXT


def test_more_than_the_context_is_refused_with_both_lengths(tell):
    code, details = tell.refused(prompt="1984 " * 1000)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert str(CONTEXT) in details and "prompt has" in details
    tokens = tell.whole(max_tokens=1).usage.prompt_tokens
    code, details = tell.refused(max_tokens=CONTEXT)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert f"prompt has {tokens} tokens" in details and f"{tokens + CONTEXT} in all" in details
    assert tell.whole(max_tokens=CONTEXT - tokens, temperature=1, seed=3).ids


def test_more_than_all_pages_is_refused_with_both_numbers(tell):
    code, details = tell.refused(model="tight", max_tokens=100)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "page" in details


def test_what_does_not_fit_now_waits_its_turn(tell):
    """64 tokens of room: one at a time, and all get theirs."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        calls = [
            pool.submit(tell.whole, model="tight", max_tokens=40, temperature=1, seed=seed + 1)
            for seed in range(16)
        ]
        stories = [call.result() for call in calls]
    for seed, story in enumerate(stories):
        alone = tell.whole(model="tight", max_tokens=40, temperature=1, seed=seed + 1)
        assert (story.ids, story.logprobs) == (alone.ids, alone.logprobs)


@pytest.mark.parametrize(
    ("fields", "code", "named"),
    [
        ({"model": "void"}, "NOT_FOUND", "Request for unknown model"),
        ({"version": "9"}, "NOT_FOUND", "9"),
        ({"model": "labeller"}, "INVALID_ARGUMENT", "generation"),
        ({"budget": {"tau": 2}}, "INVALID_ARGUMENT", "budget.tau"),
        ({"budget": {"tau": float("nan")}}, "INVALID_ARGUMENT", "budget.tau"),
        ({"budget": {"flop_fraction": 0}}, "INVALID_ARGUMENT", "budget.flop_fraction"),
        ({"budget": {"min_quality": 0.9}}, "UNIMPLEMENTED", "min_quality"),
        ({"temperature": -1}, "INVALID_ARGUMENT", "temperature"),
        ({"temperature": float("nan")}, "INVALID_ARGUMENT", "temperature"),
        ({"temperature": float("inf")}, "INVALID_ARGUMENT", "temperature"),
        ({"top_p": 1.5}, "INVALID_ARGUMENT", "top_p"),
        ({"top_p": -0.5}, "INVALID_ARGUMENT", "top_p"),
        ({"stop": ["."] * 17}, "INVALID_ARGUMENT", "stop"),
        ({"stop": ["a", ""]}, "INVALID_ARGUMENT", "stop[1]"),
        ({"stop": ["x" * 1025]}, "INVALID_ARGUMENT", "stop[0]"),
        ({"max_tokens": 2**32 - 1}, "INVALID_ARGUMENT", "max_tokens"),
        ({"prompt": "x" * (2 << 20)}, "INVALID_ARGUMENT", "prompt"),
        ({"speculative": True}, "UNIMPLEMENTED", "speculative"),
        ({"request_id": "new\nline"}, "INVALID_ARGUMENT", "request_id"),
    ],
)
def test_bad_fields_are_named(tell, fields, code, named):
    found, details = tell.refused(**fields)
    assert found == grpc.StatusCode[code], details
    assert named in details


def test_bytes_that_are_no_request(teller):
    with grpc.insecure_channel(teller.target()) as channel:
        raw = channel.unary_stream("/dimmer.v1.Inference/Generate")
        for message, named in (
            (b"\x0a\x06teller\x1a\x03a\xffb", "prompt: not UTF-8 at byte 1"),
            (b"\xff" * 40, ""),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                list(raw(message))
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert named in caught.value.details()


def test_the_request_id_comes_back(tell):
    call = tell.stream(max_tokens=2, request_id="call 7")
    assert list(call)
    assert ("request-id", "call 7") in [tuple(pair) for pair in call.trailing_metadata()]


def test_reflection_lists_generate(teller):
    with grpc.insecure_channel(teller.target()) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        file = database.FindFileContainingSymbol("dimmer.v1.Inference")
        methods = {method.name: method for method in file.service[0].method}
        assert methods["Generate"].server_streaming and not methods["Generate"].client_streaming
        assert methods["Generate"].output_type == ".dimmer.v1.GenerateResponse"


def endless(tell, **fields):
    """A stream that has begun and would go on for seconds."""
    stream = tell.stream(model="endless", max_tokens=packages.LONG - 100, **fields)
    first = next(stream)
    assert first.text
    return stream


def test_a_cancelled_stream_frees_its_pages(teller, tell):
    before = teller.metric("dimmer_requests_total", rpc="Generate", code="CANCELLED")
    stream = endless(tell)
    assert teller.metric("dimmer_kv_pages_used", model="endless") >= packages.LONG // 16 - 8
    stream.cancel()
    teller.await_metric(before + 1, "dimmer_requests_total", rpc="Generate", code="CANCELLED")
    teller.await_metric(0, "dimmer_kv_pages_used")


def test_a_client_that_is_gone_frees_its_pages(teller, stubs):
    name, labels = "dimmer_requests_total", {"rpc": "Generate", "code": "CANCELLED"}
    before = teller.metric(name, **labels)
    channel = grpc.insecure_channel(teller.target())
    endless(Teller(channel, stubs))
    channel.close()
    teller.await_metric(before + 1, name, **labels)
    teller.await_metric(0, "dimmer_kv_pages_used")


def test_the_deadline_ends_a_stream(teller, tell):
    stream = endless(tell, timeout=0.5)
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    teller.await_metric(0, "dimmer_kv_pages_used")


def small_window(target):
    """A client that reads no further ahead than it must."""
    return grpc.insecure_channel(
        target,
        options=[("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 4096),
                 ("grpc.use_local_subchannel_pool", 1)],
    )  # fmt: skip


def test_a_slow_reader_stalls_only_itself(storytellers, stubs):
    options = {"model": "endless", "max_tokens": 6000, "temperature": 1.0, "seed": 5}
    with (
        harness.Server(storytellers) as server,
        small_window(server.target()) as slow_channel,
        grpc.insecure_channel(server.target()) as channel,
    ):
        slow, quick = Teller(slow_channel, stubs), Teller(channel, stubs)
        stream = slow.stream(**options)
        first = next(stream)
        # As long, and later: done while the first one waits for its reader.
        stories = [quick.whole(**options) for _ in range(2)]
        done = {"rpc": "Generate", "code": "OK"}
        assert server.metric("dimmer_requests_total", **done) == 2
        assert server.metric("dimmer_kv_pages_used", model="endless") > 6000 // 16
        *rest, last = stream
        assert "".join(piece.text for piece in [first, *rest]) == stories[0].text
        assert stories[0].text == stories[1].text
        assert last.usage.output_tokens == stories[0].usage.output_tokens
        server.await_metric(3, "dimmer_requests_total", **done)
        server.await_metric(0, "dimmer_kv_pages_used")


def test_a_reader_that_never_comes_back_is_given_up(storytellers, stubs):
    with (
        harness.Server(storytellers, arguments=["--reader-timeout-secs", "1"]) as server,
        small_window(server.target()) as channel,
    ):
        stream = endless(Teller(channel, stubs))
        # What does not fit the connection still waits for its reader, but holds no pages.
        server.await_metric(0, "dimmer_kv_pages_used")
        read = []
        with pytest.raises(grpc.RpcError) as caught:
            read.extend(id for piece in stream for id in piece.token_ids)
        assert caught.value.code() == grpc.StatusCode.ABORTED
        assert "was not read for 1 s" in caught.value.details()
        server.await_metric(1, "dimmer_requests_total", rpc="Generate", code="ABORTED")
        # It ran for all that it wrote: counted, though the call failed.
        assert server.metric("dimmer_tokens_total", kind="output") > len(read) > 0


def test_64_streams_at_once_tell_what_each_tells_alone(tell):
    """Plain and dimmed, each with its own budget, with some that are cancelled in between."""
    budgets = [None, {"tau": 0.3}, {"tau": 1}, {"flop_fraction": 0.9}]

    def options(number):
        return {
            "model": "dimteller" if number % 2 else "teller",
            "prompt": PROMPT * (1 + number % 7),
            "max_tokens": 20 + 5 * (number % 9),
            "temperature": 0.8,
            "seed": number + 1,
            "budget": budgets[number // 2 % 4],
        }

    start = threading.Barrier(72)

    def run(number):
        start.wait()
        if number < 64:
            return tell.whole(**options(number))
        stream = tell.stream(model="endless", max_tokens=2000)
        next(stream)
        stream.cancel()

    with concurrent.futures.ThreadPoolExecutor(72) as pool:
        stories = list(pool.map(run, range(72)))[:64]
    for number, story in enumerate(stories):
        alone = tell.whole(**options(number))
        assert (story.text, story.ids, story.logprobs) == (alone.text, alone.ids, alone.logprobs)
        assert story.usage.flops == alone.usage.flops


def test_a_drain_finishes_what_streams_and_refuses_the_rest(storytellers, stubs):
    server = harness.Server(storytellers).wait_for_ports()
    with grpc.insecure_channel(server.target()) as channel:
        tell = Teller(channel, stubs)
        stream = tell.stream(model="endless", max_tokens=3000)
        next(stream)
        server.process.send_signal(signal.SIGTERM)
        *_, last = stream
        ended = tell.messages.FinishReason.Name(last.finish_reason)
        assert (ended, last.usage.output_tokens) == ("LENGTH", 3000) or ended == "END_OF_TEXT"
    assert server.wait().status == 0


def test_a_drain_has_an_end(storytellers, stubs):
    server = harness.Server(storytellers, arguments=["--exit-timeout-secs", "1"]).wait_for_ports()
    with grpc.insecure_channel(server.target()) as channel:
        stream = endless(Teller(channel, stubs))
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)
        assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    server.wait()


def test_metrics_of_generations(storytellers, stubs):
    with harness.Server(storytellers) as server:
        pages = Scrape(server.metrics())
        assert pages.sum("dimmer_kv_pages", model="tight") == 64 // 16
        assert pages.sum("dimmer_kv_pages_used") == 0
        with grpc.insecure_channel(server.target()) as channel:
            tell = Teller(channel, stubs)
            stories = [tell.whole(model="dimteller", max_tokens=n) for n in (1, 30, 60)]
            stories.append(
                tell.whole(model="dimteller", max_tokens=128, budget={"flop_fraction": 0.9})
            )
            tell.refused(model="dimteller", temperature=-1)
        scrape = Scrape(server.metrics())
        labels = {"model": "dimteller", "version": "1"}
        usages = [story.usage for story in stories]
        for kind, field in (("prompt", "prompt_tokens"), ("output", "output_tokens")):
            counted = scrape.sum("dimmer_tokens_total", kind=kind, **labels)
            assert counted == sum(getattr(usage, field) for usage in usages)
        assert scrape.sum("dimmer_flops_total", **labels) == sum(usage.flops for usage in usages)
        assert scrape.sum("dimmer_time_to_first_token_seconds_count", **labels) == 4
        assert scrape.sum("dimmer_time_to_first_token_seconds_sum", **labels) > 0
        # One token has none after it.
        assert scrape.sum("dimmer_time_per_output_token_seconds_count", **labels) == 3
        assert scrape.sum("dimmer_time_per_output_token_seconds_sum", **labels) > 0
        assert scrape.sum("dimmer_budget_error_ratio_count", **labels) == 1
        rpc = {"rpc": "Generate", **labels}
        assert scrape.sum("dimmer_requests_total", code="OK", **rpc) == 4
        assert scrape.sum("dimmer_requests_total", code="INVALID_ARGUMENT", **rpc) == 1
        assert not scrape.samples("dimmer_time_to_first_token_seconds_count", model="labeller")


def imported(repository, name, *arguments):
    command = [harness.BINARIES / "dimmer-convert", "import", "--to", repository / name / "1"]
    (repository / name).mkdir(parents=True)
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.shared_data
def test_an_imported_llama_tells_its_recorded_story(tmp_path, stubs):
    weights = harness.SHARED_DATA / "weights/stories260K"
    files = ["--llama2c", weights / "stories260K.bin", "--tokenizer", weights / "tok512.bin"]
    imported(tmp_path, "stories", *files)
    recorded = (weights / "stories260K.md").read_text()
    wanted = recorded[recorded.index("Once upon a time") :]
    wanted = wanted[: wanted.index("```")].strip()
    with harness.Server(tmp_path) as server, grpc.insecure_channel(server.target()) as channel:
        tell = Teller(channel, stubs)
        story = tell.whole(model="stories", prompt="", max_tokens=256)
        assert story.text.strip() == wanted
        beginning, end = wanted[:100], wanted[100:]
        told = tell.whole(model="stories", prompt=beginning, max_tokens=200).text
        assert told.strip().startswith(end.strip()[:100])
