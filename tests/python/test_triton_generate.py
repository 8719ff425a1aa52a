"""Generations by Triton's own client, unchanged: ModelInfer, and ModelStreamInfer piece by piece."""

import queue
import subprocess
import time

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

import harness
from test_generate import small_window
from test_triton_client import parameters_of, text_input

PROMPT = "once upon a time"


@pytest.fixture(scope="module")
def client(teller):
    with triton.InferenceServerClient(teller.target()) as client:
        yield client


@pytest.fixture(scope="module")
def generate(teller, stubs):
    """The same by dimmer.v1, whole: text and ids."""
    with grpc.insecure_channel(teller.target()) as channel:
        call = stubs.inference_grpc.InferenceStub(channel).Generate

        def whole(model="teller", prompt=PROMPT, **fields):
            request = stubs.inference.GenerateRequest(model=model, prompt=prompt, **fields)
            messages = list(call(request))
            text = "".join(message.text for message in messages)
            return text, [id for message in messages for id in message.token_ids]

        yield whole


class Stream:
    """One ModelStreamInfer: results and errors as they come."""

    def __init__(self, target):
        self.client = triton.InferenceServerClient(target)
        self.arrived = queue.Queue()

    def __enter__(self):
        self.client.start_stream(lambda result, error: self.arrived.put((result, error)))
        return self

    def __exit__(self, *_):
        self.client.stop_stream()
        self.client.close()

    def send(self, id, model="teller", inputs=None, **options):
        self.client.async_stream_infer(
            model, inputs or [text_input([PROMPT])], request_id=id, **options
        )

    def answers(self, *ids) -> dict[str, list]:
        """By id, up to each one's final answer."""
        found = {id: [] for id in ids}
        open_ids = set(ids)
        while open_ids:
            result, error = self.arrived.get()
            assert error is None, error
            id = result.get_response().id
            found[id].append(result)
            if parameters_of(result)["triton_final_response"]:
                open_ids.remove(id)
        return found


def text_of(results) -> str:
    return b"".join(result.as_numpy("text")[0] for result in results).decode()


def ids_of(results) -> list[int]:
    return np.concatenate([result.as_numpy("output_ids") for result in results], axis=1)[0].tolist()


def test_metadata(client):
    model = client.get_model_metadata("teller")
    inputs = {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in model.inputs}
    outputs = {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in model.outputs}
    assert inputs == {"text": ("BYTES", [1]), "input_ids": ("INT64", [1, -1])}
    assert outputs == {"text": ("BYTES", [1]), "output_ids": ("INT64", [1, -1])}


def test_config_says_that_a_request_may_have_many_answers(client):
    config = client.get_model_config("teller", as_json=True)["config"]
    assert config["model_transaction_policy"] == {"decoupled": True}
    assert {tensor["name"]: tensor["data_type"] for tensor in config["input"]} == {
        "text": "TYPE_STRING",
        "input_ids": "TYPE_INT64",
    }
    outputs = {tensor["name"]: tensor for tensor in config["output"]}
    assert outputs["output_ids"]["data_type"] == "TYPE_INT64"
    assert outputs["output_ids"]["dims"] == ["1", "-1"]
    classifier = client.get_model_config("labeller").config
    assert not classifier.model_transaction_policy.decoupled
    with pytest.raises(InferenceServerException) as caught:
        client.get_model_config("void")
    assert "unknown model" in caught.value.message()


@pytest.mark.parametrize("number", [float, int, str])
def test_infer_agrees_with_generate(client, generate, number):
    result = client.infer("teller", [text_input([PROMPT])], parameters={"max_tokens": number(24)})
    text, ids = generate(max_tokens=24)
    assert result.as_numpy("text")[0].decode() == text
    assert result.as_numpy("output_ids").dtype == np.int64
    assert result.as_numpy("output_ids").tolist() == [ids]
    usage = parameters_of(result)
    assert usage["output_tokens"] == 24 and usage["prompt_tokens"] > 0
    assert usage["flops"] == usage["dense_flops"] > 0
    assert usage["finish_reason"] == "length"
    assert usage["seed"] > 0


def test_sampling_parameters(client, generate):
    sampling = {"temperature": 0.9, "top_k": 40, "top_p": 0.8, "seed": 11, "max_tokens": 30}
    result = client.infer("teller", [text_input([PROMPT])], parameters=sampling)
    assert result.as_numpy("text")[0].decode() == generate(**sampling)[0]
    assert parameters_of(result)["seed"] == 11
    text = generate(max_tokens=40)[0]
    stop = text[len(text) // 2 :][:2]
    stopped = client.infer(
        "teller", [text_input([PROMPT])], parameters={"stop": stop, "max_tokens": 40}
    )
    assert stopped.as_numpy("text")[0].decode() == text[: text.index(stop)]
    assert parameters_of(stopped)["finish_reason"] == "stop"


def test_input_ids(client, generate, teller, stubs):
    with grpc.insecure_channel(teller.target()) as channel:
        tokens = stubs.inference_grpc.InferenceStub(channel).Tokenize(
            stubs.inference.TokenizeRequest(model="teller", texts=[PROMPT])
        )
    ids = np.array([list(tokens.results[0].ids)], dtype=np.int64)
    tensor = triton.InferInput("input_ids", list(ids.shape), "INT64")
    tensor.set_data_from_numpy(ids)
    result = client.infer("teller", [tensor], parameters={"max_tokens": 16})
    assert result.as_numpy("output_ids")[0].tolist() == generate(max_tokens=16)[1]
    only = client.infer(
        "teller", [tensor], outputs=[triton.InferRequestedOutput("output_ids")],
        parameters={"max_tokens": 4},
    )  # fmt: skip
    assert only.as_numpy("text") is None and only.as_numpy("output_ids").shape == (1, 4)


def ids_input(ids):
    ids = np.asarray(ids, dtype=np.int64)
    tensor = triton.InferInput("input_ids", list(ids.shape), "INT64")
    tensor.set_data_from_numpy(ids)
    return tensor


@pytest.mark.parametrize(
    ("inputs", "parameters", "named"),
    [
        ([text_input(["a", "b"])], {}, "input text: found 2 prompts"),
        ([ids_input([[1], [2]])], {}, "input input_ids: found 2 prompts"),
        ([ids_input(np.zeros((1, 0)))], {}, "input_ids"),
        ([ids_input([[1, 1000]])], {}, "input input_ids: found 1000"),
        ([ids_input([[-1]])], {}, "input input_ids: found -1"),
        ([ids_input([[1] * 600])], {}, "512"),
        ([text_input(["a"]), ids_input([[1]])], {}, "found both"),
        ([text_input(["a"], name="prompt")], {}, "prompt"),
        ([text_input(["a"])], {"max_tokens": -1}, "parameters.max_tokens"),
        ([text_input(["a"])], {"max_tokens": 1.5}, "parameters.max_tokens"),
        ([text_input(["a"])], {"max_tokens": 2**40}, "parameters.max_tokens"),
        ([text_input(["a"])], {"max_tokens": 600}, "512"),
        ([text_input(["a"])], {"temperature": "hot"}, "parameters.temperature"),
        ([text_input(["a"])], {"temperature": -1}, "temperature"),
        ([text_input(["a"])], {"top_p": 2}, "top_p"),
        ([text_input(["a"])], {"top_k": "x"}, "parameters.top_k"),
        ([text_input(["a"])], {"seed": -1}, "parameters.seed"),
        ([text_input(["a"])], {"stop": 1}, "parameters.stop"),
        ([text_input(["a"])], {"tau": 2}, "tau"),
        ([text_input(["a"])], {"tau": 0, "max_flops": 10**9}, "at most one budget"),
        ([text_input(["a"])], {"max_token": 5}, "parameters.max_token:"),
    ],
)
def test_what_is_wrong_is_named_and_the_stream_goes_on(client, teller, inputs, parameters, named):
    with pytest.raises(InferenceServerException) as caught:
        client.infer("teller", inputs, parameters=parameters)
    assert "INVALID_ARGUMENT" in str(caught.value.status())
    assert named in caught.value.message()
    with Stream(teller.target()) as stream:
        stream.send("bad", inputs=inputs, parameters=parameters)
        result, error = stream.arrived.get()
        assert result is None and error.message() == caught.value.message()
        stream.send("good", parameters={"max_tokens": 3})
        assert ids_of(stream.answers("good")["good"])


def test_generation_parameters_are_none_of_a_classifier(client):
    with pytest.raises(InferenceServerException) as caught:
        client.infer("labeller", [text_input(["i am"])], parameters={"max_tokens": 3})
    assert "parameters.max_tokens" in caught.value.message()


@pytest.mark.parametrize("enable_empty_final_response", [False, True])
def test_a_stream_answers_piece_by_piece(teller, generate, enable_empty_final_response):
    with Stream(teller.target()) as stream:
        stream.send(
            "one",
            parameters={"max_tokens": 32},
            enable_empty_final_response=enable_empty_final_response,
        )
        *pieces, last = stream.answers("one")["one"]
    assert len(pieces) > 10
    for piece in pieces:
        assert parameters_of(piece) == {"triton_final_response": False}
        assert piece.as_numpy("text")[0] or piece.as_numpy("output_ids").size
    assert (text_of(pieces), ids_of(pieces)) == generate(max_tokens=32)
    usage = parameters_of(last)
    assert last.as_numpy("text").tolist() == [b""] and last.as_numpy("output_ids").shape == (1, 0)
    assert usage["output_tokens"] == 32 and usage["finish_reason"] == "length"
    assert usage["triton_final_response"] is True


def test_many_requests_share_a_stream(teller, generate):
    """More than a stream takes at once, of several models; each comes back whole under its id."""
    options = {
        str(number): {"max_tokens": 8 + number % 30, "temperature": 0.9, "seed": number + 1}
        for number in range(100)
    }
    with Stream(teller.target()) as stream:
        for id, parameters in options.items():
            stream.send(id, parameters=parameters)
        stream.send("class", model="labeller", inputs=[text_input(["i am happy"])])
        found = stream.answers(*options, "class")
    (classified,) = found.pop("class")
    assert classified.as_numpy("label").shape == (1,)
    for id, parameters in list(options.items())[::9]:
        assert (text_of(found[id]), ids_of(found[id])) == generate(**parameters)
    assert all(
        parameters_of(results[-1])["output_tokens"] == len(ids_of(results))
        for results in found.values()
    )


def test_errors_carry_the_request_s_id(teller):
    """Triton's Python client keeps it to itself; its message has it."""
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    requests = [
        service_pb2.ModelInferRequest(model_name="void", id="nobody"),
        service_pb2.ModelInferRequest(model_name="teller", id="empty"),
    ]
    with grpc.insecure_channel(teller.target()) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answers = list(stub.ModelStreamInfer(iter(requests)))
    by_id = {answer.infer_response.id: answer.error_message for answer in answers}
    assert "Request for unknown model" in by_id["nobody"]
    assert "text" in by_id["empty"]


def test_an_id_has_a_length(client, teller):
    """Every answer repeats it, so that a long one would fill the server's memory."""
    result = client.infer("teller", [text_input([PROMPT])], request_id="x" * 1024)
    assert result.get_response().id == "x" * 1024
    with pytest.raises(InferenceServerException, match="id: found 1025 bytes"):
        client.infer("teller", [text_input([PROMPT])], request_id="x" * 1025)
    with Stream(teller.target()) as stream:
        stream.send("x" * 1025)
        _, error = stream.arrived.get()
        assert "id: found 1025 bytes, expected at most 1024" in error.message()


def test_a_client_that_only_writes_is_not_read_on(teller):
    """Its answers would pile up in the server's memory."""
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    count, taken = 20000, 0  # some 6000 fill it
    ids = [f"{number:01024}" for number in range(count)]  # every answer has one

    def requests():
        nonlocal taken
        for id in ids:
            taken += 1
            yield service_pb2.ModelInferRequest(model_name="void", id=id)

    with small_window(teller.target()) as channel:
        stream = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(requests())
        before = -1
        while taken != before:  # until the connection is full both ways
            before = taken
            time.sleep(0.5)
        assert taken < count
        # Once it reads, everything is answered.
        assert [answer.infer_response.id for answer in stream] == ids


def test_leaving_a_stream_frees_its_pages(teller):
    name, labels = "dimmer_requests_total", {"rpc": "ModelStreamInfer", "code": "CANCELLED"}
    before = teller.metric(name, **labels)
    stream = Stream(teller.target()).__enter__()
    for id in "ab":
        stream.send(id, model="endless", parameters={"max_tokens": 16000})
    stream.arrived.get()
    stream.client.stop_stream(cancel_requests=True)
    stream.client.close()
    teller.await_metric(before + 2, name, **labels)
    teller.await_metric(0, "dimmer_kv_pages_used")


def test_a_timeout_ends_a_request_alone(teller):
    with Stream(teller.target()) as stream:
        stream.send("late", model="endless", parameters={"max_tokens": 16000, "timeout": 300_000})
        stream.send("good", parameters={"max_tokens": 300, "temperature": 0.5, "seed": 3})
        errors, final = [], False
        while not errors or not final:
            result, error = stream.arrived.get()
            if error is not None:
                errors.append(error.message())
            elif result.get_response().id == "good":
                final = parameters_of(result)["triton_final_response"]
        assert errors == ["Request timeout expired"]


def test_a_drain_ends_an_idle_stream(storytellers):
    server = harness.Server(storytellers).wait_for_ports()
    with Stream(server.target()) as stream:
        stream.send("one", parameters={"max_tokens": 4})
        assert stream.answers("one")
        assert server.terminate().status == 0


@pytest.mark.shared_data
def test_a_model_without_a_tokenizer_takes_and_gives_ids(tmp_path):
    """minGPT's sorting network: digits in, the same in order out."""
    weights = harness.SHARED_DATA / "weights/gpt_nano_sort"
    (tmp_path / "sort").mkdir()
    command = [harness.BINARIES / "dimmer-convert", "import", "--gpt", weights]
    subprocess.run([*command, "--to", tmp_path / "sort/1"], check=True, capture_output=True)
    with (
        harness.Server(tmp_path) as server,
        triton.InferenceServerClient(server.target()) as client,
    ):
        for digits in ([2, 0, 1, 1, 0, 2], [0, 0, 2, 1, 0, 1], [2, 2, 2, 0, 0, 1]):
            result = client.infer("sort", [ids_input([digits])], parameters={"max_tokens": 5})
            assert result.as_numpy("output_ids")[0].tolist() == sorted(digits)[:5]
            assert result.as_numpy("text").tolist() == [b""]
        with pytest.raises(InferenceServerException) as caught:
            client.infer("sort", [text_input(["2 0 1"])])
        assert "no tokenizer" in caught.value.message()
