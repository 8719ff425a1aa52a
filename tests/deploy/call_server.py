"""call_server.py classify [TAU] | set-tau TAU | tau: calls a dimmer-server on its default ports.

`classify` goes through Triton's client, the others through Admin; each prints one JSON object.
"""

import json
import pathlib
import sys

import grpc
import numpy as np
import tritonclient.grpc as triton

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"


def classify(tau: str = "") -> dict:
    client = triton.InferenceServerClient("127.0.0.1:8001")
    text = triton.InferInput("text", [1], "BYTES")
    text.set_data_from_numpy(np.array([b"i feel so happy today"], dtype=np.object_))
    result = client.infer("emotion", [text], parameters={"tau": float(tau)} if tau else None)
    parameters = result.get_response().parameters
    return {
        "label": result.as_numpy("label")[0].decode(),
        "tau": parameters["tau"].double_param,
        "flop_fraction": parameters["flop_fraction"].double_param,
    }


def set_tau(tau: str = "") -> dict:
    sys.path.insert(0, str(PROTO))
    messages, services = grpc.protos_and_services("dimmer/v1/admin.proto")
    request = messages.SetTauRequest(model="emotion", dry_run=not tau)
    if tau:
        request.default_tau = float(tau)
    with grpc.insecure_channel("127.0.0.1:8003") as channel:
        settings = services.AdminStub(channel).SetTau(request).settings
    return {"default_tau": settings.default_tau, "revision": settings.revision}


if __name__ == "__main__":
    verbs = {"classify": classify, "set-tau": set_tau, "tau": set_tau}
    print(json.dumps(verbs[sys.argv[1]](*sys.argv[2:])))
