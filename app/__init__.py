"""The application: command line, web page, API and agent tools, and the shipped miniature."""
