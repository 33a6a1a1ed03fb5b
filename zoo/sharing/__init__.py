"""A zoo for others: in the formats of other programs, and on the Hugging Face Hub."""
