"""`run.py serve`, as it is called."""
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

from tools import ROOT

SERVE = [sys.executable, "-m", "tools.serve"]
START_SECONDS = 240


def said(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([*SERVE, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_its_help_starts_nothing_and_what_it_cannot_do_is_refused(tmp_path):
    helped = said("--help")
    assert helped.returncode == 0 and "--port" in helped.stdout and "--output" in helped.stdout and "starting" not in helped.stdout
    (tmp_path / "file").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        for arguments, words in ((("--port", number), f"port {number} cannot be had"), (("--port", "0"), "0 is no port"),
                                 (("--port", "65536"), "from 1 to 65535"), (("--output", tmp_path / "file"), "is no folder"), (("8188",), "8188")):
            refused = said(*arguments)
            assert refused.returncode == 2 and words in refused.stderr.splitlines()[-1] and not refused.stdout, (arguments, refused)


def test_it_answers_on_the_port_asked_for_and_saves_in_the_folder_asked_for(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    with subprocess.Popen([*SERVE, "--port", str(number), "--output", "pictures"], cwd=ROOT, env=os.environ | {"RUN_FROM": str(tmp_path)},
                          stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "starting ComfyUI\n"
            assert f"http://127.0.0.1:{number} " in process.stdout.readline()
            prompt = {"1": {"class_type": "ReadoutDemoScene", "inputs": {"seed": 1, "width": 64, "height": 64, "batch_size": 1}},
                      "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "scene"}}}
            urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{number}/prompt", json.dumps({"prompt": prompt}).encode()), timeout=30)
            deadline = time.monotonic() + START_SECONDS
            while not list((tmp_path / "pictures").glob("scene*.png")) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert list((tmp_path / "pictures").glob("scene*.png"))
        finally:
            process.terminate()
    with socket.socket() as again:
        assert again.connect_ex(("127.0.0.1", number))  # ended with what started it
