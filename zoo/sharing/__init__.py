"""A zoo for others: its card, formats of other programs, the Hugging Face Hub."""
