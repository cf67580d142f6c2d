"""People -> answers: the command line, the web page, and the miniature that ships."""
