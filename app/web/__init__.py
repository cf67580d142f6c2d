"""The web page (Gradio), and the server that serves it together with the REST API and the agent tools."""
