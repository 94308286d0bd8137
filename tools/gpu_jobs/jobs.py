"""The jobs of a process that `tools/gpu.py` starts: JSON in its arguments, a line of JSON for each."""
import gc
import json
import sys
import time
import traceback
from collections.abc import Callable

import comfy.model_management
import torch


@torch.inference_mode()
def run_jobs(do: Callable[[dict], dict]) -> None:
    """Does each job of the setting and prints what was found, or how it failed. Afterwards nothing of it is on the device."""
    for job in json.loads(sys.argv[1])["jobs"]:
        start = time.monotonic()
        try:
            found = do(job)
        except Exception as error:
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {str(error)[:400]}"}
        comfy.model_management.unload_all_models()
        gc.collect()
        comfy.model_management.soft_empty_cache()
        print("RESULT " + json.dumps({"label": job["label"], **found, "took": round(time.monotonic() - start, 1)}), flush=True)
