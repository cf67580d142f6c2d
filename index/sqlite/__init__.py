"""A zoo in a folder: its catalogue in SQLite, its vectors searched by FAISS."""
