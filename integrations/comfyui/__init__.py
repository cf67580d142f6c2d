"""Loradex in ComfyUI: nodes and a sidebar tab that search LoRAs by what their weights say.

ComfyUI imports this folder from its custom_nodes; it needs nothing but what ComfyUI has, and a running
``loradex serve --api``. Interface: https://docs.comfy.org/custom-nodes/backend/lifecycle
"""

from .nodes import LoradexSearch, LoradexWords
from .routes import add_routes

NODE_CLASS_MAPPINGS = {"LoradexSearch": LoradexSearch, "LoradexWords": LoradexWords}
NODE_DISPLAY_NAME_MAPPINGS = {"LoradexSearch": "Loradex Search", "LoradexWords": "Loradex Words"}
WEB_DIRECTORY = "./web"

add_routes()
