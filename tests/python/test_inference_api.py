"""dimmer.v1.Inference through stubs that grpcio-tools makes from proto/."""

import concurrent.futures

import grpc
import pytest

TEXTS = ["i feel so happy and loved today", "i was terrified of the dark"]


def code_of(call, *arguments, **options):
    """The status a call ends with, and its message."""
    try:
        call(*arguments, **options)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


@pytest.fixture
def classify(inference, stubs):
    def call(texts=TEXTS, model="emotion", budget=None, **fields):
        request = stubs.inference.ClassifyRequest(model=model, texts=texts, **fields)
        if budget:
            request.budget.CopyFrom(stubs.inference.Budget(**budget))
        return inference.Classify(request)

    return call


def test_labels_come_best_first(classify):
    answer = classify(budget={"tau": 0})
    assert [result.labels[0].name for result in answer.results] == ["joy", "fear"]
    for result in answer.results:
        scores = [label.score for label in result.labels]
        assert len(scores) == 6
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-5)
        assert sorted(label.index for label in result.labels) == list(range(6))


def test_top_k_cuts(classify):
    assert [len(result.labels) for result in classify(top_k=2).results] == [2, 2]


def test_the_call_s_usage_is_the_sum_of_its_texts(classify):
    answer = classify(budget={"tau": 0.1})
    for field in ("flops", "dense_flops", "prompt_tokens"):
        parts = [getattr(result.usage, field) for result in answer.results]
        assert all(part > 0 for part in parts)
        assert getattr(answer.usage, field) == sum(parts)
    assert answer.usage.flops < answer.usage.dense_flops
    assert answer.usage.tau == pytest.approx(0.1)
    layers = answer.usage.layers
    assert [layer.layer for layer in layers] == sorted(layer.layer for layer in layers)
    assert {layer.module for layer in layers} == {"ffn"}
    for layer in layers:
        assert 1 <= layer.experts_run <= layer.experts


def test_dense_runs_every_expert(classify):
    usage = classify(budget={"tau": 0}).usage
    assert usage.flops == usage.dense_flops
    assert all(layer.experts_run == layer.experts for layer in usage.layers)


def test_an_answer_repeats_bit_for_bit_among_other_budgets(classify):
    budgets = [{"tau": 0}, {"tau": 0.1}, {"tau": 0.3}, {"flop_fraction": 0.6}]
    alone = [classify(budget=budget) for budget in budgets]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        calls = [(i, pool.submit(classify, budget=budgets[i])) for i in [0, 1, 2, 3] * 16]
        for index, call in calls:
            for got, wanted in zip(call.result().results, alone[index].results, strict=True):
                assert [label.score for label in got.labels] == [
                    label.score for label in wanted.labels
                ]
                assert got.usage.flops == wanted.usage.flops


@pytest.mark.parametrize("fraction", [0.5, 0.7])
def test_flop_fraction_holds_for_each_text(classify, fraction):
    for result in classify(budget={"flop_fraction": fraction}).results:
        share = result.usage.flops / result.usage.dense_flops
        assert share == pytest.approx(fraction, abs=0.05)
        assert not result.usage.budget_clamped


def test_flop_fraction_below_the_floor_is_clamped_and_said(classify):
    usage = classify(budget={"flop_fraction": 0.001}).usage
    assert usage.budget_clamped
    assert usage.flops < 0.5 * usage.dense_flops


def test_max_flops_covers_the_whole_call(classify):
    dense = classify().usage.dense_flops
    for share in (0.45, 0.5, 0.75, 1):
        assert classify(budget={"max_flops": int(dense * share)}).usage.flops <= dense * share


def test_max_flops_below_the_floor_names_the_floor(classify):
    code, message = code_of(classify, budget={"max_flops": 1})
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    floor = max(int(number) for number in message.replace(",", " ").split() if number.isdigit())
    assert classify(budget={"max_flops": floor}).usage.flops <= floor
    below, _ = code_of(classify, budget={"max_flops": floor - 1})
    assert below == grpc.StatusCode.FAILED_PRECONDITION


def test_a_plain_checkpoint_runs_dense(classify):
    usage = classify(["i feel happy"], model="tiny", budget={"tau": 0.5}).usage
    assert usage.flops == usage.dense_flops
    assert not usage.layers


BAD_BUDGETS = {
    "tau -1": {"tau": -1},
    "tau 2": {"tau": 2},
    "tau NaN": {"tau": float("nan")},
    "flop_fraction 0": {"flop_fraction": 0},
    "flop_fraction 1.5": {"flop_fraction": 1.5},
    "flop_fraction infinite": {"flop_fraction": float("-inf")},
}


@pytest.mark.parametrize("budget", BAD_BUDGETS.values(), ids=BAD_BUDGETS.keys())
def test_bad_budgets_are_refused_and_named(classify, budget):
    code, message = code_of(classify, budget=budget)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert next(iter(budget)) in message


def test_min_quality_is_not_there_yet(classify):
    code, _ = code_of(classify, budget={"min_quality": 0.9})
    assert code == grpc.StatusCode.UNIMPLEMENTED


def test_empty_text_is_a_text(classify):
    assert classify([""], budget={"tau": 0}).results[0].usage.prompt_tokens == 2  # [CLS] [SEP]


def test_no_text_is_refused(classify):
    code, message = code_of(classify, [])
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "texts" in message


def test_long_text_is_refused_with_both_lengths_or_cut_and_flagged(classify):
    long = "so happy " * 11112  # 100k characters
    code, message = code_of(classify, [long])
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "512" in message and "22226" in message
    answer = classify([long], truncate=True)
    assert answer.usage.truncated
    assert answer.usage.prompt_tokens == 512


def test_100k_characters_in_one_word(classify):
    answer = classify(["x" * 100_000])  # longer than WordPiece takes: one [UNK]
    assert answer.usage.prompt_tokens == 3


def test_invalid_utf8_is_refused(channel):
    text = b"i feel \xff\xfe"
    texts = b"\x1a" + bytes([len(text)]) + text  # field 3, ClassifyRequest.texts
    call = channel.unary_unary("/dimmer.v1.Inference/Classify")
    code, _ = code_of(call, b"\x0a\x07emotion" + texts)
    assert code == grpc.StatusCode.INVALID_ARGUMENT


def test_garbage_is_refused(channel):
    call = channel.unary_unary("/dimmer.v1.Inference/Classify")
    code, _ = code_of(call, b"\xff" * 64)
    assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL)


def test_unknown_model(classify, inference, stubs):
    wanted = "Request for unknown model: "
    requests = {
        inference.Tokenize: stubs.inference.TokenizeRequest(model="void", texts=TEXTS),
        inference.Embed: stubs.inference.EmbedRequest(model="void", texts=TEXTS),
        inference.Classify: stubs.inference.ClassifyRequest(model="void", texts=TEXTS),
    }
    for call, request in requests.items():
        code, message = code_of(call, request)
        assert code == grpc.StatusCode.NOT_FOUND
        assert message.startswith(wanted)


def test_wrong_task_is_refused(classify, inference, stubs):
    code, _ = code_of(classify, model="minilm")
    assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)


def test_as_many_pairs_as_texts(classify):
    code, message = code_of(classify, ["a", "b"], model="tiny", text_pairs=["c"])
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "text_pairs" in message


def test_tokenize(inference, stubs):
    request = stubs.inference.TokenizeRequest(model="minilm", texts=["Héllo, wörld!"])
    assert list(inference.Tokenize(request).results[0].tokens) == ["hello", ",", "world", "!"]
    request.add_special_tokens = True
    row = inference.Tokenize(request).results[0]
    assert list(row.tokens) == ["[CLS]", "hello", ",", "world", "!", "[SEP]"]
    assert list(row.ids) == [101, 7592, 1010, 2088, 999, 102]


def test_embed_puts_like_beside_like(inference, stubs):
    texts = ["a cat sleeps on the sofa", "a kitten naps on the couch", "interest rates rose again"]
    answer = inference.Embed(stubs.inference.EmbedRequest(model="minilm", texts=texts))
    rows = [list(embedding.values) for embedding in answer.results]
    assert {len(row) for row in rows} == {384}

    def dot(a, b):
        return sum(x * y for x, y in zip(rows[a], rows[b], strict=True))

    assert dot(0, 0) == pytest.approx(1, abs=1e-5)
    assert dot(0, 1) > 0.5 > 0.3 > dot(0, 2)


def test_a_deadline_that_has_passed(inference, stubs):
    request = stubs.inference.ClassifyRequest(model="emotion", texts=TEXTS * 64)
    code, _ = code_of(inference.Classify, request, timeout=0.001)
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
