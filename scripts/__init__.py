"""Long one-off jobs."""
