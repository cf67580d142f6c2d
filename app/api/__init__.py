"""The API for programs: REST and tools for agents."""
