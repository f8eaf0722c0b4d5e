"""What models cost and how good they are, in processes of their own, beside others' models."""
