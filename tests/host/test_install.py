"""The archive's files as people install them, in a real server: in folders of odd names that cannot be written to, twice, and damaged."""
import json
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request

import pytest

from server_graphs import graph
from tools import ROOT, release
from tools.assets import templates
from tools.host.server import PACK_FOLDER, Server, WorkflowFailed

ODD, ASKED = "9.Führung 画像 {v1} #2 100%", "9"  # a folder's name, and what the page takes it for when it wants help
TWICE, DAMAGED = "Readout Guidance (2)", "damaged"
IDS = set(json.loads((ROOT / "tests" / "saved" / "nodes.json").read_text())) - {"ApplyReadoutGuidanceRay"}  # there only beside Raylight
OTHER = '''
open(__file__).close()  # in no encoding: says whether Python warns of that
class Other:
    INPUT_TYPES = classmethod(lambda cls: {"required": {}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("INT",), "run", "other"
    run = lambda self: (1,)
NODE_CLASS_MAPPINGS = {"Other": Other}
'''


def other_pack(home):
    path = home / "other_pack.py"
    path.write_text(OTHER, encoding="utf-8")
    return path


def set_modes(folder, files: int, folders: int) -> None:
    for path in (*folder.rglob("*"), folder):
        path.chmod(folders if path.is_dir() else files)


def written(folder) -> set:
    return {path for path in folder.rglob("*") if "__pycache__" not in path.parts}  # which root can write in spite of the modes


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A host with the pack in a folder of an odd name that cannot be written to; some of its data files, and a head of the user's, are damaged."""
    home, pack = tmp_path_factory.mktemp("odd"), release.unpack(tmp_path_factory.mktemp("unpacked") / ODD)
    for name in (f"workflows/{templates.DEMO['edge']}.json", "locales/de/nodeDefs.json", "heads/demo/heads/demo_edge.safetensors"):
        (pack / name).write_bytes((pack / name).read_bytes()[:1000])
    before = written(pack)
    set_modes(pack, 0o444, 0o555)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONWARNDEFAULTENCODING", "1")
        with Server(home / "output", home=home, extra_nodes=[other_pack(home)], pack=pack, folder=ODD) as running:
            yield running
    assert written(pack) == before
    set_modes(pack, 0o644, 0o755)


def fetched(server, path: str) -> bytes | None:
    try:
        with urllib.request.urlopen(server.address + urllib.parse.quote(path), timeout=30) as reply:
            return reply.read()
    except urllib.error.HTTPError as error:
        assert error.code == 404
        return None


def test_nodes_web_files_templates_and_help_are_served_from_a_folder_of_any_name(odd):
    info = odd.get("/object_info")
    assert {name for name, node in info.items() if node["python_module"] == f"custom_nodes.{ODD}"} == IDS and "Other" in info
    assert f"/extensions/{ODD}/drag_editor.js" in map(urllib.parse.unquote, odd.get("/extensions"))
    listed = odd.get("/workflow_templates")[ODD]
    for place, folder, files in (("/extensions", "web", (odd.pack / "web").rglob("*.*")), ("/api/workflow_templates", "workflows",
                                                                                          (odd.pack / "workflows").iterdir())):
        for path in files:
            assert fetched(odd, f"{place}/{ODD}/{path.relative_to(odd.pack / folder).as_posix()}") == path.read_bytes()
    assert sorted(listed) == sorted(path.stem for path in (odd.pack / "workflows").glob("*.json"))
    for name in IDS:
        assert fetched(odd, f"/extensions/{ASKED}/docs/{name}.md") == (odd.pack / "web" / "docs" / f"{name}.md").read_bytes()
    for outside in ("../__init__.py", "docs", "none.js", str(odd.pack / "__init__.py")):
        assert fetched(odd, f"/extensions/{ODD}/{outside.replace('/', '%2F')}") is None
        assert fetched(odd, f"/extensions/{ODD}/{outside}") is None


def test_a_workflow_runs_there_and_no_file_is_opened_without_its_encoding(odd):
    workflow = json.loads((odd.pack / "workflows" / f"{templates.DEMO['pose']}.json").read_text(encoding="utf-8"))
    for node in workflow["nodes"]:
        if node["type"].startswith("KSampler"):
            node["widgets_values"][2] = 2
    assert sum(map(len, odd.files(odd.run(workflow)).values())) == 12
    warned = [line for line in odd.last_words(10_000).splitlines() if "EncodingWarning" in line]
    assert any("other_pack.py" in line for line in warned) and not [line for line in warned if ODD in line]


def test_heads_go_into_the_hosts_folders_which_may_be_cleared_and_are_found_by_the_names_of_any_system(odd):
    def heads():
        return odd.get("/object_info/LoadReadoutHead")["LoadReadoutHead"]["input"]["required"]["head_name"][1]["options"]

    load = ("LoadReadoutHead", {"head_name": "demo_pose.safetensors"})
    save = ("SaveReadoutHead", {"head": ["head", 0], "filename_prefix": "readout_heads/deep/mine"})
    alone = {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in {"head": load, "save": save}.items()}
    bundled = heads()
    odd.run(alone)
    assert set(heads()) - set(bundled) == {os.path.join("deep", "mine_00001_.safetensors")}
    for name in (r"deep\mine_00001_.safetensors", "deep/mine_00001_.safetensors"):
        assert odd.run(graph(head={"head_name": name}, sampler={"steps": 1}))
    shutil.rmtree(odd.output / "readout_heads")
    assert heads() == bundled
    assert odd.run(graph(sampler={"steps": 1}))


def test_damaged_data_is_named_and_the_rest_works(odd):
    (odd.home / "models" / "readout_heads" / "broken_pose.safetensors").write_bytes(b"nothing of the kind")
    for name in ("demo_edge.safetensors", "broken_pose.safetensors"):
        with pytest.raises(WorkflowFailed, match=f"LoadReadoutHead: .*{name} cannot be read") as failure:
            odd.run(graph(head={"head_name": name}))
        assert failure.value.node == "LoadReadoutHead"
    words = odd.get("/i18n")
    assert "ReadoutPoseTarget" in words["ja"]["nodeDefs"] and "nodeDefs" not in words.get("de", {})
    assert "locales/de/nodeDefs.json" in odd.last_words(10_000).replace("\\", "/")


def test_a_second_copy_and_one_that_cannot_be_imported_are_said_in_the_log(tmp_path):
    copies = [release.unpack(tmp_path / "unpacked" / name) for name in (PACK_FOLDER, TWICE, DAMAGED)]
    with (copies[2] / "nodes" / "targets" / "color.py").open("a", encoding="utf-8") as file:
        file.write("\nclass Half(\n")
    with Server(tmp_path / "output", home=tmp_path, extra_nodes=[*copies[1:], other_pack(tmp_path)], pack=copies[0]) as server:
        info = server.get("/object_info")
        assert IDS <= set(info) and "Other" in info
        assert {info[name]["python_module"] for name in IDS} in ({f"custom_nodes.{PACK_FOLDER}"}, {f"custom_nodes.{TWICE}"})
        assert server.run(graph(sampler={"steps": 1}))
        log = server.last_words(10_000).splitlines()
    twice, = [line for line in log if "installed twice" in line]
    assert f"custom_nodes.{PACK_FOLDER}" in twice and f"custom_nodes.{TWICE}" in twice and DAMAGED not in twice
    failed = [line for line in log if "(IMPORT FAILED)" in line]
    assert len(failed) == 1 and failed[0].endswith(DAMAGED)
    assert any(f"{DAMAGED}{os.sep}nodes{os.sep}targets{os.sep}color.py" in line for line in log) and any("SyntaxError" in line for line in log)
