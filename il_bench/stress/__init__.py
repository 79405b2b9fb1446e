"""The same start states with one thing changed: what a policy's success rests on."""
