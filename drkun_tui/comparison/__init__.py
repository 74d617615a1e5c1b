"""The same question to several models: who takes part, how they are asked, what differs, who wins."""
