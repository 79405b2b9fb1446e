"""A robot that reaches a point in the plane: an environment, policies for it and for PushT, a tokenizer."""
