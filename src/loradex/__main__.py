"""``python -m loradex`` is the ``loradex`` command."""

from loradex.app.commands.main import main

main()
