"""One model in a process of its own: protocol, host, client, and the engines."""
