"""Triton's own client, unchanged, over the Open Inference Protocol."""

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

TEXTS = [
    "i feel so happy and loved today",
    "i am furious about the way they treated her",
    "i was terrified of the dark",
]


@pytest.fixture(scope="module")
def client(server):
    with triton.InferenceServerClient(server.target()) as client:
        yield client


def text_input(texts, name="text"):
    tensor = triton.InferInput(name, [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=np.object_))
    return tensor


def ids_inputs(ids, mask):
    tensors = []
    for name, values in (("input_ids", ids), ("attention_mask", mask)):
        values = np.asarray(values, dtype=np.int64)
        tensors.append(triton.InferInput(name, list(values.shape), "INT64"))
        tensors[-1].set_data_from_numpy(values)
    return tensors


def parameters_of(result):
    """Response parameters by name, each from the one field that is set."""
    values = {}
    for name, parameter in result.get_response().parameters.items():
        values[name] = getattr(parameter, parameter.WhichOneof("parameter_choice"))
    return values


def test_liveness_readiness_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("emotion")
    assert not client.is_model_ready("broken")
    assert not client.is_model_ready("nothing-of-this-name")
    server = client.get_server_metadata()
    assert server.name and server.version
    model = client.get_model_metadata("emotion")
    assert model.name == "emotion"
    assert "1" in model.versions
    assert {tensor.name for tensor in model.inputs} >= {"text", "input_ids", "attention_mask"}
    outputs = {tensor.name: tensor for tensor in model.outputs}
    assert outputs.keys() == {"label", "score", "logits"}
    assert outputs["logits"].datatype == "FP32"
    assert list(outputs["logits"].shape) == [-1, 6]
    embedding = {tensor.name: tensor for tensor in client.get_model_metadata("minilm").outputs}
    assert list(embedding["embedding"].shape) == [-1, 384]


def test_text_in_label_score_and_logits_out(client):
    result = client.infer("emotion", [text_input(TEXTS)], parameters={"tau": 0.0})
    labels, scores, logits = (result.as_numpy(name) for name in ("label", "score", "logits"))
    assert [label.decode() for label in labels] == ["joy", "anger", "fear"]
    assert scores.dtype == np.float32 and scores.shape == (3,)
    assert logits.dtype == np.float32 and logits.shape == (3, 6)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scores, shares.max(axis=1), atol=1e-5)
    assert result.get_response().raw_output_contents
    usage = parameters_of(result)
    assert usage["tau"] == 0.0
    assert usage["flop_fraction"] == 1.0
    assert usage["flops"] == usage["dense_flops"] > 0
    assert usage["prompt_tokens"] > 3 * 5
    assert usage["compute_us"] > 0 and usage["queue_us"] >= 0
    assert usage["budget_clamped"] is False and usage["degraded"] is False


def test_ready_made_ids_give_the_text_s_logits_and_padding_costs_nothing(client, inference, stubs):
    request = stubs.inference.TokenizeRequest(model="emotion", texts=TEXTS, add_special_tokens=True)
    rows = [list(row.ids) for row in inference.Tokenize(request).results]
    width = max(map(len, rows)) + 7
    ids = [row + [0] * (width - len(row)) for row in rows]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    from_ids = client.infer("emotion", ids_inputs(ids, mask), parameters={"tau": 0.1})
    from_text = client.infer("emotion", [text_input(TEXTS)], parameters={"tau": 0.1})
    assert np.array_equal(from_ids.as_numpy("logits"), from_text.as_numpy("logits"))
    assert parameters_of(from_ids)["dense_flops"] == parameters_of(from_text)["dense_flops"]


@pytest.mark.parametrize("value", [0.5, "0.5"])
def test_flop_fraction_turns_the_light_down(client, value):
    result = client.infer("emotion", [text_input(TEXTS)], parameters={"flop_fraction": value})
    usage = parameters_of(result)
    assert usage["flop_fraction"] == pytest.approx(usage["flops"] / usage["dense_flops"])
    assert usage["flop_fraction"] == pytest.approx(0.5, abs=0.05)
    assert usage["tau"] > 0


@pytest.mark.parametrize("as_type", [int, str])
def test_max_flops_is_never_exceeded(client, as_type):
    dense = parameters_of(client.infer("emotion", [text_input(TEXTS)], parameters={"tau": 0}))
    for share in (0.45, 0.6, 0.9, 1.5):
        limit = int(dense["dense_flops"] * share)
        parameters = {"max_flops": as_type(limit)}
        usage = parameters_of(client.infer("emotion", [text_input(TEXTS)], parameters=parameters))
        assert usage["flops"] <= limit


def test_tau_one_runs_the_least(client):
    shares = []
    for tau in (0.0, 0.05, 0.2, 0.5, 1.0):
        result = client.infer("emotion", [text_input(TEXTS)], parameters={"tau": tau})
        usage = parameters_of(result)
        assert usage["tau"] == pytest.approx(tau)
        shares.append(usage["flop_fraction"])
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.5 * shares[0]


def test_bits_do_not_depend_on_the_batch(client):
    together = client.infer("emotion", [text_input(TEXTS * 5)], parameters={"tau": 0.15})
    for index, text in enumerate(TEXTS * 5):
        alone = client.infer("emotion", [text_input([text])], parameters={"tau": 0.15})
        assert np.array_equal(alone.as_numpy("logits")[0], together.as_numpy("logits")[index])


def test_pairs(client):
    tensors = [text_input(["i feel happy"] * 2), text_input(["so very sad", "joy"], "text_pair")]
    logits = client.infer("tiny", tensors).as_numpy("logits")
    assert logits.shape == (2, 3)
    assert not np.array_equal(logits[0], logits[1])


def test_embedding_is_of_unit_length(client):
    result = client.infer("minilm", [text_input(TEXTS)])
    embedding = result.as_numpy("embedding")
    assert embedding.shape == (3, 384) and embedding.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)


def tensor(name, datatype, array):
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


IDS = np.ones((2, 5), dtype=np.int64)
BAD_TENSORS = {
    "no input at all": [],
    "unknown input": [tensor("picture", "INT64", IDS)],
    "text of the wrong type": [tensor("text", "FP32", np.ones(2, np.float32))],
    "text of rank two": [tensor("text", "BYTES", np.array([[b"a"], [b"b"]], np.object_))],
    "ids of the wrong type": [
        tensor("input_ids", "INT32", IDS.astype(np.int32)),
        tensor("attention_mask", "INT64", IDS),
    ],
    "ids of rank one": [
        tensor("input_ids", "INT64", IDS[0]),
        tensor("attention_mask", "INT64", IDS[0]),
    ],
    "mask of another shape": [
        tensor("input_ids", "INT64", IDS),
        tensor("attention_mask", "INT64", IDS[:, :3].copy()),
    ],
    "mask with a hole": [
        tensor("input_ids", "INT64", IDS),
        tensor("attention_mask", "INT64", np.array([[1, 0, 1, 1, 1]] * 2, np.int64)),
    ],
    "mask of neither 0 nor 1": [
        tensor("input_ids", "INT64", IDS),
        tensor("attention_mask", "INT64", IDS * 7),
    ],
    "id outside the vocabulary": [
        tensor("input_ids", "INT64", IDS * 10**6),
        tensor("attention_mask", "INT64", IDS),
    ],
    "negative id": [
        tensor("input_ids", "INT64", IDS * -1),
        tensor("attention_mask", "INT64", IDS),
    ],
    "longer than the model": [
        tensor("input_ids", "INT64", np.ones((1, 600), np.int64)),
        tensor("attention_mask", "INT64", np.ones((1, 600), np.int64)),
    ],
    "text and ids at once": [
        text_input(["a", "b"]),
        tensor("input_ids", "INT64", IDS),
        tensor("attention_mask", "INT64", IDS),
    ],
    "fewer pairs than texts": [text_input(["a", "b"]), text_input(["c"], "text_pair")],
}


@pytest.mark.parametrize("tensors", BAD_TENSORS.values(), ids=BAD_TENSORS.keys())
def test_bad_tensors_are_refused(client, tensors):
    with pytest.raises(InferenceServerException) as caught:
        client.infer("tiny", tensors)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT", caught.value


BAD_PARAMETERS = {
    "two budgets": {"tau": 0.1, "flop_fraction": 0.5},
    "tau above one": {"tau": 2.0},
    "tau below zero": {"tau": -1.0},
    "tau not a number": {"tau": float("nan")},
    "tau not numeric": {"tau": "bright"},
    "tau half numeric": {"tau": "0.1x"},
    "flop_fraction of zero": {"flop_fraction": 0.0},
    "flop_fraction above one": {"flop_fraction": 1.1},
    "flop_fraction infinite": {"flop_fraction": float("inf")},
    "max_flops negative": {"max_flops": -5},
    "max_flops broken": {"max_flops": 1.5},
    "tau a bool": {"tau": True},
}


@pytest.mark.parametrize("parameters", BAD_PARAMETERS.values(), ids=BAD_PARAMETERS.keys())
def test_bad_parameters_are_refused_and_named(client, parameters):
    with pytest.raises(InferenceServerException) as caught:
        client.infer("emotion", [text_input(TEXTS)], parameters=parameters)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT", caught.value
    assert any(name in caught.value.message() for name in parameters)


def test_min_quality_is_not_there_yet(client):
    with pytest.raises(InferenceServerException) as caught:
        client.infer("emotion", [text_input(TEXTS)], parameters={"min_quality": 0.99})
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_unknown_model_version_and_output(client):
    with pytest.raises(InferenceServerException) as caught:
        client.infer("nothing-of-this-name", [text_input(TEXTS)])
    assert caught.value.status() == "StatusCode.NOT_FOUND"
    assert "Request for unknown model" in caught.value.message()
    with pytest.raises(InferenceServerException) as caught:
        client.infer("emotion", [text_input(TEXTS)], model_version="77")
    assert caught.value.status() == "StatusCode.NOT_FOUND"
    with pytest.raises(InferenceServerException) as caught:
        outputs = [triton.InferRequestedOutput("temper")]
        client.infer("emotion", [text_input(TEXTS)], outputs=outputs)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_only_the_wanted_outputs_come_back(client):
    outputs = [triton.InferRequestedOutput("label")]
    result = client.infer("emotion", [text_input(TEXTS)], outputs=outputs, request_id="seven")
    assert [output.name for output in result.get_response().outputs] == ["label"]
    assert result.get_response().id == "seven"


def test_a_model_that_failed_to_load_is_unavailable(client):
    with pytest.raises(InferenceServerException) as caught:
        client.infer("broken", [text_input(TEXTS)])
    assert caught.value.status() == "StatusCode.UNAVAILABLE"
    assert "model.safetensors" in caught.value.message()
