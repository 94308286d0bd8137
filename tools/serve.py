"""Starts the ComfyUI of run.py with this pack, and leaves it running until Ctrl-C. It opens no browser."""
import argparse
import signal
import sys

from tools import ROOT, here
from tools.host.server import Server


def port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text} is no port: give a number from 1 to 65535")
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=port, default=0, help="where it answers, on this machine alone; without it a free one, which is printed")
    parser.add_argument("--output", type=here, default=ROOT / "output", metavar="FOLDER", help="where saved pictures go; without it output/ here")
    options = parser.parse_args()
    if options.output.exists() and not options.output.is_dir():
        parser.error(f"{options.output} is no folder")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the server is stopped too
    try:
        server = Server(options.output, port=options.port)
    except OSError as error:
        parser.error(f"port {options.port} cannot be had ({error.strerror}): choose another")
    print("starting ComfyUI", flush=True)
    try:
        with server:
            print(f"ComfyUI with Readout Guidance: {server.address} (Ctrl-C stops it)", flush=True)
            server.process.wait()
    except KeyboardInterrupt:
        print("stopping")


if __name__ == "__main__":
    main()
