"""Makes docs/images/dimmerctl-top.svg: the last frame of `dimmerctl top` on a server under load.

    build/python/bin/pip install --no-deps -r bench/requirements-picture.txt
    build/python/bin/python bench/picture_top.py [--to FILE.svg]

Starts a server on --models and clients that send texts in waves, three in four without a budget.
Half-way `dimmerctl set-tau` turns the default from --before to --after, which the small curves then
show. Nothing is drawn here but what `dimmerctl top` printed. The SVG names no font to fetch.
"""

import argparse
import contextlib
import itertools
import pathlib
import re
import subprocess
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests/python"))
import numpy as np
import rich._export_format
import rich.console
import rich.terminal_theme
import rich.text
import tritonclient.grpc as triton

import harness

TEXTS = [
    "i feel proud of how far our little team has come this year",
    "i feel so lonely in this house since she moved away",
    "i feel furious that they cancelled our train for the third time",
    "i feel terrified of what the doctor is going to say tomorrow",
    "i feel amazed that all of you came out in this weather",
    "i feel so tender and devoted when he falls asleep holding my hand",
    "i am not sure what to make of any of it",
    "i feel like dancing all night",
]
BUDGETS = [{}, {}, {}, {"flop_fraction": 0.5}]
THEME = rich.terminal_theme.TerminalTheme(
    (22, 22, 26),
    (205, 205, 208),
    [(22, 22, 26), *[(205, 205, 208)] * 7],
    [(90, 90, 96), *[(240, 240, 242)] * 7],
)
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def load(target, model, stop, texts_per_call, pause):
    """Calls, one after the other, until `stop`; between bursts the client rests."""
    client = triton.InferenceServerClient(target)
    for call, budget in enumerate(itertools.cycle(BUDGETS)):
        if stop.is_set():
            return
        texts = [TEXTS[(call + i) % len(TEXTS)] for i in range(texts_per_call)]
        tensor = triton.InferInput("text", [len(texts)], "BYTES")
        tensor.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=np.object_))
        client.infer(model, [tensor], parameters=budget)
        if call % 400 == 399:
            stop.wait(pause)


@contextlib.contextmanager
def clients(target, model):
    stop = threading.Event()
    threads = [
        threading.Thread(target=load, args=(target, model, stop, texts, pause))
        for texts, pause in ((1, 0.4), (2, 0.9), (4, 1.5))
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def watch(server, model, before, after, frames):
    """The last frame, with its escape codes, of as many; the light is turned half-way."""
    ctl = [harness.BINARIES / "dimmerctl", "--admin-address", server.target("admin")]
    top = [*ctl, "top", model, "--interval", "500ms", "--count", str(frames), "--color", "always"]
    environment = {"COLUMNS": "100", "LC_ALL": "C.UTF-8"}
    set_tau = [*ctl, "set-tau", model, "--default"]
    subprocess.run([*set_tau, str(before)], check=True, stdout=subprocess.DEVNULL)
    process = subprocess.Popen(top, stdout=subprocess.PIPE, text=True, env=environment)
    seen, frame = 0, []
    for line in process.stdout:
        if "dimmerctl top" in line:
            seen, frame = seen + 1, []
            if seen == frames - 11:
                change = [*set_tau, str(after), "--ttl", "10m"]
                subprocess.run(change, check=True, stdout=subprocess.DEVNULL)
        frame.append(line)
    if process.wait() != 0 or seen != frames:
        raise SystemExit(f"dimmerctl top: found {seen} frames, expected {frames}")
    return "".join(frame).rstrip("\n")


def to_svg(frame):
    console = rich.console.Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(rich.text.Text.from_ansi(frame), soft_wrap=True)
    layout = rich._export_format.CONSOLE_SVG_FORMAT
    layout = re.sub(r"@font-face \{\{.*?\}\}", "", layout, flags=re.DOTALL)
    layout = re.sub(r"<!--.*?-->", "", layout)
    layout = re.sub(r"font-family: [^;]*;", f"font-family: {FONTS};", layout)
    svg = console.export_svg(
        title="dimmerctl top", theme=THEME, code_format=layout, unique_id="dimmerctl-top"
    )
    # Renderers that do not know CSS's white-space keep spaces so.
    svg = svg.replace("<text ", '<text xml:space="preserve" ')
    return "\n".join(line.rstrip() for line in svg.splitlines() if line.strip()) + "\n"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--to", default=harness.ROOT / "docs/images/dimmerctl-top.svg")
    parser.add_argument("--models", default=harness.MODELS)
    parser.add_argument("--model", default="emotion")
    parser.add_argument("--before", type=float, default=0.005)
    parser.add_argument("--after", type=float, default=0.13)
    parser.add_argument("--frames", type=int, default=30)
    options = parser.parse_args()
    with harness.Server(options.models) as server:
        with clients(server.target(), options.model):
            frame = watch(server, options.model, options.before, options.after, options.frames)
    path = pathlib.Path(options.to)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_svg(frame))
    print(frame)


if __name__ == "__main__":
    main()
