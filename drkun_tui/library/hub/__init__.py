"""Models on Hugging Face and ModelScope: searched, chosen, fetched, verified.

The hubs' client libraries are imported in child processes only: `inquiry` for questions, `job` for
downloads. Everything else here is light.
"""
