"""What runs inside other programs: the node pack for ComfyUI."""
