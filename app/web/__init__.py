"""The web page, and the server that it stands on."""
