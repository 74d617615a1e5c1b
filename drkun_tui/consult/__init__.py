"""What a consultation is: conversations, their store, prompts, safety, export."""
