"""Run the ``loradex`` command with ``python -m loradex``."""

from loradex.app.commands.main import main

main()
