"""`python run.py serve`: the development server, until Ctrl-C."""
import signal
import sys

from tools import ROOT
from tools.server import Server


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the server is stopped too
    print("starting ComfyUI", flush=True)
    try:
        with Server(ROOT / "output") as server:
            print(f"ComfyUI with Readout Guidance: {server.address} (Ctrl-C stops it)", flush=True)
            server.process.wait()
    except KeyboardInterrupt:
        print("stopping")


if __name__ == "__main__":
    main()
