"""The zoo for programs: a REST API and tools for agents, both over one desk."""
