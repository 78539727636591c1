"""Start ComfyUI on the CPU with this pack and the embedded models.

`python comfyui/development/server.py /path/to/ComfyUI [PORT]`. Links the pack and `toybox_node.py` into the
`custom_nodes` of ComfyUI.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import real_comfyui as real

if __name__ == "__main__":
    comfyui, port = Path(sys.argv[1]).resolve(), sys.argv[2] if len(sys.argv) > 2 else "8188"
    for link, target in (("promptweave", real.PACK), ("toybox_node.py", Path(__file__).parent / "toybox_node.py")):
        place = comfyui / "custom_nodes" / link
        if not place.is_symlink():
            place.symlink_to(target.resolve())
    real.prepare(comfyui)
    import comfy.options

    comfy.options.args_parsing = True
    sys.argv = ["main.py", "--cpu", "--port", port, "--disable-api-nodes", "--dont-print-server"]
    runpy.run_path(str(comfyui / "main.py"), run_name="__main__")
