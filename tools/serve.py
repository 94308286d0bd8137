"""`python run.py serve`: the development server, until Ctrl-C."""
from tools.host import ROOT
from tools.server import Server


def main() -> None:
    print("starting ComfyUI", flush=True)
    with Server(ROOT / "output") as server:
        print(f"ComfyUI with Readout Guidance: {server.address} (Ctrl-C stops it)", flush=True)
        try:
            server.process.wait()
        except KeyboardInterrupt:
            print("stopping")


if __name__ == "__main__":
    main()
